//! Building blocks of the responses of the echo.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

use crate::body::{Body, Response};

/// Timeout without a byte from the peer, in a body or a tunnel.
pub(super) const IDLE: Duration = Duration::from_secs(300);
/// A response without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    response
}

pub(super) fn json_response(value: &Value) -> Response {
    let text = format!("{value:#}\n");
    let size = text.len() as u64;
    content("application/json", size, Body::from_bytes(text))
}

pub(super) fn content(kind: &'static str, size: u64, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, size.into());
    // The response contains data from the client; a browser must not interpret it as a page.
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}
