//! All metrics of the process, written for one scrape.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::clock;
use crate::downstream::Process;
use crate::metrics::exposition::{Exposition, Format};
use crate::metrics::{downstream, health, server, upstream};
use crate::stats::Reloads;

/// The sources of the metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    process: Arc<Process>,
    reloads: Arc<Reloads>,
    begun: Instant,
    begun_wall: SystemTime,
}

impl Metrics {
    /// Creates the metrics of a process that starts now.
    pub(crate) fn new(process: Arc<Process>, reloads: Arc<Reloads>) -> Self {
        Self { process, reloads, begun: clock::now(), begun_wall: clock::wall() }
    }

    /// Returns the text of all metrics. Reads counters and `/proc`; requests never wait for it.
    pub(crate) fn text(&self, format: Format) -> String {
        let snapshot = self.process.snapshot.load();
        let mut text = Exposition::new(format);
        downstream::write(&mut text, &snapshot, &self.process.connections);
        upstream::write(&mut text, &snapshot);
        health::write(&mut text, &snapshot);
        let sources = server::Sources {
            process: &self.process,
            reloads: &self.reloads,
            begun: self.begun,
            begun_wall: self.begun_wall,
        };
        server::write(&mut text, &sources, &snapshot);
        text.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::upstream::IN_FULL;
    use crate::snapshot::{Rule, Snapshot, Timeouts};

    #[test]
    fn ten_thousand_busy_rules_stay_within_five_megabytes() {
        let mut snapshot = Snapshot::default();
        for number in 0..10_000_u64 {
            let rule = Rule {
                name: format!("httproute/some-namespace/route-{number}/rule/0").into(),
                grpc: false,
                filters: Box::default(),
                sees_bodies: false,
                reads_requests: false,
                mirrors: Box::default(),
                backends: None,
                timeouts: Timeouts::default(),
                retry: None,
                session: None,
                balancing: None,
                overrides: None,
                counts: Arc::default(),
            };
            let counts = rule.counts.here();
            counts.hits.add(number);
            counts.requests.add(number);
            counts.responses.add(200);
            counts.responses.add(503);
            snapshot.rules.insert(Arc::clone(&rule.name), Arc::new(rule));
        }
        let mut text = Exposition::new(Format::OpenMetrics);
        upstream::write(&mut text, &snapshot);
        let text = text.finish();
        assert!(text.len() < 5_000_000, "{} bytes", text.len());
        let count = |what: &str| text.lines().filter(|line| line.starts_with(what)).count();
        assert_eq!(count("envoy_cluster_upstream_rq_total{"), 10_000);
        assert_eq!(count("envoy_cluster_upstream_rq_time_count{"), IN_FULL);
        assert!(
            text.contains(
                "rq_time_count{envoy_cluster_name=\"httproute/some-namespace/route-9999/"
            )
        );
        assert!(
            !text.contains("rq_time_count{envoy_cluster_name=\"httproute/some-namespace/route-9/")
        );
    }
}
