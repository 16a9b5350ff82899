//! Header fields that show the rule, the listener and the TLS session of a request, for
//! `edge-gateway dev` only: the backend gets them, so that the echo can show them, and so does the
//! client.
//!
//! In any other mode, fields of these names belong to clients and backends, and pass unchanged.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::proxy::client_connection::ClientConnection;
use crate::proxy::exchange_record::Record;

/// `httproute/NAMESPACE/NAME/rule/N`.
const ROUTE: HeaderName = HeaderName::from_static("x-edge-gateway-route");
/// `NAMESPACE/GATEWAY/SECTION`.
const LISTENER: HeaderName = HeaderName::from_static("x-edge-gateway-listener");
/// `version=TLSv1.3; cipher=TLS_AES_128_GCM_SHA256; sni=shop.example`.
const TLS: HeaderName = HeaderName::from_static("x-edge-gateway-tls");

/// Adds the fields to a request for its backend. Fields of these names from the client are
/// replaced or removed.
pub(super) fn to_backend(record: &Record, headers: &mut HeaderMap) {
    route(record, headers);
    set(headers, TLS, tls(&record.connection));
}

/// Adds the fields to a response for the client. Without a rule, the route field is omitted.
pub(super) fn to_client(record: &Record, headers: &mut HeaderMap) {
    route(record, headers);
}

fn route(record: &Record, headers: &mut HeaderMap) {
    set(headers, ROUTE, record.rule.as_ref().map(|rule| rule.name.to_string()));
    set(headers, LISTENER, record.listener().map(str::to_owned));
}

fn tls(connection: &ClientConnection) -> Option<String> {
    let version = connection.tls?;
    let mut text = format!("version={version}; cipher={}", connection.cipher);
    if let Some(name) = connection.sni.as_deref().filter(|name| !name.is_empty()) {
        text.push_str("; sni=");
        text.push_str(name);
    }
    Some(text)
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: Option<String>) {
    // Names of objects and hosts have no characters that are invalid in a field.
    match text.and_then(|text| HeaderValue::try_from(text).ok()) {
        Some(value) => headers.insert(name, value),
        None => headers.remove(name),
    };
}
