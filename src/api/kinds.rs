//! The kinds that a directory of resources may contain: their groups and versions, and whether this
//! gateway supports them.

use std::fmt;

pub(crate) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
pub(crate) const GATEWAY_X_GROUP: &str = "gateway.networking.x-k8s.io";
pub(crate) const ENVOY_GROUP: &str = "gateway.envoyproxy.io";
pub(crate) const CORE_GROUP: &str = "";
pub(crate) const DISCOVERY_GROUP: &str = "discovery.k8s.io";

/// A kind by name. `Other` is a known kind that is not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    GatewayClass,
    Gateway,
    ListenerSet,
    HttpRoute,
    GrpcRoute,
    TlsRoute,
    TcpRoute,
    UdpRoute,
    ReferenceGrant,
    Backend,
    RouteFilter,
    EnvoyProxy,
    Secret,
    ConfigMap,
    Service,
    EndpointSlice,
    Namespace,
    SecurityPolicy,
    BackendTlsPolicy,
    BackendTrafficPolicy,
    ClientTrafficPolicy,
    Other(&'static str),
}

impl Kind {
    /// Returns the kind as written in YAML.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::GatewayClass => "GatewayClass",
            Self::Gateway => "Gateway",
            Self::ListenerSet => "ListenerSet",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TlsRoute => "TLSRoute",
            Self::TcpRoute => "TCPRoute",
            Self::UdpRoute => "UDPRoute",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::Backend => "Backend",
            Self::RouteFilter => "HTTPRouteFilter",
            Self::EnvoyProxy => "EnvoyProxy",
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Namespace => "Namespace",
            Self::SecurityPolicy => "SecurityPolicy",
            Self::BackendTlsPolicy => "BackendTLSPolicy",
            Self::BackendTrafficPolicy => "BackendTrafficPolicy",
            Self::ClientTrafficPolicy => "ClientTrafficPolicy",
            Self::Other(name) => name,
        }
    }

    /// Returns the API group; empty for the core group.
    pub(crate) fn group(self) -> &'static str {
        self.info().map_or(CORE_GROUP, |info| info.group)
    }

    /// Returns the preferred `apiVersion`.
    pub(crate) fn api_version(self) -> String {
        self.info().map_or_else(String::new, KindInfo::api_version)
    }

    pub(crate) fn scope(self) -> Scope {
        self.info().map_or(Scope::Namespaced, |info| info.scope)
    }

    /// Returns the kind of this group and name, if it is known, supported or not.
    pub(crate) fn find(group: &str, name: &str) -> Option<&'static KindInfo> {
        KINDS.iter().find(|info| info.group == group && info.kind.as_str() == name)
    }

    fn info(self) -> Option<&'static KindInfo> {
        KINDS.iter().find(|info| info.kind == self)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The scope of a kind: the cluster or a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Cluster,
    Namespaced,
}

/// One row of [`KINDS`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KindInfo {
    pub group: &'static str,
    pub kind: Kind,
    /// The accepted versions; the preferred one is the first.
    pub versions: &'static [&'static str],
    pub scope: Scope,
}

impl KindInfo {
    const fn new(group: &'static str, kind: Kind, versions: &'static [&'static str]) -> Self {
        Self { group, kind, versions, scope: Scope::Namespaced }
    }

    const fn cluster(group: &'static str, kind: Kind, versions: &'static [&'static str]) -> Self {
        Self { group, kind, versions, scope: Scope::Cluster }
    }

    /// Returns the preferred `apiVersion`.
    pub(crate) fn api_version(&self) -> String {
        match self.group {
            CORE_GROUP => self.versions[0].into(),
            group => format!("{group}/{}", self.versions[0]),
        }
    }
}

/// The known kinds: those of the Gateway API 1.6.1 in the versions that its CRDs serve (standard or
/// experimental channel), those of Envoy Gateway, and kinds that are common in the same directories
/// of manifests.
pub(crate) const KINDS: &[KindInfo] = &[
    KindInfo::cluster(GATEWAY_GROUP, Kind::GatewayClass, &["v1", "v1beta1"]),
    KindInfo::new(GATEWAY_GROUP, Kind::Gateway, &["v1", "v1beta1"]),
    KindInfo::new(GATEWAY_GROUP, Kind::HttpRoute, &["v1", "v1beta1"]),
    KindInfo::new(GATEWAY_GROUP, Kind::GrpcRoute, &["v1"]),
    KindInfo::new(GATEWAY_GROUP, Kind::ReferenceGrant, &["v1", "v1beta1"]),
    KindInfo::new(GATEWAY_GROUP, Kind::TlsRoute, &["v1", "v1alpha3", "v1alpha2"]),
    KindInfo::new(GATEWAY_GROUP, Kind::TcpRoute, &["v1", "v1alpha2"]),
    KindInfo::new(GATEWAY_GROUP, Kind::UdpRoute, &["v1", "v1alpha2"]),
    KindInfo::new(GATEWAY_GROUP, Kind::ListenerSet, &["v1"]),
    KindInfo::new(GATEWAY_GROUP, Kind::BackendTlsPolicy, &["v1", "v1alpha3"]),
    KindInfo::new(GATEWAY_X_GROUP, Kind::Other("XBackend"), &["v1alpha1"]),
    KindInfo::new(GATEWAY_X_GROUP, Kind::Other("XBackendTrafficPolicy"), &["v1alpha1"]),
    KindInfo::new(GATEWAY_X_GROUP, Kind::Other("XListenerSet"), &["v1alpha1"]),
    KindInfo::cluster(GATEWAY_X_GROUP, Kind::Other("XMesh"), &["v1alpha1"]),
    KindInfo::new(ENVOY_GROUP, Kind::Backend, &["v1alpha1"]),
    KindInfo::new(ENVOY_GROUP, Kind::BackendTrafficPolicy, &["v1alpha1"]),
    KindInfo::new(ENVOY_GROUP, Kind::ClientTrafficPolicy, &["v1alpha1"]),
    KindInfo::new(ENVOY_GROUP, Kind::Other("EnvoyExtensionPolicy"), &["v1alpha1"]),
    KindInfo::new(ENVOY_GROUP, Kind::Other("EnvoyPatchPolicy"), &["v1alpha1"]),
    KindInfo::new(ENVOY_GROUP, Kind::EnvoyProxy, &["v1alpha1"]),
    KindInfo::new(ENVOY_GROUP, Kind::RouteFilter, &["v1alpha1"]),
    KindInfo::new(ENVOY_GROUP, Kind::SecurityPolicy, &["v1alpha1"]),
    KindInfo::new(CORE_GROUP, Kind::Secret, &["v1"]),
    KindInfo::new(CORE_GROUP, Kind::ConfigMap, &["v1"]),
    KindInfo::new(CORE_GROUP, Kind::Service, &["v1"]),
    KindInfo::new(DISCOVERY_GROUP, Kind::EndpointSlice, &["v1"]),
    KindInfo::cluster(CORE_GROUP, Kind::Namespace, &["v1"]),
    KindInfo::new(CORE_GROUP, Kind::Other("Endpoints"), &["v1"]),
    KindInfo::new(CORE_GROUP, Kind::Other("PersistentVolumeClaim"), &["v1"]),
    KindInfo::new(CORE_GROUP, Kind::Other("Pod"), &["v1"]),
    KindInfo::new(CORE_GROUP, Kind::Other("ServiceAccount"), &["v1"]),
    KindInfo::new("apps", Kind::Other("DaemonSet"), &["v1"]),
    KindInfo::new("apps", Kind::Other("Deployment"), &["v1"]),
    KindInfo::new("apps", Kind::Other("StatefulSet"), &["v1"]),
    KindInfo::new("autoscaling", Kind::Other("HorizontalPodAutoscaler"), &["v2", "v1"]),
    KindInfo::new("batch", Kind::Other("CronJob"), &["v1"]),
    KindInfo::new("batch", Kind::Other("Job"), &["v1"]),
    KindInfo::new("cert-manager.io", Kind::Other("Certificate"), &["v1"]),
    KindInfo::cluster("cert-manager.io", Kind::Other("ClusterIssuer"), &["v1"]),
    KindInfo::new("cert-manager.io", Kind::Other("Issuer"), &["v1"]),
    KindInfo::new("networking.k8s.io", Kind::Other("Ingress"), &["v1"]),
    KindInfo::new("networking.k8s.io", Kind::Other("NetworkPolicy"), &["v1"]),
    KindInfo::new("policy", Kind::Other("PodDisruptionBudget"), &["v1"]),
    KindInfo::cluster("rbac.authorization.k8s.io", Kind::Other("ClusterRole"), &["v1"]),
    KindInfo::cluster("rbac.authorization.k8s.io", Kind::Other("ClusterRoleBinding"), &["v1"]),
    KindInfo::new("rbac.authorization.k8s.io", Kind::Other("Role"), &["v1"]),
    KindInfo::new("rbac.authorization.k8s.io", Kind::Other("RoleBinding"), &["v1"]),
    KindInfo::cluster("apiextensions.k8s.io", Kind::Other("CustomResourceDefinition"), &["v1"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_version() {
        let text = include_str!("../../docs/configuration.md");
        let (_, table) = text.split_once("| kind | versions |").unwrap();
        let rows: Vec<&str> = table.lines().skip(2).take_while(|row| !row.is_empty()).collect();
        for info in KINDS.iter().filter(|info| !matches!(info.kind, Kind::Other(_))) {
            let names =
                |row: &str| row.split([' ', ',', '|']).any(|word| word == info.kind.as_str());
            let row = rows.iter().find(|row| names(row));
            let Some(row) = row else { panic!("{} is not in the table", info.kind) };
            let group =
                if info.group.is_empty() { String::new() } else { format!("{}/", info.group) };
            let mut want = format!("`{group}{}`", info.versions[0]);
            for version in &info.versions[1..] {
                want.push_str(&format!(", `{version}`"));
            }
            assert!(row.ends_with(&format!("| {want} |")), "{row}: {want}");
        }
    }

    #[test]
    fn no_two_rows_share_group_and_kind() {
        for (index, row) in KINDS.iter().enumerate() {
            let same = |other: &&KindInfo| other.kind == row.kind;
            assert_eq!(KINDS.iter().filter(same).count(), 1, "row {index}: {row:?}");
        }
    }
}
