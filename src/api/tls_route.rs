//! TLSRoute.

use serde::Deserialize;

use super::meta::ObjectMeta;
use super::shared::{DefaultScope, ParentReference, PlainBackendRef};

/// Which TLS connections go where, by the name that the client asks for.
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
    /// Required: compared with the name that the client asks for (SNI).
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// Exactly one.
    #[serde(default)]
    pub rules: Vec<TlsRouteRule>,
}

/// Where the connections go. One of a TLSRoute, which takes whatever its hostnames take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TlsRouteRule {
    pub name: Option<String>,
    #[serde(default)]
    pub backend_refs: Vec<PlainBackendRef>,
}
