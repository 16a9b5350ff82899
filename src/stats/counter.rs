//! Counters and per-thread sets of counters.

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counters with one set (shard) for each worker thread, and one that all other threads share.
///
/// A set is allocated when its thread first counts: of ten thousand rules, most never match.
pub(crate) struct Sharded<T>(Box<[OnceLock<Box<Shard<T>>>]>);

/// A set on separate cache lines: two of 64 bytes, since processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Shard<T>(T);

impl<T> Default for Sharded<T> {
    fn default() -> Self {
        Self((0..=own_shards()).map(|_| OnceLock::new()).collect())
    }
}

impl<T: Default> Sharded<T> {
    /// Returns the set of this thread. Only this thread may add to it.
    pub(crate) fn here(&self) -> &T {
        let last = self.0.len() - 1;
        &self.0[SHARD.get().unwrap_or(last).min(last)].get_or_init(Box::default).0
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

/// The number of threads that may have a shard of their own.
fn own_shards() -> usize {
    static SHARDS: OnceLock<usize> = OnceLock::new();
    *SHARDS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from).min(64))
}

thread_local! {
    /// The shard that this thread has for itself; `None` if it shares the last one.
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Gives this thread a shard of its own, for as long as it lives. A worker calls this before it
/// counts; workers beyond the number of processors share a shard.
pub(crate) fn take_shard() {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    SHARD.set((next < own_shards()).then_some(next));
}

/// A counter or a gauge in a [`Sharded`] set.
///
/// The thread that owns the set is the only one that adds to it, so it needs no locked instruction,
/// which would cost as much as the rest of counting.
///
/// A build with `--cfg uncounted` counts nothing: `bench/counting` uses it as the baseline.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        if cfg!(uncounted) {
            return;
        }
        if SHARD.get().is_some() {
            self.0.store(self.value().wrapping_add(more), Ordering::Relaxed);
        } else {
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
        self.add(u64::MAX);
    }
}

/// A counter outside a [`Sharded`] set, to which any thread adds.
#[derive(Debug, Default)]
pub(crate) struct SharedCounter(AtomicU64);

impl SharedCounter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn one_more(&self) {
        self.add(1);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
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

    /// Some threads own a shard, the others share one.
    #[test]
    fn threads_count_together() {
        let counts = Sharded::<Upstream>::default();
        let threads = own_shards() + 4;
        std::thread::scope(|scope| {
            for number in 0..threads {
                let counts = &counts;
                scope.spawn(move || {
                    if number % 2 == 0 {
                        take_shard();
                    }
                    for _ in 0..1000 {
                        counts.here().requests.one_more();
                        counts.here().open.one_more();
                    }
                });
            }
        });
        let total = 1000 * threads as u64;
        assert_eq!(counts.sum(|of| &of.requests), total);
        // Decremented by a thread that may not have incremented it.
        for _ in 1..total {
            counts.here().open.one_less();
        }
        assert_eq!(counts.sum(|of| &of.open), 1);
    }
}
