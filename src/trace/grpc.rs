//! Status of gRPC calls.

use http::{HeaderMap, HeaderValue};
use opentelemetry::KeyValue;

use crate::trace::text::text;

/// Returns `grpc-status` of a head or of trailers.
pub(crate) fn grpc_code(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// `grpc-status` and `grpc-message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GrpcStatus {
    pub code: u8,
    pub message: String,
}

impl GrpcStatus {
    /// Parses the status in a head or in trailers; cuts the message to `most` bytes.
    pub(super) fn of(headers: &HeaderMap, most: usize) -> Option<Self> {
        let code = grpc_code(headers)?;
        let message = headers.get("grpc-message").map_or(&b""[..], HeaderValue::as_bytes);
        Some(Self { code, message: text(message, most) })
    }

    /// Returns true for a server error by Envoy's definition: UNKNOWN, DEADLINE_EXCEEDED,
    /// RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
    pub(super) fn is_fault(&self) -> bool {
        matches!(self.code, 2 | 4 | 8 | 12..=15)
    }

    pub(super) fn tell(&self, attributes: &mut Vec<KeyValue>) {
        attributes.push(KeyValue::new("grpc.status_code", self.code.to_string()));
        if !self.message.is_empty() {
            attributes.push(KeyValue::new("grpc.message", self.message.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 200;

    #[test]
    fn a_status_is_a_number_and_its_words_are_cut() {
        let headers = |code: &str, message: &str| {
            HeaderMap::from_iter([
                ("grpc-status".parse().unwrap(), HeaderValue::from_str(code).unwrap()),
                ("grpc-message".parse().unwrap(), HeaderValue::from_str(message).unwrap()),
            ])
        };
        let status = |headers: &HeaderMap| {
            GrpcStatus::of(headers, MOST).map(|status| (status.code, status.message))
        };
        assert_eq!(status(&headers("14", "later")), Some((14, "later".into())));
        assert_eq!(status(&headers("0", &"a".repeat(9000))), Some((0, "a".repeat(MOST))));
        assert_eq!(status(&headers("256", "")), None);
        assert_eq!(status(&headers("-1", "")), None);
        assert_eq!(status(&HeaderMap::new()), None);
    }
}
