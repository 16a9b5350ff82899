//! Access to the clocks; no other module reads them.
//!
//! State machines take the time as a parameter, so that a test can simulate an hour in a
//! microsecond; their callers read it here.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Monotonic time, for durations and deadlines.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Wall-clock time, for log lines and certificate validity.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// Wall-clock time at a recent `now`, for log lines that need both: it saves a reading of the
/// clock. A step of the wall clock shows after the next sweep of a worker, within a tenth of a
/// second.
pub(crate) fn wall_at(now: Instant) -> SystemTime {
    let offset = match WALL_AT_ORIGIN.load(Ordering::Relaxed) {
        0 => note_wall(),
        nanos => nanos,
    };
    SystemTime::UNIX_EPOCH + Duration::from_nanos(offset) + now.saturating_duration_since(*ORIGIN)
}

/// Milliseconds as of the last sweep of a worker, about a tenth of a second ago: sufficient for
/// limits of seconds, and it costs one load. Never 0.
pub(crate) fn coarse_now() -> u64 {
    COARSE.load(Ordering::Relaxed)
}

/// Sets the time of [`coarse_now`] and compares the clocks for [`wall_at`]. Each worker's sweep
/// calls it.
pub(crate) fn set_coarse_now(millis: u64) {
    COARSE.fetch_max(millis, Ordering::Relaxed);
    note_wall();
}

/// Notes the difference between the clocks. Returns it in the form of [`WALL_AT_ORIGIN`].
fn note_wall() -> u64 {
    let since_origin = now().saturating_duration_since(*ORIGIN);
    let since_epoch = wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let offset = since_epoch.saturating_sub(since_origin).as_nanos();
    // A u64 of nanoseconds reaches to the year 2554.
    let offset = u64::try_from(offset).unwrap_or(u64::MAX);
    WALL_AT_ORIGIN.store(offset, Ordering::Relaxed);
    offset
}

static COARSE: AtomicU64 = AtomicU64::new(1);

/// The origin of the monotonic clock in [`WALL_AT_ORIGIN`].
static ORIGIN: LazyLock<Instant> = LazyLock::new(now);

/// Wall-clock time at the origin, in nanoseconds since 1970. 0 until the clocks are first compared.
static WALL_AT_ORIGIN: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_at_an_instant_is_between_the_readings_around_it() {
        // Other tests may compare the clocks at any time: each comparison is off by the time that
        // its thread was suspended between the two readings.
        let tolerance = Duration::from_secs(2);
        for _ in 0..2 {
            let before = wall();
            let at = wall_at(now());
            let after = wall();
            assert!(before - tolerance <= at && at <= after + tolerance, "{before:?} {at:?}");
            let later = wall_at(now() + Duration::from_secs(3600));
            let distance = later.duration_since(at).unwrap();
            assert!(distance.abs_diff(Duration::from_secs(3600)) < tolerance, "{distance:?}");
            set_coarse_now(1);
        }
    }
}
