//! Metrics of the client side: binds, as Envoy's HTTP connection managers and listeners.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::downstream::Connections;
use crate::snapshot::{Bind, Snapshot, Traffic, Transport};
use crate::stats::{
    CIPHERS, Counter, Downstream, ResponseFlag, TLS_VERSIONS, TUNNELS, Times, Tunnel, Tunnels,
};
use crate::tls::{Chain, JudgedCertificate};

use super::exposition::{Exposition, Labels, unix_seconds};

/// A counter of a bind.
type Of = fn(&Downstream) -> &Counter;

pub(super) fn write(text: &mut Exposition, snapshot: &Snapshot, connections: &Connections) {
    managers(text, snapshot);
    tunnels(text, snapshot);
    listeners(text, snapshot);
    workers(text, snapshot, connections);
    datagrams(text, snapshot);
    certificates(text, snapshot);
    failures(text, snapshot);
}

/// Writes the metrics of HTTP connection managers. The label is Envoy Gateway's `stat_prefix`: the
/// scheme and the port. Binds of several addresses with the same scheme and port are summed; binds
/// without HTTP are left out.
fn managers(text: &mut Exposition, snapshot: &Snapshot) {
    let mut managers: BTreeMap<String, Vec<&Bind>> = BTreeMap::new();
    for bind in of(snapshot, Transport::Tcp) {
        let mut traffic = bind.listeners.sorted().into_iter().map(|(_, on)| &on.traffic);
        if !traffic.any(|of| matches!(of, Traffic::Http(_))) {
            continue;
        }
        let scheme = if bind.tls { "https" } else { "http" };
        managers.entry(format!("{scheme}-{}", bind.key.port)).or_default().push(bind);
    }
    let managers: Vec<_> = managers
        .iter()
        .map(|(name, binds)| (Labels::new("envoy_http_conn_manager_prefix", name), binds))
        .collect();
    let sums = |of: Of| {
        managers.iter().map(move |(labels, binds)| {
            (labels.clone(), binds.iter().map(|bind| bind.counts.sum(of)).sum::<u64>())
        })
    };
    let counters: [(&str, &str, Of); 6] = [
        ("rq_total", "Requests.", |of| &of.requests),
        ("cx_total", "Connections.", |of| &of.connections),
        ("cx_http1_total", "Connections that spoke HTTP/1.", |of| &of.connections_http1),
        ("cx_http2_total", "Connections that spoke HTTP/2.", |of| &of.connections_http2),
        ("cx_rx_bytes_total", "Bytes from clients.", |of| &of.received_bytes),
        ("cx_tx_bytes_total", "Bytes to clients.", |of| &of.sent_bytes),
    ];
    for (name, help, of) in counters {
        text.counters(&format!("envoy_http_downstream_{name}"), help, sums(of));
    }
    let gauges: [(&str, &str, Of); 2] = [
        ("rq_active", "Requests under way.", |of| &of.requests_active),
        ("cx_active", "Open connections.", |of| &of.connections_active),
    ];
    for (name, help, of) in gauges {
        text.gauges(&format!("envoy_http_downstream_{name}"), help, sums(of));
    }
    let classes = (1..=5).flat_map(|class| {
        managers.iter().map(move |(labels, binds)| {
            let of_bind = |bind: &&Bind| bind.counts.sum(|of| of.responses.of(class));
            let labels = labels.and("envoy_response_code_class", &class.to_string());
            (labels, binds.iter().map(of_bind).sum::<u64>())
        })
    });
    text.counters("envoy_http_downstream_rq_xx", "Responses by class.", classes);
    let times = managers.iter().map(|(labels, binds)| {
        let of_binds = binds.iter().map(|bind| Times::of(&bind.counts, |of| &of.times));
        (labels.clone(), of_binds.fold(Times::default(), |sum, of| sum.and(&of)))
    });
    text.times(
        "envoy_http_downstream_rq_time",
        "Milliseconds from a request to the last byte of its response.",
        times,
    );
}

/// Writes the metrics of Envoy's TCP proxies, also with the `stat_prefix` of Envoy Gateway.
fn tunnels(text: &mut Exposition, snapshot: &Snapshot) {
    type Of = fn(&Tunnels) -> &Counter;
    let mut proxies: BTreeMap<(u16, Tunnel), Vec<&Bind>> = BTreeMap::new();
    for bind in of(snapshot, Transport::Tcp) {
        let kinds = bind.listeners.sorted().into_iter().filter_map(|(_, on)| match on.traffic {
            Traffic::Forward(_) if bind.tls => Some(Tunnel::Terminate),
            Traffic::Forward(_) => Some(Tunnel::Tcp),
            Traffic::Passthrough(_) => Some(Tunnel::Passthrough),
            Traffic::Http(_) => None,
        });
        for kind in kinds {
            let binds = proxies.entry((bind.key.port, kind)).or_default();
            // A bind may have several listeners of the kind.
            if !binds.iter().any(|other| other.key == bind.key) {
                binds.push(bind);
            }
        }
    }
    let proxies: Vec<_> = proxies
        .iter()
        .map(|((port, tunnel), binds)| {
            let name = format!("{}-{port}", TUNNELS[*tunnel as usize]);
            (Labels::new("envoy_tcp_prefix", &name), *tunnel, binds)
        })
        .collect();
    let counters: [(&str, &str, Of); 5] = [
        ("downstream_cx_total", "Connections carried as they are.", |of| &of.connections),
        ("downstream_cx_no_route", "Connections that no route led anywhere.", |of| {
            &of.without_route
        }),
        ("downstream_cx_rx_bytes_total", "Bytes from clients.", |of| &of.received_bytes),
        ("downstream_cx_tx_bytes_total", "Bytes to clients.", |of| &of.sent_bytes),
        ("idle_timeout", "Connections in which nothing moved for too long.", |of| {
            &of.idle_timeouts
        }),
    ];
    for (name, help, of) in counters {
        let sums = proxies.iter().map(|(labels, tunnel, binds)| {
            let of_bind = |bind: &&Bind| bind.counts.sum(|set| of(set.tunnels(*tunnel)));
            (labels.clone(), binds.iter().map(of_bind).sum::<u64>())
        });
        text.counters(&format!("envoy_tcp_{name}"), help, sums);
    }
}

/// Returns the number of connections that count for limits of a bind and its listeners; `None` if
/// there is no limit.
fn counted(bind: &Bind) -> Option<u64> {
    let listeners = bind.listeners.sorted();
    let of_listeners = listeners.into_iter().map(|(_, listener)| &listener.connection_limit);
    let limits = of_listeners.chain([&bind.connection_limit]).flatten();
    limits.map(|limit| limit.open() as u64).reduce(|sum, open| sum + open)
}

fn listeners(text: &mut Exposition, snapshot: &Snapshot) {
    let binds = of(snapshot, Transport::Tcp).map(|bind| (listener(bind), bind));
    let binds: Vec<_> = binds.collect();
    let sums =
        |of: Of| binds.iter().map(move |(labels, bind)| (labels.clone(), bind.counts.sum(of)));
    text.counters(
        "envoy_listener_downstream_cx_total",
        "Connections by the socket they came to.",
        sums(|of| &of.connections),
    );
    text.gauges(
        "envoy_listener_downstream_cx_active",
        "Open connections by the socket they came to.",
        sums(|of| &of.connections_active),
    );
    let limited = binds.iter().filter_map(|(labels, bind)| Some((labels, bind, counted(bind)?)));
    let limited: Vec<_> = limited.collect();
    text.counters(
        "envoy_connection_limit_limited_connections",
        "Connections that were closed because their listener had as many as its policy allows.",
        limited.iter().map(|(labels, bind, _)| {
            (Labels::clone(labels), bind.counts.sum(|of| &of.limited_connections))
        }),
    );
    text.gauges(
        "envoy_connection_limit_active_connections",
        "Open connections that count for the limit of a policy.",
        limited.iter().map(|(labels, _, open)| (Labels::clone(labels), *open)),
    );
    let behind: Vec<_> = binds.iter().filter(|(_, bind)| bind.proxy_header.is_some()).collect();
    text.counters(
        "envoy_listener_downstream_cx_proxy_proto_error",
        "Connections without a valid PROXY header in time.",
        behind
            .iter()
            .map(|(labels, bind)| (labels.clone(), bind.counts.sum(|of| &of.proxy_header_errors))),
    );

    let tls: Vec<_> = binds.into_iter().filter(|(_, bind)| bind.tls).collect();
    let sums = |of: Of| tls.iter().map(move |(labels, bind)| (labels.clone(), bind.counts.sum(of)));
    text.counters(
        "envoy_listener_ssl_handshake",
        "TLS sessions that were made.",
        sums(|of| &of.handshakes),
    );
    text.counters(
        "envoy_listener_ssl_connection_error",
        "TLS handshakes that failed.",
        sums(|of| &of.handshakes_failed),
    );
    text.counters(
        "envoy_listener_no_filter_chain_match",
        "Connections for a name that no listener has.",
        sums(|of| &of.unmatched),
    );
    let ciphers: Vec<_> = tls
        .iter()
        .flat_map(|(labels, bind)| {
            CIPHERS.iter().enumerate().map(move |(place, name)| {
                let count = bind.counts.sum(|of| &of.ciphers[place]);
                (labels.and("envoy_ssl_cipher", name), count)
            })
        })
        .filter(|(_, count)| *count > 0)
        .collect();
    let help = "TLS sessions by cipher.";
    // Both names are in use: Envoy's own, and that of its older dashboards.
    text.counters("envoy_listener_ssl_ciphers", help, ciphers.clone());
    text.counters("envoy_ssl_ciphers", help, ciphers);
    let versions = tls.iter().flat_map(|(labels, bind)| {
        TLS_VERSIONS.iter().enumerate().map(move |(place, name)| {
            let count = bind.counts.sum(|of| &of.tls_versions[place]);
            (labels.and("envoy_ssl_version", name), count)
        })
    });
    text.counters("envoy_listener_ssl_versions", "TLS sessions by version.", versions);
}

/// Writes the open connections of each worker, which shows how they are balanced.
fn workers(text: &mut Exposition, snapshot: &Snapshot, connections: &Connections) {
    let workers = connections.of_workers();
    let open = of(snapshot, Transport::Tcp).flat_map(|bind| {
        let of_bind = listener(bind);
        workers.iter().enumerate().map(move |(number, worker)| {
            let labels = of_bind.and("envoy_worker_id", &number.to_string());
            (labels, worker.get(&bind.key).copied().unwrap_or_default())
        })
    });
    let help = "Open connections by the socket they came to and the worker that serves them.";
    text.gauges("envoy_listener_worker_downstream_cx_active", help, open);
}

/// Writes the metrics of UDP binds. Envoy calls a flow a session. UDP proxies have no names in the
/// gateway; the label is the address of the socket.
fn datagrams(text: &mut Exposition, snapshot: &Snapshot) {
    let binds = of(snapshot, Transport::Udp).map(|bind| (listener(bind), bind));
    let binds: Vec<_> = binds.collect();
    let sums =
        |of: Of| binds.iter().map(move |(labels, bind)| (labels.clone(), bind.counts.sum(of)));
    let counters: [(&str, &str, Of); 7] = [
        ("total", "Flows of datagrams.", |of| &of.datagrams.flows),
        ("evicted", "Flows that had to go for others.", |of| &of.datagrams.evicted),
        ("rx_datagrams", "Datagrams from clients.", |of| &of.datagrams.received),
        ("rx_bytes", "Bytes of datagrams from clients.", |of| &of.datagrams.received_bytes),
        ("tx_datagrams", "Datagrams to clients.", |of| &of.datagrams.sent),
        ("tx_bytes", "Bytes of datagrams to clients.", |of| &of.datagrams.sent_bytes),
        ("dropped", "Datagrams without a backend or without room.", |of| &of.datagrams.dropped),
    ];
    for (name, help, of) in counters {
        text.counters(&format!("envoy_udp_downstream_sess_{name}"), help, sums(of));
    }
    let help = "Flows of datagrams that are open.";
    text.gauges("envoy_udp_downstream_sess_active", help, sums(|of| &of.datagrams.flows_active));
}

fn of(snapshot: &Snapshot, transport: Transport) -> impl Iterator<Item = &Bind> {
    let binds = snapshot.binds.iter().map(|bind| &**bind);
    binds.filter(move |bind| bind.key.transport == transport)
}

/// Returns the label of a socket by Envoy's convention, such as `0.0.0.0_443`.
fn listener(bind: &Bind) -> Labels {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let address = SocketAddr::new(bind.key.address.unwrap_or(any), bind.key.port);
    Labels::new("envoy_listener_address", &format!("{}_{}", address.ip(), address.port()))
}

/// Writes the metrics of the served certificates, each once.
fn certificates(text: &mut Exposition, snapshot: &Snapshot) {
    let mut certificates = BTreeMap::new();
    for bind in &snapshot.binds {
        for (_, listener) in bind.listeners.sorted() {
            for slot in &listener.certificates {
                for judged in slot.judged() {
                    certificates
                        .entry(judged.facts.serial.clone())
                        .or_insert_with(|| (Arc::clone(slot), judged));
                }
            }
        }
    }
    let expiries: Vec<_> = certificates
        .values()
        .map(|(slot, JudgedCertificate { facts, chain })| {
            let of = facts.lineage.as_deref().unwrap_or_else(|| slot.object());
            let name = facts.names.first().map_or("", String::as_str);
            (
                of,
                name,
                &*facts.serial,
                unix_seconds(facts.not_before),
                unix_seconds(facts.not_after),
                u64::from(!matches!(chain, Chain::Broken(_))),
            )
        })
        .collect();
    text.gauges(
        "envoy_listener_ssl_certificate_expiration_unix_time_seconds",
        "When a certificate expires.",
        expiries
            .iter()
            .map(|(of, .., not_after, _)| (Labels::new("envoy_tls_certificate", of), not_after)),
    );
    let labels = |of: &str, name: &str, serial: &str| {
        Labels::new("lineage", of).and("name", name).and("serial", serial)
    };
    text.gauges(
        "edge_gateway_certificate_not_before_timestamp_seconds",
        "When a certificate became valid.",
        expiries
            .iter()
            .map(|(of, name, serial, not_before, ..)| (labels(of, name, serial), not_before)),
    );
    text.gauges(
        "edge_gateway_certificate_not_after_timestamp_seconds",
        "When a certificate expires.",
        expiries
            .iter()
            .map(|(of, name, serial, _, not_after, _)| (labels(of, name, serial), not_after)),
    );
    text.gauges(
        "edge_gateway_certificate_chain_valid",
        "0 if clients cannot follow the chain: an intermediate is missing, wrong or out of date.",
        expiries.iter().map(|(of, name, serial, .., valid)| (labels(of, name, serial), valid)),
    );
    let mut uncovered: BTreeMap<&str, usize> = BTreeMap::new();
    for bind in snapshot.binds.iter().filter(|bind| bind.tls) {
        for (_, listener) in bind.listeners.sorted() {
            if listener.tls.is_some() {
                uncovered.insert(&listener.name, bind.uncovered(listener).len());
            }
        }
    }
    text.gauges(
        "edge_gateway_listener_hostnames_without_certificate",
        "Hostnames of a listener and its routes that none of its certificates is for.",
        uncovered.iter().map(|(name, count)| (Labels::new("listener", name), count)),
    );
}

fn failures(text: &mut Exposition, snapshot: &Snapshot) {
    let flags = ResponseFlag::ALL.into_iter().map(|flag| {
        let of_bind = |bind: &Arc<Bind>| bind.counts.sum(|of| of.flag(flag));
        (Labels::new("flag", flag.short()), snapshot.binds.iter().map(of_bind).sum::<u64>())
    });
    text.counters(
        "edge_gateway_requests_failed_total",
        "Requests that were not completed, by Envoy's response flag.",
        flags,
    );
}
