//! gRPC calls: the only place that decides which exchanges are calls, and answers to them.
//!
//! A content type is only a claim of the client, so by itself it changes neither a limit nor the
//! form of a response. A gRPC call also has the method and protocol of a call, and a route or a
//! backend that serves gRPC.

use std::fmt::Write;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};

use crate::body::{Body, Response};
use crate::failure::{Failure, grpc_status};
use crate::proxy::client_protocol::ClientProtocol;
use crate::snapshot::Rule;
use crate::snapshot::matcher::is_grpc;
use crate::upstream::{Cluster, Protocol};

/// The evidence, so far, that an exchange is a gRPC call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GrpcCall {
    /// The request has the form of a call.
    asked: bool,
    /// The route or the backend serves gRPC.
    served: bool,
}

impl GrpcCall {
    /// Checks the form of the request (gRPC over HTTP/2, "Requests"): POST, over HTTP/2 or later,
    /// with the content type.
    pub(super) fn of<B>(request: &http::Request<B>) -> Self {
        let asked = request.method() == Method::POST
            && ClientProtocol::of(request.version()).carries_grpc()
            && is_grpc(request.headers());
        Self { asked, served: false }
    }

    /// Records that the request matched `rule`.
    pub(super) fn matched(&mut self, rule: &Rule) {
        self.served |= rule.grpc;
    }

    /// Records that the request goes to `cluster`. gRPC requires HTTP/2, so a backend that is known
    /// to speak HTTP/2 may serve it behind an HTTPRoute too.
    pub(super) fn goes_to(&mut self, cluster: &Cluster) {
        self.served |= cluster.settings().protocol != Protocol::Http1;
    }

    /// Returns true if the exchange is a gRPC call.
    pub(super) fn is_grpc(self) -> bool {
        self.asked && self.served
    }
}

/// Builds a gRPC response for a failure.
pub(super) fn failed(failure: Failure) -> Response {
    let message = HeaderValue::from_static(failure.text().trim_ascii_end());
    head(failure.grpc_status(), message)
}

/// Builds a gRPC response for a status of HTTP, with a message.
pub(super) fn answer(status: StatusCode, text: &[u8]) -> Response {
    head(grpc_status(status), message(text))
}

/// Builds a gRPC response without a message. A client reads `grpc-status`, which a response without
/// a body carries in its head (gRPC over HTTP/2, "Responses").
fn head(status: &'static str, message: HeaderValue) -> Response {
    let mut response = Response::new(Body::Empty);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static(status));
    headers.insert("grpc-message", message);
    response
}

/// Encodes a message for `grpc-message` (gRPC over HTTP/2, "Responses").
fn message(text: &[u8]) -> HeaderValue {
    /// Other proxies refuse longer fields.
    const MOST: usize = 1 << 10;
    let mut encoded = String::new();
    for byte in &text[..text.len().min(MOST)] {
        match byte {
            b' '..=b'~' if *byte != b'%' => encoded.push(char::from(*byte)),
            byte => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    HeaderValue::try_from(encoded).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;

    #[test]
    fn a_call_has_method_protocol_content_type_and_somebody_who_serves_it() {
        let (post, get) = (Method::POST, Method::GET);
        let (h1, h2, h3) = (Version::HTTP_11, Version::HTTP_2, Version::HTTP_3);
        // (method, version, content type, served, gRPC)
        let table = [
            (&post, h2, "application/grpc", true, true),
            (&post, h3, "application/grpc+proto", true, true),
            (&post, h2, "application/grpc", false, false),
            (&post, h1, "application/grpc", true, false),
            (&get, h2, "application/grpc", true, false),
            (&post, h2, "application/json", true, false),
            (&post, h2, "application/grpc-web", true, false),
        ];
        for (method, version, kind, served, want) in table {
            let request = http::Request::builder()
                .method(method)
                .version(version)
                .header("content-type", kind)
                .body(())
                .unwrap();
            let call = GrpcCall { served, ..GrpcCall::of(&request) };
            assert_eq!(call.is_grpc(), want, "{method} {version:?} {kind} served: {served}");
        }
    }
}
