//! Histograms of durations with Envoy's buckets.

use std::time::Duration;

use crate::stats::counter::{Counter, Sharded};

/// Upper bounds of the buckets in milliseconds: Envoy's defaults, so that dashboards made for Envoy
/// work. One more bucket without an upper bound follows the last.
pub(crate) const BUCKETS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2500.0, 5e3, 1e4, 3e4, 6e4, 3e5,
    6e5, 1.8e6, 3.6e6,
];

/// A histogram of durations.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// Not cumulative: each counts its own bucket only.
    buckets: [Counter; BUCKETS.len() + 1],
    microseconds: Counter,
}

/// The sum of a histogram over all shards.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Times {
    /// Cumulative, as Prometheus expects; the last is the total count.
    pub counts: [u64; BUCKETS.len() + 1],
    pub milliseconds: f64,
}

impl Histogram {
    pub(crate) fn add(&self, took: Duration) {
        let milliseconds = took.as_secs_f64() * 1e3;
        self.buckets[BUCKETS.partition_point(|bound| *bound < milliseconds)].one_more();
        self.microseconds.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

impl Times {
    /// Sums one histogram over all shards.
    pub(crate) fn of<T>(all: &Sharded<T>, histogram: impl Fn(&T) -> &Histogram) -> Self {
        let mut counts = [0; BUCKETS.len() + 1];
        let mut before = 0;
        for (place, count) in counts.iter_mut().enumerate() {
            before += all.sum(|set| &histogram(set).buckets[place]);
            *count = before;
        }
        #[allow(clippy::cast_precision_loss, reason = "microseconds of 285 years are exact")]
        let milliseconds = all.sum(|set| &histogram(set).microseconds) as f64 / 1e3;
        Self { counts, milliseconds }
    }

    /// Returns the sum of two histograms.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.milliseconds += other.milliseconds;
        self
    }

    /// Returns the total count.
    pub(crate) fn count(&self) -> u64 {
        self.counts[BUCKETS.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(milliseconds: &[f64]) -> Times {
        let all = Sharded::<Histogram>::default();
        for one in milliseconds {
            all.here().add(Duration::from_secs_f64(one / 1e3));
        }
        Times::of(&all, |histogram| histogram)
    }

    #[test]
    fn a_time_is_in_every_bucket_that_it_does_not_exceed() {
        let times = times(&[0.2, 0.5, 0.7, 1e9]);
        assert_eq!(times.counts[..3], [2, 3, 3]);
        assert_eq!(times.counts[BUCKETS.len() - 1..], [3, 4]);
        assert_eq!(times.count(), 4);
        assert!((times.milliseconds - 1_000_000_001.4).abs() < 1e-3, "{times:?}");
    }
}
