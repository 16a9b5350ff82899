//! Fields that show the rule, the listener and the TLS of a request, for `edge-gateway dev` alone:
//! the backend gets them, so that the echo can show them, and so does the client.
//!
//! In any other gateway fields of these names belong to clients and backends, and pass.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::proxy::client_connection::ClientConnection;
use crate::proxy::exchange_record::Record;

/// `httproute/NAMESPACE/NAME/rule/N`.
const ROUTE: HeaderName = HeaderName::from_static("x-edge-gateway-route");
/// `NAMESPACE/GATEWAY/SECTION`.
const LISTENER: HeaderName = HeaderName::from_static("x-edge-gateway-listener");
/// `version=TLSv1.3; cipher=TLS_AES_128_GCM_SHA256; sni=shop.example`.
const TLS: HeaderName = HeaderName::from_static("x-edge-gateway-tls");

/// Writes into a request what its backend is told. What the client said under these names is gone.
pub(super) fn to_backend(record: &Record, headers: &mut HeaderMap) {
    route(record, headers);
    set(headers, TLS, tls(&record.connection));
}

/// Writes into a response what the client is told. Without a rule there is nothing to tell.
pub(super) fn to_client(record: &Record, headers: &mut HeaderMap) {
    route(record, headers);
}

fn route(record: &Record, headers: &mut HeaderMap) {
    set(headers, ROUTE, record.rule.as_ref().map(|rule| rule.name.to_string()));
    set(headers, LISTENER, record.listener.as_ref().map(ToString::to_string));
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
    // Names of objects and hosts have no character that a field could not.
    match text.and_then(|text| HeaderValue::try_from(text).ok()) {
        Some(value) => headers.insert(name, value),
        None => headers.remove(name),
    };
}
