//! TLSRoute.

use serde::Deserialize;

use super::meta::ObjectMeta;
use super::shared::{DefaultScope, ParentReference, PlainBackendRef};

/// Routes TLS connections to backends by the server name (SNI).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct TlsRoute {
    pub metadata: ObjectMeta,
    pub spec: TlsRouteSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TlsRouteSpec {
    #[serde(default)]
    pub parent_refs: Vec<ParentReference>,
    /// Experimental.
    pub use_default_gateways: Option<DefaultScope>,
    /// Required: compared with the server name (SNI).
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// Exactly one.
    #[serde(default)]
    pub rules: Vec<TlsRouteRule>,
}

/// The backends of the connections. A TLSRoute has one rule, which matches all of its hostnames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TlsRouteRule {
    pub name: Option<String>,
    #[serde(default)]
    pub backend_refs: Vec<PlainBackendRef>,
}
