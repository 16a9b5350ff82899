//! Compression of responses.

mod encoded_body;
mod encoder;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display, Formatter};
use std::mem;
use std::sync::Arc;

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderName, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode, request};
use http_body::Body as _;

use crate::body::{Body, HeldMemory, Response};
use crate::filters::coding::{Coding, preferred};
use crate::filters::{Exchange, HttpFilter, Phase, Verdict};
use crate::stats::{Compression, Sharded};

use encoded_body::EncodedBody;

/// Envoy's list of types. A response without a type is compressed, too.
const TYPES: [&str; 18] = [
    "application/ecmascript",
    "application/javascript",
    "application/json",
    "application/x-javascript",
    "application/x-json",
    "application/xhtml+xml",
    "application/xml",
    "image/svg+xml",
    "text/css",
    "text/ecmascript",
    "text/html",
    "text/javascript",
    "text/js",
    "text/jscript",
    "text/plain",
    "text/x-javascript",
    "text/x-js",
    "text/xml",
];

/// Digests of what a backend has sent.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

/// Compresses responses. Envoy Gateway's `compressor` of a BackendTrafficPolicy.
///
/// The backend is not asked for a compressed response: `Accept-Encoding` is removed from the request.
#[derive(Clone, Debug)]
pub(crate) struct Compressor {
    /// Each coding with the least length of a response that is compressed with it. Of those that a
    /// client prefers equally, the first.
    pub codings: Box<[(Coding, u64)]>,
    /// The policy that says so: `namespace/name`.
    pub policy: Box<str>,
    pub memory: Arc<HeldMemory>,
    pub counts: Arc<Sharded<Compression>>,
}

impl PartialEq for Compressor {
    fn eq(&self, other: &Self) -> bool {
        (&self.codings, &self.policy) == (&other.codings, &other.policy)
    }
}

impl Display for Compressor {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("compress responses with ")?;
        for (number, (coding, least)) in self.codings.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{} from {least} bytes on", coding.as_str())?;
        }
        write!(f, " (BackendTrafficPolicy {})", self.policy)
    }
}

impl HttpFilter for Compressor {
    fn phase(&self) -> Phase {
        Phase::Compress
    }

    fn sees_bodies(&self) -> bool {
        true
    }

    /// Notes the coding that the client prefers. gRPC has a compression of its own.
    fn apply(&self, exchange: &mut Exchange, head: &mut request::Parts) -> Verdict {
        if !is_of_type(&head.headers, |kind| kind.starts_with("application/grpc")) {
            let offered = self.codings.iter().map(|(coding, _)| *coding);
            exchange.coding = preferred(&head.headers, offered);
            head.headers.remove(ACCEPT_ENCODING);
        }
        Verdict::Continue(())
    }

    fn on_response(&self, exchange: &Exchange, response: &mut Response) {
        let chosen = self.codings.iter().find(|(coding, _)| Some(*coding) == exchange.coding);
        let least = chosen.or_else(|| self.codings.first()).map_or(0, |(_, least)| *least);
        if !is_compressible(response, least) {
            return;
        }
        vary(response.headers_mut());
        let Some(&(coding, _)) = chosen else { return };
        if response.body().is_end_stream() || exchange.is_memory_short {
            return;
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
        headers.remove(CONTENT_LENGTH);
        // A range of what the client has got cannot be had.
        headers.remove(ACCEPT_RANGES);
        for digest in DIGESTS {
            headers.remove(digest);
        }
        // RFC 9110 section 8.8.1: it would be that of other bytes.
        if headers.get(ETAG).is_some_and(|tag| !tag.as_bytes().starts_with(b"W/")) {
            headers.remove(ETAG);
        }
        self.counts.here().of(coding as usize).responses.one_more();
        let body = mem::take(response.body_mut());
        let (memory, counts) = (Arc::clone(&self.memory), Arc::clone(&self.counts));
        *response.body_mut() = Body::boxed(EncodedBody::new(body, coding, memory, counts));
    }
}

/// Returns true if a response of these fields may be compressed for a client that accepts it.
fn is_compressible(response: &Response, least: u64) -> bool {
    let headers = response.headers();
    let status = response.status();
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let length = length.or_else(|| response.body().size_hint().exact());
    !status.is_informational()
        && status != StatusCode::PARTIAL_CONTENT
        && !headers.contains_key(CONTENT_RANGE)
        && !headers.contains_key(CONTENT_ENCODING)
        && !must_not_transform(headers)
        && (!headers.contains_key(CONTENT_TYPE)
            || is_of_type(headers, |kind| TYPES.iter().any(|of| of.eq_ignore_ascii_case(kind))))
        // The length of a response without content is that of another one.
        && (response.body().is_end_stream() || length.is_none_or(|length| length >= least))
}

fn is_of_type(headers: &HeaderMap, is_it: impl FnOnce(&str) -> bool) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| is_it(kind.split(';').next().unwrap_or(kind).trim()))
}

/// RFC 9111 section 5.2.2.6.
fn must_not_transform(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CACHE_CONTROL);
    has_item(lines.iter(), |item| item.eq_ignore_ascii_case("no-transform"))
}

/// Says that the response depends on `Accept-Encoding`, compressed or not (RFC 9110 section 12.5.5).
fn vary(headers: &mut HeaderMap) {
    let is_said = |item: &str| item == "*" || item.eq_ignore_ascii_case("accept-encoding");
    if !has_item(headers.get_all(VARY).iter(), is_said) {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

fn has_item<'h>(
    mut lines: impl Iterator<Item = &'h HeaderValue>,
    is_it: impl Fn(&str) -> bool,
) -> bool {
    lines.any(|line| line.to_str().is_ok_and(|line| line.split(',').any(|item| is_it(item.trim()))))
}
