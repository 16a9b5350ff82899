package cluster

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// pod is one container: a process with a network namespace and a root directory of its own, as it
// would have from a container runtime. Neither the program nor what it listens on is changed for it.
type pod struct {
	// Replaced, never changed, once others know of the pod; the cluster's lock guards it.
	object  *corev1.Pod
	root    string
	process *exec.Cmd

	lock  sync.Mutex
	lines []line
}

type line struct {
	at   time.Time
	text string
}

// images says which of our programs stands for an image; the tag does not matter.
type images map[string]string

func (i images) program(image string) (string, error) {
	name := path.Base(image)
	name, _, _ = strings.Cut(name, ":")
	program, known := i[name]
	if !known {
		return "", fmt.Errorf("no program stands for the image %s", image)
	}
	return program, nil
}

// start runs the container and answers with the object as it is from then on. What failed may be
// tried again: a volume's Secret may be written after the Deployment, as the suite does.
func (p *pod) start(
	ctx context.Context, objects client.Client, net *Network, images images, parent string,
) (*corev1.Pod, error) {
	container := p.object.Spec.Containers[0]
	program, err := images.program(container.Image)
	if err != nil {
		return nil, err
	}
	if p.root, err = os.MkdirTemp(parent, p.object.Name+"-"); err != nil {
		return nil, err
	}
	address, err := p.run(ctx, objects, net, program)
	if err != nil {
		p.stop()
		return nil, err
	}
	object := p.object.DeepCopy()
	object.Status = ready(address, container)
	return object, nil
}

func (p *pod) run(
	ctx context.Context, objects client.Client, net *Network, program string,
) (netip.Addr, error) {
	container := p.object.Spec.Containers[0]
	if err := p.mount(ctx, objects, container); err != nil {
		return netip.Addr{}, err
	}
	inside := "/" + filepath.Base(program)
	if err := os.Link(program, filepath.Join(p.root, inside)); err != nil {
		return netip.Addr{}, err
	}

	output, input, err := os.Pipe()
	if err != nil {
		return netip.Addr{}, err
	}
	p.process = &exec.Cmd{
		Path:   inside,
		Args:   append([]string{inside}, container.Args...),
		Env:    p.environment(container),
		Dir:    "/",
		Stdout: input,
		Stderr: input,
		SysProcAttr: &syscall.SysProcAttr{
			Chroot:     p.root,
			Cloneflags: syscall.CLONE_NEWNET,
			Pdeathsig:  syscall.SIGKILL,
		},
	}
	err = p.process.Start()
	input.Close()
	if err != nil {
		output.Close()
		return netip.Addr{}, err
	}
	go p.read(output)
	return net.join(p.process.Process.Pid)
}

// mount writes the volumes that a container mounts into its root directory.
func (p *pod) mount(ctx context.Context, objects client.Client, container corev1.Container) error {
	for _, mount := range container.VolumeMounts {
		for _, volume := range p.object.Spec.Volumes {
			if volume.Name != mount.Name {
				continue
			}
			files, err := p.files(ctx, objects, volume.VolumeSource)
			if err != nil {
				return err
			}
			directory := filepath.Join(p.root, mount.MountPath)
			if err := os.MkdirAll(directory, 0o755); err != nil {
				return err
			}
			for name, content := range files {
				if err := os.WriteFile(filepath.Join(directory, name), content, 0o644); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (p *pod) files(
	ctx context.Context, objects client.Client, volume corev1.VolumeSource,
) (map[string][]byte, error) {
	key := client.ObjectKey{Namespace: p.object.Namespace}
	content := map[string][]byte{}
	var items []corev1.KeyToPath
	switch {
	case volume.Secret != nil:
		var secret corev1.Secret
		key.Name = volume.Secret.SecretName
		if err := objects.Get(ctx, key, &secret); err != nil {
			return nil, err
		}
		content, items = secret.Data, volume.Secret.Items
	case volume.ConfigMap != nil:
		var configMap corev1.ConfigMap
		key.Name = volume.ConfigMap.Name
		if err := objects.Get(ctx, key, &configMap); err != nil {
			return nil, err
		}
		for name, text := range configMap.Data {
			content[name] = []byte(text)
		}
		items = volume.ConfigMap.Items
	default:
		return nil, fmt.Errorf("a volume that is neither a Secret nor a ConfigMap")
	}
	if len(items) == 0 {
		return content, nil
	}
	chosen := map[string][]byte{}
	for _, item := range items {
		value, found := content[item.Key]
		if !found {
			return nil, fmt.Errorf("%s has no key %s", key, item.Key)
		}
		chosen[item.Path] = value
	}
	return chosen, nil
}

func (p *pod) environment(container corev1.Container) []string {
	var variables []string
	for _, variable := range container.Env {
		value := variable.Value
		if from := variable.ValueFrom; from != nil && from.FieldRef != nil {
			switch from.FieldRef.FieldPath {
			case "metadata.name":
				value = p.object.Name
			case "metadata.namespace":
				value = p.object.Namespace
			}
		}
		variables = append(variables, variable.Name+"="+value)
	}
	return variables
}

// ready is what a kubelet says of a container that runs and has no probes.
func ready(address netip.Addr, container corev1.Container) corev1.PodStatus {
	now := metav1.Now()
	condition := func(kind corev1.PodConditionType) corev1.PodCondition {
		return corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: now}
	}
	return corev1.PodStatus{
		Phase:     corev1.PodRunning,
		PodIP:     address.String(),
		PodIPs:    []corev1.PodIP{{IP: address.String()}},
		StartTime: &now,
		Conditions: []corev1.PodCondition{
			condition(corev1.PodInitialized),
			condition(corev1.PodReady),
			condition(corev1.ContainersReady),
			condition(corev1.PodScheduled),
		},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name:  container.Name,
			Image: container.Image,
			Ready: true,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
}

func (p *pod) read(output io.ReadCloser) {
	defer output.Close()
	lines := bufio.NewReader(output)
	for {
		text, err := lines.ReadString('\n')
		if text != "" {
			p.lock.Lock()
			p.lines = append(p.lines, line{at: time.Now(), text: strings.TrimSuffix(text, "\n")})
			p.lock.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// log is what the container wrote from a time on; as with a kubelet, the second decides.
func (p *pod) log(since time.Time) string {
	since = since.Truncate(time.Second)
	var text strings.Builder
	p.lock.Lock()
	defer p.lock.Unlock()
	for _, line := range p.lines {
		if !line.at.Before(since) {
			text.WriteString(line.text)
			text.WriteByte('\n')
		}
	}
	return text.String()
}

// stop ends the process; its network namespace and the interfaces in it go with it.
func (p *pod) stop() {
	if p.process != nil && p.process.Process != nil {
		_ = p.process.Process.Kill()
		_ = p.process.Wait()
	}
	p.process = nil
	if p.root != "" {
		_ = os.RemoveAll(p.root)
	}
}
