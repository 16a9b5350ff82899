//! An index of the objects of a load, by kind and name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::api::{
    Backend, BackendTlsPolicy, BackendTrafficPolicy, ClientTrafficPolicy, ConfigMap, EndpointSlice,
    EnvoyProxy, Gateway, GatewayClass, ListenerSet, Object, ObjectKey, ObjectMeta, ReferenceGrant,
    RouteFilter, Secret, SecurityPolicy, Service,
};
use crate::config::{CheckedObject, Fault};

use super::route_object::RouteObject;

/// The label with the name of a namespace. Every namespace has it, written or not.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The label with which an EndpointSlice names its Service.
pub(super) const SERVICE_LABEL: &str = "kubernetes.io/service-name";

type ByName<'a, T> = HashMap<(&'a str, &'a str), &'a T>;

/// All objects of a load, by kind and name. If two have the same name, lookups find the first.
#[derive(Debug, Default)]
pub(super) struct ObjectIndex<'a> {
    /// In the order of their names.
    pub classes: Vec<&'a GatewayClass>,
    /// In tie-breaking order.
    pub gateways: Vec<&'a Gateway>,
    /// In tie-breaking order.
    pub listener_sets: Vec<&'a ListenerSet>,
    /// In tie-breaking order.
    pub routes: Vec<RouteObject<'a>>,
    gateway_names: HashSet<(&'a str, &'a str)>,
    listener_set_names: HashSet<(&'a str, &'a str)>,
    backends: ByName<'a, Backend>,
    services: ByName<'a, Service>,
    secrets: ByName<'a, Secret>,
    config_maps: ByName<'a, ConfigMap>,
    route_filters: ByName<'a, RouteFilter>,
    /// In the order of their names.
    pub envoy_proxies: Vec<&'a EnvoyProxy>,
    /// All EndpointSlices, including those without a Service.
    pub all_slices: Vec<&'a EndpointSlice>,
    /// EndpointSlices by namespace and Service, in the order of their names.
    slices: HashMap<(&'a str, &'a str), Arc<[&'a EndpointSlice]>>,
    /// ReferenceGrants by namespace.
    grants: HashMap<&'a str, Vec<&'a ReferenceGrant>>,
    /// In tie-breaking order.
    pub security_policies: Vec<&'a SecurityPolicy>,
    /// In tie-breaking order.
    pub traffic_policies: Vec<&'a BackendTrafficPolicy>,
    /// In tie-breaking order.
    pub client_policies: Vec<&'a ClientTrafficPolicy>,
    /// In tie-breaking order.
    pub tls_policies: Vec<&'a BackendTlsPolicy>,
    namespaces: HashMap<&'a str, BTreeMap<String, String>>,
    /// The violations of the rules of its kind, by object.
    broken: HashMap<ObjectKey, &'a [Fault]>,
}

impl<'a> ObjectIndex<'a> {
    pub(super) fn new(objects: &'a [CheckedObject]) -> Self {
        let mut index = Self::default();
        for CheckedObject { object, faults } in objects {
            if !faults.is_empty() {
                index.broken.insert(object.key(), faults);
            }
            index.file(object);
        }
        index.classes.sort_by_key(|class| &class.metadata.name);
        index.envoy_proxies.sort_by_key(|of| (of.metadata.namespace(), &of.metadata.name));
        index.gateways.sort_by_cached_key(|gateway| tie_order(&gateway.metadata));
        index.listener_sets.sort_by_cached_key(|set| tie_order(&set.metadata));
        index.routes.sort_by_cached_key(|route| tie_order(route.metadata()));
        index.security_policies.sort_by_cached_key(|policy| tie_order(&policy.metadata));
        index.traffic_policies.sort_by_cached_key(|policy| tie_order(&policy.metadata));
        index.client_policies.sort_by_cached_key(|policy| tie_order(&policy.metadata));
        index.tls_policies.sort_by_cached_key(|policy| tie_order(&policy.metadata));
        index.slices = by_service(&index.all_slices);
        index
    }

    fn file(&mut self, object: &'a Object) {
        let metadata = object.metadata();
        let name = (metadata.namespace(), &*metadata.name);
        match object {
            Object::GatewayClass(class) => self.classes.push(class),
            Object::Gateway(gateway) => {
                self.gateway_names.insert(name);
                self.gateways.push(gateway);
            }
            Object::ListenerSet(set) => {
                self.listener_set_names.insert(name);
                self.listener_sets.push(set);
            }
            Object::HttpRoute(route) => self.routes.push(RouteObject::Http(route)),
            Object::GrpcRoute(route) => self.routes.push(RouteObject::Grpc(route)),
            Object::TlsRoute(route) => self.routes.push(RouteObject::Tls(route)),
            Object::TcpRoute(route) => self.routes.push(RouteObject::Tcp(route)),
            Object::UdpRoute(route) => self.routes.push(RouteObject::Udp(route)),
            // A grant that breaks the rules of its kind grants nothing.
            Object::ReferenceGrant(_) if self.broken.contains_key(&object.key()) => {}
            Object::ReferenceGrant(grant) => self.grants.entry(name.0).or_default().push(grant),
            Object::Backend(backend) => {
                self.backends.entry(name).or_insert(backend);
            }
            Object::Service(service) => {
                self.services.entry(name).or_insert(service);
            }
            Object::Secret(secret) => {
                self.secrets.entry(name).or_insert(secret);
            }
            Object::EndpointSlice(slice) => self.all_slices.push(slice),
            Object::Namespace(_) => {
                let mut labels = metadata.labels.clone();
                labels.insert(NAME_LABEL.into(), metadata.name.clone());
                self.namespaces.entry(&metadata.name).or_insert(labels);
            }
            Object::EnvoyProxy(proxy) => self.envoy_proxies.push(proxy),
            Object::Unsupported(_) => {}
            Object::ConfigMap(map) => {
                self.config_maps.entry(name).or_insert(map);
            }
            Object::RouteFilter(filter) => {
                self.route_filters.entry(name).or_insert(filter);
            }
            Object::BackendTlsPolicy(policy) => self.tls_policies.push(policy),
            Object::SecurityPolicy(policy) => self.security_policies.push(policy),
            Object::BackendTrafficPolicy(policy) => self.traffic_policies.push(policy),
            Object::ClientTrafficPolicy(policy) => self.client_policies.push(policy),
        }
    }

    /// Returns the violations of the rules of its kind by an object.
    pub(super) fn broken(&self, key: &ObjectKey) -> impl Iterator<Item = &'a Fault> + use<'a> {
        self.broken.get(key).copied().unwrap_or_default().iter()
    }

    /// Returns true if the object breaks a rule of its kind at or below the field of a fault. The
    /// fault is then a consequence of that: for example, a reference without a name resolves to
    /// nothing.
    pub(super) fn is_refused(&self, fault: &Fault) -> bool {
        self.broken(&fault.object).any(|broken| broken.field.starts_with(&fault.field))
    }

    /// Returns all Backends in the order of their names.
    pub(super) fn all_backends(&self) -> Vec<&'a Backend> {
        let mut all: Vec<_> = self.backends.iter().collect();
        all.sort_by_key(|(name, _)| **name);
        all.into_iter().map(|(_, backend)| *backend).collect()
    }

    pub(super) fn backend(&self, namespace: &str, name: &str) -> Option<&'a Backend> {
        self.backends.get(&(namespace, name)).copied()
    }

    pub(super) fn service(&self, namespace: &str, name: &str) -> Option<&'a Service> {
        self.services.get(&(namespace, name)).copied()
    }

    pub(super) fn secret(&self, namespace: &str, name: &str) -> Option<&'a Secret> {
        self.secrets.get(&(namespace, name)).copied()
    }

    pub(super) fn config_map(&self, namespace: &str, name: &str) -> Option<&'a ConfigMap> {
        self.config_maps.get(&(namespace, name)).copied()
    }

    pub(super) fn route_filter(&self, namespace: &str, name: &str) -> Option<&'a RouteFilter> {
        self.route_filters.get(&(namespace, name)).copied()
    }

    /// Returns the EndpointSlices of a Service in the order of their names, shared by all
    /// references to it.
    pub(super) fn slices(&self, service: &'a Service) -> Arc<[&'a EndpointSlice]> {
        let name = (service.metadata.namespace(), &*service.metadata.name);
        self.slices.get(&name).map(Arc::clone).unwrap_or_default()
    }

    /// Returns the ReferenceGrants in `namespace`.
    pub(super) fn grants(&self, namespace: &str) -> &[&'a ReferenceGrant] {
        self.grants.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// Returns true if a Gateway with this name exists, of this controller or another.
    pub(super) fn has_gateway(&self, namespace: &str, name: &str) -> bool {
        self.gateway_names.contains(&(namespace, name))
    }

    /// Returns true if a ListenerSet with this name exists, for a Gateway of this controller or
    /// another.
    pub(super) fn has_listener_set(&self, namespace: &str, name: &str) -> bool {
        self.listener_set_names.contains(&(namespace, name))
    }

    /// Calls `judge` with the labels of a namespace. A namespace has its name as a label even if no
    /// Namespace object is written.
    pub(super) fn namespace_labels<T>(
        &self,
        namespace: &str,
        judge: impl FnOnce(&BTreeMap<String, String>) -> T,
    ) -> T {
        match self.namespaces.get(namespace) {
            Some(labels) => judge(labels),
            None => judge(&BTreeMap::from([(NAME_LABEL.into(), namespace.into())])),
        }
    }
}

/// Returns the EndpointSlices of each Service in the order of their names.
fn by_service<'a>(
    all: &[&'a EndpointSlice],
) -> HashMap<(&'a str, &'a str), Arc<[&'a EndpointSlice]>> {
    let mut slices: HashMap<_, Vec<&'a EndpointSlice>> = HashMap::new();
    for &slice in all {
        let metadata = &slice.metadata;
        if let Some(service) = metadata.labels.get(SERVICE_LABEL) {
            slices.entry((metadata.namespace(), &**service)).or_default().push(slice);
        }
    }
    let sorted = slices.into_iter().map(|(name, mut slices)| {
        slices.sort_by_key(|slice| &slice.metadata.name);
        (name, slices.into())
    });
    sorted.collect()
}

/// Returns the sort key that breaks ties: age, then name. An object without a timestamp counts as
/// younger than any other, so that the order is total even if only some objects have a timestamp.
fn tie_order(metadata: &ObjectMeta) -> impl Ord + use<> {
    let stamp = metadata.creation_timestamp;
    (stamp.is_none(), stamp, format!("{}/{}", metadata.namespace(), metadata.name))
}

#[cfg(test)]
mod tests {
    use crate::provider::parse_bytes;

    use super::*;

    /// Rules that refer to one Service do not copy the list of its slices.
    #[test]
    fn all_references_to_a_service_share_its_slices() {
        let mut text = String::from(
            "kind: Service\napiVersion: v1\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n",
        );
        for name in ["b", "a"] {
            text.push_str(&format!(
                "---\nkind: EndpointSlice\napiVersion: discovery.k8s.io/v1\n\
                 metadata: {{name: {name}, labels: {{{SERVICE_LABEL}: s}}}}\n\
                 addressType: IPv4\nendpoints: []\n"
            ));
        }
        let loaded = parse_bytes(std::path::Path::new("a.yaml"), text.as_bytes(), &|_| None);
        let index = ObjectIndex::new(&loaded.objects);
        let service = index.service("default", "s").unwrap();
        let (one, other) = (index.slices(service), index.slices(service));
        let names: Vec<_> = one.iter().map(|slice| &*slice.metadata.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(Arc::ptr_eq(&one, &other));
    }
}
