//! The only reader of time.
//!
//! State machines are told the time by their caller, so that a test can live through an hour in a
//! microsecond; whoever stands at the edge asks here.

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
