//! Counters and per-thread sets of counters.

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counters with one set (shard) for each worker thread.
///
/// A set is allocated when its thread first counts: of ten thousand rules, most never match.
pub(crate) struct Sharded<T>(Box<[OnceLock<Box<Shard<T>>>]>);

/// A set on separate cache lines: two of 64 bytes, since processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Shard<T>(T);

impl<T> Default for Sharded<T> {
    fn default() -> Self {
        Self((0..shards()).map(|_| OnceLock::new()).collect())
    }
}

impl<T: Default> Sharded<T> {
    /// Returns the set of this thread.
    pub(crate) fn here(&self) -> &T {
        &self.0[shard_of_this_thread() % self.0.len()].get_or_init(Box::default).0
    }
}

impl<T> Sharded<T> {
    /// Returns true once anything was counted.
    pub(crate) fn is_used(&self) -> bool {
        self.all().next().is_some()
    }

    /// Returns the sets in which anything was counted.
    fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(OnceLock::get).map(|shard| &shard.0)
    }

    /// Returns the sum of one counter over all sets.
    pub(crate) fn sum(&self, counter: impl Fn(&T) -> &Counter) -> u64 {
        // A gauge may be raised by one thread and lowered by another: the value of one set may be
        // negative and wrap, the sum is not.
        self.all().fold(0, |sum, set| sum.wrapping_add(counter(set).value()))
    }
}

impl<T> fmt::Debug for Sharded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sharded({})", self.0.len())
    }
}

fn shards() -> usize {
    static SHARDS: OnceLock<usize> = OnceLock::new();
    *SHARDS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from).min(64))
}

/// Returns the number of this thread. Threads are numbered in the order of their first count, so
/// the workers get different shards.
fn shard_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }
    NUMBER.get().unwrap_or_else(|| {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        NUMBER.set(Some(number));
        number
    })
}

/// A counter or a gauge.
///
/// A build with `--cfg uncounted` counts nothing: `bench/counting` uses it as the baseline.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        if cfg!(not(uncounted)) {
            self.0.fetch_add(more, Ordering::Relaxed);
        }
    }

    pub(crate) fn one_more(&self) {
        self.add(1);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Decrements a gauge.
    pub(crate) fn one_less(&self) {
        if cfg!(not(uncounted)) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A gauge that is set to a value.
#[derive(Debug, Default)]
pub(crate) struct Level(AtomicU64);

impl Level {
    pub(crate) fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Upstream;

    #[test]
    fn threads_count_together() {
        let counts = Sharded::<Upstream>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counts.here().requests.one_more();
                        counts.here().open.one_more();
                    }
                });
            }
        });
        assert_eq!(counts.sum(|of| &of.requests), 4000);
        // Decremented by a thread that may not have incremented it.
        for _ in 0..3999 {
            counts.here().open.one_less();
        }
        assert_eq!(counts.sum(|of| &of.open), 1);
    }
}
