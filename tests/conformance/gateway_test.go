package conformance

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
)

const (
	apiAddress = "127.0.0.1:6080"
	// Each Gateway gets an address of its own from here, since all of them listen on port 80.
	addressPool = "127.64.0.0/16"
)

// document names the one directory of the configuration.
const document = `apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
gateway:
  controllerName: gateway.envoyproxy.io/gatewayclass-controller
provider:
  type: Custom
  custom:
    resource:
      type: File
      file:
        paths: [%q]
    infrastructure:
      type: Host
      host: {}
`

// class is all that is in the directory; the suite writes the rest.
const class = `apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata:
  name: gateway-conformance
spec:
  controllerName: gateway.envoyproxy.io/gatewayclass-controller
`

// startGateway runs the gateway as an operator would who lets its API be written, and answers with
// the way to that API once the gateway says that it is ready.
func startGateway(t *testing.T, work string) *rest.Config {
	configuration := filepath.Join(work, "configuration")
	require.NoError(t, os.MkdirAll(configuration, 0o755))
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(work, name)
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
		return path
	}
	main := write("edge-gateway.yaml", fmt.Sprintf(document, configuration), 0o644)
	write("configuration/class.yaml", class, 0o644)
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	token := hex.EncodeToString(secret)
	tokenFile := write("token", token+"\n", 0o600)
	output, err := os.Create(filepath.Join(work, "gateway.log"))
	require.NoError(t, err)
	t.Cleanup(func() { output.Close() })

	gateway := exec.Command(*gatewayProgram, "run",
		"--config", main,
		"--letsencrypt-dir", filepath.Join(work, "letsencrypt"),
		"--state-dir", filepath.Join(work, "state"),
		"--control-socket", filepath.Join(work, "control.sock"),
		"--address-pool", addressPool,
		"--api-listen", apiAddress,
		"--api-writable",
		"--api-token-file", tokenFile,
		"--api-secrets",
		"--log-format", "json",
	)
	gateway.Stdout = output
	gateway.Stderr = output
	gateway.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, gateway.Start())
	exited := make(chan error, 1)
	go func() { exited <- gateway.Wait() }()
	t.Cleanup(func() {
		_ = gateway.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-exited:
			require.NoError(t, err, "the gateway must end as it is told to")
		case <-time.After(time.Minute):
			_ = gateway.Process.Kill()
			t.Error("the gateway did not end")
		}
	})

	config := &rest.Config{Host: "http://" + apiAddress, BearerToken: token, QPS: -1}
	config.ContentType = "application/json"
	transport, err := rest.TransportFor(config)
	require.NoError(t, err)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		select {
		case err := <-exited:
			t.Fatalf("the gateway ended: %v; see %s", err, output.Name())
		default:
		}
		request, err := http.NewRequest(http.MethodGet, config.Host+"/readyz", nil)
		require.NoError(t, err)
		response, err := transport.RoundTrip(request)
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return config
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the gateway is not ready; see %s", output.Name())
		}
	}
}
