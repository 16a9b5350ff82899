//! Heads of requests: the framing of the body, and the encoding of the head.

use std::io::Write;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Uri};
use http_body::Body as _;

use crate::body::Body;
use crate::upstream::failure::FailureKind;

/// The framing of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum RequestFraming {
    /// No body and no field about it.
    Absent,
    Chunked,
    /// `content-length`, and exactly that many bytes.
    Length(u64),
}

impl RequestFraming {
    /// Determines the framing: by `content-length` if present; else by the body's known size; else
    /// chunked.
    ///
    /// A request without a body has a length only if its method defines a meaning for a body (RFC
    /// 9110 section 8.6), or if the client sent one.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` for a length that is duplicated or not a number; `RequestBody` for a
    /// nonzero length without a body.
    pub(in crate::upstream) fn of(
        method: &Method,
        headers: &HeaderMap,
        body: &Body,
    ) -> Result<Self, FailureKind> {
        let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
        if let Some(length) = lengths.next() {
            if lengths.next().is_some() {
                return Err(FailureKind::InvalidRequest("content-length twice"));
            }
            let length = parse_length(length.as_bytes())
                .ok_or(FailureKind::InvalidRequest("content-length is not a number"))?;
            if length > 0 && body.is_end_stream() {
                return Err(FailureKind::RequestBody);
            }
            return Ok(Self::Length(length));
        }
        let known = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
        Ok(match known {
            Some(0) if !matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {
                Self::Absent
            }
            Some(length) => Self::Length(length),
            None => Self::Chunked,
        })
    }
}

/// Parses a `Content-Length` value: digits only, below 2^63 (RFC 9110 section 8.6).
pub(in crate::upstream) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length = str::from_utf8(value).ok()?.parse().ok()?;
    i64::try_from(length).is_ok().then_some(length)
}

/// Writes the head of a request: `host` first, the length according to `framing`.
///
/// No value can inject a line: the types of `http` contain no CR, LF or NUL.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    framing: RequestFraming,
) {
    out.reserve(512);
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    // `host` is mostly the first field, so that the search costs less than a look-up.
    let host = headers.iter().find_map(|(name, value)| (*name == HOST).then_some(value));
    match (host, uri.authority()) {
        (Some(host), _) => out.extend_from_slice(host.as_bytes()),
        (None, Some(authority)) => out.extend_from_slice(authority.as_str().as_bytes()),
        // RFC 9112 section 3.2: an empty field for a target without authority.
        (None, None) => {}
    }
    out.extend_from_slice(b"\r\n");
    let (mut has_te, mut has_connection) = (false, false);
    for (name, value) in headers {
        match *name {
            HOST | CONTENT_LENGTH | TRANSFER_ENCODING => continue,
            TE => has_te = true,
            CONNECTION => has_connection = true,
            _ => {}
        }
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    // RFC 9110 section 10.1.4: `TE` applies to one connection only, so the sender must list it in
    // `Connection`.
    if has_te && !has_connection {
        out.extend_from_slice(b"connection: te\r\n");
    }
    match framing {
        RequestFraming::Absent => {}
        RequestFraming::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        RequestFraming::Length(length) => {
            let written = write!(out, "content-length: {length}\r\n");
            debug_assert!(written.is_ok(), "a Vec takes everything");
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use http_body_util::StreamBody;

    use super::*;
    use crate::upstream::testing::Fields;

    fn stream() -> Body {
        Body::boxed(StreamBody::new(futures_util::stream::pending::<
            Result<http_body::Frame<bytes::Bytes>, std::convert::Infallible>,
        >()))
    }

    #[test]
    fn the_clients_length_counts_then_the_bodys_own_then_chunks() {
        use FailureKind::{InvalidRequest, RequestBody};
        use RequestFraming::{Absent, Chunked, Length};

        // (method, content-length fields, body, framing)
        type Row = (Method, &'static [&'static str], Body, Result<RequestFraming, FailureKind>);
        let table: [Row; 14] = [
            (Method::GET, &[], Body::Empty, Ok(Absent)),
            (Method::DELETE, &[], Body::Empty, Ok(Absent)),
            (Method::GET, &["0"], Body::Empty, Ok(Length(0))),
            (Method::POST, &[], Body::Empty, Ok(Length(0))),
            (Method::PUT, &[], Body::Empty, Ok(Length(0))),
            (Method::PATCH, &[], Body::Empty, Ok(Length(0))),
            (Method::POST, &["007"], stream(), Ok(Length(7))),
            (Method::POST, &[], stream(), Ok(Chunked)),
            (Method::GET, &[], stream(), Ok(Chunked)),
            (Method::POST, &[], Body::from_bytes("abc"), Ok(Length(3))),
            (Method::POST, &["5"], Body::Empty, Err(RequestBody)),
            (Method::POST, &["5", "5"], stream(), Err(InvalidRequest("content-length twice"))),
            (
                Method::POST,
                &["+5"],
                stream(),
                Err(InvalidRequest("content-length is not a number")),
            ),
            (
                Method::POST,
                &["9223372036854775808"],
                stream(),
                Err(InvalidRequest("content-length is not a number")),
            ),
        ];
        for (method, lengths, body, want) in table {
            let mut headers = HeaderMap::new();
            for length in lengths {
                headers.append(CONTENT_LENGTH, HeaderValue::from_static(length));
            }
            let got = RequestFraming::of(&method, &headers, &body);
            assert_eq!(got, want, "{method} {lengths:?} {body:?}");
        }
    }

    #[test]
    fn the_head_has_one_host_one_length_and_no_other_framing() {
        // (target, fields, framing, head)
        let table: [(&str, &Fields, RequestFraming, &str); 7] = [
            (
                "/",
                &[("host", "a"), ("te", "trailers")],
                RequestFraming::Absent,
                "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n",
            ),
            (
                "/",
                &[("host", "a"), ("connection", "upgrade"), ("te", "trailers")],
                RequestFraming::Absent,
                "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nte: trailers\r\n\r\n",
            ),
            (
                "/a?b=c",
                &[("x-a", "1"), ("host", "shop.test"), ("x-a", "2")],
                RequestFraming::Absent,
                "GET /a?b=c HTTP/1.1\r\nhost: shop.test\r\nx-a: 1\r\nx-a: 2\r\n\r\n",
            ),
            (
                "https://shop.test:8443/a",
                &[],
                RequestFraming::Absent,
                "GET /a HTTP/1.1\r\nhost: shop.test:8443\r\n\r\n",
            ),
            ("*", &[], RequestFraming::Absent, "GET * HTTP/1.1\r\nhost: \r\n\r\n"),
            (
                "/",
                &[("host", "a"), ("content-length", "007"), ("transfer-encoding", "chunked")],
                RequestFraming::Length(7),
                "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 7\r\n\r\n",
            ),
            (
                "/",
                &[("host", "a"), ("transfer-encoding", "gzip")],
                RequestFraming::Chunked,
                "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
            ),
        ];
        for (target, fields, framing, want) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers
                    .append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
            }
            let mut head = Vec::new();
            write_head(&mut head, &Method::GET, &target.parse().unwrap(), &headers, framing);
            assert_eq!(String::from_utf8(head).unwrap(), want, "{target}");
        }
    }
}
