//! Hop-by-hop fields, and the protocol upgrade that they request.

use http::header::{
    CONNECTION, CONTENT_LENGTH, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, request};

use crate::proxy::client_protocol::ClientProtocol;
use crate::proxy::noted_fields::{Noted, NotedFields};
use crate::snapshot::{ClientLimits, Underscores};

/// A protocol upgrade that the client requests and the gateway allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upgrade {
    /// HTTP/1.1 `Upgrade` (RFC 9110 section 7.8).
    Http1,
    /// Extended CONNECT (RFC 8441), always to WebSocket.
    Http2,
}

/// The fields that concern one connection only (RFC 9110 section 7.6.1), and `Proxy` (httpoxy).
static HOP_BY_HOP: [(Noted, HeaderName); 11] = [
    (Noted::Connection, CONNECTION),
    (Noted::Http2Settings, HeaderName::from_static("http2-settings")),
    (Noted::KeepAlive, HeaderName::from_static("keep-alive")),
    (Noted::Proxy, HeaderName::from_static("proxy")),
    (Noted::ProxyAuthenticate, PROXY_AUTHENTICATE),
    (Noted::ProxyAuthorization, PROXY_AUTHORIZATION),
    (Noted::ProxyConnection, HeaderName::from_static("proxy-connection")),
    (Noted::Te, TE),
    (Noted::Trailer, TRAILER),
    (Noted::TransferEncoding, TRANSFER_ENCODING),
    (Noted::Upgrade, UPGRADE),
];

/// Removes hop-by-hop fields (RFC 9110 section 7.6.1), names with `_`, which a CGI backend would
/// read as other names, and `Proxy` (httpoxy). Returns the allowed upgrade, if any, and restores
/// its two fields.
pub(super) fn settle_connection(
    head: &mut request::Parts,
    fields: NotedFields,
    limits: &ClientLimits,
    underscores: Underscores,
) -> Option<Upgrade> {
    let upgrade =
        if fields.has(Noted::Upgrade) { wanted_upgrade(head, fields, limits) } else { None };
    let trailers = fields.has(Noted::Te)
        && tokens(&head.headers, &TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
    remove_hop_by_hop(&mut head.headers, fields);
    if fields.has(Noted::Underscore) {
        let is_odd = |name: &&HeaderName| {
            name.as_str().contains('_')
                && (underscores != Underscores::Allowed || is_disguised(name.as_str()))
        };
        let odd: Vec<HeaderName> = head.headers.keys().filter(is_odd).cloned().collect();
        for name in odd {
            head.headers.remove(name);
        }
    }
    let Some(token) = upgrade else {
        if trailers {
            head.headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        return None;
    };
    // The length is 0, and some servers take any length for a body.
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(UPGRADE, token);
    Some(Upgrade::Http1)
}

/// Returns true if a CGI backend reads a name with `_` as a field that the gateway itself sets, or
/// that frames the message.
fn is_disguised(name: &str) -> bool {
    let read = name.replace('_', "-");
    read.starts_with("x-envoy-")
        || is_essential_name(&read)
        || HOP_BY_HOP.iter().any(|(_, hop)| *hop == *read)
}

/// Returns the first protocol of the client's `Upgrade` (RFC 9110 section 7.8) that is allowed.
fn wanted_upgrade(
    head: &request::Parts,
    fields: NotedFields,
    limits: &ClientLimits,
) -> Option<HeaderValue> {
    let is_allowed = |token: &&[u8]| {
        limits.upgrades.iter().any(|allowed| token.eq_ignore_ascii_case(allowed.as_bytes()))
    };
    let token = tokens(&head.headers, &UPGRADE).find(is_allowed)?;
    let asked =
        tokens(&head.headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    // A body before the change of protocol could be read as either protocol. A length of 0 means no
    // body.
    let bare = head.headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0")
        && !fields.has(Noted::TransferEncoding);
    let fits = ClientProtocol::of(head.version).has_upgrade() && head.method == Method::GET && bare;
    (asked && fits).then(|| HeaderValue::from_bytes(token).ok())?
}

/// Removes hop-by-hop fields from requests and responses.
///
/// Fields that `Connection` names are removed too, except those that carry the message's meaning:
/// otherwise a client could remove fields that the gateway or the backend relies on.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap, fields: NotedFields) {
    if fields.has(Noted::Connection) {
        let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
            .filter(|token| !is_option(token))
            .filter_map(|token| HeaderName::from_bytes(token).ok())
            .filter(|name| !is_essential(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for (noted, name) in &HOP_BY_HOP {
        if fields.has(*noted) {
            headers.remove(name);
        }
    }
}

/// Returns true for the usual members of `Connection`, whose fields are removed anyway.
fn is_option(token: &[u8]) -> bool {
    token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"upgrade")
}

fn is_essential(name: &HeaderName) -> bool {
    is_essential_name(name.as_str())
}

fn is_essential_name(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || matches!(
            name,
            "authorization"
                | "content-length"
                | "content-type"
                | "cookie"
                | "forwarded"
                | "host"
                | "set-cookie"
                | "transfer-encoding"
                | "x-real-ip"
                | "x-request-id"
        )
}

/// Returns the members of a list (RFC 9110 section 5.6.1), over all lines of the field.
pub(super) fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).iter();
    lines
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}
