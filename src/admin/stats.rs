//! `/stats`: the current counters. Clients compute rates from two answers.

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::downstream::Process;
use crate::snapshot::{Bind, Snapshot};
use crate::stats::{BUCKETS, ResponseFlag, Sharded, Times, Upstream};

/// The answer to `GET /stats?format=json`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Stats {
    /// The time of reading, in milliseconds since 1970.
    pub time_ms: u64,
    pub generation: u64,
    /// Open connections of clients.
    pub connections: usize,
    /// Upper bounds of the buckets, in milliseconds. There is one more bucket without a bound.
    pub buckets_ms: Vec<f64>,
    /// Responses of all listeners.
    pub downstream: Counted,
    /// Requests that were not completed, by Envoy's response flag.
    pub flags: Vec<(String, u64)>,
    /// Rules that have been used, the busiest first.
    pub routes: Vec<Counted>,
    /// `10.0.0.7:8080 of backend/NAMESPACE/NAME is unhealthy`, for each endpoint that health checks
    /// have taken out of service; at most [`MOST_UNAVAILABLE`].
    pub unavailable: Vec<String>,
}

/// Maximum number of endpoints in [`Stats::unavailable`].
const MOST_UNAVAILABLE: usize = 20;

/// The counters of one listener or rule.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Counted {
    pub name: String,
    /// Requests, whatever their result; connections or UDP flows if the protocol is not HTTP.
    pub hits: u64,
    /// Requests under way.
    pub active: u64,
    /// Responses by the first digit of their status, beginning with `1xx`. For a rule, those of its
    /// backends.
    pub responses: [u64; 5],
    /// Cumulative counts: requests that took at most as long as the bound of the bucket.
    pub times: Vec<u64>,
    pub retries: u64,
    pub connect_failures: u64,
}

impl Stats {
    pub(crate) fn of(process: &Process, snapshot: &Snapshot) -> Self {
        let now = clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let rules = snapshot.rules.values().filter(|rule| rule.counts.is_used());
        let rules = rules.map(|rule| of_route(&rule.name, &rule.counts));
        let forwards = snapshot.forwards.values().filter(|of| of.counts.is_used());
        let forwards = forwards.map(|of| {
            let active = of.counts.sum(|of| &of.open);
            Counted { active, ..of_route(&of.name, &of.counts) }
        });
        let mut routes: Vec<_> = rules.chain(forwards).collect();
        routes.sort_by(|a, b| b.hits.cmp(&a.hits).then_with(|| a.name.cmp(&b.name)));
        let flags = ResponseFlag::ALL.into_iter().map(|flag| {
            let of_bind = |bind: &Bind| bind.counts.sum(|of| of.flag(flag));
            (flag.short().to_owned(), snapshot.binds.iter().map(|bind| of_bind(bind)).sum())
        });
        Self {
            time_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            generation: snapshot.generation,
            connections: process.connections.count(),
            buckets_ms: BUCKETS.to_vec(),
            downstream: downstream(snapshot),
            flags: flags.collect(),
            routes,
            unavailable: unavailable(snapshot),
        }
    }
}

impl Counted {
    /// Returns the difference to `before`, which is never negative: a rule may have been replaced
    /// by a new one of the same name.
    pub(crate) fn since(&self, before: Option<&Self>) -> Self {
        let Some(before) = before else { return self.clone() };
        let mut since = self.clone();
        since.hits = self.hits.saturating_sub(before.hits);
        since.retries = self.retries.saturating_sub(before.retries);
        since.connect_failures = self.connect_failures.saturating_sub(before.connect_failures);
        let responses = since.responses.iter_mut().zip(before.responses);
        responses.for_each(|(now, before)| *now = now.saturating_sub(before));
        let times = since.times.iter_mut().zip(&before.times);
        times.for_each(|(now, before)| *now = now.saturating_sub(*before));
        since
    }
}

fn unavailable(snapshot: &Snapshot) -> Vec<String> {
    let checked = snapshot.clusters.values().filter(|cluster| cluster.health_group().is_some());
    let lines = checked.flat_map(|cluster| {
        let out = cluster.states().into_iter().filter(|state| state.health.is_out());
        out.map(|state| {
            let address = state.address.or(state.name).unwrap_or_default();
            format!("{address} of {} is {}", cluster.settings().name, state.health.as_str())
        })
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines.truncate(MOST_UNAVAILABLE);
    lines
}

fn of_route(name: &str, counts: &Sharded<Upstream>) -> Counted {
    Counted {
        name: name.to_owned(),
        hits: counts.sum(|of| &of.hits),
        active: counts.sum(|of| &of.requests_active),
        responses: [1, 2, 3, 4, 5].map(|class| counts.sum(|of| of.responses.of(class))),
        times: Times::of(counts, |of| &of.times).counts.to_vec(),
        retries: counts.sum(|of| &of.retries),
        connect_failures: counts.sum(|of| &of.connect_failures),
    }
}

fn downstream(snapshot: &Snapshot) -> Counted {
    let mut all = Counted { name: "all".into(), ..Counted::default() };
    let mut times = Times::default();
    for bind in &snapshot.binds {
        let counts = &bind.counts;
        all.hits += counts.sum(|of| &of.requests);
        all.active += counts.sum(|of| &of.requests_active);
        for (sum, class) in all.responses.iter_mut().zip(1..) {
            *sum += counts.sum(|of| of.responses.of(class));
        }
        times = times.and(&Times::of(counts, |of| &of.times));
    }
    all.times = times.counts.to_vec();
    all
}

/// Returns the time in milliseconds within which `share` of the requests ended. Within a bucket,
/// times are assumed to be spread evenly, as in Prometheus' `histogram_quantile`. `None` if nothing
/// was counted; the last bound if the result is beyond it.
pub(crate) fn quantile(share: f64, bounds: &[f64], cumulative: &[u64]) -> Option<f64> {
    let all = *cumulative.last().filter(|all| **all > 0)?;
    #[allow(clippy::cast_precision_loss, reason = "counts beyond 2^53 need no exact quantile")]
    let number = |count: u64| count as f64;
    let wanted = number(all) * share;
    let place = cumulative.iter().position(|count| number(*count) >= wanted)?;
    let Some(upper) = bounds.get(place) else { return bounds.last().copied() };
    let (lower, before) = match place.checked_sub(1) {
        Some(previous) => (bounds[previous], cumulative[previous]),
        None => (0.0, 0),
    };
    let within = number(cumulative[place] - before);
    let part = if within > 0.0 { (wanted - number(before)) / within } else { 1.0 };
    Some(lower + (upper - lower) * part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let bounds = [1.0, 5.0, 10.0];
        // (share, cumulative counts including the unbounded bucket, milliseconds)
        let table: [(f64, [u64; 4], Option<f64>); 6] = [
            (0.5, [0, 0, 0, 0], None),
            (0.5, [10, 10, 10, 10], Some(0.5)),
            (0.5, [0, 10, 10, 10], Some(3.0)),
            (0.99, [0, 0, 100, 100], Some(9.95)),
            (0.99, [0, 0, 0, 5], Some(10.0)),
            (0.5, [2, 2, 4, 4], Some(1.0)),
        ];
        for (share, counts, want) in table {
            let got = quantile(share, &bounds, &counts);
            let same = match (got, want) {
                (Some(got), Some(want)) => (got - want).abs() < 1e-9,
                (got, want) => got == want,
            };
            assert!(same, "{share} of {counts:?}: {got:?}, not {want:?}");
        }
    }

    #[test]
    fn counts_that_began_anew_are_no_less_than_none() {
        let counted = |hits| Counted { hits, times: vec![hits], ..Counted::default() };
        let since = |now, before: u64| counted(now).since(Some(&counted(before))).hits;
        assert_eq!((since(5, 2), since(1, 2)), (3, 0));
        assert_eq!(counted(5).since(None).hits, 5);
    }
}
