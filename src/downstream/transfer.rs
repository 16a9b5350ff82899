//! The counters and the silence timeout of tunnels and bodies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::coarse_now;
use crate::downstream::coarse_timer;

/// Number of bytes carried so far.
#[derive(Debug, Default)]
pub(crate) struct CarriedBytes {
    /// From the client to the backend.
    pub up: AtomicU64,
    pub down: AtomicU64,
}

impl CarriedBytes {
    /// Returns the number of bytes from the client and to the client.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed))
    }
}

/// Resolves when no byte has moved for `limit`. Only for the tasks of workers.
pub(crate) async fn silence(moved: &AtomicU64, limit: Duration) {
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    loop {
        let still = coarse_now().saturating_sub(moved.load(Ordering::Relaxed));
        let Some(left) = limit_ms.checked_sub(still).filter(|left| *left > 0) else { return };
        coarse_timer::sleep(Duration::from_millis(left)).await;
    }
}
