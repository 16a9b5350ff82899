package cluster

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
)

const hashLabel = "pod-template-hash"

// newPod is a pod by a Deployment's template, named as a ReplicaSet would name it: the suite takes
// the last two parts off to learn whose pod answered.
func newPod(deployment *appsv1.Deployment, hash string) *corev1.Pod {
	template := deployment.Spec.Template
	labels := map[string]string{hashLabel: hash}
	for name, value := range template.Labels {
		labels[name] = value
	}
	controller := true
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name:              deployment.Name + "-" + hash + "-" + rand.String(5),
			Namespace:         deployment.Namespace,
			UID:               uuid.NewUUID(),
			CreationTimestamp: metav1.Now(),
			Labels:            labels,
			Annotations:       template.Annotations,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1",
				Kind:       "Deployment",
				Name:       deployment.Name,
				UID:        deployment.UID,
				Controller: &controller,
			}},
		},
		Spec:   *template.Spec.DeepCopy(),
		Status: corev1.PodStatus{Phase: corev1.PodPending},
	}
}

func ownedBy(pod *corev1.Pod, deployment *appsv1.Deployment) bool {
	return metav1.IsControlledBy(pod, deployment)
}

func replicas(deployment *appsv1.Deployment) int {
	if deployment.Spec.Replicas == nil {
		return 1
	}
	return int(*deployment.Spec.Replicas)
}

// templateHash tells one template from the next; ten letters that spell no word.
func templateHash(deployment *appsv1.Deployment) string {
	text, err := json.Marshal(deployment.Spec.Template)
	if err != nil {
		panic(err)
	}
	sum := fnv.New32a()
	_, _ = sum.Write(text)
	return rand.SafeEncodeString(fmt.Sprint(sum.Sum32()))
}

func compareNames(aNamespace, aName, bNamespace, bName string) int {
	return cmp.Or(cmp.Compare(aNamespace, bNamespace), cmp.Compare(aName, bName))
}
