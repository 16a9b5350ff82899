//! Token buckets by key, in bounded memory and without a lock.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use super::bucket::{Level, Rate, TokenBucket};

/// The numbers of sets of the levels. A level is allocated when the ones before it have no place
/// left, so that a limit with few clients takes 1 KiB and the largest 341 KiB.
const LEVELS: [usize; 5] = [16, 64, 256, 1024, 4096];
/// The number of slots of a set: as many as a cache line holds.
const SLOTS: usize = 4;
/// The number of attempts to get a slot that other threads want, too.
const ATTEMPTS: usize = 4;

/// Buckets by key: at least 10,000 of them, of 16 bytes each.
///
/// A key is a hash with a secret of this process, so that nobody can choose values that fall
/// together. It has two sets in each level, and may be in any slot of them.
///
/// A bucket that is full again is the same as none, so that its slot is free for another key. If
/// no slot for a key is free, the key shares one more bucket with all others of this kind, until one
/// is: a flood of keys never resets the bucket of another key, and all of it together gets no more
/// than the limit for each slot and once more.
///
/// A request takes no lock. It looks for its key in at most 40 slots. If two requests want the same
/// slot, one of them looks again. Two may each count one token less or more where one takes over
/// the slot of another at the same instant.
#[derive(Debug)]
pub(crate) struct BucketTable {
    hasher: RandomState,
    levels: [ArcSwapOption<Box<[Set]>>; LEVELS.len()],
    shared: TokenBucket,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([Slot; SLOTS]);

#[derive(Debug, Default)]
struct Slot {
    /// 0 for a slot that was never used.
    key: AtomicU64,
    bucket: TokenBucket,
}

/// What a request has done to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It has used the bucket of its key.
    Own,
    /// It has taken over the slot of another key, whose bucket was full.
    TakenOver,
    /// It has used the bucket that keys without a slot share.
    Shared,
}

impl BucketTable {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            levels: Default::default(),
            shared: TokenBucket::default(),
        }
    }

    /// Returns the hasher of keys.
    pub(crate) fn hasher(&self) -> impl std::hash::Hasher + use<> {
        self.hasher.build_hasher()
    }

    /// Takes tokens of the bucket of `key`, a result of the table's hasher.
    ///
    /// # Errors
    ///
    /// There are too few tokens.
    pub(crate) fn take(
        &self,
        key: u64,
        rate: Rate,
        cost: u64,
        now: u64,
    ) -> (Result<Level, Level>, Place) {
        let key = key.max(1);
        let order = Ordering::Relaxed;
        for _ in 0..ATTEMPTS {
            let mut free: Option<(usize, usize, usize, u64)> = None;
            for (number, (level, size)) in self.levels.iter().zip(LEVELS).enumerate() {
                let mut sets = level.load();
                if sets.is_none() {
                    if free.is_some() {
                        break;
                    }
                    allocate(level, size);
                    sets = level.load();
                }
                let Some(sets) = sets.as_deref() else { break };
                let mut most = 0;
                for set in places(key, size) {
                    let (mut first, mut count) = (None, 0);
                    for (slot, of) in sets[set].0.iter().enumerate() {
                        let other = of.key.load(order);
                        if other == key {
                            return (of.bucket.take(rate, cost, now), Place::Own);
                        }
                        if other == 0 || of.bucket.is_full(now) {
                            first = first.or(Some((number, set, slot, other)));
                            count += 1;
                        }
                    }
                    // In the first level that has a place, the emptier set: so both fill evenly.
                    if free.is_none_or(|(level, ..)| level == number) && count > most {
                        (free, most) = (first, count);
                    }
                }
            }
            let Some((level, set, slot, other)) = free else { break };
            let sets = self.levels[level].load();
            let Some(sets) = sets.as_deref() else { break };
            let slot = &sets[set].0[slot];
            if slot.key.compare_exchange(other, key, order, order).is_ok() {
                let place = if other == 0 { Place::Own } else { Place::TakenOver };
                return (slot.bucket.take(rate, cost, now), place);
            }
        }
        (self.shared.take(rate, cost, now), Place::Shared)
    }
}

/// Returns the two sets of a key in a level of this size.
fn places(key: u64, size: usize) -> [usize; 2] {
    let [low, high] = [key, key >> 32].map(|half| half & u64::from(u32::MAX));
    [low, high].map(|half| usize::try_from(half).unwrap_or_default() % size)
}

/// Allocates a level, unless another request has done so.
fn allocate(level: &ArcSwapOption<Box<[Set]>>, size: usize) {
    let made: Arc<Box<[Set]>> = Arc::new((0..size).map(|_| Set::default()).collect());
    level.compare_and_swap(&None::<Arc<Box<[Set]>>>, Some(made));
}

#[cfg(test)]
mod tests {
    use std::hash::{Hash, Hasher};
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn key(table: &BucketTable, of: impl Hash) -> u64 {
        let mut hasher = table.hasher();
        of.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn ten_thousand_keys_have_buckets_of_their_own() {
        let (table, rate) = (BucketTable::new(), Rate::new(2, Duration::from_secs(3600)));
        for round in [true, true, false] {
            for number in 0..10_000 {
                let (taken, place) = table.take(key(&table, number), rate, 1, 0);
                assert_eq!((taken.is_ok(), place), (round, Place::Own), "{number}");
            }
        }
    }

    #[test]
    fn a_flood_of_keys_resets_no_bucket_and_shares_what_is_left() {
        let (table, rate) = (BucketTable::new(), Rate::new(10, Duration::from_secs(60)));
        let take = |of: u64, now| table.take(key(&table, of), rate, 1, now);
        // One client that has used its limit, and one that has taken a single token.
        while take(1, 0).0.is_ok() {}
        take(2, 0).0.unwrap();
        let (mut passed, mut shared) = (0, 0);
        for number in 0..100_000 {
            let (taken, place) = take(1_000 + number, 0);
            passed += u64::from(taken.is_ok());
            shared += u64::from(place == Place::Shared);
        }
        let slots: usize = LEVELS.iter().sum::<usize>() * SLOTS;
        let slots = u64::try_from(slots).unwrap();
        assert!(shared >= 100_000 - slots, "{shared}");
        assert!(passed <= slots + 10, "{passed}: one for each slot, and the limit once more");
        let (taken, place) = take(1, 0);
        assert_eq!((taken.is_err(), place), (true, Place::Own));
        let (taken, place) = take(2, 0);
        assert_eq!((taken.unwrap().remaining, place), (8, Place::Own));
        // When the buckets of the flood are full again, others have their slots.
        let (taken, place) = take(3, 60 * SECOND);
        assert_eq!((taken.unwrap().remaining, place), (9, Place::TakenOver));
    }

    #[test]
    fn a_limit_with_few_clients_takes_little_memory() {
        assert_eq!((size_of::<Slot>(), size_of::<Set>()), (16, 64));
        let (table, rate) = (BucketTable::new(), Rate::new(10, Duration::from_secs(60)));
        for number in 0..10 {
            table.take(key(&table, number), rate, 1, 0).0.unwrap();
        }
        let levels = || table.levels.iter().filter(|level| level.load().is_some()).count();
        assert!(levels() <= 2, "{}", levels());
        let all: usize = LEVELS.iter().map(|sets| sets * size_of::<Set>()).sum();
        assert_eq!(all, 349_184, "bytes of the largest table");
    }

    #[test]
    fn threads_share_the_bucket_of_a_key() {
        for threads in [2, 8] {
            let (table, rate) = (BucketTable::new(), Rate::new(100, Duration::from_secs(3600)));
            let passed: u64 = std::thread::scope(|scope| {
                let spawned: Vec<_> = (0..threads)
                    .map(|_| {
                        scope.spawn(|| {
                            let each = (0..500).flat_map(|_| 0..50_u64);
                            let taken =
                                each.filter(|of| table.take(key(&table, of), rate, 1, 0).0.is_ok());
                            taken.count() as u64
                        })
                    })
                    .collect();
                spawned.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            // Until the first token of a new key is taken, another key may take its slot for free.
            let exact = 50 * 100;
            assert!(passed.abs_diff(exact) <= 10, "{threads} threads: {passed}");
        }
    }
}
