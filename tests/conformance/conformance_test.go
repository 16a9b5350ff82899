// Package conformance runs the Gateway API's own conformance suite, as it is published, against the
// edge-gateway program. `make conformance` at the top of the repository starts it;
// docs/conformance.md says what stands in for what.
package conformance

import (
	"flag"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/pkg/features"

	"edge-gateway/conformance/cluster"
)

// What `run` builds and where it wants things; the suite's own flags stand beside these.
var (
	gatewayProgram = flag.String("edge-gateway", "", "the program under test")
	echoProgram    = flag.String("echo-basic", "", "the suite's echo server")
	dnsProgram     = flag.String("dns", "", "the server that stands for coredns")
	definitions    = flag.String("crds", "", "a directory of CustomResourceDefinitions")
	directory      = flag.String("directory", "", "for logs, the configuration and pods")
)

func TestConformance(t *testing.T) {
	if *gatewayProgram == "" {
		t.Skip("no program to test; start it by `make conformance`")
	}
	work, err := filepath.Abs(*directory)
	require.NoError(t, err)

	network, err := cluster.NewNetwork()
	require.NoError(t, err)
	gateway := startGateway(t, work)
	front := startCluster(t, work, network, gateway)
	useKubeconfig(t, work, front)

	options := conformance.DefaultOptions(t)
	// Built-in kinds would be sent as protobuf, which the gateway's API does not speak; and a limit
	// on the suite's own rate would only make it slower.
	options.RestConfig.ContentType = "application/json"
	options.RestConfig.QPS = -1
	options.Client, err = client.New(options.RestConfig, options.ClientOptions)
	require.NoError(t, err)
	options.Clientset, err = kubernetes.NewForConfig(options.RestConfig)
	require.NoError(t, err)
	// Where one test is chosen, the suite leaves the features to us; some tests ask for them.
	if options.RunTest != "" && len(options.SupportedFeatures) == 0 {
		var class gatewayv1.GatewayClass
		name := client.ObjectKey{Name: options.GatewayClassName}
		require.NoError(t, options.Client.Get(t.Context(), name, &class))
		for _, feature := range class.Status.SupportedFeatures {
			options.SupportedFeatures = append(options.SupportedFeatures,
				features.FeatureName(feature.Name))
		}
	}
	conformance.RunConformanceWithOptions(t, options)
}

// startCluster puts what a cluster adds in front of the gateway's API, and answers with the URL that
// the suite is given.
func startCluster(
	t *testing.T, work string, network *cluster.Network, gateway *rest.Config,
) string {
	objects, err := client.New(gateway, client.Options{Scheme: scheme.Scheme})
	require.NoError(t, err)
	output, err := os.Create(filepath.Join(work, "cluster.log"))
	require.NoError(t, err)
	t.Cleanup(func() { output.Close() })

	running, err := cluster.New(cluster.Options{
		Network:     network,
		Gateway:     objects,
		Programs:    map[string]string{"echo-basic": *echoProgram, "coredns": *dnsProgram},
		Definitions: *definitions,
		Directory:   filepath.Join(work, "pods"),
		Log:         log.New(output, "", log.Ltime|log.Lmicroseconds),
	})
	require.NoError(t, err)
	var done sync.WaitGroup
	done.Go(func() { running.Run(t.Context()) })
	// The test's context ends before its cleanup begins.
	t.Cleanup(done.Wait)

	target, err := url.Parse(gateway.Host)
	require.NoError(t, err)
	transport, err := rest.TransportFor(gateway)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: running.Front(target, transport)}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	return "http://" + listener.Addr().String()
}

// useKubeconfig writes the file by which the suite, and kubectl beside it, finds the API.
func useKubeconfig(t *testing.T, work, server string) {
	path := filepath.Join(work, "kubeconfig")
	config := api.NewConfig()
	config.Clusters["edge-gateway"] = &api.Cluster{Server: server}
	config.Contexts["edge-gateway"] = &api.Context{Cluster: "edge-gateway"}
	config.CurrentContext = "edge-gateway"
	require.NoError(t, clientcmd.WriteToFile(*config, path))
	t.Setenv("KUBECONFIG", path)
}
