//! Settings of a listener from its ClientTrafficPolicy, other than limits.

use std::sync::Arc;

use http::HeaderName;

use crate::filters::FieldChanges;
use crate::net::Cidr;
use crate::snapshot::ConnectionBound;
use crate::upstream::KeepAlive;

/// The settings of the ClientTrafficPolicy that applies to a listener. Its limits and timeouts are in
/// the listener's [`ClientLimits`](super::ClientLimits).
///
/// HTTP listeners of one port share their policy, so that the settings hold for the whole
/// [`Bind`](super::Bind) of a port without TLS. Over TLS each listener has its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientPolicy {
    /// `namespace/name` of the policy.
    pub name: Arc<str>,
    /// The PROXY header before the first byte of each connection; of the listeners of one port, each
    /// connection has that of [`Bind::proxy_header`](super::Bind::proxy_header).
    pub proxy_header: Option<ProxyHeader>,
    pub connections: Option<ConnectionBound>,
    /// Keep-alive probes; of the listeners of one port, those of the first apply.
    pub keep_alive: Option<KeepAlive>,
    /// The source of the client's address; `None` if `--trusted-proxies` decides.
    pub detection: Option<ClientDetection>,
    pub request_ids: RequestIds,
    pub underscores: Underscores,
    /// Changes of requests, before they are routed.
    pub early: Option<Box<FieldChanges>>,
    /// Changes of all responses.
    pub late: Option<Box<FieldChanges>>,
    /// True if the dot behind a host is not forwarded.
    pub strips_host_dot: bool,
    /// True if responses do not show limits of requests.
    pub hides_limits: bool,
    /// True if requests and responses get the `x-envoy-*` fields of Envoy.
    pub shows_envoy_headers: bool,
    pub escaped_slashes: EscapedSlashes,
    /// True if `//` in a path is kept.
    pub keeps_slashes: bool,
    /// The target, query included, that the gateway answers with 200 itself, or with 503 while it
    /// drains.
    pub health_check: Option<Box<str>>,
    /// True if gRPC-Web is translated for every rule, false if for none; `None` if for those of
    /// GRPCRoutes.
    pub grpc_web: Option<bool>,
}

/// The request IDs of a listener: `headers.requestID`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RequestIds {
    /// The field stays as the client sent it, or absent.
    AsReceived,
    Generated,
    /// That of the client, or a generated one.
    Kept,
    /// That of a trusted proxy, or a generated one.
    #[default]
    Trusted,
}

/// The treatment of `%2F` and `%5C` in a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EscapedSlashes {
    /// They stay, where no backend could read another path.
    #[default]
    Kept,
    /// Each is read as `/`, and the client is sent to that path by 307.
    Redirected,
    /// The request gets 400.
    Refused,
    /// Each is read as `/`.
    Unescaped,
}

/// The treatment of fields with `_` in their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Underscores {
    /// All are kept that some backends do not read as a field of the gateway.
    Allowed,
    #[default]
    Dropped,
    /// The request gets 400.
    Refused,
}

/// `clientIPDetection`: the source of the client's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientDetection {
    pub source: AddressSource,
    /// True if the peer is appended to the `X-Forwarded-For` of a proxy.
    pub appends: bool,
}

/// The source of a client's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AddressSource {
    /// A field with one address. A request without it gets 403 if it is `required`, else it comes
    /// from the peer.
    Field { name: HeaderName, required: bool },
    /// The entry of `X-Forwarded-For` with this number, counted from the right, from 1. Every peer
    /// is believed.
    Hops(usize),
    /// The peer of the connection.
    Peer,
    /// `X-Forwarded-For` of peers in these ranges: from the right, the first entry outside of them.
    Ranges(Box<[Cidr]>),
}

/// Whether connections begin with a PROXY header. Its sender is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProxyHeader {
    Optional,
    Required,
}
