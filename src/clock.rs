//! Access to the clocks; no other module reads them.
//!
//! State machines take the time as a parameter, so that a test can simulate an hour in a
//! microsecond; their callers read it here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

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

/// Milliseconds as of the last sweep of a worker, about a tenth of a second ago: sufficient for
/// limits of seconds, and it costs one load. Never 0.
pub(crate) fn coarse_now() -> u64 {
    COARSE.load(Ordering::Relaxed)
}

/// Sets the time of [`coarse_now`]. Each worker's sweep calls it.
pub(crate) fn set_coarse_now(millis: u64) {
    COARSE.fetch_max(millis, Ordering::Relaxed);
}

static COARSE: AtomicU64 = AtomicU64::new(1);
