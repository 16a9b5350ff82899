//! The access record of an exchange.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use crate::stats::ResponseFlags;

use super::custom::Seen;
use super::text::{self, Escape, KnownIp};

/// Limits on values from a peer, in bytes. Longer values are cut, so that a 30 KiB header does not
/// fill the log.
pub(super) const METHOD_BYTES: usize = 64;
pub(super) const HOST_BYTES: usize = 256;
pub(super) const TARGET_BYTES: usize = 8 << 10;
pub(super) const REQUEST_ID_BYTES: usize = 256;
pub(super) const USER_AGENT_BYTES: usize = 1 << 10;

/// One exchange, recorded when it ends. Building a record allocates nothing.
///
/// Strings that are `'static` come from the gateway: printable ASCII without quotes, written
/// without escapes. All others are escaped.
#[derive(Clone, Debug)]
pub(crate) struct AccessRecord<'a> {
    /// The end of the exchange.
    pub time: SystemTime,
    /// The remote address of the connection.
    pub peer: SocketAddr,
    /// The text of the peer's IP address, if it is at hand: all requests of a connection share it.
    pub peer_text: Option<&'a [u8]>,
    /// The client: the peer, or the address that a trusted peer sent in `X-Forwarded-For`.
    pub client: IpAddr,
    pub method: &'a str,
    pub host: &'a str,
    /// The request target with its query; its secrets are redacted when it is written.
    pub path: &'a str,
    /// The protocol, such as `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    /// The status sent to the client; 0 if there was none, such as for a client that disconnected
    /// before the response.
    pub status: u16,
    /// Bytes of the request's body that were read.
    pub request_bytes: u64,
    /// Bytes of the response's body that were sent.
    pub response_bytes: u64,
    /// Time from the request's head to the end of the exchange.
    pub duration: Duration,
    /// Time from the start of the exchange to the head of the backend's response; for a forwarded
    /// connection, until the backend accepted it.
    pub upstream_duration: Option<Duration>,
    pub upstream: Option<Upstream<'a>>,
    /// Number of attempts at a backend.
    pub attempts: u32,
    /// `namespace/name` of the route, with its rule if there are several.
    pub route: Option<&'a str>,
    pub flags: ResponseFlags,
    /// Envoy's response code details.
    pub details: Option<&'a str>,
    pub request_id: &'a str,
    /// W3C trace ID, 32 digits, if the request is traced.
    pub trace_id: Option<&'a str>,
    pub user_agent: Option<&'a [u8]>,
    pub listener: &'a str,
    /// The local address of the connection.
    pub local: Option<SocketAddr>,
    /// The server name of the TLS handshake, if any.
    pub sni: Option<&'a str>,
    /// The TLS version, on a TLS listener.
    pub tls: Option<&'static str>,
    /// The headers that the Gateway's access log needs.
    pub seen: &'a Seen,
}

/// The backend: an address, or a name in its place (the path of a UNIX socket).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upstream<'a> {
    Address(SocketAddr),
    Name(&'a str),
}

impl From<SocketAddr> for Upstream<'_> {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl<'a> From<&'a str> for Upstream<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl<'r> AccessRecord<'r> {
    /// Returns a record with the end of the exchange and its peer; all other values are unknown.
    pub(crate) fn unknown(time: SystemTime, peer: SocketAddr) -> Self {
        Self {
            time,
            peer,
            peer_text: None,
            client: peer.ip().to_canonical(),
            method: "-",
            host: "-",
            path: "",
            protocol: "-",
            status: 0,
            request_bytes: 0,
            response_bytes: 0,
            duration: Duration::ZERO,
            upstream_duration: None,
            upstream: None,
            attempts: 0,
            route: None,
            flags: ResponseFlags::default(),
            details: None,
            request_id: "-",
            trace_id: None,
            user_agent: None,
            listener: "-",
            local: None,
            sni: None,
            tls: None,
            seen: Seen::nothing(),
        }
    }

    /// Returns the start of the exchange; `time` is its end.
    pub(crate) fn began(&self) -> SystemTime {
        self.time.checked_sub(self.duration).unwrap_or(self.time)
    }

    /// Returns the IP address of the peer.
    pub(super) fn peer_ip(&self) -> KnownIp<'r> {
        KnownIp { address: self.peer.ip(), text: self.peer_text }
    }

    /// Returns the IP address of the client.
    pub(super) fn client_ip(&self) -> KnownIp<'r> {
        let is_peer = self.client == self.peer.ip().to_canonical();
        KnownIp { address: self.client, text: self.peer_text.filter(|_| is_peer) }
    }

    /// Returns the name of the route's rule if a backend was tried. Envoy Gateway has a cluster for
    /// each rule.
    pub(super) fn upstream_cluster(&self) -> Option<&'r str> {
        self.route.filter(|_| self.attempts > 0)
    }
}

impl Upstream<'_> {
    pub(super) fn write(self, out: &mut Vec<u8>, escape: Escape) {
        match self {
            Self::Address(address) => text::socket_address(out, address),
            Self::Name(name) => escape(out, name.as_bytes()),
        }
    }
}

pub(super) fn cut(words: &(impl AsRef<[u8]> + ?Sized), most: usize) -> &[u8] {
    let words = words.as_ref();
    &words[..words.len().min(most)]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::observe) fn sample() -> AccessRecord<'static> {
        AccessRecord {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_789_387_200_001),
            peer: "[::ffff:203.0.113.9]:50123".parse().unwrap(),
            peer_text: None,
            client: "198.51.100.7".parse().unwrap(),
            method: "GET",
            host: "shop.example.com",
            path: "/cart?item=7&token=hunter2",
            protocol: "HTTP/2",
            status: 200,
            request_bytes: 0,
            response_bytes: 5321,
            duration: Duration::from_micros(12_345),
            upstream_duration: Some(Duration::from_micros(11_002)),
            upstream: Some(Upstream::Address("10.0.0.5:8080".parse().unwrap())),
            attempts: 1,
            route: Some("shop/cart"),
            flags: ResponseFlags::default(),
            details: Some("via_upstream"),
            request_id: "0f8fad5b-d9cb-469f-a165-70867728950e",
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
            user_agent: Some(
                b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            ),
            listener: "https",
            local: Some("192.0.2.1:443".parse().unwrap()),
            sni: Some("shop.example.com"),
            tls: Some("TLSv1.3"),
            seen: Seen::nothing(),
        }
    }
}
