//! GRPCRoute.

use serde::Deserialize;

use super::http_route::{HeaderModifier, RequestMirrorFilter};
use super::meta::ObjectMeta;
use super::open_enum::open_enum;
use super::shared::{
    BackendRef, DefaultScope, LocalObjectReference, MatchType, ParentReference, SessionPersistence,
};

/// Routes gRPC calls to backends.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct GrpcRoute {
    pub metadata: ObjectMeta,
    pub spec: GrpcRouteSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GrpcRouteSpec {
    #[serde(default)]
    pub parent_refs: Vec<ParentReference>,
    /// Experimental.
    pub use_default_gateways: Option<DefaultScope>,
    /// If empty, every host of the listener.
    #[serde(default)]
    pub hostnames: Vec<String>,
    #[serde(default)]
    pub rules: Vec<GrpcRouteRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GrpcRouteRule {
    pub name: Option<String>,
    /// At least one must match. If empty, every call matches.
    #[serde(default)]
    pub matches: Vec<GrpcRouteMatch>,
    #[serde(default)]
    pub filters: Vec<GrpcRouteFilter>,
    #[serde(default)]
    pub backend_refs: Vec<GrpcBackendRef>,
    /// Experimental (GEP-1619).
    pub session_persistence: Option<Box<SessionPersistence>>,
}

/// `backendRefs[]` of a GRPCRoute.
pub(crate) type GrpcBackendRef = BackendRef<GrpcRouteFilter>;

/// A match; all of its conditions must be met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GrpcRouteMatch {
    /// Default: every method of every service.
    pub method: Option<GrpcMethodMatch>,
    #[serde(default)]
    pub headers: Vec<GrpcHeaderMatch>,
}

/// A service, a method, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GrpcMethodMatch {
    #[serde(rename = "type")]
    pub kind: Option<MatchType>,
    pub service: Option<String>,
    pub method: Option<String>,
}

impl GrpcMethodMatch {
    /// Returns the kind; default: `Exact`.
    pub(crate) fn kind(&self) -> &MatchType {
        self.kind.as_ref().unwrap_or(&MatchType::Exact)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GrpcHeaderMatch {
    #[serde(rename = "type")]
    pub kind: Option<MatchType>,
    /// Compared case-insensitively. Of several with one name in one match the first counts.
    pub name: String,
    pub value: String,
}

impl GrpcHeaderMatch {
    /// Returns the kind; default: `Exact`.
    pub(crate) fn kind(&self) -> &MatchType {
        self.kind.as_ref().unwrap_or(&MatchType::Exact)
    }
}

/// One filter. `kind` selects one of the other fields; exactly that one must be present.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GrpcRouteFilter {
    #[serde(rename = "type")]
    pub kind: GrpcFilterType,
    pub request_header_modifier: Option<Box<HeaderModifier>>,
    pub response_header_modifier: Option<Box<HeaderModifier>>,
    pub request_mirror: Option<Box<RequestMirrorFilter>>,
    pub extension_ref: Option<Box<LocalObjectReference>>,
}

open_enum! {
    GrpcFilterType {
        RequestHeaderModifier = "RequestHeaderModifier",
        ResponseHeaderModifier = "ResponseHeaderModifier",
        RequestMirror = "RequestMirror",
        ExtensionRef = "ExtensionRef",
    }
}
