//! Metrics of health checks, by rule. Rules whose backends have none are left out; of many, those with
//! unavailable addresses are kept.

use std::cmp::Reverse;

use crate::snapshot::{Choice, Snapshot, WeightedClusters};
use crate::upstream::{Cause, HealthGroup};

use super::exposition::{Exposition, Labels};
use super::upstream::IN_FULL;

struct Row<'s> {
    labels: Labels,
    groups: Vec<&'s HealthGroup>,
    /// Numbers of addresses that get requests, and of those that do not.
    available: usize,
    unavailable: usize,
}

/// A counter of the hosts of a backend.
type Of = fn(&HealthGroup) -> u64;

pub(super) fn write(text: &mut Exposition, snapshot: &Snapshot) {
    let rules = snapshot.rules.values().map(|rule| (&*rule.name, rule.backends.as_ref()));
    let forwards = snapshot.forwards.values().map(|of| (&*of.name, of.backends.as_ref()));
    let mut rows: Vec<Row<'_>> =
        rules.chain(forwards).filter_map(|(name, backends)| Row::new(name, backends?)).collect();
    if rows.len() > IN_FULL {
        rows.sort_by_key(|row| Reverse(row.unavailable));
        rows.truncate(IN_FULL);
    }
    if rows.is_empty() {
        return;
    }
    let counters: [(&str, &str, Of); 6] = [
        ("health_check_attempt", "Health checks begun.", |of| of.attempts.value()),
        ("health_check_success", "Health checks that passed.", |of| of.successes.value()),
        ("health_check_failure", "Health checks that failed.", |of| of.failures.value()),
        ("health_check_network_failure", "Health checks without an answer.", |of| {
            of.network_failures.value()
        }),
        (
            "lb_healthy_panic",
            "Requests that ignored health: too few addresses are healthy.",
            |of| of.panics.value(),
        ),
        (
            "outlier_detection_ejections_overflow",
            "Ejections that the limits on ejected addresses prevented.",
            |of| of.overflows.value(),
        ),
    ];
    for (name, help, of) in counters {
        counter(text, name, help, &rows, of);
    }
    let enforced = |of: &HealthGroup| Cause::ALL.map(|cause| of.enforced(cause).value());
    let name = "outlier_detection_ejections_enforced_total";
    counter(text, name, "Ejections.", &rows, |of| enforced(of).iter().sum());
    for cause in Cause::ALL {
        let named = |kind: &str| format!("outlier_detection_ejections_{kind}_{}", cause.as_str());
        let help = "Ejections for this reason.";
        counter(text, &named("enforced"), help, &rows, |of| of.enforced(cause).value());
        let help = "Times that there was this reason for an ejection.";
        counter(text, &named("detected"), help, &rows, |of| of.detected(cause).value());
    }
    text.gauges(
        "envoy_cluster_health_check_healthy",
        "Addresses that get requests.",
        rows.iter().map(|row| (row.labels.clone(), row.available)),
    );
}

/// Writes the sums of a counter over the backends of each rule.
fn counter(
    text: &mut Exposition,
    name: &str,
    help: &str,
    rows: &[Row<'_>],
    of: impl Fn(&HealthGroup) -> u64,
) {
    let sum = |row: &Row<'_>| row.groups.iter().map(|group| of(group)).sum::<u64>();
    let samples = rows.iter().map(|row| (row.labels.clone(), sum(row)));
    text.counters(&format!("envoy_cluster_{name}"), help, samples);
}

impl<'s> Row<'s> {
    fn new(name: &str, backends: &'s WeightedClusters) -> Option<Self> {
        let mut groups = Vec::<&HealthGroup>::new();
        let (mut available, mut unavailable) = (0, 0);
        for (_, choice) in backends.weighted() {
            if let Choice::Cluster { cluster, .. } = choice
                && let Some(group) = cluster.health_group()
            {
                let (all, out) = cluster.members();
                (available, unavailable) = (available + all - out, unavailable + out);
                // A rule may name a backend twice.
                if !groups.iter().any(|known| std::ptr::eq(*known, group)) {
                    groups.push(group);
                }
            }
        }
        let labels = Labels::new("envoy_cluster_name", name);
        (!groups.is_empty()).then_some(Self { labels, groups, available, unavailable })
    }
}
