//! TCPRoute.

use serde::Deserialize;

use super::meta::ObjectMeta;
use super::shared::{DefaultScope, ParentReference, PlainBackendRef};

/// Routes the connections of a TCP listener to backends.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct TcpRoute {
    pub metadata: ObjectMeta,
    pub spec: TcpRouteSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TcpRouteSpec {
    #[serde(default)]
    pub parent_refs: Vec<ParentReference>,
    /// Experimental.
    pub use_default_gateways: Option<DefaultScope>,
    /// Exactly one.
    #[serde(default)]
    pub rules: Vec<TcpRouteRule>,
}

/// The backends of the connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TcpRouteRule {
    pub name: Option<String>,
    #[serde(default)]
    pub backend_refs: Vec<PlainBackendRef>,
}
