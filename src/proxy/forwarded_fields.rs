//! Request fields that describe the client to a backend: `X-Forwarded-*` and `X-Request-Id`.

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::downstream::new_request_id;
use crate::filters::{HostName, Scheme};
use crate::net::Cidr;
use crate::proxy::noted_fields::{Noted, NotedFields};
use crate::snapshot::{Listener, RouteTable};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The origin of a request, as its forwarded fields describe it.
#[derive(Debug)]
pub(super) struct RequestOrigin<'a> {
    pub client: IpAddr,
    pub request_id: HeaderValue,
    /// The scheme by which the client reached the gateway, or the trusted proxy before it.
    pub scheme: Scheme,
    /// The port by which the client reached the gateway or that proxy.
    pub port: u16,
    pub fields: ForwardedFields<'a>,
}

/// The fields that describe the origin of a request, before they are in its head.
///
/// Most requests that are not forwarded, such as those that are redirected, never need them there.
#[derive(Debug)]
pub(super) struct ForwardedFields<'a> {
    connection: &'a ConnectionOrigin,
    /// `X-Forwarded-For`; `None` for the peer alone.
    hops: Option<HeaderValue>,
    /// `X-Forwarded-Host`; `None` if the head has that of a trusted proxy.
    host: Option<&'a HeaderValue>,
    port: u16,
    scheme: Scheme,
}

impl ForwardedFields<'_> {
    /// Sets the fields in the head of the request.
    pub(super) fn insert_into(self, headers: &mut HeaderMap, request_id: HeaderValue) {
        let Self { connection, hops, host, port, scheme } = self;
        let port_value = match port == connection.port {
            true => connection.port_value.clone(),
            false => port.into(),
        };
        headers.insert(FOR, hops.unwrap_or_else(|| connection.peer_value.clone()));
        headers.insert(PROTO, HeaderValue::from_static(scheme.as_str()));
        if let Some(host) = host {
            headers.insert(HOST, host.clone());
        }
        headers.insert(PORT, port_value);
        headers.insert(REQUEST_ID, request_id);
    }
}

/// Returns true if the routes, the log or the traces of a listener may read these fields.
pub(super) fn are_read_by(listener: &Listener) -> bool {
    let are_matched = |routes: &RouteTable| {
        let told = |name: &HeaderName| [FOR, HOST, PORT, PROTO, REQUEST_ID].contains(name);
        routes.matched_headers().iter().any(told)
    };
    listener.tracing.is_some()
        || listener.access_log.is_some()
        || listener.routes().is_some_and(are_matched)
}

/// The part of the origin that is the same for all requests of a connection, computed once.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionOrigin {
    pub peer: SocketAddr,
    pub scheme: Scheme,
    pub port: u16,
    /// The peer is in `--trusted-proxies`: its claims about its client are accepted.
    trusted: bool,
    peer_value: HeaderValue,
    port_value: HeaderValue,
}

impl ConnectionOrigin {
    pub(crate) fn new(peer: SocketAddr, scheme: Scheme, port: u16, trusted: &[Cidr]) -> Self {
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

    /// Returns the text of the peer's IP address.
    pub(super) fn peer_text(&self) -> &[u8] {
        self.peer_value.as_bytes()
    }

    /// Returns the origin of a request. `fields` are the notes of its head; fields from an untrusted
    /// peer are removed from it.
    ///
    /// Only fields that a trusted proxy wrote can be trusted (RFC 7239 section 8.1). If the peer is
    /// trusted, its `X-Forwarded-*` and `X-Request-Id` are kept, and its address is appended to
    /// `X-Forwarded-For`.
    ///
    /// Scheme, host and port never contradict each other: the port is the one in the host that the
    /// client sent, which a port mapping in front of the socket does not change.
    pub(super) fn of_request<'a>(
        &'a self,
        headers: &mut HeaderMap,
        fields: NotedFields,
        host: &HostName,
        host_field: &'a HeaderValue,
        trusted: &[Cidr],
    ) -> RequestOrigin<'a> {
        let peer = self.peer.ip().to_canonical();
        if !self.trusted {
            remove_claims(headers, fields);
            let (port, scheme) = (host.port().unwrap_or(self.port), self.scheme);
            return RequestOrigin {
                client: peer,
                request_id: new_request_id(),
                scheme,
                port,
                fields: ForwardedFields {
                    connection: self,
                    hops: None,
                    host: Some(host_field),
                    port,
                    scheme,
                },
            };
        }

        let Claims { client, hops, scheme, host: claimed_host, port } = claims(headers, trusted);
        let mut hops = hops.join(", ");
        if !hops.is_empty() {
            hops.push_str(", ");
        }
        hops.push_str(&peer.to_string());
        let hops = HeaderValue::from_str(&hops).unwrap_or_else(|_| self.peer_value.clone());

        // A proxy that reports port 443 and no scheme was reached by https.
        let implied = [Scheme::Http, Scheme::Https]
            .into_iter()
            .find(|scheme| port == Some(scheme.well_known_port()));
        let told_scheme = scheme.or(implied).unwrap_or(self.scheme);
        let named = match &claimed_host {
            Some(claimed) => claimed.port(),
            None => host.port(),
        };
        // Without a reported port, the port is the default port of the scheme by which the client
        // reached the proxy.
        let port = named.or(port).or_else(|| scheme.map(Scheme::well_known_port));
        let port = port.unwrap_or(self.port);

        RequestOrigin {
            client: client.unwrap_or(peer),
            request_id: headers.get(REQUEST_ID).cloned().unwrap_or_else(new_request_id),
            scheme: told_scheme,
            port,
            fields: ForwardedFields {
                connection: self,
                hops: Some(hops),
                host: if headers.contains_key(HOST) { None } else { Some(host_field) },
                port,
                scheme: told_scheme,
            },
        }
    }
}

/// The claims of a trusted proxy about its client.
struct Claims<'a> {
    client: Option<IpAddr>,
    /// `X-Forwarded-For` as received.
    hops: Vec<&'a str>,
    scheme: Option<Scheme>,
    host: Option<HostName>,
    port: Option<u16>,
}

/// Parses `X-Forwarded-*`. Each field is a list to which every proxy may have added.
fn claims<'a>(headers: &'a HeaderMap, trusted: &[Cidr]) -> Claims<'a> {
    let hops = members(headers, &FOR);
    // The right-most hop that is not a trusted proxy is the client; hops further left cannot be
    // trusted. If all hops are trusted proxies, the first hop is the client.
    let (mut client, mut back) = (None, 0);
    for hop in hops.iter().rev() {
        let Some(address) = address(hop) else { break };
        (client, back) = (Some(address), back + 1);
        if !trusted.iter().any(|range| range.contains(address)) {
            break;
        }
    }
    // Returns the value from the proxy that this client reached. For a proxy that adds to one list
    // and replaces another, it is the right-most value.
    let by_that_proxy = |name: HeaderName| -> Option<&'a str> {
        let all = members(headers, &name);
        let at = match all.len() == hops.len() {
            true => all.len().checked_sub(back.max(1)),
            false => all.len().checked_sub(1),
        };
        at.map(|at| all[at])
    };
    let scheme = match by_that_proxy(PROTO).map(str::to_ascii_lowercase).as_deref() {
        Some("https" | "wss") => Some(Scheme::Https),
        Some("http" | "ws") => Some(Scheme::Http),
        _ => None,
    };
    let host = by_that_proxy(HOST).and_then(|host| HeaderValue::from_str(host).ok());
    let host = host.and_then(|host| HostName::parse(&host));
    let port = by_that_proxy(PORT).and_then(|port| port.parse().ok()).filter(|port| *port != 0);
    Claims { client, hops, scheme, host, port }
}

/// Returns the members of a list, over all lines of the field.
fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|one| !one.is_empty()).collect()
}

/// Parses the address of a hop, in the forms that proxies write: alone, in brackets, with a port,
/// in quotes.
fn address(hop: &str) -> Option<IpAddr> {
    let hop = hop.strip_prefix('"').and_then(|hop| hop.strip_suffix('"')).unwrap_or(hop);
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    let address = match hop.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            let fits = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            address.parse().ok().filter(|address: &IpAddr| fits && address.is_ipv6())?
        }
        None => match hop.parse() {
            Ok(address) => address,
            Err(_) => {
                let (address, _) = hop.split_once(':').filter(|(_, port)| is_port(port))?;
                IpAddr::V4(address.parse().ok()?)
            }
        },
    };
    Some(address.to_canonical())
}

/// Removes what an untrusted peer claims, in all `X-Forwarded-*` fields, including unknown ones.
fn remove_claims(headers: &mut HeaderMap, fields: NotedFields) {
    if fields.has(Noted::Forwarded) {
        headers.remove(FORWARDED);
        headers.remove(REAL_IP);
    }
    if fields.has(Noted::RequestId) {
        headers.remove(REQUEST_ID);
    }
    let claims = |name: &&HeaderName| name.as_str().starts_with("x-forwarded-");
    while fields.has(Noted::XForwarded)
        && let Some(name) = headers.keys().find(claims).cloned()
    {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client, scheme and port of a request.
    struct Told {
        client: IpAddr,
        scheme: Scheme,
        port: u16,
    }

    fn told(trusted: &[&str], sent: &[(&str, &str)]) -> (HeaderMap, Told) {
        told_by("shop.test", trusted, sent)
    }

    /// For a connection by https on port 443, from 192.0.2.7.
    fn told_by(host: &'static str, trusted: &[&str], sent: &[(&str, &str)]) -> (HeaderMap, Told) {
        let trusted: Vec<Cidr> = trusted.iter().map(|range| range.parse().unwrap()).collect();
        let origin = ConnectionOrigin::new(
            "[::ffff:192.0.2.7]:4711".parse().unwrap(),
            Scheme::Https,
            443,
            &trusted,
        );
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let field = HeaderValue::from_static(host);
        let host = HostName::parse(&field).unwrap();
        let fields = NotedFields::of(&headers);
        let told = origin.of_request(&mut headers, fields, &host, &field, &trusted);
        let RequestOrigin { client, request_id, scheme, port, fields } = told;
        fields.insert_into(&mut headers, request_id);
        (headers, Told { client, scheme, port })
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
        // (fields from the proxy, scheme and port); the connection itself is https on 443
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
    fn a_hop_is_an_address_however_it_is_written() {
        // (hop, address)
        let table = [
            ("203.0.113.9", Some("203.0.113.9")),
            ("203.0.113.9:51234", Some("203.0.113.9")),
            ("2001:db8::9", Some("2001:db8::9")),
            ("[2001:db8::9]", Some("2001:db8::9")),
            ("[2001:db8::9]:51234", Some("2001:db8::9")),
            ("\"[2001:db8::9]:51234\"", Some("2001:db8::9")),
            ("::ffff:203.0.113.9", Some("203.0.113.9")),
            ("[::ffff:203.0.113.9]:80", Some("203.0.113.9")),
            ("203.0.113.9:", None),
            ("203.0.113.9:x", None),
            ("203.0.113.9:99999", None),
            ("[203.0.113.9]:80", None),
            ("[2001:db8::9]x", None),
            ("[2001:db8::9", None),
            ("203.0.113", None),
            ("unknown", None),
            ("_hidden", None),
            ("", None),
        ];
        for (hop, want) in table {
            assert_eq!(address(hop).map(|address| address.to_string()).as_deref(), want, "{hop}");
        }
    }

    #[test]
    fn the_client_is_the_last_hop_that_is_not_ours() {
        let trusted = &["10.0.0.0/8", "192.0.2.7"];
        // (X-Forwarded-For, client)
        let table: [(&[&str], &str); 10] = [
            (&["203.0.113.9:51234"], "203.0.113.9"),
            (&["[2001:db8::9]:51234"], "2001:db8::9"),
            (&["6.6.6.6, 203.0.113.9:1, 10.0.0.1:2"], "203.0.113.9"),
            (&["6.6.6.6", "203.0.113.9", "::ffff:10.0.0.1"], "203.0.113.9"),
            (&["203.0.113.9,,"], "203.0.113.9"),
            (&["203.0.113.9, unknown"], "192.0.2.7"),
            (&["unknown, 10.0.0.1"], "10.0.0.1"),
            // An address within the gateway's own ranges can be a client too.
            (&["10.1.2.3"], "10.1.2.3"),
            (&["10.1.2.3, 10.0.0.1"], "10.1.2.3"),
            (&[], "192.0.2.7"),
        ];
        for (lines, want) in table {
            let sent: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            let (headers, told) = told(trusted, &sent);
            assert_eq!(told.client.to_string(), want, "{lines:?}");
            let hops = headers["x-forwarded-for"].to_str().unwrap();
            assert!(hops.ends_with("192.0.2.7"), "{hops}");
        }
    }

    #[test]
    fn port_scheme_and_host_never_contradict_each_other() {
        let mapped = "shop.test:8443";
        let host = |host| ("x-forwarded-host", host);
        let proto = |proto| ("x-forwarded-proto", proto);
        let port = |port| ("x-forwarded-port", port);
        let hops = ("x-forwarded-for", "203.0.113.9, 10.0.0.1");
        // (Host, fields from the proxy, host, port and scheme that the backend gets)
        type Row<'a> = (&'static str, &'a [(&'a str, &'a str)], (&'a str, &'a str, &'a str));
        let table: [Row<'_>; 16] = [
            (mapped, &[], (mapped, "8443", "https")),
            (mapped, &[proto("https")], (mapped, "8443", "https")),
            (mapped, &[proto("https"), port("443")], (mapped, "8443", "https")),
            (mapped, &[host("a.test"), proto("https")], ("a.test", "443", "https")),
            (mapped, &[host("a.test"), port("444")], ("a.test", "444", "https")),
            ("shop.test", &[host("a.test:444")], ("a.test:444", "444", "https")),
            ("shop.test", &[host("a.test:444"), port("443")], ("a.test:444", "444", "https")),
            ("shop.test", &[host("[::1]:444"), proto("http")], ("[::1]:444", "444", "http")),
            ("shop.test", &[port("80")], ("shop.test", "80", "http")),
            ("shop.test", &[port("443"), proto("gopher")], ("shop.test", "443", "https")),
            ("shop.test", &[port("0"), proto("HTTP")], ("shop.test", "80", "http")),
            ("shop.test", &[proto("wss")], ("shop.test", "443", "https")),
            ("shop.test", &[proto("ws")], ("shop.test", "80", "http")),
            // Lists that all proxies have added to, and lists that some have not.
            (
                "shop.test",
                &[hops, proto("https, http"), port("444, 80")],
                ("shop.test", "444", "https"),
            ),
            (
                "shop.test",
                &[hops, proto("http, https, http"), port("81")],
                ("shop.test", "81", "http"),
            ),
            ("shop.test", &[proto("https, http")], ("shop.test", "80", "http")),
        ];
        for (named, sent, (host, port, proto)) in table {
            let (headers, told) = told_by(named, &["192.0.2.7", "10.0.0.0/8"], sent);
            let says = |name: &str| headers[name].to_str().unwrap().to_owned();
            let case = format!("{named} {sent:?}");
            assert_eq!(says("x-forwarded-host"), host, "{case}");
            assert_eq!(says("x-forwarded-port"), port, "{case}");
            assert_eq!(says("x-forwarded-proto"), proto, "{case}");
            assert_eq!(told.port.to_string(), port, "{case}");
            assert_eq!(told.scheme.as_str(), proto, "{case}");
        }
        let (headers, told) = told_by(mapped, &[], &[host("a.test"), port("1")]);
        assert_eq!(headers["x-forwarded-host"], mapped);
        assert_eq!((&headers["x-forwarded-port"], told.port), (&"8443".parse().unwrap(), 8443));
    }
}
