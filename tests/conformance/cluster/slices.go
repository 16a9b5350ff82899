package cluster

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// What Kubernetes' own controller writes there.
const managedBy = "endpointslice-controller.k8s.io"

// writeEndpointSlices writes, through the gateway's API, one EndpointSlice for each Service with a
// selector, and takes away those whose Service is gone.
func (c *Cluster) writeEndpointSlices(ctx context.Context) error {
	var services corev1.ServiceList
	if err := c.gateway.List(ctx, &services); err != nil {
		return err
	}
	var present discoveryv1.EndpointSliceList
	ours := client.MatchingLabels{discoveryv1.LabelManagedBy: managedBy}
	if err := c.gateway.List(ctx, &present, ours); err != nil {
		return err
	}
	stale := map[client.ObjectKey]*discoveryv1.EndpointSlice{}
	for i := range present.Items {
		stale[client.ObjectKeyFromObject(&present.Items[i])] = &present.Items[i]
	}

	var failures []error
	for _, service := range services.Items {
		if len(service.Spec.Selector) == 0 || service.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		wanted := c.endpointSlice(&service)
		key := client.ObjectKeyFromObject(wanted)
		was, found := stale[key]
		delete(stale, key)
		switch {
		case !found:
			failures = append(failures, c.gateway.Create(ctx, wanted))
		case !equality.Semantic.DeepEqual(was.Endpoints, wanted.Endpoints) ||
			!equality.Semantic.DeepEqual(was.Ports, wanted.Ports):
			wanted.ResourceVersion = was.ResourceVersion
			failures = append(failures, c.gateway.Update(ctx, wanted))
		}
	}
	for _, slice := range stale {
		if err := c.gateway.Delete(ctx, slice); !apierrors.IsNotFound(err) {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

func (c *Cluster) endpointSlice(service *corev1.Service) *discoveryv1.EndpointSlice {
	selector := labels.SelectorFromSet(service.Spec.Selector)
	var chosen []corev1.Pod
	for _, pod := range c.podObjects(service.Namespace) {
		if pod.Status.Phase == corev1.PodRunning && selector.Matches(labels.Set(pod.Labels)) {
			chosen = append(chosen, pod)
		}
	}

	controller := true
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			// One slice a Service and address family is all there is, so the name needs no chance.
			Name:      service.Name + "-pods",
			Namespace: service.Namespace,
			Labels: map[string]string{
				discoveryv1.LabelServiceName: service.Name,
				discoveryv1.LabelManagedBy:   managedBy,
			},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1",
				Kind:       "Service",
				Name:       service.Name,
				UID:        service.UID,
				Controller: &controller,
			}},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, port := range service.Spec.Ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{
			Name:        new(port.Name),
			Port:        new(targetPort(port, chosen)),
			Protocol:    new(protocol(port)),
			AppProtocol: port.AppProtocol,
		})
	}
	for _, pod := range chosen {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{pod.Status.PodIP},
			Conditions: discoveryv1.EndpointConditions{
				Ready:       new(true),
				Serving:     new(true),
				Terminating: new(false),
			},
			TargetRef: &corev1.ObjectReference{
				Kind:      "Pod",
				Namespace: pod.Namespace,
				Name:      pod.Name,
				UID:       pod.UID,
			},
		})
	}
	return slice
}

func targetPort(port corev1.ServicePort, pods []corev1.Pod) int32 {
	if port.TargetPort.Type == intstr.String {
		for _, pod := range pods {
			for _, container := range pod.Spec.Containers {
				for _, named := range container.Ports {
					if named.Name == port.TargetPort.StrVal {
						return named.ContainerPort
					}
				}
			}
		}
	}
	if number := port.TargetPort.IntVal; number != 0 {
		return number
	}
	return port.Port
}

func protocol(port corev1.ServicePort) corev1.Protocol {
	if port.Protocol == "" {
		return corev1.ProtocolTCP
	}
	return port.Protocol
}
