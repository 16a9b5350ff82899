package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
)

// Front is the one Kubernetes API that the suite sees. A request for one of the kinds in this file
// is answered here, discovery is the gateway's with these kinds added, and whatever else comes is
// handed to the gateway, whose answer goes back unread.
func (c *Cluster) Front(gateway *url.URL, transport http.RoundTripper) http.Handler {
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(request *httputil.ProxyRequest) { request.SetURL(gateway) },
		ModifyResponse: func(response *http.Response) error {
			// A Service, Secret or ConfigMap that changed may be what a pod waits for.
			if response.Request.Method != http.MethodGet {
				c.change()
			}
			return nil
		},
	}
	front := &front{cluster: c, gateway: gateway, transport: transport}
	mux := http.NewServeMux()
	handle := func(pattern string, answer func(*http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(writer http.ResponseWriter, request *http.Request) {
			object, err := answer(request)
			reply(writer, object, err)
		})
	}

	handle("GET /apis", front.groups)
	handle("GET /api/v1", front.coreResources)
	handle("GET /apis/apps", constant(group("apps")))
	handle("GET /apis/apps/v1", constant(resources("apps/v1",
		resource("deployments", "Deployment", true, "create", "delete", "get", "list", "patch",
			"update"))))
	handle("GET /apis/apiextensions.k8s.io", constant(group("apiextensions.k8s.io")))
	handle("GET /apis/apiextensions.k8s.io/v1", constant(resources("apiextensions.k8s.io/v1",
		resource("customresourcedefinitions", "CustomResourceDefinition", false, "get", "list"))))

	handle("GET /apis/apiextensions.k8s.io/v1/customresourcedefinitions", front.listDefinitions)
	handle("GET /apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}",
		front.oneDefinition)

	const deployments = "/apis/apps/v1/namespaces/{namespace}/deployments"
	handle("GET /apis/apps/v1/deployments", front.listDeployments)
	handle("GET "+deployments, front.listDeployments)
	handle("POST "+deployments, front.createDeployment)
	handle("GET "+deployments+"/{name}", front.oneDeployment)
	handle("PUT "+deployments+"/{name}", front.updateDeployment)
	handle("PATCH "+deployments+"/{name}", front.patchDeployment)
	handle("DELETE "+deployments+"/{name}", front.deleteDeployment)

	const pods = "/api/v1/namespaces/{namespace}/pods"
	handle("GET /api/v1/pods", front.listPods)
	handle("GET "+pods, front.listPods)
	handle("GET "+pods+"/{name}", front.onePod)
	mux.HandleFunc("GET "+pods+"/{name}/log", front.podLog)

	// Nothing here runs under an account, so there are none.
	accounts := func(*http.Request) (any, error) {
		return &corev1.ServiceAccountList{TypeMeta: list("v1", "ServiceAccountList")}, nil
	}
	handle("GET /api/v1/serviceaccounts", accounts)
	handle("GET /api/v1/namespaces/{namespace}/serviceaccounts", accounts)

	mux.Handle("/", proxy)
	return c.logged(mux)
}

type front struct {
	cluster   *Cluster
	gateway   *url.URL
	transport http.RoundTripper
}

// Discovery.

// groups are the gateway's API groups and the two that are added.
func (f *front) groups(request *http.Request) (any, error) {
	var groups metav1.APIGroupList
	if err := f.ask(request, &groups); err != nil {
		return nil, err
	}
	groups.Groups = append(groups.Groups, *group("apps"), *group("apiextensions.k8s.io"))
	return &groups, nil
}

// coreResources are the gateway's kinds of the core group and the three that are added.
func (f *front) coreResources(request *http.Request) (any, error) {
	var all metav1.APIResourceList
	if err := f.ask(request, &all); err != nil {
		return nil, err
	}
	all.APIResources = append(all.APIResources,
		resource("pods", "Pod", true, "get", "list"),
		resource("pods/log", "Pod", true, "get"),
		resource("serviceaccounts", "ServiceAccount", true, "list"),
	)
	return &all, nil
}

// ask puts a client's question to the gateway and reads the answer, in the plain form of discovery:
// the aggregated one cannot be added to.
func (f *front) ask(request *http.Request, answer any) error {
	target := f.gateway.JoinPath(request.URL.Path)
	onward, err := http.NewRequestWithContext(request.Context(), http.MethodGet, target.String(), nil)
	if err != nil {
		return err
	}
	onward.Header.Set("Accept", "application/json")
	response, err := f.transport.RoundTrip(onward)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the gateway answers %s to GET %s", response.Status, target)
	}
	return json.NewDecoder(response.Body).Decode(answer)
}

func group(name string) *metav1.APIGroup {
	version := metav1.GroupVersionForDiscovery{GroupVersion: name + "/v1", Version: "v1"}
	return &metav1.APIGroup{
		TypeMeta:         list("v1", "APIGroup"),
		Name:             name,
		Versions:         []metav1.GroupVersionForDiscovery{version},
		PreferredVersion: version,
	}
}

func resources(groupVersion string, all ...metav1.APIResource) *metav1.APIResourceList {
	return &metav1.APIResourceList{
		TypeMeta:     list("v1", "APIResourceList"),
		GroupVersion: groupVersion,
		APIResources: all,
	}
}

func resource(name, kind string, namespaced bool, verbs ...string) metav1.APIResource {
	return metav1.APIResource{
		Name:         name,
		SingularName: strings.ToLower(kind),
		Namespaced:   namespaced,
		Kind:         kind,
		Verbs:        verbs,
	}
}

func constant(object any) func(*http.Request) (any, error) {
	return func(*http.Request) (any, error) { return object, nil }
}

// CustomResourceDefinitions.

func (f *front) listDefinitions(*http.Request) (any, error) {
	return &apiextensionsv1.CustomResourceDefinitionList{
		TypeMeta: list("apiextensions.k8s.io/v1", "CustomResourceDefinitionList"),
		Items:    f.cluster.definitions,
	}, nil
}

func (f *front) oneDefinition(request *http.Request) (any, error) {
	name := request.PathValue("name")
	for _, definition := range f.cluster.definitions {
		if definition.Name == name {
			return &definition, nil
		}
	}
	return nil, notFound("customresourcedefinitions", name)
}

// Deployments.

func (f *front) listDeployments(request *http.Request) (any, error) {
	selector, err := selector(request)
	if err != nil {
		return nil, err
	}
	namespace := request.PathValue("namespace")
	found := &appsv1.DeploymentList{TypeMeta: list("apps/v1", "DeploymentList"),
		Items: []appsv1.Deployment{}}
	f.cluster.lock.Lock()
	defer f.cluster.lock.Unlock()
	for key, deployment := range f.cluster.deployments {
		if (namespace == "" || key.Namespace == namespace) &&
			selector.Matches(labels.Set(deployment.Labels)) {
			found.Items = append(found.Items, *f.withStatus(deployment))
		}
	}
	slices.SortFunc(found.Items, func(a, b appsv1.Deployment) int {
		return compareNames(a.Namespace, a.Name, b.Namespace, b.Name)
	})
	return found, nil
}

func (f *front) oneDeployment(request *http.Request) (any, error) {
	f.cluster.lock.Lock()
	defer f.cluster.lock.Unlock()
	deployment, found := f.cluster.deployments[key(request)]
	if !found {
		return nil, notFound("deployments", request.PathValue("name"))
	}
	return f.withStatus(deployment), nil
}

func (f *front) createDeployment(request *http.Request) (any, error) {
	var deployment appsv1.Deployment
	if err := json.NewDecoder(request.Body).Decode(&deployment); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if len(deployment.Spec.Template.Spec.Containers) != 1 {
		return nil, apierrors.NewBadRequest("a pod here has exactly one container")
	}
	f.cluster.lock.Lock()
	defer f.cluster.lock.Unlock()
	deployment.Namespace = request.PathValue("namespace")
	name := types.NamespacedName{Namespace: deployment.Namespace, Name: deployment.Name}
	if _, found := f.cluster.deployments[name]; found {
		return nil, apierrors.NewAlreadyExists(deploymentResource, name.Name)
	}
	deployment.TypeMeta = list("apps/v1", "Deployment")
	deployment.UID = uuid.NewUUID()
	deployment.CreationTimestamp = metav1.Now()
	deployment.Generation = 1
	deployment.ResourceVersion = f.cluster.nextVersion()
	f.cluster.deployments[name] = &deployment
	f.cluster.change()
	return created{&deployment}, nil
}

func (f *front) updateDeployment(request *http.Request) (any, error) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	return f.replaceDeployment(key(request), func([]byte) ([]byte, error) { return body, nil })
}

func (f *front) patchDeployment(request *http.Request) (any, error) {
	if kind := request.Header.Get("Content-Type"); kind != string(types.MergePatchType) {
		return nil, apierrors.NewBadRequest("only " + string(types.MergePatchType))
	}
	patch, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	return f.replaceDeployment(key(request), func(before []byte) ([]byte, error) {
		return jsonpatch.MergePatch(before, patch)
	})
}

func (f *front) replaceDeployment(
	name types.NamespacedName, change func([]byte) ([]byte, error),
) (any, error) {
	f.cluster.lock.Lock()
	defer f.cluster.lock.Unlock()
	was, found := f.cluster.deployments[name]
	if !found {
		return nil, notFound("deployments", name.Name)
	}
	before, err := json.Marshal(was)
	if err != nil {
		return nil, err
	}
	after, err := change(before)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	var deployment appsv1.Deployment
	if err := json.Unmarshal(after, &deployment); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if version := deployment.ResourceVersion; version != "" && version != was.ResourceVersion {
		return nil, apierrors.NewConflict(deploymentResource, name.Name,
			errors.New("the object has been modified"))
	}
	deployment.TypeMeta = was.TypeMeta
	deployment.UID = was.UID
	deployment.CreationTimestamp = was.CreationTimestamp
	deployment.Generation = was.Generation + 1
	deployment.ResourceVersion = f.cluster.nextVersion()
	f.cluster.deployments[name] = &deployment
	f.cluster.change()
	return f.withStatus(&deployment), nil
}

func (f *front) deleteDeployment(request *http.Request) (any, error) {
	f.cluster.lock.Lock()
	defer f.cluster.lock.Unlock()
	if _, found := f.cluster.deployments[key(request)]; !found {
		return nil, notFound("deployments", request.PathValue("name"))
	}
	delete(f.cluster.deployments, key(request))
	f.cluster.change()
	return &metav1.Status{TypeMeta: list("v1", "Status"), Status: metav1.StatusSuccess}, nil
}

// withStatus counts the pods of a Deployment; it is for whoever holds the cluster's lock.
func (f *front) withStatus(deployment *appsv1.Deployment) *appsv1.Deployment {
	var all, running int32
	for _, pod := range f.cluster.pods {
		if ownedBy(pod.object, deployment) {
			all++
			if pod.object.Status.Phase == corev1.PodRunning {
				running++
			}
		}
	}
	shown := deployment.DeepCopy()
	shown.Status = appsv1.DeploymentStatus{
		ObservedGeneration: deployment.Generation,
		Replicas:           all,
		ReadyReplicas:      running,
		AvailableReplicas:  running,
	}
	return shown
}

// Pods.

func (f *front) listPods(request *http.Request) (any, error) {
	selector, err := selector(request)
	if err != nil {
		return nil, err
	}
	found := &corev1.PodList{TypeMeta: list("v1", "PodList"), Items: []corev1.Pod{}}
	for _, pod := range f.cluster.podObjects(request.PathValue("namespace")) {
		if selector.Matches(labels.Set(pod.Labels)) {
			found.Items = append(found.Items, pod)
		}
	}
	return found, nil
}

func (f *front) onePod(request *http.Request) (any, error) {
	pod, err := f.pod(request)
	if err != nil {
		return nil, err
	}
	f.cluster.lock.Lock()
	defer f.cluster.lock.Unlock()
	return pod.object, nil
}

func (f *front) podLog(writer http.ResponseWriter, request *http.Request) {
	pod, err := f.pod(request)
	if err != nil {
		reply(writer, nil, err)
		return
	}
	query := request.URL.Query()
	if container := query.Get("container"); container != "" &&
		container != pod.object.Spec.Containers[0].Name {
		reply(writer, nil, apierrors.NewBadRequest("no container "+container))
		return
	}
	var since time.Time
	if text := query.Get("sinceTime"); text != "" {
		if since, err = time.Parse(time.RFC3339, text); err != nil {
			reply(writer, nil, apierrors.NewBadRequest(err.Error()))
			return
		}
	}
	writer.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(writer, pod.log(since))
}

func (f *front) pod(request *http.Request) (*pod, error) {
	f.cluster.lock.Lock()
	defer f.cluster.lock.Unlock()
	pod, found := f.cluster.pods[key(request)]
	if !found {
		return nil, notFound("pods", request.PathValue("name"))
	}
	return pod, nil
}

// What all kinds share.

var deploymentResource = schema.GroupResource{Group: "apps", Resource: "deployments"}

func key(request *http.Request) types.NamespacedName {
	return types.NamespacedName{
		Namespace: request.PathValue("namespace"),
		Name:      request.PathValue("name"),
	}
}

func selector(request *http.Request) (labels.Selector, error) {
	selector, err := labels.Parse(request.URL.Query().Get("labelSelector"))
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return selector, nil
}

func list(version, kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: version, Kind: kind}
}

func notFound(resource, name string) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: resource}, name)
}

// created is an object whose answer is 201.
type created struct{ object any }

func reply(writer http.ResponseWriter, object any, err error) {
	status := http.StatusOK
	if made, is := object.(created); is {
		object, status = made.object, http.StatusCreated
	}
	if err != nil {
		failure := &apierrors.StatusError{}
		if !errors.As(err, &failure) {
			failure = apierrors.NewInternalError(err)
		}
		object, status = &failure.ErrStatus, int(failure.ErrStatus.Code)
	}
	writer.Header().Set("Content-Type", "application/json")
	writer.WriteHeader(status)
	_ = json.NewEncoder(writer).Encode(object)
}

// logged notes what was asked and answered, for whoever looks for the reason of a failed test.
func (c *Cluster) logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		begin := time.Now()
		noted := &notedWriter{ResponseWriter: writer, status: http.StatusOK}
		next.ServeHTTP(noted, request)
		c.log.Printf("%s %s %d %dms %s%s", request.Method, request.URL, noted.status,
			time.Since(begin).Milliseconds(), test(request.UserAgent()), noted.excerpt)
	})
}

type notedWriter struct {
	http.ResponseWriter
	status  int
	excerpt string
}

func (w *notedWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *notedWriter) Write(data []byte) (int, error) {
	if w.status >= http.StatusBadRequest && w.status != http.StatusNotFound && w.excerpt == "" {
		w.excerpt = ": " + string(data[:min(len(data), 500)])
	}
	return w.ResponseWriter.Write(data)
}

func (w *notedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// test is the name of the test in the suite's user agent, `tool::version::test::features`.
func test(agent string) string {
	parts := strings.Split(agent, "::")
	if len(parts) < 3 {
		return agent
	}
	return parts[2]
}
