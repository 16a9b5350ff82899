//! One request on its way: the facts that filters may ask for.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use http::uri::PathAndQuery;

use crate::filters::coding::Coding;

/// One request and its response (RFC 9110): what filters may ask about it. The request's id is in its
/// head, as `X-Request-Id`, unless the first filter of the rule answers it.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    /// The client's address: the peer of the connection, or what a trusted proxy says. An IPv4
    /// address is never written as an IPv6 one.
    pub client: IpAddr,
    /// When the request's head was complete. Filters take this for the present.
    pub started: Instant,
    /// How the client reached us, or the trusted proxy before us.
    pub scheme: Scheme,
    /// The host that the client asked for.
    pub host: HostName,
    /// The port that the client used: what its `Host` or a trusted proxy says, else that of the
    /// socket which took the connection.
    pub port: u16,
    /// How many bytes of the path the matched `PathPrefix` covers, its trailing slash not counted;
    /// 0 for `/` and for every other kind of match.
    pub matched_prefix: usize,
    /// The `Origin` that a CORS filter allowed, for the response.
    pub allowed_origin: Option<HeaderValue>,
    /// The details for the log if a filter refuses the request and knows more than its denial says,
    /// for example the name of a rule.
    pub details: Option<Arc<str>>,
    /// The limit of requests that the response shows.
    pub limit: Option<LimitShown>,
    /// True if responses on this listener show no limit.
    pub hides_limits: bool,
    /// The seconds after which a request that a limit has refused can succeed, if known.
    pub retry_after: Option<u32>,
    /// The request was delayed on purpose.
    pub is_delayed: bool,
    /// The content coding that the client prefers, of those that the rule has.
    pub coding: Option<Coding>,
    /// True if memory is short, so that filters do without what they can. Set only for rules with
    /// filters that see bodies.
    pub is_memory_short: bool,
    /// Filters that the request has passed: of its rule, then of its backend.
    pub passed: usize,
}

/// A limit of requests, as the response shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitShown {
    /// The requests that a full bucket admits.
    pub limit: u32,
    /// The requests that are left.
    pub remaining: u32,
    /// The seconds until there is one more, 0 if there is one.
    pub reset: u32,
}

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that the scheme implies, which is never written in a URL.
    pub(crate) fn well_known_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The host of a request: lower case, without port and trailing dot; the port; and the header that
/// they stood in.
///
/// The only way in is [`HostName::parse`]. It shares the header's bytes, so it costs no allocation
/// where the client wrote lower case.
#[derive(Clone, Debug)]
pub(crate) struct HostName {
    /// Lower case from the first byte to `length`.
    value: HeaderValue,
    length: usize,
    port: Option<u16>,
}

impl HostName {
    /// Reads a `Host` field or `:authority` (RFC 9110 section 7.2, RFC 3986 section 3.2.2).
    ///
    /// `None` for what is no `host [":" port]`: user information, a path, white space, a list, an
    /// empty name, a port that is no number.
    pub(crate) fn parse(field: &HeaderValue) -> Option<Self> {
        let bytes = field.as_bytes();
        let end = if bytes.first() == Some(&b'[') {
            let close = bytes.iter().position(|byte| *byte == b']')?;
            let inside = std::str::from_utf8(&bytes[1..close]).ok()?;
            inside.parse::<std::net::Ipv6Addr>().ok()?;
            close + 1
        } else {
            let end = bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len());
            let name = &bytes[..end];
            // RFC 3986 reg-name without percent-encoding: no name on the net is written with it.
            let allowed =
                |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(byte);
            if name.is_empty() || !name.iter().all(allowed) {
                return None;
            }
            end
        };
        let port = match &bytes[end..] {
            // RFC 3986 section 3.2.3: it may be empty.
            [] | [b':'] => None,
            [b':', b'+', ..] => return None,
            [b':', port @ ..] => Some(std::str::from_utf8(port).ok()?.parse().ok()?),
            _ => return None,
        };
        let length = if bytes[..end].ends_with(b".") { end - 1 } else { end };
        if length == 0 {
            return None;
        }
        let value = if bytes[..length].iter().any(u8::is_ascii_uppercase) {
            HeaderValue::from_bytes(&bytes.to_ascii_lowercase()).ok()?
        } else {
            field.clone()
        };
        Some(Self { value, length, port })
    }

    /// The port that stands behind the name, if one does.
    pub(crate) fn port(&self) -> Option<u16> {
        self.port.filter(|port| *port != 0)
    }

    /// The name, lower case, without port.
    pub(crate) fn as_str(&self) -> &str {
        // `parse` let ASCII only through, so both steps always succeed.
        self.value.to_str().map_or("", |text| &text[..self.length])
    }
}

/// The path of a request target, `/` where there is none.
pub(crate) fn path_of(uri: &http::Uri) -> &str {
    uri.path_and_query().map_or("/", PathAndQuery::path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_and_at_most_a_port() {
        // (field, host)
        let table = [
            ("example.com", Some("example.com")),
            ("Example.COM:8443", Some("example.com")),
            ("example.com.", Some("example.com")),
            ("example.com.:80", Some("example.com")),
            ("127.0.0.1:80", Some("127.0.0.1")),
            ("[::1]", Some("[::1]")),
            ("[::1]:8080", Some("[::1]")),
            ("", None),
            (".", None),
            (":80", None),
            ("a b", None),
            ("a,b", None),
            ("user@example.com", None),
            ("example.com/path", None),
            ("example.com:", Some("example.com")),
            ("example.com:99999", None),
            ("example.com:+80", None),
            ("example.com:x", None),
            ("example.com:80:80", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[zz]", None),
            ("example.com?x", None),
            ("example.com#x", None),
            ("a\\b", None),
            ("%65xample.com", None),
        ];
        for (field, want) in table {
            let field = HeaderValue::from_str(field).unwrap();
            let host = HostName::parse(&field);
            assert_eq!(host.as_ref().map(HostName::as_str), want, "{field:?}");
        }
    }

    #[test]
    fn a_port_is_what_stands_behind_the_name() {
        // (field, port)
        let table = [
            ("example.com", None),
            ("example.com:", None),
            ("example.com:0", None),
            ("example.com:8443", Some(8443)),
            ("example.com.:80", Some(80)),
            ("[::1]", None),
            ("[2001:db8::1]:8080", Some(8080)),
        ];
        for (field, want) in table {
            let host = HostName::parse(&HeaderValue::from_static(field)).unwrap();
            assert_eq!(host.port(), want, "{field}");
        }
    }
}
