//! The side of the backends: rules, as Envoy's clusters.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use crate::snapshot::{Choice, Rule, Snapshot, WeightedClusters};
use crate::stats::{Counter, Times, Upstream};

use super::IN_FULL;
use super::exposition::{Exposition, Labels};

/// A counter of a rule.
type Of = fn(&Upstream) -> &Counter;

struct Row<'s> {
    labels: Labels,
    rule: &'s Rule,
    /// Addresses, and those of them that did not take a connection lately.
    members: (usize, usize),
}

pub(super) fn write(text: &mut Exposition, snapshot: &Snapshot) {
    let rows: Vec<_> = snapshot.rules.values().map(row).collect();
    let mut busiest: Vec<&Row<'_>> = rows.iter().collect();
    if busiest.len() > IN_FULL {
        busiest.sort_by_key(|row| Reverse(row.rule.counts.sum(|of| &of.hits)));
        busiest.truncate(IN_FULL);
    }
    // What nobody ever asked for is not told of ten thousand.
    let used: Vec<&Row<'_>> = match rows.len() > IN_FULL {
        true => rows.iter().filter(|row| row.rule.counts.is_used()).collect(),
        false => rows.iter().collect(),
    };
    requests(text, &used, &busiest);
    hits(text, &busiest);
    connections(text, &busiest);
    let ranks: HashSet<&str> = busiest.iter().map(|row| &*row.rule.name).collect();
    let troubled = |row: &&Row<'_>| row.members.1 > 0 || ranks.contains(&*row.rule.name);
    members(text, &rows.iter().filter(troubled).collect::<Vec<_>>());
}

fn row(rule: &Arc<Rule>) -> Row<'_> {
    let mut members = (0, 0);
    for (_, choice) in rule.backends.iter().flat_map(WeightedClusters::weighted) {
        if let Choice::Cluster { cluster, .. } = choice {
            let (all, avoided) = cluster.members();
            members = (members.0 + all, members.1 + avoided);
        }
    }
    Row { labels: Labels::new("envoy_cluster_name", &rule.name), rule, members }
}

fn sums<'r>(rows: &'r [&Row<'_>], of: Of) -> impl Iterator<Item = (Labels, u64)> + 'r {
    rows.iter().map(move |row| (row.labels.clone(), row.rule.counts.sum(of)))
}

fn requests(text: &mut Exposition, used: &[&Row<'_>], busiest: &[&Row<'_>]) {
    text.counters(
        "envoy_cluster_upstream_rq_total",
        "Requests that were forwarded.",
        sums(used, |of| &of.requests),
    );
    let classes = (1..=5).flat_map(|class| {
        used.iter().filter_map(move |row| {
            let count = row.rule.counts.sum(|of| of.responses.of(class));
            let labels = || row.labels.and("envoy_response_code_class", &class.to_string());
            (count > 0 || used.len() <= IN_FULL).then(|| (labels(), count))
        })
    });
    text.counters("envoy_cluster_upstream_rq_xx", "Responses by class.", classes);
    let counters: [(&str, &str, Of); 3] = [
        ("rq_retry", "Tries after the first.", |of| &of.retries),
        ("rq_timeout", "Requests not answered in time.", |of| &of.timeouts),
        ("rq_resend", "Requests sent again since a resting connection was dead.", |of| &of.resends),
    ];
    for (name, help, of) in counters {
        text.counters(&format!("envoy_cluster_upstream_{name}"), help, sums(busiest, of));
    }
    text.gauges(
        "envoy_cluster_upstream_rq_active",
        "Forwarded requests under way.",
        sums(busiest, |of| &of.requests_active),
    );
    text.times(
        "envoy_cluster_upstream_rq_time",
        "Milliseconds from a forwarded request to the last byte of its response.",
        busiest.iter().map(|row| (row.labels.clone(), Times::of(&row.rule.counts, |of| &of.times))),
    );
}

/// Also of rules that answer by themselves.
fn hits(text: &mut Exposition, busiest: &[&Row<'_>]) {
    let hits = busiest
        .iter()
        .map(|row| (Labels::new("route", &row.rule.name), row.rule.counts.sum(|of| &of.hits)));
    text.counters("edge_gateway_route_requests_total", "Requests that a rule took.", hits);
}

fn connections(text: &mut Exposition, busiest: &[&Row<'_>]) {
    let counters: [(&str, &str, Of); 6] = [
        ("cx_total", "Connections begun.", |of| &of.connects),
        ("cx_connect_fail", "Connections that were refused.", |of| &of.connect_failures),
        ("cx_connect_timeout", "Connections not taken in time.", |of| &of.connect_timeouts),
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

fn members(text: &mut Exposition, rows: &[&Row<'_>]) {
    let gauges: [(&str, &str, fn((usize, usize)) -> usize); 2] = [
        ("total", "Addresses of the backends.", |(all, _)| all),
        ("healthy", "Addresses that take connections.", |(all, avoided)| all - avoided),
    ];
    for (name, help, of) in gauges {
        let samples = rows.iter().map(|row| (row.labels.clone(), of(row.members)));
        text.gauges(&format!("envoy_cluster_membership_{name}"), help, samples);
    }
    // There are none of these here: for dashboards that subtract them.
    if rows.len() <= IN_FULL {
        for name in ["degraded", "excluded"] {
            let samples = rows.iter().map(|row| (row.labels.clone(), 0));
            text.gauges(&format!("envoy_cluster_membership_{name}"), "Always 0.", samples);
        }
        text.gauges(
            "envoy_cluster_outlier_detection_ejections_active",
            "Addresses that did not take a connection lately and come last.",
            rows.iter().map(|row| (row.labels.clone(), row.members.1)),
        );
    }
}
