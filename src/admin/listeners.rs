//! `/listeners`: the addresses that clients connect to.

use std::net::SocketAddr;

use serde::Serialize;

use crate::snapshot::{Bind, Listener, Snapshot, Traffic, Transport};

/// The answer to `GET /listeners`.
#[derive(Debug, Serialize)]
pub(crate) struct Listeners {
    pub listeners: Vec<One>,
}

/// A listener on one of its addresses.
#[derive(Debug, Serialize)]
pub(crate) struct One {
    /// `namespace/gateway/sectionName`.
    pub name: String,
    pub hostname: Option<String>,
    /// `*:443` for all addresses of the host.
    pub address: String,
    /// The port in the Gateway.
    pub port: u16,
    pub protocol: &'static str,
    /// Names in its certificates.
    pub certificates: Vec<String>,
    /// The number of matches of its routes, or of names that it forwards.
    pub matches: usize,
    /// Open connections of the address, which several listeners may share.
    pub connections: u64,
    /// Requests of the address since the start.
    pub requests: u64,
}

impl Listeners {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let of_bind = |bind: &Bind| {
            let listeners = bind.listeners.sorted().into_iter();
            listeners.map(|(_, listener)| One::of(bind, listener)).collect::<Vec<_>>()
        };
        Self { listeners: snapshot.binds.iter().flat_map(|bind| of_bind(bind)).collect() }
    }
}

impl One {
    fn of(bind: &Bind, listener: &Listener) -> Self {
        let facts = listener.certificates.iter().flat_map(|slot| slot.facts());
        Self {
            name: listener.name.to_string(),
            hostname: listener.hostname.as_ref().map(ToString::to_string),
            address: match bind.key.address {
                Some(ip) => SocketAddr::new(ip, bind.key.port).to_string(),
                None => format!("*:{}", bind.key.port),
            },
            port: bind.key.port,
            protocol: match (&listener.traffic, bind.key.transport, bind.tls) {
                (_, Transport::Udp, _) => "udp",
                (Traffic::Http(_), _, true) => "https",
                (Traffic::Http(_), _, false) => "http",
                (_, _, true) => "tls",
                (_, _, false) => "tcp",
            },
            certificates: facts.map(|facts| facts.names.join(", ")).collect(),
            matches: match &listener.traffic {
                Traffic::Http(routes) => routes.rows().len(),
                Traffic::Forward(of) | Traffic::Passthrough(of) => of.sorted().len(),
            },
            connections: bind.counts.sum(|of| &of.connections_active),
            requests: bind.counts.sum(|of| &of.requests),
        }
    }
}
