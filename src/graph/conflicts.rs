//! Listeners beside listeners: which cannot share a port, in one Gateway and across Gateways.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use crate::api::Protocol;
use crate::net::HostPattern;

use super::gateways::Gateway;
use super::listeners::Listener;
use super::{Faults, Refusal};

/// Marks listeners that cannot be served because of others.
///
/// Within one Gateway nobody wins: all listeners that are not distinct are refused. Between
/// Gateways the older one wins, then the first by name, so that a new file takes nothing away from
/// what is served. (The specification gives every Gateway addresses of its own; on one host two
/// may share one.)
pub(super) fn judge(gateways: &mut [Gateway<'_>], faults: &mut Faults) {
    for gateway in &mut *gateways {
        within(gateway, faults);
    }
    between(gateways, faults);
    for gateway in gateways {
        overlaps(gateway);
    }
}

/// What the protocols that share a port have to agree on. HTTPS and TLS of either mode are told
/// apart by the name that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Plain,
    Tls,
    Tcp,
    /// Shares its number with any of the others.
    Udp,
}

fn transport(protocol: &Protocol) -> Option<Transport> {
    match protocol {
        Protocol::Http => Some(Transport::Plain),
        Protocol::Https | Protocol::Tls => Some(Transport::Tls),
        Protocol::Tcp => Some(Transport::Tcp),
        Protocol::Udp => Some(Transport::Udp),
        Protocol::Unknown(_) => None,
    }
}

fn within(gateway: &mut Gateway<'_>, faults: &mut Faults) {
    let mut ports: BTreeMap<(u16, bool), Vec<usize>> = BTreeMap::new();
    for listener in &gateway.listeners {
        if let Some(transport) = transport(&listener.spec.protocol) {
            let port = (listener.spec.port, transport == Transport::Udp);
            ports.entry(port).or_default().push(listener.place);
        }
    }
    for ((port, _), places) in ports {
        for &place in &places {
            let listener = &gateway.listeners[place];
            let others = || {
                let others = places.iter().filter(|other| **other != place);
                others.map(|other| &gateway.listeners[*other])
            };
            let refusal = others()
                .find(|other| !share_port(listener, other))
                .map(|other| {
                    let message = format!(
                        "protocol {} cannot share port {port} with {} of listener `{}`; use another port",
                        listener.spec.protocol, other.spec.protocol, other.spec.name
                    );
                    ("protocol", Refusal::new("ProtocolConflict", message))
                })
                .or_else(|| {
                    let same = others().find(|other| same_host(listener, other))?;
                    let message = format!(
                        "listener `{}` has port {port} and {} too; give each a hostname of its own",
                        same.spec.name,
                        host(same.hostname.as_ref())
                    );
                    Some(("", Refusal::new("HostnameConflict", message)))
                });
            if let Some((rest, refusal)) = refusal {
                let listener = &mut gateway.listeners[place];
                faults.error(&gateway.key, listener.field(rest), &*refusal.message);
                listener.conflicts(refusal);
            }
        }
    }
}

/// A hostname that cannot be read is nobody's.
fn same_host(a: &Listener<'_>, b: &Listener<'_>) -> bool {
    let readable =
        |listener: &Listener<'_>| listener.hostname.is_some() || listener.spec.hostname().is_none();
    a.hostname == b.hostname && readable(a) && readable(b)
}

fn share_port(a: &Listener<'_>, b: &Listener<'_>) -> bool {
    let (a, b) = (transport(&a.spec.protocol), transport(&b.spec.protocol));
    // TCP and UDP listeners have no names to tell them apart by, whatever the hostname.
    a == b || (a == Some(Transport::Udp)) != (b == Some(Transport::Udp))
}

/// Who has a port of an address, and for which names.
struct Taken {
    gateway: String,
    transport: Option<Transport>,
    /// By hostname the listener that has it.
    names: HashMap<Option<HostPattern>, String>,
}

fn between(gateways: &mut [Gateway<'_>], faults: &mut Faults) {
    let mut taken: HashMap<(u16, bool), HashMap<Option<IpAddr>, Taken>> = HashMap::new();
    for gateway in gateways.iter_mut().filter(|gateway| gateway.valid.is_ok()) {
        let addresses = gateway.addresses.clone();
        let name = format!("{}/{}", gateway.key.namespace, gateway.key.name);
        for listener in gateway.listeners.iter_mut().filter(|listener| listener.accepted.is_ok()) {
            let transport = transport(&listener.spec.protocol);
            let port = (listener.spec.port, transport == Some(Transport::Udp));
            let on_port = taken.entry(port).or_default();
            let clash =
                addresses.iter().find_map(|address| clash(&name, listener, *address, on_port));
            if let Some((rest, conflict, refusal)) = clash {
                faults.error(&gateway.key, listener.field(rest), &*refusal.message);
                if conflict {
                    listener.conflicts(refusal);
                } else {
                    listener.accepted = Err(refusal);
                }
                continue;
            }
            for address in &addresses {
                let taken = on_port.entry(*address).or_insert_with(|| Taken {
                    gateway: name.clone(),
                    transport,
                    names: HashMap::new(),
                });
                let full = format!("{name}/{}", listener.spec.name);
                taken.names.insert(listener.hostname.clone(), full);
            }
        }
    }
}

/// Why `listener` of Gateway `name` cannot have `address`: the field, whether it is a conflict in
/// the specification's sense, and the refusal.
fn clash(
    name: &str,
    listener: &Listener<'_>,
    address: Option<IpAddr>,
    on_port: &HashMap<Option<IpAddr>, Taken>,
) -> Option<(&'static str, bool, Refusal)> {
    let port = listener.spec.port;
    if let Some(taken) = on_port.get(&address) {
        if taken.transport != transport(&listener.spec.protocol) {
            let message = format!(
                "protocol {} cannot share port {port} with the listeners of Gateway `{}`; use \
                 another port, or an address of its own under `spec.addresses`",
                listener.spec.protocol, taken.gateway
            );
            return Some(("protocol", true, Refusal::new("ProtocolConflict", message)));
        }
        let owner = taken.names.get(&listener.hostname)?;
        if let Some(Transport::Tcp | Transport::Udp) = taken.transport {
            let message = format!(
                "listener `{owner}` has {} port {port} already; give this one another port, or its \
                 Gateway an address of its own under `spec.addresses`",
                listener.spec.protocol
            );
            return Some(("port", false, Refusal::new("PortUnavailable", message)));
        }
        let message = format!(
            "listener `{owner}` has port {port} and {} already; give this one another hostname or \
             port, or its Gateway an address of its own under `spec.addresses`",
            host(listener.hostname.as_ref())
        );
        return Some(("hostname", true, Refusal::new("HostnameConflict", message)));
    }
    // A socket on every address and one on a single address cannot both have the port.
    let other = on_port
        .iter()
        .find(|(other, taken)| other.is_none() != address.is_none() && taken.gateway != name);
    other.map(|(_, taken)| {
        let message = format!(
            "Gateway `{}` has port {port} already, {}; give both Gateways addresses under \
             `spec.addresses`",
            taken.gateway,
            if address.is_none() { "on one address" } else { "on every address" }
        );
        ("port", false, Refusal::new("PortUnavailable", message))
    })
}

/// Condition OverlappingTLSConfig: a client of HTTP may come back over a connection that it opened
/// for another listener's name. What is no HTTP has no such clients.
fn overlaps(gateway: &mut Gateway<'_>) {
    let all: Vec<usize> = gateway
        .listeners
        .iter()
        .filter(|listener| listener.tls && listener.accepted.is_ok())
        .map(|listener| listener.place)
        .collect();
    for &place in &all {
        let listener = &gateway.listeners[place];
        if listener.spec.protocol != Protocol::Https {
            continue;
        }
        let other = all.iter().filter(|other| **other != place).find(|other| {
            let other = &gateway.listeners[**other];
            other.spec.port == listener.spec.port
                && overlap(listener.hostname.as_ref(), other.hostname.as_ref())
        });
        if let Some(&other) = other {
            let other = &gateway.listeners[other];
            let message = format!(
                "{} overlaps with {} of listener `{}`; a request that reaches the wrong one is \
                 answered 421",
                host(listener.hostname.as_ref()),
                host(other.hostname.as_ref()),
                other.spec.name
            );
            gateway.listeners[place].overlap = Some(message);
        }
    }
}

fn overlap(a: Option<&HostPattern>, b: Option<&HostPattern>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.intersect(b).is_some(),
        _ => true,
    }
}

fn host(hostname: Option<&HostPattern>) -> String {
    hostname.map_or_else(|| "any host".into(), |hostname| format!("host `{hostname}`"))
}
