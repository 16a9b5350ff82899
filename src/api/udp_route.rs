//! UDPRoute.

use serde::Deserialize;

use super::meta::ObjectMeta;
use super::shared::{DefaultScope, ParentReference, PlainBackendRef};

/// Routes the datagrams of a UDP listener to backends.
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

/// The backends of the datagrams, chosen per flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UdpRouteRule {
    pub name: Option<String>,
    #[serde(default)]
    pub backend_refs: Vec<PlainBackendRef>,
}
