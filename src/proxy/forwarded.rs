//! What the backend is told about the client: `X-Forwarded-*` and `X-Request-Id`.

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::filters::Scheme;
use crate::net::Cidr;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is known of a request's origin once the headers were settled.
#[derive(Debug)]
pub(super) struct Told {
    pub client: IpAddr,
    pub request_id: HeaderValue,
    /// How the client reached us, or the trusted proxy before us.
    pub scheme: Scheme,
    /// The port that it used for that.
    pub port: u16,
}

/// What is the same for every request of one connection, made once.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub peer: SocketAddr,
    pub scheme: Scheme,
    pub port: u16,
    /// The peer is in `--trusted-proxies`: what it says of the client before it counts.
    trusted: bool,
    peer_value: HeaderValue,
    port_value: HeaderValue,
}

impl Origin {
    pub(super) fn new(peer: SocketAddr, scheme: Scheme, port: u16, trusted: &[Cidr]) -> Self {
        let address = peer.ip().to_canonical();
        Self {
            peer,
            scheme,
            port,
            trusted: trusted.iter().any(|range| range.contains(address)),
            peer_value: HeaderValue::from_str(&address.to_string())
                .unwrap_or(HeaderValue::from_static("unknown")),
            port_value: port.into(),
        }
    }

    /// Sets the headers, with what an untrusted peer sent of them gone, and returns what they say.
    ///
    /// RFC 7239 section 8.1: nothing in these headers can be believed but what a proxy of ours
    /// wrote. Where the peer is trusted, its `X-Forwarded-*` and `X-Request-Id` stay, and its
    /// address is appended to `X-Forwarded-For`.
    pub(super) fn tell(
        &self,
        headers: &mut HeaderMap,
        host_field: &HeaderValue,
        trusted: &[Cidr],
    ) -> Told {
        let peer = self.peer.ip().to_canonical();
        if !self.trusted {
            headers.remove(FORWARDED);
            headers.remove(REAL_IP);
            remove_claims(headers);
            headers.insert(FOR, self.peer_value.clone());
            headers.insert(PROTO, HeaderValue::from_static(self.scheme.as_str()));
            headers.insert(HOST, host_field.clone());
            headers.insert(PORT, self.port_value.clone());
            let id = new_request_id();
            headers.insert(REQUEST_ID, id.clone());
            let (scheme, port) = (self.scheme, self.port);
            return Told { client: peer, request_id: id, scheme, port };
        }

        let before: Vec<&str> = headers
            .get_all(FOR)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|hop| !hop.is_empty())
            .collect();
        // The right-most hop that is not one of ours is the client; further left is hearsay.
        let client = before
            .iter()
            .rev()
            .map_while(|hop| hop.parse::<IpAddr>().ok())
            .find(|hop| !trusted.iter().any(|range| range.contains(*hop)))
            .unwrap_or(peer);
        let mut hops = before.join(", ");
        if !hops.is_empty() {
            hops.push_str(", ");
        }
        hops.push_str(&peer.to_string());
        let hops = HeaderValue::from_str(&hops).unwrap_or_else(|_| self.peer_value.clone());
        headers.insert(FOR, hops);

        let proto = match headers.get(PROTO).map(HeaderValue::as_bytes) {
            Some(b"https") => Some(Scheme::Https),
            Some(b"http") => Some(Scheme::Http),
            _ => None,
        };
        let port = headers.get(PORT).and_then(|port| port.to_str().ok()?.trim().parse().ok());
        // The port belongs to the proxy that the client reached, which speaks that scheme.
        let port = port.or_else(|| proto.map(Scheme::well_known_port)).unwrap_or(self.port);
        headers.entry(PORT).or_insert(port.into());
        headers.entry(PROTO).or_insert(HeaderValue::from_static(self.scheme.as_str()));
        headers.entry(HOST).or_insert_with(|| host_field.clone());
        let id = headers.entry(REQUEST_ID).or_insert_with(new_request_id).clone();
        Told { client, request_id: id, scheme: proto.unwrap_or(self.scheme), port }
    }
}

/// Removes every `X-Forwarded-*`, those that nobody has heard of too.
fn remove_claims(headers: &mut HeaderMap) {
    let claims = |name: &&HeaderName| name.as_str().starts_with("x-forwarded-");
    while let Some(name) = headers.keys().find(claims).cloned() {
        headers.remove(name);
    }
}

/// A random UUID, version 4. It is a name, not a secret: nothing may depend on its being unknown.
pub(super) fn new_request_id() -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let random = fastrand::u128(..) & !(0xf << 76) | (0x4 << 76);
    let bits = random & !(0x3 << 62) | (0x2 << 62);
    let mut text = [b'-'; 36];
    let mut shift = 128;
    for (at, digit) in text.iter_mut().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            continue;
        }
        shift -= 4;
        *digit = HEX[usize::try_from((bits >> shift) & 0xf).unwrap_or_default()];
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(trusted: &[&str], sent: &[(&str, &str)]) -> (HeaderMap, Told) {
        let trusted: Vec<Cidr> = trusted.iter().map(|range| range.parse().unwrap()).collect();
        let origin =
            Origin::new("[::ffff:192.0.2.7]:4711".parse().unwrap(), Scheme::Https, 443, &trusted);
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let told = origin.tell(&mut headers, &HeaderValue::from_static("shop.test"), &trusted);
        (headers, told)
    }

    const SENT: &[(&str, &str)] = &[
        ("x-forwarded-for", "203.0.113.9, 10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "public.example"),
        ("x-forwarded-port", "8443"),
        ("x-real-ip", "203.0.113.9"),
        ("forwarded", "for=203.0.113.9"),
        ("x-request-id", "theirs"),
    ];

    #[test]
    fn an_unknown_peer_is_believed_nothing() {
        let (headers, told_of) = told(&["10.0.0.0/8"], SENT);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "shop.test");
        assert_eq!(headers["x-forwarded-port"], "443");
        assert!(!headers.contains_key("x-real-ip") && !headers.contains_key("forwarded"));
        assert_ne!(headers["x-request-id"], "theirs");
        assert_eq!(told_of.client.to_string(), "192.0.2.7");
    }

    #[test]
    fn a_trusted_proxy_is_believed_up_to_the_first_stranger() {
        let (headers, told_of) = told(&["10.0.0.0/8", "192.0.2.7"], SENT);
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9, 10.0.0.1, 192.0.2.7");
        assert_eq!(headers["x-forwarded-host"], "public.example");
        assert_eq!(headers["x-forwarded-port"], "8443");
        assert_eq!(headers["x-request-id"], "theirs");
        assert_eq!(told_of.client.to_string(), "203.0.113.9");

        let (headers, told_of) = told(&["192.0.2.7"], &[("x-forwarded-proto", "http")]);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-port"], "80");
        assert_eq!(told_of.client.to_string(), "192.0.2.7");
    }

    #[test]
    fn a_trusted_proxy_says_how_the_client_came() {
        let https = ("x-forwarded-proto", "https");
        let http = ("x-forwarded-proto", "http");
        let port = |port| ("x-forwarded-port", port);
        // (from the proxy, scheme and port); the connection itself is https on 443
        type Row<'a> = (&'a [(&'a str, &'a str)], Scheme, u16);
        let table: [Row<'_>; 7] = [
            (&[], Scheme::Https, 443),
            (&[http], Scheme::Http, 80),
            (&[https], Scheme::Https, 443),
            (&[http, port("8080")], Scheme::Http, 8080),
            (&[port("8443")], Scheme::Https, 8443),
            (&[http, port("none")], Scheme::Http, 80),
            (&[("x-forwarded-proto", "gopher")], Scheme::Https, 443),
        ];
        for (sent, scheme, port) in table {
            let (_, told) = told(&["192.0.2.7"], sent);
            assert_eq!((told.scheme, told.port), (scheme, port), "{sent:?}");
        }
        let (_, told) = told(&[], &[http, port("8080")]);
        assert_eq!((told.scheme, told.port), (Scheme::Https, 443), "nobody else does");
    }

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
