//! Points in time as numbers, for atomics.

use std::sync::OnceLock;
use std::time::Instant;

use crate::clock;

/// Converts to milliseconds since the first call of this function.
pub(super) fn millis(at: Instant) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(clock::now);
    u64::try_from(at.saturating_duration_since(start).as_millis()).unwrap_or(u64::MAX)
}
