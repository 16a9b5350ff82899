//! The gRPC check: `grpc.health.v1.Health/Check` answers SERVING.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::uri::{Authority, Scheme, Uri};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;

use crate::upstream::connect::Stream;
use crate::upstream::health::outcome::Outcome;
use crate::upstream::health::probe::exchange::{Received, over_http2};
use crate::upstream::health::probe::http::AGENT;

/// The value of SERVING in `HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;

/// Length of the prefix of a gRPC message: a flag of compression, and the length in 4 bytes.
const PREFIX: usize = 5;

/// Asks for the health of `service`; the empty name is the whole server.
pub(super) async fn grpc(
    stream: Stream,
    service: &str,
    authority: &str,
    scheme: Scheme,
) -> Outcome {
    let Some(request) = request(service, authority, scheme) else {
        return Outcome::refused("the Host of the check is not valid");
    };
    match over_http2(stream, request).await {
        Ok(received) => judged(&received),
        Err(error) => Outcome::unanswered(format!("no valid response: {error}")),
    }
}

fn request(service: &str, authority: &str, scheme: Scheme) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::new(Full::new(message(service)?));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::builder()
        .scheme(scheme)
        .authority(Authority::try_from(authority).ok()?)
        .path_and_query("/grpc.health.v1.Health/Check")
        .build()
        .ok()?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(USER_AGENT, AGENT);
    Some(request)
}

/// Returns a `HealthCheckRequest`, whose field 1 is the name of the service, as a gRPC message.
fn message(service: &str) -> Option<Bytes> {
    let mut fields = BytesMut::new();
    if !service.is_empty() {
        fields.put_u8(0x0a);
        put_varint(&mut fields, service.len() as u64);
        fields.put_slice(service.as_bytes());
    }
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(u32::try_from(fields.len()).ok()?);
    message.put_slice(&fields);
    Some(message.freeze())
}

fn put_varint(to: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        to.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8((value & 0x7f) as u8);
}

fn judged(received: &Received) -> Outcome {
    if received.status != StatusCode::OK {
        return Outcome::refused(format!("status {}", received.status.as_u16()));
    }
    let code = |from: &HeaderMap| from.get("grpc-status").cloned();
    let code = received.trailers.as_ref().and_then(code).or_else(|| code(&received.headers));
    match code.as_ref().map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        None => return Outcome::unanswered("the response has no grpc-status"),
        Some(code) => {
            // Printed only if it is one: a peer chose it.
            let number = std::str::from_utf8(code).ok().and_then(|code| code.parse::<u8>().ok());
            return Outcome::refused(match number {
                Some(number) => format!("grpc-status {number}"),
                None => "invalid grpc-status".into(),
            });
        }
    }
    match serving_status(&received.body) {
        Some(SERVING) => Outcome::Passed,
        Some(other) => Outcome::refused(format!("serving status {other}")),
        None => Outcome::refused("the response is not a HealthCheckResponse"),
    }
}

/// Returns field 1 of a `HealthCheckResponse`; 0 if it is absent.
fn serving_status(body: &[u8]) -> Option<u64> {
    let (prefix, mut rest) = body.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    if prefix[0] != 0 || usize::try_from(length).ok()? != rest.len() {
        return None;
    }
    let mut status = 0;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut rest)?;
                if tag >> 3 == 1 {
                    status = value;
                }
            }
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.split_at_checked(length)?.1;
            }
            _ => return None,
        }
    }
    Some(status)
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_has_the_status_of_the_service() {
        // (message, status)
        let table: [(&[u8], Option<u64>); 8] = [
            (b"\0\0\0\0\x02\x08\x01", Some(1)),
            (b"\0\0\0\0\x02\x08\x02", Some(2)),
            (b"\0\0\0\0\0", Some(0)),
            // An unknown field precedes it.
            (b"\0\0\0\0\x06\x12\x02ab\x08\x01", Some(1)),
            (b"\x01\0\0\0\x02\x08\x01", None),
            (b"\0\0\0\0\x03\x08\x01", None),
            (b"\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\0\0", None),
        ];
        for (body, want) in table {
            assert_eq!(serving_status(body), want, "{body:?}");
        }
    }

    #[test]
    fn a_request_names_the_service() {
        assert_eq!(&*message("").unwrap(), b"\0\0\0\0\0");
        assert_eq!(&*message("a.B").unwrap(), b"\0\0\0\0\x05\x0a\x03a.B");
        let long = "s".repeat(300);
        assert_eq!(&message(&long).unwrap()[..8], b"\0\0\0\x01\x2f\x0a\xac\x02");
    }
}
