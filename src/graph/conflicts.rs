//! Conflicts between listeners that cannot share a port, in one Gateway with its ListenerSets and
//! across Gateways.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use crate::api::{ObjectKey, Protocol};
use crate::config::Origin;
use crate::net::HostPattern;

use super::facts::LoadFacts;
use super::gateways::Gateway;
use super::listener_sets::ListenerSet;
use super::listeners::Listener;
use super::verdict::{FalseCondition, Faults};

/// Marks listeners that cannot be served because of others.
///
/// Within one object no listener takes precedence: all that are not distinct are refused. Between
/// Gateways the older one takes precedence, then the first by name, so that a new file does not
/// displace listeners that are served. (The specification gives every Gateway addresses of its own;
/// on one host two Gateways may share one.) A Gateway takes precedence over every ListenerSet, and
/// an older ListenerSet over a newer one (GEP-1713).
pub(super) fn judge<'a>(
    gateways: &mut [Gateway<'a>],
    sets: &mut [ListenerSet<'a>],
    facts: &LoadFacts<'_>,
    faults: &mut Faults,
) {
    for gateway in &mut *gateways {
        within(&gateway.key, &mut gateway.listeners, faults);
    }
    let mut taken = Ports::default();
    for gateway in gateways.iter_mut().filter(|gateway| gateway.valid.is_ok()) {
        let Gateway { key, listeners, addresses, .. } = gateway;
        let place = ListenerPlace { gateway: key, owner: key, addresses };
        taken.refuse(place, listeners, faults);
        unavailable(place, listeners, facts, faults);
        taken.add(place, listeners);
    }
    for set in sets.iter_mut().filter(|set| set.valid.is_ok()) {
        let Gateway { key, addresses, valid, .. } = &gateways[set.gateway];
        if valid.is_err() {
            continue;
        }
        let place = ListenerPlace { gateway: key, owner: &set.key, addresses };
        taken.refuse(place, &mut set.listeners, faults);
        // Listeners that are already refused do not conflict with others.
        within(&set.key, &mut set.listeners, faults);
        unavailable(place, &mut set.listeners, facts, faults);
        taken.add(place, &set.listeners);
    }
    overlaps(gateways, sets);
}

/// The use of a port. Listeners that share a port must agree on it. HTTPS listeners and TLS
/// listeners of either mode are distinguished by the server name (SNI) of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortUse {
    Plain,
    Tls,
    Tcp,
    /// Shares its port number with any of the others.
    Udp,
}

fn transport(protocol: &Protocol) -> Option<PortUse> {
    match protocol {
        Protocol::Http => Some(PortUse::Plain),
        Protocol::Https | Protocol::Tls => Some(PortUse::Tls),
        Protocol::Tcp => Some(PortUse::Tcp),
        Protocol::Udp => Some(PortUse::Udp),
        Protocol::Unknown(_) => None,
    }
}

fn within(owner: &ObjectKey, listeners: &mut [Listener<'_>], faults: &mut Faults) {
    let mut ports: BTreeMap<(u16, bool), Vec<usize>> = BTreeMap::new();
    for listener in listeners.iter().filter(|listener| listener.conflict.is_none()) {
        if let Some(transport) = transport(&listener.spec.protocol) {
            let port = (listener.spec.port, transport == PortUse::Udp);
            ports.entry(port).or_default().push(listener.place);
        }
    }
    for ((port, _), places) in ports {
        for &place in &places {
            let listener = &listeners[place];
            let others = || {
                let others = places.iter().filter(|other| **other != place);
                others.map(|other| &listeners[*other])
            };
            let refusal = others()
                .find(|other| !share_port(listener, other))
                .map(|other| {
                    let message = format!(
                        "protocol {} cannot share port {port} with {} of listener `{}`; use another port",
                        listener.spec.protocol, other.spec.protocol, other.spec.name
                    );
                    ("protocol", FalseCondition::new("ProtocolConflict", message))
                })
                .or_else(|| {
                    let same = others().find(|other| same_host(listener, other))?;
                    let message = format!(
                        "listener `{}` has port {port} and {} too; give each a hostname of its own",
                        same.spec.name,
                        host(same.hostname.as_ref())
                    );
                    Some(("", FalseCondition::new("HostnameConflict", message)))
                });
            if let Some((rest, refusal)) = refusal {
                let listener = &mut listeners[place];
                faults.error(owner, listener.field(rest), &*refusal.message);
                listener.conflicts(refusal);
            }
        }
    }
}

/// Returns true if both listeners have the same hostname. An invalid hostname equals no other.
fn same_host(a: &Listener<'_>, b: &Listener<'_>) -> bool {
    let readable =
        |listener: &Listener<'_>| listener.hostname.is_some() || listener.spec.hostname().is_none();
    a.hostname == b.hostname && readable(a) && readable(b)
}

fn share_port(a: &Listener<'_>, b: &Listener<'_>) -> bool {
    let (a, b) = (transport(&a.spec.protocol), transport(&b.spec.protocol));
    // UDP shares a port number with any other use. TCP and UDP listeners have no hostname that
    // could distinguish them from others of the same use.
    a == b || (a == Some(PortUse::Udp)) != (b == Some(PortUse::Udp))
}

/// The addresses of some listeners, and the objects that the listeners belong to.
#[derive(Clone, Copy)]
struct ListenerPlace<'p> {
    gateway: &'p ObjectKey,
    /// The Gateway or one of its ListenerSets.
    owner: &'p ObjectKey,
    addresses: &'p [Option<IpAddr>],
}

/// The holders of ports, by port number and whether it is a UDP port, then by address.
#[derive(Default)]
struct Ports(HashMap<(u16, bool), HashMap<Option<IpAddr>, PortHolder>>);

/// The Gateway that holds a port at an address, and the hostnames of its listeners there.
struct PortHolder {
    gateway: ObjectKey,
    transport: Option<PortUse>,
    /// The full name of the listener with each hostname.
    names: HashMap<Option<HostPattern>, String>,
}

/// Returns the key of a listener's port in [`Ports`].
fn port(listener: &Listener<'_>) -> (u16, bool) {
    let transport = transport(&listener.spec.protocol);
    (listener.spec.port, transport == Some(PortUse::Udp))
}

impl Ports {
    /// Refuses those of `listeners` whose port or hostname is taken. A conflict is recorded even if
    /// the listener has other faults.
    fn refuse(
        &self,
        place: ListenerPlace<'_>,
        listeners: &mut [Listener<'_>],
        faults: &mut Faults,
    ) {
        for listener in listeners.iter_mut().filter(|listener| {
            listener.conflict.is_none() && transport(&listener.spec.protocol).is_some()
        }) {
            let Some(on_port) = self.0.get(&port(listener)) else { continue };
            let mut addresses = place.addresses.iter();
            let clash =
                addresses.find_map(|address| clash(place.gateway, listener, *address, on_port));
            let Some((rest, conflict, refusal)) = clash else { continue };
            if !conflict && listener.accepted.is_err() {
                continue;
            }
            faults.error(place.owner, listener.field(rest), &*refusal.message);
            if conflict {
                listener.conflicts(refusal);
            } else {
                listener.accepted = Err(refusal);
            }
        }
    }

    /// Records the ports and hostnames of the accepted `listeners`.
    fn add(&mut self, place: ListenerPlace<'_>, listeners: &[Listener<'_>]) {
        for listener in listeners.iter().filter(|listener| listener.accepted.is_ok()) {
            let on_port = self.0.entry(port(listener)).or_default();
            for address in place.addresses {
                let taken = on_port.entry(*address).or_insert_with(|| PortHolder {
                    gateway: place.gateway.clone(),
                    transport: transport(&listener.spec.protocol),
                    names: HashMap::new(),
                });
                let ObjectKey { namespace, name, .. } = listener.owner.object();
                let full = format!("{namespace}/{name}/{}", listener.spec.name);
                taken.names.insert(listener.hostname.clone(), full);
            }
        }
    }
}

/// Returns the reason why `listener` of Gateway `gateway` cannot use `address`: the field, whether
/// it is a conflict in the sense of the specification, and the refusal.
fn clash(
    gateway: &ObjectKey,
    listener: &Listener<'_>,
    address: Option<IpAddr>,
    on_port: &HashMap<Option<IpAddr>, PortHolder>,
) -> Option<(&'static str, bool, FalseCondition)> {
    let port = listener.spec.port;
    if let Some(taken) = on_port.get(&address) {
        let advice = match taken.gateway == *gateway {
            true => "",
            false => ", or its Gateway an address of its own under `spec.addresses`",
        };
        if taken.transport != transport(&listener.spec.protocol) {
            let ObjectKey { namespace, name, .. } = &taken.gateway;
            let message = format!(
                "protocol {} cannot share port {port} with the listeners of Gateway \
                 `{namespace}/{name}`; give this one another port{advice}",
                listener.spec.protocol
            );
            return Some(("protocol", true, FalseCondition::new("ProtocolConflict", message)));
        }
        let owner = taken.names.get(&listener.hostname)?;
        if let Some(PortUse::Tcp | PortUse::Udp) = taken.transport {
            let message = format!(
                "listener `{owner}` has {} port {port} already; give this one another port{advice}",
                listener.spec.protocol
            );
            return Some(("port", false, FalseCondition::new("PortUnavailable", message)));
        }
        let message = format!(
            "listener `{owner}` has port {port} and {} already; give this one another hostname or \
             port{advice}",
            host(listener.hostname.as_ref())
        );
        return Some(("hostname", true, FalseCondition::new("HostnameConflict", message)));
    }
    // A socket on every address and a socket on a single address cannot share a port.
    let other = on_port
        .iter()
        .find(|(other, taken)| overlap_addresses(**other, address) && taken.gateway != *gateway);
    other.map(|(_, taken)| {
        let ObjectKey { namespace, name, .. } = &taken.gateway;
        let message = format!(
            "Gateway `{namespace}/{name}` has port {port} already, {}; give both Gateways addresses \
             under `spec.addresses`",
            if is_every(address) { "on one address" } else { "on every address" }
        );
        ("port", false, FalseCondition::new("PortUnavailable", message))
    })
}

/// Refuses those of `listeners` whose port cannot be bound on this host, for example because
/// another process uses it.
fn unavailable(
    place: ListenerPlace<'_>,
    listeners: &mut [Listener<'_>],
    facts: &LoadFacts<'_>,
    faults: &mut Faults,
) {
    for listener in listeners.iter_mut().filter(|listener| listener.accepted.is_ok()) {
        let mut addresses = place.addresses.iter();
        let problem = addresses.find_map(|address| (facts.unusable_port)(*address, listener.spec));
        if let Some(problem) = problem {
            faults.error_of(Origin::Host, place.owner, listener.field("port"), &*problem);
            listener.accepted = Err(FalseCondition::new("PortUnavailable", problem));
        }
    }
}

fn is_every(address: Option<IpAddr>) -> bool {
    address.is_none_or(|address| address.is_unspecified())
}

/// Returns true if sockets cannot be bound to both addresses at once. `0.0.0.0` is every IPv4
/// address.
fn overlap_addresses(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => {
            a.is_ipv4() == b.is_ipv4() && a.is_unspecified() != b.is_unspecified()
        }
        (None, Some(_)) | (Some(_), None) => true,
        (None, None) => false,
    }
}

/// Sets condition OverlappingTLSConfig. An HTTP client may reuse a connection that it opened for
/// the hostname of another listener. Clients of other protocols do not.
fn overlaps<'a>(gateways: &mut [Gateway<'a>], sets: &mut [ListenerSet<'a>]) {
    let mut of_gateways: Vec<Vec<&mut Listener<'a>>> =
        gateways.iter_mut().map(|gateway| gateway.listeners.iter_mut().collect()).collect();
    for set in sets.iter_mut().filter(|set| set.valid.is_ok()) {
        of_gateways[set.gateway].extend(&mut set.listeners);
    }
    for listeners in &mut of_gateways {
        listeners.retain(|listener| listener.tls && listener.accepted.is_ok());
        let messages: Vec<Option<String>> =
            (0..listeners.len()).map(|place| overlap_of(place, listeners)).collect();
        for (listener, message) in listeners.iter_mut().zip(messages) {
            listener.overlap = message;
        }
    }
}

/// Returns the message for the listener at `place` if another listener of its port has overlapping
/// hostnames.
fn overlap_of(place: usize, all: &[&mut Listener<'_>]) -> Option<String> {
    let listener = &all[place];
    if listener.spec.protocol != Protocol::Https {
        return None;
    }
    let others = all.iter().enumerate().filter(|(other, _)| *other != place);
    let mut on_port =
        others.map(|(_, other)| other).filter(|other| other.spec.port == listener.spec.port);
    let other =
        on_port.find(|other| overlap(listener.hostname.as_ref(), other.hostname.as_ref()))?;
    Some(format!(
        "{} overlaps with {} of listener `{}`; a request that reaches the wrong one is answered 421",
        host(listener.hostname.as_ref()),
        host(other.hostname.as_ref()),
        other.spec.name
    ))
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
