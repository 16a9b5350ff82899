//! UDPRoute.

use serde::Deserialize;

use super::meta::ObjectMeta;
use super::shared::{DefaultScope, ParentReference, PlainBackendRef};

/// Where the datagrams of a UDP listener go.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct UdpRoute {
    pub metadata: ObjectMeta,
    pub spec: UdpRouteSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UdpRouteSpec {
    #[serde(default)]
    pub parent_refs: Vec<ParentReference>,
    /// Experimental.
    pub use_default_gateways: Option<DefaultScope>,
    /// Exactly one.
    #[serde(default)]
    pub rules: Vec<UdpRouteRule>,
}

/// Where the datagrams go, flow by flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UdpRouteRule {
    pub name: Option<String>,
    #[serde(default)]
    pub backend_refs: Vec<PlainBackendRef>,
}
