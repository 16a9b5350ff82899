// Package cluster is what a Kubernetes cluster has and a gateway has not: Deployments with Pods that
// run, EndpointSlices for Services with selectors, logs of Pods, and the objects that say which
// CustomResourceDefinitions are installed.
//
// It puts one API in front of the gateway's own (front.go). What a gateway reads, it reads and
// writes there and nowhere else: nothing here answers for a Gateway, a route, a policy, a grant, a
// Service, a Secret or a ConfigMap, and no status, address or condition comes from here.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Cluster holds the objects that are not the gateway's, and runs what they ask for.
type Cluster struct {
	gateway     client.Client
	network     *Network
	images      images
	definitions []apiextensionsv1.CustomResourceDefinition
	// Where the root directories of pods are; on the file system of the programs, which are linked
	// into them.
	directory string
	log       *log.Logger
	changed   chan struct{}

	lock        sync.Mutex
	deployments map[types.NamespacedName]*appsv1.Deployment
	pods        map[types.NamespacedName]*pod
	version     int64
}

// Options of a [Cluster].
type Options struct {
	Network *Network
	// Gateway speaks to the gateway's own API.
	Gateway client.Client
	// Programs by the name of the image that each stands for, without registry and tag.
	Programs map[string]string
	// Definitions is a directory of CustomResourceDefinitions, as the API's module ships them.
	Definitions string
	// Directory for the root directories of pods, on the file system of the programs.
	Directory string
	Log       *log.Logger
}

// New prepares a cluster without any object.
func New(options Options) (*Cluster, error) {
	definitions, err := readDefinitions(options.Definitions)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(options.Directory, 0o755); err != nil {
		return nil, err
	}
	return &Cluster{
		gateway:     options.Gateway,
		network:     options.Network,
		images:      options.Programs,
		definitions: definitions,
		directory:   options.Directory,
		log:         options.Log,
		changed:     make(chan struct{}, 1),
		deployments: map[types.NamespacedName]*appsv1.Deployment{},
		pods:        map[types.NamespacedName]*pod{},
	}, nil
}

// Run starts and stops pods and writes EndpointSlices until the context ends, and then stops all
// pods. It looks at everything after each change, and again a moment later where something could
// not be done yet.
func (c *Cluster) Run(ctx context.Context) {
	defer c.stopAll()
	var said string
	for {
		var retry <-chan time.Time
		if err := errors.Join(c.runDeployments(ctx), c.writeEndpointSlices(ctx)); err != nil {
			if err.Error() != said && ctx.Err() == nil {
				c.log.Printf("not yet: %v", err)
			}
			said = err.Error()
			retry = time.After(200 * time.Millisecond)
		}
		select {
		case <-ctx.Done():
			return
		case <-c.changed:
		case <-retry:
		}
	}
}

// change makes Run look again. It never waits: one change that is still to be seen stands for all.
func (c *Cluster) change() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// runDeployments makes the pods what the Deployments ask for.
func (c *Cluster) runDeployments(ctx context.Context) error {
	unclaimed := c.claimPods()
	// Whatever nobody claimed belongs to an older template, to a smaller number of replicas or to
	// a Deployment that is gone.
	for _, pod := range unclaimed {
		pod.stop()
		c.log.Printf("stopped pod %s/%s", pod.object.Namespace, pod.object.Name)
	}

	var failures []error
	for _, pod := range c.waitingPods() {
		running, err := pod.start(ctx, c.gateway, c.network, c.images, c.directory)
		if err != nil {
			failures = append(failures, fmt.Errorf("pod %s: %w", pod.object.Name, err))
			continue
		}
		c.lock.Lock()
		running.ResourceVersion = c.nextVersion()
		pod.object = running
		c.lock.Unlock()
		c.log.Printf("started pod %s/%s on %s", running.Namespace, running.Name,
			running.Status.PodIP)
	}
	return errors.Join(failures...)
}

// claimPods adds pods that are missing and takes out, and answers with, those that are too many.
func (c *Cluster) claimPods() []*pod {
	c.lock.Lock()
	defer c.lock.Unlock()
	unclaimed := maps.Clone(c.pods)
	for _, deployment := range c.deployments {
		hash := templateHash(deployment)
		missing := replicas(deployment)
		for key, pod := range unclaimed {
			if missing > 0 && ownedBy(pod.object, deployment) &&
				pod.object.Labels[hashLabel] == hash {
				missing--
				delete(unclaimed, key)
			}
		}
		for range missing {
			object := newPod(deployment, hash)
			object.ResourceVersion = c.nextVersion()
			c.pods[client.ObjectKeyFromObject(object)] = &pod{object: object}
		}
	}
	for key := range unclaimed {
		delete(c.pods, key)
	}
	return slices.Collect(maps.Values(unclaimed))
}

func (c *Cluster) waitingPods() []*pod {
	c.lock.Lock()
	defer c.lock.Unlock()
	var waiting []*pod
	for _, pod := range c.pods {
		if pod.object.Status.Phase == corev1.PodPending {
			waiting = append(waiting, pod)
		}
	}
	return waiting
}

func (c *Cluster) stopAll() {
	c.lock.Lock()
	defer c.lock.Unlock()
	for _, pod := range c.pods {
		pod.stop()
	}
	clear(c.pods)
}

// podObjects are the pods of a namespace, or of all.
func (c *Cluster) podObjects(namespace string) []corev1.Pod {
	c.lock.Lock()
	defer c.lock.Unlock()
	var objects []corev1.Pod
	for key, pod := range c.pods {
		if namespace == "" || key.Namespace == namespace {
			objects = append(objects, *pod.object)
		}
	}
	slices.SortFunc(objects, func(a, b corev1.Pod) int {
		return compareNames(a.Namespace, a.Name, b.Namespace, b.Name)
	})
	return objects
}

// nextVersion is for whoever holds the lock.
func (c *Cluster) nextVersion() string {
	c.version++
	return strconv.FormatInt(c.version, 10)
}
