//! Request fields that describe the client to a backend: `X-Forwarded-*` and `X-Request-Id`.

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::downstream::new_request_id;
use crate::failure::{Denial, Failure};
use crate::filters::{HostName, Scheme};
use crate::net::Cidr;
use crate::proxy::client_claims::{Claims, FOR, HOST, PORT, PROTO, address_in};
use crate::proxy::noted_fields::{Noted, NotedFields};
use crate::snapshot::{
    AddressSource, ClientDetection, ClientPolicy, Listener, RequestIds, RouteTable,
};

const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The refusal of a request without the field that must have the client's address.
static CLIENT_UNKNOWN: Denial = Denial {
    status: StatusCode::FORBIDDEN,
    flag: None,
    details: "rejecting_because_detection_failed",
    text: "",
    grpc_status: None,
};

/// The origin of a request, as its forwarded fields describe it.
#[derive(Debug)]
pub(super) struct RequestOrigin<'a> {
    pub client: IpAddr,
    /// `None` if the request keeps having none.
    pub request_id: Option<HeaderValue>,
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
    hops: Hops,
    /// `X-Forwarded-Host`; `None` if the head has that of a trusted proxy.
    host: Option<&'a HeaderValue>,
    port: u16,
    scheme: Scheme,
}

/// `X-Forwarded-For` of a request to a backend.
#[derive(Debug)]
enum Hops {
    /// The field is as the proxy sent it, or absent.
    AsReceived,
    List(HeaderValue),
    /// The peer alone.
    Peer,
}

impl ForwardedFields<'_> {
    /// Sets the fields in the head of the request.
    pub(super) fn insert_into(self, headers: &mut HeaderMap, request_id: Option<HeaderValue>) {
        let Self { connection, hops, host, port, scheme } = self;
        let port_value = match port == connection.port {
            true => connection.port_value.clone(),
            false => port.into(),
        };
        match hops {
            Hops::AsReceived => {}
            Hops::List(hops) => drop(headers.insert(FOR, hops)),
            Hops::Peer => drop(headers.insert(FOR, connection.peer_value.clone())),
        }
        headers.insert(PROTO, HeaderValue::from_static(scheme.as_str()));
        if let Some(host) = host {
            headers.insert(HOST, host.clone());
        }
        headers.insert(PORT, port_value);
        if let Some(request_id) = request_id {
            headers.insert(REQUEST_ID, request_id);
        }
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
            peer_value: address_value(address),
            port_value: port.into(),
        }
    }

    /// Returns the text of the peer's IP address.
    pub(super) fn peer_text(&self) -> &[u8] {
        self.peer_value.as_bytes()
    }

    /// Returns the origin of a request. `fields` are the notes of its head; fields from an untrusted
    /// peer are removed from it. `trusted` is `--trusted-proxies`; `clientIPDetection` of
    /// the listener's policy takes its place.
    ///
    /// Only fields that a trusted proxy wrote can be trusted (RFC 7239 section 8.1). If the peer is
    /// trusted, its `X-Forwarded-*` and `X-Request-Id` are kept, and its address is appended to
    /// `X-Forwarded-For`.
    ///
    /// # Errors
    ///
    /// The client's address is required in a field, and is not there.
    pub(super) fn of_request<'a>(
        &'a self,
        headers: &mut HeaderMap,
        fields: NotedFields,
        host: &HostName,
        host_field: &'a HeaderValue,
        trusted: &[Cidr],
        policy: Option<&ClientPolicy>,
    ) -> Result<RequestOrigin<'a>, Failure> {
        let Some(policy) = policy else {
            return Ok(self.by_flags(headers, fields, host, host_field, trusted));
        };
        // Read before what a stranger sent is removed.
        let received = headers.get(REQUEST_ID).cloned();
        let mut origin = match &policy.detection {
            None => self.by_flags(headers, fields, host, host_field, trusted),
            Some(detection) => {
                self.detected(headers, fields, host, host_field, trusted, detection)?
            }
        };
        match policy.request_ids {
            RequestIds::Trusted => {}
            RequestIds::Generated => origin.request_id = Some(new_request_id()),
            RequestIds::Kept => origin.request_id = received.or_else(|| Some(new_request_id())),
            RequestIds::AsReceived => origin.request_id = received,
        }
        Ok(origin)
    }

    /// Returns the origin of a request where `--trusted-proxies` decides who is believed.
    fn by_flags<'a>(
        &'a self,
        headers: &mut HeaderMap,
        fields: NotedFields,
        host: &HostName,
        host_field: &'a HeaderValue,
        trusted: &[Cidr],
    ) -> RequestOrigin<'a> {
        if !self.trusted {
            return self.of_stranger(headers, fields, host, host_field);
        }
        let claims = Claims::by_ranges(headers, trusted);
        self.of_proxy(headers, claims, true, host, host_field)
    }

    /// Returns the origin of a request where `clientIPDetection` decides who is believed.
    fn detected<'a>(
        &'a self,
        headers: &mut HeaderMap,
        fields: NotedFields,
        host: &HostName,
        host_field: &'a HeaderValue,
        trusted: &[Cidr],
        detection: &ClientDetection,
    ) -> Result<RequestOrigin<'a>, Failure> {
        let peer = self.peer.ip().to_canonical();
        let mut named = None;
        let claims = match &detection.source {
            AddressSource::Peer => None,
            AddressSource::Hops(count) => Claims::by_count(headers, *count),
            AddressSource::Ranges(ranges) => ranges
                .iter()
                .any(|range| range.contains(peer))
                .then(|| Claims::by_ranges(headers, ranges)),
            AddressSource::Field { name, required } => {
                named = address_in(headers, name).map(|client| (name, client));
                if *required && named.is_none() {
                    return Err(Failure::Denied(&CLIENT_UNKNOWN));
                }
                // The field says nothing about the peer, so that only proxies of the command line
                // are believed what else they claim.
                self.trusted.then(|| Claims::by_ranges(headers, trusted))
            }
        };
        let mut origin = match claims {
            Some(claims) => self.of_proxy(headers, claims, detection.appends, host, host_field),
            None => self.of_stranger(headers, fields, host, host_field),
        };
        if let AddressSource::Field { .. } = detection.source {
            origin.client = peer;
        }
        if let Some((name, client)) = named {
            origin.client = client;
            let value = address_value(client);
            if matches!(origin.fields.hops, Hops::Peer) && client != peer {
                let hops = HeaderValue::from_str(&format!("{client}, {peer}"));
                origin.fields.hops = hops.map_or(Hops::Peer, Hops::List);
            }
            // It may be one of those that strangers may not send.
            headers.insert(name, value);
        }
        headers.insert(EXTERNAL_ADDRESS, address_value(origin.client));
        Ok(origin)
    }

    /// Returns the origin of a request whose peer is believed nothing.
    ///
    /// Scheme, host and port never contradict each other: the port is the one in the host that the
    /// client sent, which a port mapping in front of the socket does not change.
    fn of_stranger<'a>(
        &'a self,
        headers: &mut HeaderMap,
        fields: NotedFields,
        host: &HostName,
        host_field: &'a HeaderValue,
    ) -> RequestOrigin<'a> {
        remove_claims(headers, fields);
        let (port, scheme) = (host.port().unwrap_or(self.port), self.scheme);
        let host = Some(host_field);
        let hops = Hops::Peer;
        RequestOrigin {
            client: self.peer.ip().to_canonical(),
            request_id: Some(new_request_id()),
            scheme,
            port,
            fields: ForwardedFields { connection: self, hops, host, port, scheme },
        }
    }

    /// Returns the origin of a request whose peer is a proxy with these claims. The peer is added to
    /// its `X-Forwarded-For` if `appends`.
    fn of_proxy<'a>(
        &'a self,
        headers: &HeaderMap,
        claims: Claims<'_>,
        appends: bool,
        host: &HostName,
        host_field: &'a HeaderValue,
    ) -> RequestOrigin<'a> {
        let peer = self.peer.ip().to_canonical();
        let Claims { client, hops, scheme, host: claimed_host, port } = claims;
        let hops = match appends {
            false => Hops::AsReceived,
            true => {
                let mut hops = hops.join(", ");
                if !hops.is_empty() {
                    hops.push_str(", ");
                }
                hops.push_str(&peer.to_string());
                HeaderValue::from_str(&hops).map_or(Hops::Peer, Hops::List)
            }
        };

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
            request_id: Some(headers.get(REQUEST_ID).cloned().unwrap_or_else(new_request_id)),
            scheme: told_scheme,
            port,
            fields: ForwardedFields {
                connection: self,
                hops,
                host: if headers.contains_key(HOST) { None } else { Some(host_field) },
                port,
                scheme: told_scheme,
            },
        }
    }
}

/// Returns an address as the value of a field.
fn address_value(address: IpAddr) -> HeaderValue {
    HeaderValue::from_str(&address.to_string()).unwrap_or(HeaderValue::from_static("unknown"))
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
mod tests;
