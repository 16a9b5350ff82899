//! HTTPRoute.

use serde::Deserialize;

use super::duration::Duration;
use super::meta::ObjectMeta;
use super::open_enum::open_enum;
use super::shared::{
    BackendObjectReference, BackendRef, DefaultScope, Fraction, LocalObjectReference, MatchType,
    ParentReference, SessionPersistence,
};

/// Routes HTTP requests to backends.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct HttpRoute {
    pub metadata: ObjectMeta,
    pub spec: HttpRouteSpec,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpRouteSpec {
    #[serde(default)]
    pub parent_refs: Vec<ParentReference>,
    /// Experimental.
    pub use_default_gateways: Option<DefaultScope>,
    /// If empty, every host of the listener.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// If absent, one rule that matches everything and has no backends. The CRD rejects an empty
    /// list.
    pub rules: Option<Vec<HttpRouteRule>>,
}

impl HttpRouteSpec {
    /// Returns the rules as written; empty if absent.
    pub(crate) fn rules(&self) -> &[HttpRouteRule] {
        self.rules.as_deref().unwrap_or_default()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpRouteRule {
    pub name: Option<String>,
    /// At least one must match. If empty, every path matches.
    #[serde(default)]
    pub matches: Vec<HttpRouteMatch>,
    #[serde(default)]
    pub filters: Vec<HttpRouteFilter>,
    #[serde(default)]
    pub backend_refs: Vec<HttpBackendRef>,
    pub timeouts: Option<HttpRouteTimeouts>,
    /// Experimental (GEP-1731).
    pub retry: Option<Box<HttpRouteRetry>>,
    /// Experimental (GEP-1619).
    pub session_persistence: Option<Box<SessionPersistence>>,
}

/// `backendRefs[]` of an HTTPRoute.
pub(crate) type HttpBackendRef = BackendRef<HttpRouteFilter>;

/// A match; all of its conditions must be met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpRouteMatch {
    /// Default: every path.
    pub path: Option<HttpPathMatch>,
    #[serde(default)]
    pub headers: Vec<HttpHeaderMatch>,
    #[serde(default)]
    pub query_params: Vec<HttpQueryParamMatch>,
    pub method: Option<HttpMethod>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpPathMatch {
    #[serde(rename = "type")]
    pub kind: Option<PathMatchType>,
    pub value: Option<String>,
}

impl HttpPathMatch {
    /// Returns the kind; default: `PathPrefix`.
    pub(crate) fn kind(&self) -> &PathMatchType {
        self.kind.as_ref().unwrap_or(&PathMatchType::PathPrefix)
    }

    /// Returns the value; default: `/`.
    pub(crate) fn value(&self) -> &str {
        self.value.as_deref().unwrap_or("/")
    }
}

open_enum! {
    PathMatchType {
        Exact = "Exact",
        PathPrefix = "PathPrefix",
        RegularExpression = "RegularExpression",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpHeaderMatch {
    #[serde(rename = "type")]
    pub kind: Option<MatchType>,
    /// Compared case-insensitively. Of several with one name in one match the first counts.
    pub name: String,
    pub value: String,
}

impl HttpHeaderMatch {
    /// Returns the kind; default: `Exact`.
    pub(crate) fn kind(&self) -> &MatchType {
        self.kind.as_ref().unwrap_or(&MatchType::Exact)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpQueryParamMatch {
    #[serde(rename = "type")]
    pub kind: Option<MatchType>,
    /// Compared case-sensitively. Of several with one name in one match the first counts.
    pub name: String,
    pub value: String,
}

impl HttpQueryParamMatch {
    /// Returns the kind; default: `Exact`.
    pub(crate) fn kind(&self) -> &MatchType {
        self.kind.as_ref().unwrap_or(&MatchType::Exact)
    }
}

open_enum! {
    HttpMethod {
        Get = "GET",
        Head = "HEAD",
        Post = "POST",
        Put = "PUT",
        Delete = "DELETE",
        Connect = "CONNECT",
        Options = "OPTIONS",
        Trace = "TRACE",
        Patch = "PATCH",
    }
}

/// One filter. `kind` selects one of the other fields; exactly that one must be present. They are in
/// boxes because all others are absent.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpRouteFilter {
    #[serde(rename = "type")]
    pub kind: HttpFilterType,
    pub request_header_modifier: Option<Box<HeaderModifier>>,
    pub response_header_modifier: Option<Box<HeaderModifier>>,
    pub request_mirror: Option<Box<RequestMirrorFilter>>,
    pub request_redirect: Option<Box<RequestRedirectFilter>>,
    pub url_rewrite: Option<Box<UrlRewriteFilter>>,
    pub cors: Option<Box<CorsFilter>>,
    /// Experimental (GEP-1494).
    pub external_auth: Option<Box<ExternalAuthFilter>>,
    pub extension_ref: Option<Box<LocalObjectReference>>,
}

open_enum! {
    HttpFilterType {
        RequestHeaderModifier = "RequestHeaderModifier",
        ResponseHeaderModifier = "ResponseHeaderModifier",
        RequestMirror = "RequestMirror",
        RequestRedirect = "RequestRedirect",
        UrlRewrite = "URLRewrite",
        Cors = "CORS",
        ExternalAuth = "ExternalAuth",
        ExtensionRef = "ExtensionRef",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Header {
    pub name: String,
    pub value: String,
}

/// Changes of headers, applied in the order set, add, remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HeaderModifier {
    #[serde(default)]
    pub set: Vec<Header>,
    #[serde(default)]
    pub add: Vec<Header>,
    #[serde(default)]
    pub remove: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RequestMirrorFilter {
    pub backend_ref: BackendObjectReference,
    /// The number of requests in 100 that are copied. Default: all, if `fraction` is absent too.
    pub percent: Option<u32>,
    pub fraction: Option<Fraction>,
}

/// A redirect. Absent parts are those of the request; an absent port is that of the listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RequestRedirectFilter {
    pub scheme: Option<Scheme>,
    pub hostname: Option<String>,
    pub path: Option<HttpPathModifier>,
    pub port: Option<u16>,
    pub status_code: Option<u16>,
}

impl RequestRedirectFilter {
    /// Returns the status code; default: 302.
    pub(crate) fn status_code(&self) -> u16 {
        self.status_code.unwrap_or(302)
    }
}

open_enum! {
    Scheme {
        Http = "http",
        Https = "https",
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UrlRewriteFilter {
    pub hostname: Option<String>,
    pub path: Option<HttpPathModifier>,
}

/// A replacement of the path. `kind` selects one of the two fields.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpPathModifier {
    #[serde(rename = "type")]
    pub kind: PathModifierType,
    pub replace_full_path: Option<String>,
    pub replace_prefix_match: Option<String>,
}

open_enum! {
    PathModifierType {
        ReplaceFullPath = "ReplaceFullPath",
        ReplacePrefixMatch = "ReplacePrefixMatch",
    }
}

/// CORS (GEP-1767).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CorsFilter {
    #[serde(default)]
    pub allow_origins: Vec<String>,
    pub allow_credentials: Option<bool>,
    #[serde(default)]
    pub allow_methods: Vec<String>,
    #[serde(default)]
    pub allow_headers: Vec<String>,
    #[serde(default)]
    pub expose_headers: Vec<String>,
    /// Seconds.
    pub max_age: Option<u32>,
}

impl CorsFilter {
    /// Returns `allow_credentials`; default: false.
    pub(crate) fn allow_credentials(&self) -> bool {
        self.allow_credentials.unwrap_or(false)
    }

    /// Returns the seconds for which a browser may cache the answer; default: 5.
    pub(crate) fn max_age(&self) -> u32 {
        self.max_age.unwrap_or(5)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExternalAuthFilter {
    pub protocol: ExternalAuthProtocol,
    pub backend_ref: BackendObjectReference,
    pub grpc: Option<GrpcAuth>,
    pub http: Option<HttpAuth>,
    pub forward_body: Option<ForwardBody>,
}

open_enum! {
    ExternalAuthProtocol {
        Grpc = "GRPC",
        Http = "HTTP",
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GrpcAuth {
    #[serde(default)]
    pub allowed_headers: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpAuth {
    pub path: Option<String>,
    #[serde(default)]
    pub allowed_headers: Vec<String>,
    #[serde(default)]
    pub allowed_response_headers: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ForwardBody {
    /// In bytes. Default: 0.
    pub max_size: Option<u16>,
}

/// `timeouts` (GEP-1742). `0s` turns a limit off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpRouteTimeouts {
    pub request: Option<Duration>,
    pub backend_request: Option<Duration>,
}

/// `retry` (GEP-1731). `attempts` counts the tries after the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpRouteRetry {
    #[serde(default)]
    pub codes: Vec<u16>,
    pub attempts: Option<u32>,
    pub backoff: Option<Duration>,
}
