//! A token bucket in one atomic number.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The size of a bucket, and the time in which one token comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rate {
    /// The number of tokens of a full bucket; 0 for a bucket that never has any.
    pub requests: u32,
    /// In nanoseconds.
    interval: u64,
}

impl Rate {
    /// Creates the rate of `requests` in each `unit`.
    ///
    /// The time for one token is rounded up to whole nanoseconds, so that a limit is never exceeded:
    /// what is refilled falls short of it by at most one in 1,000 for a million in a second, and by
    /// at most one in a million for a thousand in a second.
    pub(crate) fn new(requests: u32, unit: Duration) -> Self {
        let unit = u64::try_from(unit.as_nanos()).unwrap_or(u64::MAX);
        let interval = if requests == 0 { 0 } else { unit.div_ceil(requests.into()) };
        Self { requests, interval }
    }

    /// Returns the time in which a bucket is refilled, in nanoseconds.
    fn whole(self) -> u64 {
        self.interval.saturating_mul(self.requests.into())
    }

    /// Returns the time in which one token comes back.
    pub(crate) fn interval(self) -> Duration {
        Duration::from_nanos(self.interval)
    }
}

/// A bucket as a request has found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    /// The tokens that are left.
    pub remaining: u32,
    /// The time until the next token, zero if there is one.
    pub next: Duration,
    /// The time until there are enough tokens for the same request again; `None` if there never
    /// are. Zero if there are.
    pub enough: Option<Duration>,
}

/// A bucket of tokens, which is full at first.
///
/// Its only state is the time at which it is full again, in nanoseconds of a clock that its owner
/// chooses. A request that takes a token moves this time; if two do so at once, one of them tries
/// again. No lock is taken, and the limit holds exactly, whatever the number of threads.
#[derive(Debug, Default)]
pub(crate) struct TokenBucket {
    full_at: AtomicU64,
}

impl TokenBucket {
    /// Takes `cost` tokens at the time `now`. With a cost of 0 one token must be there, and is left.
    ///
    /// # Errors
    ///
    /// There are too few tokens; none is taken.
    pub(crate) fn take(&self, rate: Rate, cost: u64, now: u64) -> Result<Level, Level> {
        let price = cost.saturating_mul(rate.interval);
        let needed = cost.max(1).saturating_mul(rate.interval);
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let debt = full_at.saturating_sub(now);
            if rate.requests == 0 || debt.saturating_add(needed) > rate.whole() {
                return Err(level(rate, needed, debt));
            }
            let after = now.saturating_add(debt).saturating_add(price);
            let moved = self.full_at.compare_exchange_weak(
                full_at,
                after,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match moved {
                Ok(_) => return Ok(level(rate, needed, debt.saturating_add(price))),
                Err(other) => full_at = other,
            }
        }
    }

    /// Returns true if no token is missing.
    pub(crate) fn is_full(&self, now: u64) -> bool {
        self.full_at.load(Ordering::Relaxed) <= now
    }
}

/// Describes a bucket that is full again after `debt`, for a request that needs `needed`.
fn level(rate: Rate, needed: u64, debt: u64) -> Level {
    let left = rate.whole().saturating_sub(debt);
    let remaining = left.checked_div(rate.interval).unwrap_or_default();
    let until = |needed: u64| Duration::from_nanos(needed.saturating_sub(left));
    Level {
        remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
        next: until(rate.interval),
        enough: (rate.requests > 0 && needed <= rate.whole()).then(|| until(needed)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_bucket_gives_what_it_holds_and_what_comes_back() {
        let rate = Rate::new(10, Duration::from_secs(60));
        let bucket = TokenBucket::default();
        let mut now = 5 * SECOND;
        for left in (0..10).rev() {
            assert_eq!(bucket.take(rate, 1, now).unwrap().remaining, left);
        }
        let empty = bucket.take(rate, 1, now).unwrap_err();
        let six = Duration::from_secs(6);
        assert_eq!(empty, Level { remaining: 0, next: six, enough: Some(six) });
        now += 6 * SECOND - 1;
        assert!(bucket.take(rate, 1, now).is_err());
        now += 1;
        assert!(bucket.take(rate, 1, now).is_ok());
        assert!(bucket.take(rate, 1, now).is_err());
        // It never holds more than its size.
        now += 3_600 * SECOND;
        assert!(bucket.is_full(now));
        assert_eq!((0..20).filter(|_| bucket.take(rate, 1, now).is_ok()).count(), 10);
        assert!(!bucket.is_full(now));
    }

    #[test]
    fn a_cost_takes_as_many_tokens() {
        let rate = Rate::new(10, Duration::from_secs(10));
        // (costs in turn, whether each is taken)
        let table: [(&[u64], &[bool]); 5] = [
            (&[4, 4, 4, 2], &[true, true, false, true]),
            (&[10, 0], &[true, false]),
            (&[0, 0, 10], &[true, true, true]),
            (&[11, u64::MAX, 10], &[false, false, true]),
            (&[9, 0, 1, 0], &[true, true, true, false]),
        ];
        for (costs, want) in table {
            let bucket = TokenBucket::default();
            let got: Vec<_> =
                costs.iter().map(|cost| bucket.take(rate, *cost, 7).is_ok()).collect();
            assert_eq!(got, want, "{costs:?}");
        }
        let bucket = TokenBucket::default();
        assert_eq!(bucket.take(rate, 11, 0).unwrap_err().enough, None, "never");
        bucket.take(rate, 8, 0).unwrap();
        let short = bucket.take(rate, 4, 0).unwrap_err();
        assert_eq!((short.remaining, short.enough), (2, Some(Duration::from_secs(2))));
    }

    #[test]
    fn nothing_passes_a_limit_of_zero() {
        let bucket = TokenBucket::default();
        for unit in [1, 31_536_000] {
            let rate = Rate::new(0, Duration::from_secs(unit));
            let level = bucket.take(rate, 1, 0).unwrap_err();
            assert_eq!((level.remaining, level.enough), (0, None));
        }
    }

    #[test]
    fn the_greatest_and_the_smallest_limits_hold() {
        let year = Duration::from_secs(365 * 24 * 3600);
        for unit in [Duration::from_secs(1), year] {
            for requests in [1, 1_000_000, u32::MAX] {
                let rate = Rate::new(requests, unit);
                let bucket = TokenBucket::default();
                let level = bucket.take(rate, requests.into(), 1).unwrap();
                assert_eq!(level.remaining, 0, "{requests} {unit:?}");
                assert!(bucket.take(rate, 1, 1).is_err(), "{requests} {unit:?}");
            }
        }
    }

    /// The error of the limit is 0 under any number of threads: over a time of `seconds`, all of
    /// them together get the size of the bucket and what comes back, not one more or less.
    #[test]
    fn threads_share_one_limit_exactly() {
        for threads in [2, 8] {
            let (rate, seconds) = (Rate::new(1_000, Duration::from_secs(1)), 4);
            let bucket = TokenBucket::default();
            let (taken, now) = (AtomicU64::new(0), AtomicU64::new(0));
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        loop {
                            // Each attempt moves the clock, so that refills are in the race.
                            let now = now.fetch_add(SECOND / 50_000, Ordering::Relaxed);
                            if now > seconds * SECOND {
                                return;
                            }
                            if bucket.take(rate, 1, now).is_ok() {
                                taken.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    });
                }
            });
            let taken = taken.into_inner();
            let whole = 1_000 + seconds * 1_000;
            // The last refill may be too late for a thread that has stopped.
            assert!((whole - 1..=whole).contains(&taken), "{threads} threads: {taken} of {whole}");
        }
    }
}
