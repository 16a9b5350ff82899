//! Times in Envoy's buckets.

use std::time::Duration;

use crate::stats::counter::{Counter, Sharded};

/// Upper bounds in milliseconds: those that Envoy has where nobody sets others, so that what was
/// drawn from Envoy's is drawn from ours. Beyond the last there is one more, without bound.
pub(crate) const BUCKETS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2500.0, 5e3, 1e4, 3e4, 6e4, 3e5,
    6e5, 1.8e6, 3.6e6,
];

/// How long things took.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// Not cumulative: those of one bucket alone.
    buckets: [Counter; BUCKETS.len() + 1],
    microseconds: Counter,
}

/// A histogram added up.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Times {
    /// Cumulative, as Prometheus wants them; the last is the number of all.
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
    /// Adds up one histogram of every shard.
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

    /// Two added up.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.milliseconds += other.milliseconds;
        self
    }

    /// How many there were.
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
