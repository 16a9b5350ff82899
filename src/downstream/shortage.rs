//! Memory shortage: closes idle connections first, then refuses new requests.
//!
//! The sweeps of the workers check the memory in use, four times a second in all. From 95 % of the
//! limit on, idle connections are closed, the longest idle first: each check halves the allowed
//! idle time. From 98 % on, new requests are answered with 503, and a client that takes nothing of
//! its response for that time is disconnected, because its buffers would continue to fill. Normal
//! operation resumes below 90 %. What filters hold for bodies counts as memory of ours; from 98 % on, no more
//! requests are held as a whole.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::body::HeldMemory;
use crate::downstream::connection_watch::Millis;
use crate::downstream::open_connections::Connections;
use crate::systemd::Memory;

/// Interval between checks of the memory in use, in milliseconds.
const LOOK: Millis = 250;
/// Lower bound of the allowed idle time in milliseconds, so that a client that sends one request
/// after the other is not disconnected.
const SHORTEST: Millis = 1000;

/// The idle time that is allowed at first when memory is short, however long the idle timeout is.
const LONGEST: Millis = 3_600_000;

/// Memory of an idle connection in bytes: of HTTP/2, which needs the most and which a client may
/// choose. docs/configuration.md has the measurements.
pub(crate) const BYTES_A_CONNECTION: u64 = 52 << 10;

/// Memory of a parked HTTP/1 connection in bytes.
const BYTES_A_PARKED_CONNECTION: u64 = 16 << 10;

/// Maximum memory of an exchange in bytes: the client's window and the send buffer, both full.
const BYTES_AN_EXCHANGE: u64 = (256 + 128) << 10;

/// The state of memory shortage.
#[derive(Debug)]
pub(crate) struct Shortage {
    /// `None` if the system reports no limit.
    memory: Option<Memory>,
    looked_at: AtomicU64,
    level: AtomicU8,
    /// Allowed idle time of a connection.
    patience: AtomicU64,
}

/// Severity of the shortage, in ascending order.
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

    /// Returns the allowed idle time of a connection; `None` if only the connection's own limits
    /// apply.
    pub(crate) fn patience(&self) -> Option<Millis> {
        (self.level() > ShortageLevel::Ample).then(|| self.patience.load(Ordering::Relaxed))
    }

    /// Returns true if memory is short, severely or not.
    pub(crate) fn is_short(&self) -> bool {
        self.level.load(Ordering::Relaxed) != ShortageLevel::Ample as u8
    }

    /// Returns true if new requests are to be refused.
    pub(crate) fn is_severe(&self) -> bool {
        self.level.load(Ordering::Relaxed) == ShortageLevel::Severe as u8
    }

    /// Checks the memory in use, unless another worker has just done so. `idle_timeout` is the
    /// allowed idle time while memory is sufficient.
    pub(crate) fn look(
        &self,
        now: Millis,
        connections: &Connections,
        held: &HeldMemory,
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
        let parked = connections.parked() as u64;
        let ours = (connections.count() as u64).saturating_sub(parked) * BYTES_A_CONNECTION
            + parked * BYTES_A_PARKED_CONNECTION
            + connections.exchanges() as u64 * BYTES_AN_EXCHANGE
            + held.bytes();
        let before = self.level();
        let level = judge(before, used, ours, memory.limit());
        let patience = match before {
            ShortageLevel::Ample => {
                let idle_ms = u64::try_from(idle_timeout().as_millis()).unwrap_or(Millis::MAX);
                idle_ms.min(LONGEST)
            }
            _ => self.patience.load(Ordering::Relaxed),
        };
        self.patience.store((patience / 2).max(SHORTEST), Ordering::Relaxed);
        self.level.store(level as u8, Ordering::Relaxed);
        held.close(level == ShortageLevel::Severe);
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

/// Returns the level of shortage for `used` of `limit` bytes, of which connections and exchanges
/// may use `ours`. A level is left at a lower value than it is reached, so that it does not
/// oscillate.
///
/// If connections and exchanges may use less than a quarter of the limit, the memory is used by
/// something else: mostly by the allocator, which keeps freed memory for reuse. Refusing requests
/// would not free that memory, so nothing is refused.
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
        // (level before, used, used by connections and exchanges, level); of 1,000
        let table = [
            (Ample, 940, 900, Ample),
            (Ample, 950, 900, Short),
            (Ample, 980, 900, Severe),
            // Refusing requests does not free memory that something else uses.
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
        // Every process uses at least 64 KiB, most of which one connection may account for.
        let short = Shortage::new(Some(Memory::of(64 << 10)));
        let (one, held) = (Connections::default(), HeldMemory::default());
        assert!(one.admit(1).is_some());
        let mut patience = Vec::new();
        for look in 1..=8 {
            short.look(look * LOOK, &one, &held, || Duration::from_secs(60));
            // The next check is not due yet.
            short.look(look * LOOK + 1, &one, &held, || Duration::from_secs(60));
            patience.extend(short.patience());
        }
        assert_eq!(patience, [30_000, 15_000, 7_500, 3_750, 1_875, 1_000, 1_000, 1_000]);
        assert!(short.is_severe());
        // (limit, connections)
        for (limit, connections) in [(1 << 50, &one), (64 << 10, &Connections::default())] {
            let ample = Shortage::new(Some(Memory::of(limit)));
            ample.look(LOOK, connections, &held, || Duration::from_secs(60));
            assert_eq!((ample.patience(), ample.is_severe()), (None, false), "{limit}");
        }
    }
}
