//! The JSON image of a request, for a person with curl and for a test with a parser.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use super::responses::{IDLE, content, empty, json_response};
use super::sized::Sized;
use super::wanted::{InvalidWish, Wanted};
use crate::body::{Body, Response};

/// Limit on a text body that is mirrored, in bytes; of a larger one only the size is.
const MAX_MIRRORED: usize = 64 << 10;
/// Limit on a body, in bytes.
const MAX_READ: u64 = 1 << 30;

/// Headers that `edge-gateway dev` adds; a service behind any other gateway does not receive them.
const OF_GATEWAY: [&str; 3] =
    ["x-edge-gateway-route", "x-edge-gateway-listener", "x-edge-gateway-tls"];

/// Reads the whole request, waits for the delay, and responds.
pub(super) async fn answer(
    request: http::Request<Incoming>,
    peer: SocketAddr,
    wanted: &Wanted,
) -> Response {
    let (head, body) = request.into_parts();
    let received = match read(body).await {
        Ok(received) => received,
        Err(status) => return empty(status),
    };
    // `?delay=` waits as requested; its limit is enforced where it is parsed.
    tokio::time::sleep(wanted.delay).await;

    let mut response = match wanted.size {
        Some(size) => content("application/octet-stream", size, Body::boxed(Sized::new(size))),
        None => json_response(&mirror(&head, peer, &received)),
    };
    *response.status_mut() = wanted.status;
    if matches!(wanted.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        response = empty(wanted.status);
    } else if head.method == Method::HEAD {
        *response.body_mut() = Body::Empty;
    }
    response
}

/// Returns the response to an invalid query: the reason.
pub(super) fn refusal(wrong: &InvalidWish) -> Response {
    let mut response = json_response(&json!({ "error": wrong.to_string() }));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

/// The part of a request after the head.
#[derive(Debug, Default)]
struct Received {
    bytes: u64,
    /// The body, if it is at most [`MAX_MIRRORED`].
    kept: Option<Vec<u8>>,
    trailers: Option<HeaderMap>,
}

/// Reads a body to its end.
///
/// # Errors
///
/// The status for an incomplete body: 413 for too many bytes, 408 for none within [`IDLE`], 400 for
/// one that breaks off.
async fn read(mut body: Incoming) -> Result<Received, StatusCode> {
    let mut received = Received { kept: Some(Vec::new()), ..Received::default() };
    loop {
        let next = tokio::time::timeout(IDLE, body.frame()).await;
        let frame = match next.map_err(|_| StatusCode::REQUEST_TIMEOUT)? {
            Some(frame) => frame.map_err(|_| StatusCode::BAD_REQUEST)?,
            None => return Ok(received),
        };
        match frame.into_data() {
            Ok(data) => received.take(&data)?,
            Err(frame) => received.trailers = frame.into_trailers().ok(),
        }
    }
}

impl Received {
    fn take(&mut self, data: &Bytes) -> Result<(), StatusCode> {
        self.bytes += data.len() as u64;
        if self.bytes > MAX_READ {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        match &mut self.kept {
            Some(kept) if kept.len() + data.len() <= MAX_MIRRORED => kept.extend_from_slice(data),
            _ => self.kept = None,
        }
        Ok(())
    }
}

/// Returns the image of a request. Its fields are in the order in which a person looks for them.
fn mirror(head: &Parts, peer: SocketAddr, received: &Received) -> Value {
    let host = head.headers.get(HOST).map(text);
    let told = told(&head.headers);
    let without = if told.is_some() { &OF_GATEWAY[..] } else { &[] };
    let mut image = json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        // HTTP/2 names the host in `:authority`, HTTP/1.1 in a header.
        "host": head.uri.authority().map(ToString::to_string).or(host),
        "proto": format!("{:?}", head.version),
        "client": peer.to_string(),
        "headers": fields(&head.headers, without),
        "body_bytes": received.bytes,
    });
    if let Some(told) = told {
        image["gateway"] = told;
    }
    let text = received.kept.clone().and_then(|kept| String::from_utf8(kept).ok());
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        image["body"] = text.into();
    }
    if let Some(trailers) = &received.trailers {
        image["trailers"] = fields(trailers, &[]);
    }
    image
}

/// Returns the facts that `edge-gateway dev` adds about the request: the rule that matched it, the
/// listener, and the facts of its TLS, by name.
fn told(headers: &HeaderMap) -> Option<Value> {
    let [route, listener, tls] = OF_GATEWAY.map(|name| headers.get(name).map(text));
    let facts = tls.as_deref().into_iter().flat_map(|facts| facts.split("; "));
    let facts = facts.filter_map(|fact| fact.split_once('='));
    let facts: Map<_, _> =
        facts.map(|(name, value)| (name.to_owned(), value.to_owned().into())).collect();
    let tls = tls.map(|_| Value::Object(facts));
    route.map(|route| json!({ "route": route, "listener": listener, "tls": tls }))
}

/// Returns the headers as names with their values, in the order received, except those in
/// `without`. The names are in lower case, because hyper stores no other form.
fn fields(headers: &HeaderMap, without: &[&str]) -> Value {
    let values = |name| headers.get_all(name).iter().map(|value| text(value).into()).collect();
    let shown = headers.keys().filter(|name| !without.contains(&name.as_str()));
    let pairs = shown.map(|name| (name.as_str().to_owned(), Value::Array(values(name))));
    Value::Object(pairs.collect::<Map<_, _>>())
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
