//! Helpers to carry bytes from one stream to another: counters, writing, the silence timeout.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::clock::coarse_now;
use crate::downstream::coarse_timer;

/// Number of bytes read at once in each direction.
pub(crate) const CHUNK: usize = 16 << 10;

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

/// Writes all of `bytes`. Each partial write counts as progress in `moved`.
pub(crate) async fn pass(
    to: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    moved: &AtomicU64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
        moved.store(coarse_now(), Ordering::Relaxed);
    }
    to.flush().await
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
