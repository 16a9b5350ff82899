//! The supported kinds as resources, by the words of a REST path.

use std::sync::LazyLock;

use crate::api::{ENVOY_GROUP, GATEWAY_GROUP, KINDS, Kind, KindInfo, Scope};

/// A kind as a REST resource.
#[derive(Debug)]
pub(super) struct ApiResource {
    pub info: &'static KindInfo,
    /// The plural, for example `httproutes`.
    pub plural: String,
    /// The singular, for example `httproute`.
    pub singular: String,
    /// Short names for the command line.
    pub short: &'static [&'static str],
}

impl ApiResource {
    fn new(info: &'static KindInfo) -> Self {
        let singular = info.kind.as_str().to_ascii_lowercase();
        let plural = match singular.strip_suffix('y') {
            Some(stem) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) => format!("{stem}ies"),
            None if singular.ends_with('s') => format!("{singular}es"),
            _ => format!("{singular}s"),
        };
        let short: &[&str] = match info.kind.as_str() {
            "GatewayClass" => &["gc"],
            "Gateway" => &["gtw"],
            "ReferenceGrant" => &["refgrant"],
            "BackendTLSPolicy" => &["btlspolicy"],
            "BackendTrafficPolicy" => &["btp"],
            "ClientTrafficPolicy" => &["ctp"],
            "ListenerSet" => &["lset"],
            "ConfigMap" => &["cm"],
            "Service" => &["svc"],
            "Namespace" => &["ns"],
            _ => &[],
        };
        Self { info, plural, singular, short }
    }

    pub(super) fn kind(&self) -> Kind {
        self.info.kind
    }

    /// Returns the name of the resource for messages: `httproutes.gateway.networking.k8s.io`.
    pub(super) fn qualified(&self) -> String {
        qualified(&self.plural, self.info.group)
    }

    /// Returns the name of the kind for messages: `HTTPRoute.gateway.networking.k8s.io`.
    pub(super) fn qualified_kind(&self) -> String {
        qualified(self.info.kind.as_str(), self.info.group)
    }

    pub(super) fn is_namespaced(&self) -> bool {
        self.info.scope == Scope::Namespaced
    }

    /// Returns the `apiVersion`, for example `gateway.networking.k8s.io/v1`.
    pub(super) fn api_version(&self, version: &str) -> String {
        match self.info.group {
            "" => version.into(),
            group => format!("{group}/{version}"),
        }
    }

    /// Returns true if objects of the kind count their changes in `metadata.generation`.
    pub(super) fn has_generation(&self) -> bool {
        !self.info.group.is_empty()
    }

    /// Returns true for kinds whose CRD has the subresource `status`.
    pub(super) fn has_status(&self) -> bool {
        let without = ["ReferenceGrant", "EndpointSlice", "Secret", "ConfigMap", "HTTPRouteFilter"];
        !without.contains(&self.info.kind.as_str())
    }
}

fn qualified(word: &str, group: &str) -> String {
    if group.is_empty() { word.into() } else { format!("{word}.{group}") }
}

/// Returns all resources that are served, in the order of the kinds.
///
/// These are the kinds that the gateway reads, and all known kinds of the Gateway API and of Envoy
/// Gateway, even if they have no effect yet: the author of such an object finds it.
pub(super) fn resources() -> &'static [ApiResource] {
    static RESOURCES: LazyLock<Vec<ApiResource>> = LazyLock::new(|| {
        let is_served = |info: &&KindInfo| {
            [GATEWAY_GROUP, ENVOY_GROUP].contains(&info.group)
                || !matches!(info.kind, Kind::Other(_))
        };
        KINDS.iter().filter(is_served).map(ApiResource::new).collect()
    });
    &RESOURCES
}

/// Returns the resource of a path.
pub(super) fn find(group: &str, version: &str, plural: &str) -> Option<&'static ApiResource> {
    let is_it = |resource: &&ApiResource| {
        resource.info.group == group
            && resource.plural == plural
            && resource.info.versions.contains(&version)
    };
    resources().iter().find(is_it)
}

/// Returns the resource of a kind, if it is served.
pub(super) fn of(kind: Kind) -> Option<&'static ApiResource> {
    resources().iter().find(|resource| resource.info.kind == kind)
}

/// Returns the groups with their versions, the preferred version first. The core group, which has
/// no name, is the first group.
pub(super) fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = vec![("", Vec::new())];
    for ApiResource { info, .. } in resources() {
        let at = match groups.iter().position(|(group, _)| *group == info.group) {
            Some(at) => at,
            None => {
                groups.push((info.group, Vec::new()));
                groups.len() - 1
            }
        };
        for version in info.versions {
            if !groups[at].1.contains(version) {
                groups[at].1.push(version);
            }
        }
    }
    for (_, versions) in &mut groups {
        versions.sort_by_key(|version| rank(version));
    }
    groups
}

/// Returns the rank of a version: `v1` before `v1beta1` before `v1alpha3` before `v1alpha2`.
fn rank(version: &str) -> (u8, std::cmp::Reverse<String>) {
    let stability = match () {
        () if version.contains("alpha") => 2,
        () if version.contains("beta") => 1,
        () => 0,
    };
    (stability, std::cmp::Reverse(version.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_plurals_of_their_crds() {
        // (group, version, plural, kind)
        let gateway = "gateway.networking.k8s.io";
        let table = [
            (gateway, "v1", "gatewayclasses", "GatewayClass"),
            (gateway, "v1beta1", "gateways", "Gateway"),
            (gateway, "v1", "httproutes", "HTTPRoute"),
            (gateway, "v1", "backendtlspolicies", "BackendTLSPolicy"),
            (gateway, "v1", "listenersets", "ListenerSet"),
            (gateway, "v1alpha2", "tcproutes", "TCPRoute"),
            ("gateway.envoyproxy.io", "v1alpha1", "httproutefilters", "HTTPRouteFilter"),
            ("gateway.envoyproxy.io", "v1alpha1", "securitypolicies", "SecurityPolicy"),
            ("gateway.envoyproxy.io", "v1alpha1", "backendtrafficpolicies", "BackendTrafficPolicy"),
            ("gateway.envoyproxy.io", "v1alpha1", "envoyproxies", "EnvoyProxy"),
            ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
            ("", "v1", "namespaces", "Namespace"),
            ("", "v1", "configmaps", "ConfigMap"),
        ];
        for (group, version, plural, kind) in table {
            let found = find(group, version, plural).unwrap_or_else(|| panic!("{plural}"));
            assert_eq!(found.info.kind.as_str(), kind);
        }
        assert!(find("", "v1", "pods").is_none());
        assert!(find(gateway, "v1alpha2", "gateways").is_none());
    }

    #[test]
    fn the_preferred_version_of_a_group_is_the_most_stable() {
        let groups = groups();
        assert_eq!(groups[0], ("", vec!["v1"]));
        let (_, versions) =
            groups.iter().find(|(group, _)| *group == "gateway.networking.k8s.io").unwrap();
        assert_eq!(versions, &["v1", "v1beta1", "v1alpha3", "v1alpha2"]);
    }
}
