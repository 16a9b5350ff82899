//! Metrics of the backend side: rules of routes, as Envoy's clusters.

use std::cmp::Reverse;
use std::collections::HashSet;

use crate::snapshot::{Choice, Forward, Rule, Snapshot, Transport, WeightedClusters};
use crate::stats::{Counter, Sharded, Times, Upstream};
use crate::upstream::{Cluster, HealthGroup};

use super::exposition::{Exposition, Labels};

/// Limit on the rules with all metrics; if there are more, the busiest have them.
pub(super) const IN_FULL: usize = 250;

/// A counter of a rule.
type Of = fn(&Upstream) -> &Counter;

struct Row<'s> {
    labels: Labels,
    name: &'s str,
    kind: Kind,
    counts: &'s Sharded<Upstream>,
    /// Number of addresses, and of those that are unavailable.
    members: (usize, usize),
    /// Number of addresses that are ejected; without health checks, of the unavailable ones.
    ejected: usize,
    room: Room,
}

/// The room that the circuit breakers of a rule's clusters leave, each that of the fullest.
#[derive(Clone, Copy, Debug)]
struct Room {
    connections: usize,
    pending: usize,
    /// `usize::MAX` without a limit, as for retries.
    requests: usize,
    retries: usize,
}

impl Room {
    const UNLIMITED: Self = Self {
        connections: usize::MAX,
        pending: usize::MAX,
        requests: usize::MAX,
        retries: usize::MAX,
    };

    /// Returns the room that is left beside another cluster.
    fn beside(self, cluster: &Cluster) -> Self {
        let (connections, pending) = cluster.connections_left();
        let limits = cluster.request_limits();
        let (requests, retries) =
            limits.map_or((usize::MAX, usize::MAX), |of| (of.requests_left(), of.retries_left()));
        Self {
            connections: self.connections.min(connections),
            pending: self.pending.min(pending),
            requests: self.requests.min(requests),
            retries: self.retries.min(retries),
        }
    }
}

/// The traffic of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bytes,
    Datagrams,
    Requests,
}

pub(super) fn write(text: &mut Exposition, snapshot: &Snapshot) {
    let rules = snapshot.rules.values().map(|rule| Row::of_rule(rule));
    let rows: Vec<_> =
        rules.chain(snapshot.forwards.values().map(|of| Row::of_forward(of))).collect();
    let mut busiest: Vec<&Row<'_>> = rows.iter().collect();
    if busiest.len() > IN_FULL {
        busiest.sort_by_key(|row| Reverse(row.counts.sum(|of| &of.hits)));
        busiest.truncate(IN_FULL);
    }
    // With many rules, those without traffic are left out.
    let used: Vec<&Row<'_>> = match rows.len() > IN_FULL {
        true => rows.iter().filter(|row| row.counts.is_used()).collect(),
        false => rows.iter().collect(),
    };
    requests(text, &of(Kind::Requests, &used), &of(Kind::Requests, &busiest));
    hits(text, &busiest);
    connections(text, &busiest);
    circuit_breakers(text, &busiest);
    datagrams(text, &of(Kind::Datagrams, &busiest));
    let ranks: HashSet<&str> = busiest.iter().map(|row| row.name).collect();
    let troubled = |row: &&Row<'_>| row.members.1 > 0 || ranks.contains(row.name);
    members(text, &rows.iter().filter(troubled).collect::<Vec<_>>());
}

fn of<'r, 's>(kind: Kind, rows: &[&'r Row<'s>]) -> Vec<&'r Row<'s>> {
    rows.iter().copied().filter(|row| row.kind == kind).collect()
}

impl<'s> Row<'s> {
    fn of_rule(rule: &'s Rule) -> Self {
        let Rule { name, counts, backends, .. } = rule;
        Self::new(name, Kind::Requests, counts, backends.as_ref())
    }

    fn of_forward(forward: &'s Forward) -> Self {
        let Forward { name, transport, counts, backends, .. } = forward;
        let kind = match transport {
            Transport::Tcp => Kind::Bytes,
            Transport::Udp => Kind::Datagrams,
        };
        Self::new(name, kind, counts, backends.as_ref())
    }

    fn new(
        name: &'s str,
        kind: Kind,
        counts: &'s Sharded<Upstream>,
        backends: Option<&WeightedClusters>,
    ) -> Self {
        let (mut members, mut ejected) = ((0, 0), 0);
        let mut room = Room::UNLIMITED;
        for (_, choice) in backends.into_iter().flat_map(WeightedClusters::weighted) {
            if let Choice::Cluster { cluster, .. } = choice {
                let (all, avoided) = cluster.members();
                members = (members.0 + all, members.1 + avoided);
                ejected += cluster.health_group().map_or(avoided, HealthGroup::ejected);
                room = room.beside(cluster);
            }
        }
        let labels = Labels::new("envoy_cluster_name", name);
        Self { labels, name, kind, counts, members, ejected, room }
    }
}

fn sums<'r>(rows: &'r [&Row<'_>], of: Of) -> impl Iterator<Item = (Labels, u64)> + 'r {
    rows.iter().map(move |row| (row.labels.clone(), row.counts.sum(of)))
}

fn requests(text: &mut Exposition, used: &[&Row<'_>], busiest: &[&Row<'_>]) {
    text.counters(
        "envoy_cluster_upstream_rq_total",
        "Requests that were forwarded.",
        sums(used, |of| &of.requests),
    );
    let classes = (1..=5).flat_map(|class| {
        used.iter().filter_map(move |row| {
            let count = row.counts.sum(|of| of.responses.of(class));
            let labels = || row.labels.and("envoy_response_code_class", &class.to_string());
            (count > 0 || used.len() <= IN_FULL).then(|| (labels(), count))
        })
    });
    text.counters("envoy_cluster_upstream_rq_xx", "Responses by class.", classes);
    let counters: [(&str, &str, Of); 6] = [
        ("rq_retry", "Tries after the first.", |of| &of.retries),
        ("rq_retry_overflow", "Retries not made since too many are under way.", |of| {
            &of.retry_overflows
        }),
        ("rq_max_duration_reached", "Requests ended for their duration.", |of| &of.too_long),
        ("rq_timeout", "Requests not answered in time.", |of| &of.timeouts),
        ("rq_pending_overflow", "Requests refused since too many wait or are under way.", |of| {
            &of.pending_overflows
        }),
        ("rq_resend", "Requests sent again: not processed, or connection dead.", |of| &of.resends),
    ];
    for (name, help, of) in counters {
        text.counters(&format!("envoy_cluster_upstream_{name}"), help, sums(busiest, of));
    }
    text.gauges(
        "envoy_cluster_upstream_rq_active",
        "Forwarded requests under way.",
        sums(busiest, |of| &of.requests_active),
    );
    text.gauges(
        "envoy_cluster_upstream_rq_pending_active",
        "Requests that wait for a connection.",
        sums(busiest, |of| &of.pending),
    );
    let counters: [(&str, &str, Of); 3] = [
        ("total", "Requests that waited for a backend that restarts.", |of| &of.held),
        ("overflow_total", "Requests that did not wait, since too many did.", |of| {
            &of.held_overflows
        }),
        ("timeout_total", "Requests that waited in vain.", |of| &of.held_timeouts),
    ];
    // Few backends hold requests; those of the others would be many zeros.
    let has_held = |row: &&Row<'_>| {
        row.counts.sum(|of| &of.held) + row.counts.sum(|of| &of.held_overflows) > 0
    };
    let holding: Vec<&Row<'_>> = busiest.iter().copied().filter(has_held).collect();
    for (name, help, of) in counters {
        text.counters(&format!("edge_gateway_cluster_rq_held_{name}"), help, sums(&holding, of));
    }
    text.gauges(
        "edge_gateway_cluster_rq_held_active",
        "Requests that wait for a backend that restarts.",
        sums(&holding, |of| &of.held_active),
    );
    text.times(
        "envoy_cluster_upstream_rq_time",
        "Milliseconds from a forwarded request to the last byte of its response.",
        busiest.iter().map(|row| (row.labels.clone(), Times::of(row.counts, |of| &of.times))),
    );
}

/// Writes the hits of all rules, also of those that answer without a backend or have no usable
/// backend.
fn hits(text: &mut Exposition, busiest: &[&Row<'_>]) {
    let hits = |requests: bool| {
        let rows = busiest.iter().filter(move |row| (row.kind == Kind::Requests) == requests);
        rows.map(|row| (Labels::new("route", row.name), row.counts.sum(|of| &of.hits)))
    };
    text.counters("edge_gateway_route_requests_total", "Requests that a rule took.", hits(true));
    text.counters(
        "edge_gateway_route_connections_total",
        "Connections, or flows of datagrams, that a route took.",
        hits(false),
    );
}

fn connections(text: &mut Exposition, busiest: &[&Row<'_>]) {
    let counters: [(&str, &str, Of); 9] = [
        ("cx_total", "Connections begun.", |of| &of.connects),
        ("cx_connect_fail", "Connections that were refused.", |of| &of.connect_failures),
        ("cx_connect_timeout", "Connections not taken in time.", |of| &of.connect_timeouts),
        ("cx_overflow", "Times that a backend had as many connections as it may.", |of| {
            &of.connection_overflows
        }),
        ("cx_max_duration_reached", "Connections closed for their age.", |of| &of.connections_aged),
        ("cx_max_requests", "Connections closed for the number of their requests.", |of| {
            &of.connections_used_up
        }),
        ("cx_protocol_error", "Connections with more than one response.", |of| &of.leftovers),
        ("cx_rx_bytes_total", "Bytes from backends.", |of| &of.received_bytes),
        ("cx_tx_bytes_total", "Bytes to backends.", |of| &of.sent_bytes),
    ];
    for (name, help, of) in counters {
        text.counters(&format!("envoy_cluster_upstream_{name}"), help, sums(busiest, of));
    }
    text.gauges(
        "envoy_cluster_upstream_cx_active",
        "Open connections, resting ones too.",
        sums(busiest, |of| &of.open),
    );
}

/// Writes the state of the circuit breakers, as Envoy does with `trackRemaining`.
fn circuit_breakers(text: &mut Exposition, rows: &[&Row<'_>]) {
    let breakers: [(&str, &str, &str, fn(Room) -> usize); 4] = [
        ("cx_open", "remaining_cx", "connections", |room| room.connections),
        ("rq_pending_open", "remaining_pending", "requests that wait", |room| room.pending),
        ("rq_open", "remaining_rq", "requests under way", |room| room.requests),
        ("rq_retry_open", "remaining_retries", "retries under way", |room| room.retries),
    ];
    for (open, remaining, what, of) in breakers {
        let name = |of: &str| format!("envoy_cluster_circuit_breakers_default_{of}");
        let help = format!("1 if a backend has as many {what} as it may.");
        let samples = rows.iter().map(|row| (row.labels.clone(), u8::from(of(row.room) == 0)));
        text.gauges(&name(open), &help, samples);
        let limited = rows.iter().filter(|row| of(row.room) != usize::MAX);
        let samples = limited.map(|row| (row.labels.clone(), of(row.room)));
        text.gauges(&name(remaining), &format!("Room for more {what}."), samples);
    }
}

fn datagrams(text: &mut Exposition, rows: &[&Row<'_>]) {
    let counters: [(&str, &str, Of); 2] = [
        ("rx_datagrams", "Datagrams from backends.", |of| &of.received_datagrams),
        ("tx_datagrams", "Datagrams to backends.", |of| &of.sent_datagrams),
    ];
    for (name, help, of) in counters {
        text.counters(&format!("envoy_cluster_udp_sess_{name}"), help, sums(rows, of));
    }
}

fn members(text: &mut Exposition, rows: &[&Row<'_>]) {
    let gauges: [(&str, &str, fn((usize, usize)) -> usize); 2] = [
        ("total", "Addresses of the backends.", |(all, _)| all),
        ("healthy", "Addresses that take connections.", |(all, avoided)| all - avoided),
    ];
    for (name, help, of) in gauges {
        let samples = rows.iter().map(|row| (row.labels.clone(), of(row.members)));
        text.gauges(&format!("envoy_cluster_membership_{name}"), help, samples);
    }
    // The gateway has no such members; the metrics are for dashboards that subtract them.
    if rows.len() <= IN_FULL {
        for name in ["degraded", "excluded"] {
            let samples = rows.iter().map(|row| (row.labels.clone(), 0));
            text.gauges(&format!("envoy_cluster_membership_{name}"), "Always 0.", samples);
        }
        text.gauges(
            "envoy_cluster_outlier_detection_ejections_active",
            "Addresses that get no requests for a time, because of their errors.",
            rows.iter().map(|row| (row.labels.clone(), row.ejected)),
        );
    }
}
