//! Shortage of memory: idle connections are closed first, then new requests are refused.
//!
//! The sweep of one worker or another looks at the memory in use, four times a second in all. From
//! 95 % of the limit on, idle connections are closed, the longest idle first: the time that a
//! connection may be idle is halved at each look. From 98 % on a new request is answered 503, and a
//! client that takes nothing of its response for that time is cut off, because its buffers would go
//! on to fill. Below 90 % all is as before.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::downstream::connection_watch::Millis;
use crate::downstream::open_connections::Connections;
use crate::systemd::Memory;

/// How often memory is looked at.
const LOOK: Millis = 250;
/// How long a connection may be idle in any case: a client that sends one request after the other
/// is not cut off.
const SHORTEST: Millis = 1000;

/// Bytes that an idle connection takes; docs/configuration.md has the measurements.
pub(crate) const BYTES_A_CONNECTION: u64 = 52 << 10;

/// Bytes that an exchange may take: the client's window and the send buffer, both full.
const BYTES_AN_EXCHANGE: u64 = (256 + 128) << 10;

/// How short memory is.
#[derive(Debug)]
pub(crate) struct Shortage {
    /// `None` where the system tells no limit.
    memory: Option<Memory>,
    looked_at: AtomicU64,
    level: AtomicU8,
    /// How long a connection may rest.
    patience: AtomicU64,
}

/// The order is that of severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ShortageLevel {
    Ample = 0,
    Short = 1,
    Severe = 2,
}

impl Shortage {
    pub(crate) fn new(memory: Option<Memory>) -> Self {
        Self { memory, looked_at: 0.into(), level: 0.into(), patience: 0.into() }
    }

    /// How long a connection may rest now; `None` for as long as its own limits let it.
    pub(crate) fn patience(&self) -> Option<Millis> {
        (self.level() > ShortageLevel::Ample).then(|| self.patience.load(Ordering::Relaxed))
    }

    /// True if a new request is to be refused.
    pub(crate) fn is_severe(&self) -> bool {
        self.level.load(Ordering::Relaxed) == ShortageLevel::Severe as u8
    }

    /// Looks at the memory in use, unless somebody just did. `idle_timeout` is how long a
    /// connection may rest while there is enough.
    pub(crate) fn look(
        &self,
        now: Millis,
        connections: &Connections,
        idle_timeout: impl FnOnce() -> Duration,
    ) {
        let Some(memory) = &self.memory else { return };
        let last = self.looked_at.load(Ordering::Relaxed);
        let due = now.saturating_sub(last) >= LOOK;
        if !due
            || self
                .looked_at
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        let Some(used) = memory.used() else { return };
        let ours = connections.count() as u64 * BYTES_A_CONNECTION
            + connections.exchanges() as u64 * BYTES_AN_EXCHANGE;
        let before = self.level();
        let level = judge(before, used, ours, memory.limit());
        let patience = match before {
            ShortageLevel::Ample => {
                u64::try_from(idle_timeout().as_millis()).unwrap_or(Millis::MAX)
            }
            _ => self.patience.load(Ordering::Relaxed),
        };
        self.patience.store((patience / 2).max(SHORTEST), Ordering::Relaxed);
        self.level.store(level as u8, Ordering::Relaxed);
        let (used_mib, limit_mib) = (used >> 20, memory.limit() >> 20);
        match level {
            level if level == before => {}
            ShortageLevel::Ample => {
                tracing::info!(used_mib, limit_mib, "memory is no longer short");
            }
            ShortageLevel::Short if before == ShortageLevel::Severe => {}
            ShortageLevel::Short => {
                tracing::warn!(used_mib, limit_mib, "memory is short, closing idle connections");
            }
            ShortageLevel::Severe => {
                tracing::error!(used_mib, limit_mib, "memory is short, refusing requests");
            }
        }
    }

    fn level(&self) -> ShortageLevel {
        match self.level.load(Ordering::Relaxed) {
            0 => ShortageLevel::Ample,
            1 => ShortageLevel::Short,
            _ => ShortageLevel::Severe,
        }
    }
}

/// How short memory is with `used` of `limit` bytes, of which connections and exchanges may have
/// `ours`. A level is left a little later than it was reached, so that it does not flutter.
///
/// Where connections and exchanges may have less than a quarter, the rest is taken by something
/// else: most of all by the allocator, which keeps what it once needed and gives it to the next. No
/// refusal would bring it back, so there is none.
fn judge(before: ShortageLevel, used: u64, ours: u64, limit: u64) -> ShortageLevel {
    let over = |percent: u64| used >= limit / 100 * percent;
    let severe = if before == ShortageLevel::Severe { 97 } else { 98 };
    let short = if before == ShortageLevel::Ample { 95 } else { 90 };
    if ours < limit / 4 {
        ShortageLevel::Ample
    } else if over(severe) {
        ShortageLevel::Severe
    } else if over(short) {
        ShortageLevel::Short
    } else {
        ShortageLevel::Ample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connections_go_first_and_requests_are_refused_last() {
        use ShortageLevel::{Ample, Severe, Short};
        // (before, used, of connections and exchanges, level); of 1,000
        let table = [
            (Ample, 940, 900, Ample),
            (Ample, 950, 900, Short),
            (Ample, 980, 900, Severe),
            // What is taken by something else is not given back by refusing.
            (Ample, 999, 249, Ample),
            (Ample, 999, 250, Severe),
            (Severe, 999, 249, Ample),
            (Short, 940, 900, Short),
            (Short, 900, 900, Short),
            (Short, 899, 800, Ample),
            (Short, 979, 900, Short),
            (Severe, 970, 900, Severe),
            (Severe, 969, 900, Short),
            (Severe, 500, 400, Ample),
        ];
        for (before, used, ours, want) in table {
            assert_eq!(judge(before, used, ours, 1000), want, "{before:?} {used} {ours}");
        }
    }

    #[test]
    fn the_longer_it_lasts_the_less_may_a_connection_rest() {
        // No process takes less than 64 KiB, of which one connection may have most.
        let short = Shortage::new(Some(Memory::of(64 << 10)));
        let one = Connections::default();
        assert!(one.admit(1).is_some());
        let mut patience = Vec::new();
        for look in 1..=8 {
            short.look(look * LOOK, &one, || Duration::from_secs(60));
            // Nobody looks again so soon.
            short.look(look * LOOK + 1, &one, || Duration::from_secs(60));
            patience.extend(short.patience());
        }
        assert_eq!(patience, [30_000, 15_000, 7_500, 3_750, 1_875, 1_000, 1_000, 1_000]);
        assert!(short.is_severe());
        // (limit, connections)
        for (limit, connections) in [(1 << 50, &one), (64 << 10, &Connections::default())] {
            let ample = Shortage::new(Some(Memory::of(limit)));
            ample.look(LOOK, connections, || Duration::from_secs(60));
            assert_eq!((ample.patience(), ample.is_severe()), (None, false), "{limit}");
        }
    }
}
