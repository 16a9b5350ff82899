//! Lingering: the rest of a request body is read and discarded for a while after the response.
//!
//! A client that is still sending when its stream or connection ends loses the response (RFC 9112
//! section 9.6; HTTP/2 client libraries drop a response that RST_STREAM follows at once). Therefore
//! the rest is read, which also serves a client that reads nothing before it has sent everything.
//! An HTTP/1 connection whose request body ends within the limits is kept open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;

use crate::clock::coarse_now;
use crate::downstream::{LINGER, Millis, SILENCE, Watch, tasks};
use crate::proxy::body_progress::BodyProgress;
use crate::proxy::downstream_body::DownstreamBody;

/// Interval between checks of the limits.
const LOOK: Duration = Duration::from_secs(1);

/// Reads the rest of `incoming`, until [`LINGER`] after the exchange has ended, or until nothing
/// has arrived for [`SILENCE`].
pub(super) fn drain(mut incoming: DownstreamBody, watch: &Arc<Watch>, received: Arc<BodyProgress>) {
    let drains = watch.drains();
    tasks::spawn(async move {
        let _drains = drains;
        let came = AtomicU64::new(coarse_now());
        let read = async {
            while let Some(Ok(_)) = incoming.frame().await {
                let now = coarse_now();
                came.store(now, Ordering::Relaxed);
                received.moved.store(now, Ordering::Relaxed);
            }
        };
        let limit = async {
            received.over.notified().await;
            if received.left.load(Ordering::Relaxed) {
                // The connection ends at once; `metered.rs` reads the rest after its end.
                return;
            }
            loop {
                tokio::time::sleep(LOOK).await;
                let answered = received.answered.load(Ordering::Relaxed);
                if answered != 0 && is_late(coarse_now(), answered, came.load(Ordering::Relaxed)) {
                    return;
                }
            }
        };
        tokio::select! {
            () = read => {}
            () = limit => {}
        }
    });
}

/// Returns true if the time to read a request body is over. `answered` is the time of the response,
/// `came` that of the last byte.
fn is_late(now: Millis, answered: Millis, came: Millis) -> bool {
    let over =
        |since: Millis, limit: Duration| u128::from(now.saturating_sub(since)) > limit.as_millis();
    over(answered, LINGER) || over(answered.max(came), SILENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_read_for_a_while_and_longer_while_it_sends() {
        // (now, time of the response, time of the last byte, late)
        let table = [
            (6000, 1000, 1000, false),
            (6001, 1000, 1000, true),
            (6001, 1000, 5000, false),
            (31_000, 1000, 30_999, false),
            (31_001, 1000, 31_000, true),
            // Silence before the response does not count.
            (61_000, 60_000, 1000, false),
        ];
        for (now, answered, came, want) in table {
            assert_eq!(is_late(now, answered, came), want, "{now} {answered} {came}");
        }
    }
}
