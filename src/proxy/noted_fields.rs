//! The fields of a head that the gateway itself acts on, noted in one walk over the head.
//!
//! Most heads have few of them. A set of notes answers every later question about the others without
//! a look-up, and what is not noted need not be removed.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderName};

/// A field, or a group of fields, that is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    Connection,
    ContentLength,
    Cookie,
    Expect,
    /// `Forwarded` or `X-Real-IP`.
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    Proxy,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    RequestId,
    Te,
    Trailer,
    TransferEncoding,
    /// A name with `_`.
    Underscore,
    Upgrade,
    UserAgent,
    /// `X-Forwarded-*`.
    XForwarded,
}

/// The noted fields of a head.
///
/// A note stays true when its field is removed or changed. A field that is added later is not noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NotedFields {
    seen: u32,
    /// Fields with more than one line.
    repeated: u32,
}

impl NotedFields {
    /// Notes the fields of a head.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, _) in headers {
            if let Some(noted) = noted(name) {
                fields.repeated |= fields.seen & noted.bit();
                fields.seen |= noted.bit();
            }
        }
        fields
    }

    /// Returns true if the head had the field.
    pub(super) fn has(self, noted: Noted) -> bool {
        self.seen & noted.bit() != 0
    }

    /// Returns true if the head had the field in more than one line.
    pub(super) fn repeats(self, noted: Noted) -> bool {
        self.repeated & noted.bit() != 0
    }
}

impl Noted {
    fn bit(self) -> u32 {
        1 << self as u32
    }
}

fn noted(name: &HeaderName) -> Option<Noted> {
    Some(match *name {
        CONNECTION => Noted::Connection,
        CONTENT_LENGTH => Noted::ContentLength,
        COOKIE => Noted::Cookie,
        EXPECT => Noted::Expect,
        FORWARDED => Noted::Forwarded,
        HOST => Noted::Host,
        PROXY_AUTHENTICATE => Noted::ProxyAuthenticate,
        PROXY_AUTHORIZATION => Noted::ProxyAuthorization,
        TE => Noted::Te,
        TRAILER => Noted::Trailer,
        TRANSFER_ENCODING => Noted::TransferEncoding,
        UPGRADE => Noted::Upgrade,
        USER_AGENT => Noted::UserAgent,
        _ => return noted_by_text(name.as_str()),
    })
}

/// Notes names that `http` has no constant for.
fn noted_by_text(name: &str) -> Option<Noted> {
    // First, so that `x-forwarded-a_b` is one of them.
    if name.as_bytes().contains(&b'_') {
        return Some(Noted::Underscore);
    }
    match name {
        "http2-settings" => Some(Noted::Http2Settings),
        "keep-alive" => Some(Noted::KeepAlive),
        "proxy" => Some(Noted::Proxy),
        "proxy-connection" => Some(Noted::ProxyConnection),
        "x-real-ip" => Some(Noted::Forwarded),
        "x-request-id" => Some(Noted::RequestId),
        _ => name.starts_with("x-forwarded-").then_some(Noted::XForwarded),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn fields(names: &[&'static str]) -> NotedFields {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        NotedFields::of(&headers)
    }

    #[test]
    fn each_name_has_its_note() {
        // (name, note)
        let table = [
            ("connection", Some(Noted::Connection)),
            ("content-length", Some(Noted::ContentLength)),
            ("cookie", Some(Noted::Cookie)),
            ("expect", Some(Noted::Expect)),
            ("forwarded", Some(Noted::Forwarded)),
            ("host", Some(Noted::Host)),
            ("http2-settings", Some(Noted::Http2Settings)),
            ("keep-alive", Some(Noted::KeepAlive)),
            ("proxy", Some(Noted::Proxy)),
            ("proxy-authenticate", Some(Noted::ProxyAuthenticate)),
            ("proxy-authorization", Some(Noted::ProxyAuthorization)),
            ("proxy-connection", Some(Noted::ProxyConnection)),
            ("te", Some(Noted::Te)),
            ("trailer", Some(Noted::Trailer)),
            ("transfer-encoding", Some(Noted::TransferEncoding)),
            ("upgrade", Some(Noted::Upgrade)),
            ("user-agent", Some(Noted::UserAgent)),
            ("x-forwarded-", Some(Noted::XForwarded)),
            ("x-forwarded-for", Some(Noted::XForwarded)),
            ("x-forwarded-a_b", Some(Noted::Underscore)),
            ("x_forwarded_for", Some(Noted::Underscore)),
            ("_", Some(Noted::Underscore)),
            ("x-real-ip", Some(Noted::Forwarded)),
            ("x-request-id", Some(Noted::RequestId)),
            ("accept", None),
            ("content-type", None),
            ("x-forwarded", None),
            ("x-request-ids", None),
        ];
        for (name, want) in table {
            assert_eq!(noted(&HeaderName::from_static(name)), want, "{name}");
        }
        for (number, (_, one)) in table.iter().enumerate() {
            for (_, other) in &table[..number] {
                let bits = (one.map(Noted::bit), other.map(Noted::bit));
                assert_eq!(one == other, bits.0 == bits.1, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_second_line_is_noted_wherever_it_is() {
        let fields = fields(&["host", "cookie", "accept", "cookie", "accept"]);
        assert!(fields.has(Noted::Host) && !fields.repeats(Noted::Host));
        assert!(fields.has(Noted::Cookie) && fields.repeats(Noted::Cookie));
        assert!(!fields.has(Noted::Te) && !fields.repeats(Noted::Te));
    }
}
