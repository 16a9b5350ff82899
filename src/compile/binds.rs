//! Binds, built from listeners: one socket address, and the listeners of all Gateways that share
//! it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::api::{self, Protocol};
use crate::graph::{Attached, Gateway, Graph, Listener};
use crate::net::HostPattern;
use crate::snapshot::{
    self, Bind, BindKey, ConnectionBound, ConnectionLimit, CountedTogether, Entry, Forward,
    Forwards, HostTable, RouteTable, Traffic, Transport,
};
use crate::tls::{ListenerCertificates, Peer, server_config};

use super::access_logs::AccessLogs;
use super::client_policy::{ListenerSettings, closed_rule, until_known};
use super::inputs::Inputs;
use super::routes::{CompiledRoute, CompiledRoutes};
use super::slots::Slots;
use super::tracing::Tracings;
use super::trust::Trust;

/// The protocols of an HTTPS listener, most preferred first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The inputs for building listeners.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'p> {
    pub graph: &'p Graph<'p>,
    pub logs: &'p AccessLogs,
    pub routes: &'p CompiledRoutes<'p>,
    pub tracings: &'p Tracings,
    pub slots: &'p Slots<'p>,
    pub trust: &'p Trust,
    pub inputs: &'p Inputs<'p>,
}

/// Returns the binds of every served Gateway, in the order of their addresses.
pub(super) fn binds(parts: Parts<'_>) -> Vec<Arc<Bind>> {
    let mut binds: BTreeMap<BindKey, Bind> = BTreeMap::new();
    // The EnvoyProxy of each bind whose Gateways all have the same log.
    let mut logs: HashMap<BindKey, Option<usize>> = HashMap::new();
    for (gateway, listener) in parts.graph.served() {
        let built = Arc::new(build(gateway, listener, parts));
        for address in &gateway.addresses {
            let key = key(*address, listener.spec);
            let bind = binds.entry(key).or_insert_with(|| Bind {
                key,
                names: Vec::new(),
                tls: listener.tls,
                https: false,
                forwards_tls: false,
                listeners: HostTable::default(),
                limits: Arc::clone(&built.limits),
                policy: None,
                has_policies: false,
                proxy_header: None,
                connection_limit: None,
                keep_alive: None,
                access_log: parts.logs.of(gateway).cloned(),
                counts: parts
                    .inputs
                    .previous
                    .carried
                    .bind_counts
                    .get_or_make(key, |_| Arc::default()),
            });
            bind.has_policies |= built.policy.is_some();
            if !listener.tls && built.policy.is_some() {
                // All listeners of the bind that are not closed have this policy.
                bind.limits = Arc::clone(&built.limits);
                bind.policy.clone_from(&built.policy);
            } else if listener.tls && bind.limits != built.limits {
                let defaults = parts.inputs.client_limits;
                bind.limits = Arc::new(until_known(defaults, &bind.limits, &built.limits));
            }
            // The listener of a connection is known only after its header.
            if let Some(policy) = &built.policy {
                bind.proxy_header = bind.proxy_header.max(policy.proxy_header);
                bind.keep_alive = bind.keep_alive.or(policy.keep_alive);
                if !listener.tls && bind.connection_limit.is_none() {
                    let bound = policy.connections;
                    let counted = CountedTogether::Bind(key);
                    bind.connection_limit = bound.map(|bound| limit(bound, counted, parts.inputs));
                }
            }
            bind.https |= listener.spec.protocol == Protocol::Https;
            bind.forwards_tls |= listener.spec.protocol == Protocol::Tls;
            if *logs.entry(key).or_insert(gateway.proxy) != gateway.proxy {
                bind.access_log = None;
            }
            let name: Arc<str> = listener.spec.name.as_str().into();
            if !bind.names.contains(&name) {
                bind.names.push(name);
            }
            // The graph accepts only one listener for a name.
            bind.listeners.entry(listener.hostname.as_ref(), || Arc::clone(&built));
        }
    }
    binds.into_values().map(Arc::new).collect()
}

/// Returns the bind of a listener of a Gateway with this address.
pub(super) fn key(address: Option<IpAddr>, listener: &api::Listener) -> BindKey {
    let transport = match listener.protocol {
        Protocol::Udp => Transport::Udp,
        _ => Transport::Tcp,
    };
    BindKey { address, port: listener.port, transport }
}

fn build(gateway: &Gateway<'_>, listener: &Listener<'_>, parts: Parts<'_>) -> snapshot::Listener {
    let Parts { graph, logs, routes, tracings, slots, trust, inputs } = parts;
    let certificates: Vec<_> = listener
        .certificates
        .iter()
        .map(|certificate| slots.get(certificate, Peer::Clients))
        .collect();
    let is_http = matches!(listener.spec.protocol, Protocol::Http | Protocol::Https);
    // The protocol of a backend behind a TLS listener is not known, so ALPN offers none.
    let alpn: &[&[u8]] = if is_http { &ALPN } else { &[] };
    let clients = listener.clients.as_ref();
    // A client that cannot be verified must not be accepted: a listener without certificates
    // refuses handshakes.
    let clients = clients.map(|clients| trust.of_clients(clients));
    let shown = if clients == Some(None) { Vec::new() } else { certificates.clone() };
    let shown = ListenerCertificates::new(shown);
    let clients = clients.flatten();
    let tls = (listener.tls && !listener.passthrough)
        .then(|| server_config(shown.clone(), alpn, inputs.tickets, clients.as_ref()));
    let hosts = if tls.is_some() { hosts(listener) } else { Vec::new() };
    let settings = ListenerSettings::of(&graph.client, listener, inputs.client_limits);
    let traffic = if is_http {
        let rows = listener.routes.iter().filter_map(|on| {
            routes.on(graph, on.route, gateway, listener).map(|route| entries(on, route))
        });
        let rows = rows.flatten();
        Traffic::Http(match settings.closed {
            true => RouteTable::new(rows.map(|row| Entry { rule: closed_rule(&row.rule), ..row })),
            false => RouteTable::new(rows),
        })
    } else {
        let served = listener.routes.iter().filter(|_| !settings.closed);
        let on = served.filter_map(|on| {
            let route = routes.on(graph, on.route, gateway, listener)?;
            // Traffic that this listener decrypts is encrypted again if a policy requires it.
            let decrypted = route.decrypted.as_ref().filter(|_| tls.is_some());
            Some((on, decrypted.or(route.forward.as_ref())?))
        });
        match listener.passthrough {
            true => Traffic::Passthrough(forwards(on)),
            false => Traffic::Forward(forwards(on)),
        }
    };
    let name: Arc<str> = listener.full_name().into();
    let bound = settings.policy.as_ref().and_then(|policy| policy.connections);
    let bound = bound.filter(|_| listener.tls);
    let counted = || CountedTogether::Listener(Arc::clone(&name));
    snapshot::Listener {
        connection_limit: bound.map(|bound| limit(bound, counted(), inputs)),
        name,
        hostname: listener.hostname.clone(),
        tls,
        clients,
        certificates,
        shown,
        hosts,
        traffic,
        limits: settings.limits,
        policy: settings.policy,
        tracing: is_http.then(|| tracings.of(&gateway.key)).flatten(),
        access_log: logs.of(gateway).cloned(),
    }
}

/// Returns a limit with the number of connections that are open already.
fn limit(bound: ConnectionBound, counted: CountedTogether, inputs: &Inputs<'_>) -> ConnectionLimit {
    let open = &inputs.previous.carried.open_connections;
    ConnectionLimit::new(bound, open.get_or_make(counted, |_| Arc::default()))
}

/// Returns the hostnames of a listener and of its routes. A wildcard of the listener is included
/// only if it is also a host of a route, or if there is no route.
fn hosts(listener: &Listener<'_>) -> Vec<HostPattern> {
    let own = listener.hostname.iter();
    let own = own.filter(|host| host.exact().is_some() || listener.routes.is_empty());
    let mut known = HashSet::new();
    let all = own.chain(listener.routes.iter().flat_map(|on| &on.hosts));
    all.filter(|host| known.insert(*host)).cloned().collect()
}

/// Returns the routes of a listener by their hosts on it. If two routes have the same host, the
/// first, which is the older one, gets it (TCPRoute and UDPRoute have no host, so all but the
/// oldest get nothing).
fn forwards<'r>(routes_on: impl Iterator<Item = (&'r Attached, &'r Arc<Forward>)>) -> Forwards {
    let mut forwards = Forwards::default();
    for (on, forward) in routes_on {
        if on.hosts.is_empty() {
            forwards.entry(None, || Arc::clone(forward));
        }
        for host in &on.hosts {
            forwards.entry(Some(host), || Arc::clone(forward));
        }
    }
    forwards
}

/// Returns the rows of a route, for its hosts on one listener.
fn entries<'r>(on: &'r Attached, route: &'r CompiledRoute) -> impl Iterator<Item = Entry> + 'r {
    route.rows.iter().map(move |(path, conditions, rule)| Entry {
        hosts: on.hosts.clone(),
        path: path.clone(),
        conditions: conditions.clone(),
        rule: Arc::clone(rule),
    })
}
