//! ClientTrafficPolicy: all fields of Envoy Gateway 1.9.

use serde::Deserialize;

use crate::api::duration::Duration;
use crate::api::http_route::Header;
use crate::api::kinds::Kind;
use crate::api::open_enum::open_enum;

use super::backend_settings::{Http2Settings, TcpKeepalive};
use super::backend_traffic_policy::NoSettings;
use super::client_tls::ClientTls;
use super::policy::{
    EnvoyPolicy, EnvoyPolicySpec, MergeType, PolicySelector, PolicyTarget, deprecated_target,
};
use super::quantity::Quantity;
use super::response_override::StringMatch;

/// Settings of listeners: their connections and requests. `config` lists the fields that are not
/// supported yet.
pub(crate) type ClientTrafficPolicy = EnvoyPolicy<ClientTrafficPolicySpec>;

/// The targets of a ClientTrafficPolicy, and the settings that apply to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientTrafficPolicySpec {
    pub target_ref: Option<PolicyTarget>,
    pub target_refs: Option<Vec<PolicyTarget>>,
    #[serde(default)]
    pub target_selectors: Vec<PolicySelector>,
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Deprecated form of `proxyProtocol: {}`.
    pub enable_proxy_protocol: Option<bool>,
    pub proxy_protocol: Option<ClientProxyProtocol>,
    #[serde(rename = "clientIPDetection")]
    pub client_ip_detection: Option<ClientIpDetection>,
    pub tls: Option<ClientTls>,
    pub path: Option<PathSettings>,
    pub headers: Option<HeaderSettings>,
    pub timeout: Option<ClientTimeouts>,
    pub connection: Option<ClientConnection>,
    pub http1: Option<Http1Settings>,
    pub http2: Option<Http2Settings>,
    pub http3: Option<NoSettings>,
    pub grpc: Option<GrpcSettings>,
    pub health_check: Option<ClientHealthCheck>,
    /// Default: Preserve.
    pub scheme: Option<SchemeTransform>,
}

impl EnvoyPolicySpec for ClientTrafficPolicySpec {
    const KIND: Kind = Kind::ClientTrafficPolicy;
    const TARGETS: &'static [Kind] = &[Kind::Gateway, Kind::ListenerSet];
    const MERGED_LISTS: &'static [(&'static str, Option<&'static str>)] = &[];

    fn target_ref(&self) -> Option<&PolicyTarget> {
        self.target_ref.as_ref()
    }

    fn target_refs(&self) -> Option<&[PolicyTarget]> {
        self.target_refs.as_deref()
    }

    fn target_selectors(&self) -> &[PolicySelector] {
        &self.target_selectors
    }

    fn deprecated(&self) -> Vec<(&'static str, &'static str)> {
        let proxy = ("enableProxyProtocol", "proxyProtocol");
        let proxy = self.enable_proxy_protocol.map(|_| proxy);
        let id = ("headers.preserveXRequestID", "headers.requestID");
        let id =
            self.headers.as_ref().and_then(|headers| headers.preserve_x_request_id).map(|_| id);
        deprecated_target(self).into_iter().chain(proxy).chain(id).collect()
    }

    /// A listener takes one policy as a whole.
    fn merge_type(&self) -> Option<&MergeType> {
        None
    }
}

/// `proxyProtocol`: the header of the PROXY protocol before the first byte of each connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct ClientProxyProtocol {
    /// True if connections without the header are accepted as well. Default: false.
    pub optional: Option<bool>,
}

/// `clientIPDetection`: the source of the client's address. One of the three is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientIpDetection {
    pub x_forwarded_for: Option<XForwardedFor>,
    pub custom_header: Option<ClientIpHeader>,
    #[serde(rename = "directSourceIP")]
    pub direct_source_ip: Option<NoSettings>,
}

/// One of `numTrustedHops` and `trustedCIDRs` is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct XForwardedFor {
    pub num_trusted_hops: Option<u32>,
    #[serde(rename = "trustedCIDRs")]
    pub trusted_cidrs: Option<Vec<String>>,
    /// Default: false.
    pub disable_x_forwarded_for_append: Option<bool>,
}

/// A header whose value is the client's address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientIpHeader {
    pub name: String,
    /// True if a request without a valid header gets 403. Default: false.
    pub fail_closed: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PathSettings {
    /// Default: UnescapeAndRedirect.
    pub escaped_slashes_action: Option<EscapedSlashes>,
    /// Default: false.
    pub disable_merge_slashes: Option<bool>,
}

open_enum! {
    EscapedSlashes {
        KeepUnchanged = "KeepUnchanged",
        RejectRequest = "RejectRequest",
        UnescapeAndForward = "UnescapeAndForward",
        UnescapeAndRedirect = "UnescapeAndRedirect",
    }
}

/// `headers`: rules for the header fields of requests and responses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HeaderSettings {
    /// Default: false.
    pub enable_envoy_headers: Option<bool>,
    /// Default: false.
    pub disable_rate_limit_headers: Option<bool>,
    pub x_forwarded_client_cert: Option<XForwardedClientCert>,
    /// Default: RejectRequest.
    pub with_underscores_action: Option<UnderscoresAction>,
    /// Deprecated form of `requestID: PreserveOrGenerate`.
    #[serde(rename = "preserveXRequestID")]
    pub preserve_x_request_id: Option<bool>,
    /// Default: Generate.
    #[serde(rename = "requestID")]
    pub request_id: Option<RequestIdAction>,
    pub early_request_headers: Option<HeaderFilter>,
    pub late_response_headers: Option<HeaderFilter>,
    pub host: Option<HostSettings>,
}

open_enum! {
    UnderscoresAction {
        Allow = "Allow",
        RejectRequest = "RejectRequest",
        DropHeader = "DropHeader",
    }
}

open_enum! {
    RequestIdAction {
        PreserveOrGenerate = "PreserveOrGenerate",
        Preserve = "Preserve",
        Generate = "Generate",
        Disable = "Disable",
    }
}

/// The header that tells backends the client's certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct XForwardedClientCert {
    /// Default: Sanitize.
    pub mode: Option<ForwardedCertMode>,
    #[serde(default)]
    pub cert_details_to_add: Vec<ForwardedCertDetail>,
}

open_enum! {
    ForwardedCertMode {
        Sanitize = "Sanitize",
        ForwardOnly = "ForwardOnly",
        AppendForward = "AppendForward",
        SanitizeSet = "SanitizeSet",
        AlwaysForwardOnly = "AlwaysForwardOnly",
    }
}

open_enum! {
    ForwardedCertDetail {
        Subject = "Subject",
        Cert = "Cert",
        Chain = "Chain",
        Dns = "DNS",
        Uri = "URI",
    }
}

/// Changes of headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HeaderFilter {
    pub set: Option<Vec<Header>>,
    pub add: Option<Vec<Header>>,
    pub add_if_absent: Option<Vec<Header>>,
    pub remove: Option<Vec<String>>,
    /// Matches of names.
    pub remove_on_match: Option<Vec<StringMatch>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostSettings {
    /// Default: false.
    pub strip_trailing_host_dot: Option<bool>,
}

/// `timeout`: time limits towards clients. `0s` turns a limit off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct ClientTimeouts {
    pub tcp: Option<ClientTcpTimeouts>,
    pub http: Option<ClientHttpTimeouts>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientTcpTimeouts {
    pub idle_timeout: Option<Duration>,
    pub tls_handshake_timeout: Option<Duration>,
    pub connection_inspection_timeout: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientHttpTimeouts {
    pub request_received_timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    pub stream_idle_timeout: Option<Duration>,
    pub request_headers_received_timeout: Option<Duration>,
}

/// `connection`: limits and buffers of client connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientConnection {
    pub connection_limit: Option<ConnectionLimit>,
    pub buffer_limit: Option<Quantity>,
    pub socket_buffer_limit: Option<Quantity>,
    /// Default: 1.
    pub max_accept_per_socket_event: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConnectionLimit {
    pub value: Option<i64>,
    /// The time before a connection beyond `value` is closed.
    pub close_delay: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    pub max_requests_per_connection: Option<u32>,
    pub max_stream_duration: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Http1Settings {
    /// Default: false.
    pub enable_trailers: Option<bool>,
    /// Default: false.
    pub preserve_header_case: Option<bool>,
    pub http10: Option<Http10Settings>,
    /// Default: false.
    pub disable_safe_max_connection_duration: Option<bool>,
    #[serde(default)]
    pub ignored_upgrade_types: Vec<StringMatch>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Http10Settings {
    /// Default: false.
    pub use_default_host: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GrpcSettings {
    /// Default: true if a GRPCRoute is attached.
    pub enable_web: Option<bool>,
}

/// A path that the gateway answers with 200 itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ClientHealthCheck {
    pub path: String,
}

open_enum! {
    /// `scheme`: the `:scheme` of requests to HTTP/2 backends.
    SchemeTransform {
        Preserve = "Preserve",
        MatchBackend = "MatchBackend",
    }
}
