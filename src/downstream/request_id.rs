//! New IDs for requests and byte streams, for the log and for backends.

use http::HeaderValue;
use uuid::Uuid;

/// Returns a random UUID, version 4. It is an identifier, not a secret: nothing may rely on it
/// being unpredictable.
pub(crate) fn new_request_id() -> HeaderValue {
    let random = fastrand::u128(..).to_be_bytes();
    let id = uuid::Builder::from_random_bytes(random).into_uuid();
    let mut buffer = Uuid::encode_buffer();
    let text = id.hyphenated().encode_lower(&mut buffer);
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_a_version_4_uuid() {
        let id = new_request_id();
        let text = id.to_str().unwrap();
        let parts: Vec<_> = text.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{text}");
        assert_eq!(&text[14..15], "4", "{text}");
        assert!("89ab".contains(&text[19..20]), "{text}");
        assert_ne!(id, new_request_id());
    }
}
