//! The limit on the time that the response of an HTTP/2 stream waits for the client's window.
//!
//! The client opens the window of a stream. While one window stays closed, the other streams and
//! the connection continue: writes succeed. hyper waits for the window itself and does not poll the
//! body meanwhile, so neither the sweep nor the body can end that wait. The task of the stream can:
//! when it ends, the stream is reset and its backend is released (RFC 9113 section 10.5,
//! CVE-2019-9517).
//!
//! Limitation: data that h2 has accepted and that waits for the window counts as sent. That is less
//! than a piece (see [`Pieces`]) at the end of a body.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::coarse_now;
use crate::downstream::Millis;
use crate::proxy::stall::Stall;

thread_local! {
    /// Time at which the response of the stream whose task is being polled last gave hyper data
    /// that waits for the window; 0 if no data waits.
    static OWED_SINCE: Cell<Millis> = const { Cell::new(0) };
}

/// Records that the response of the stream that is being polled has given hyper data to send.
pub(super) fn is_owed() {
    OWED_SINCE.set(coarse_now());
}

/// Records that hyper has sent the data that it was given, and polls for more.
pub(super) fn is_given() {
    OWED_SINCE.set(0);
}

/// Runs the task of a stream until it ends or its response has waited for the window for `limit`.
pub(super) async fn within(limit: Duration, task: impl Future<Output = ()>) {
    let mut task = pin!(task);
    let mut owed_since = 0;
    let mut stall = Stall::new(limit);
    poll_fn(|cx| {
        OWED_SINCE.set(owed_since);
        let polled = task.as_mut().poll(cx);
        owed_since = OWED_SINCE.replace(0);
        if polled.is_pending() && owed_since != 0 && stall.poll(owed_since, cx) {
            tracing::debug!("no room for a response, stream reset");
            return Poll::Ready(());
        }
        polled
    })
    .await;
}

/// The part of a body that hyper is given at once.
///
/// hyper passes a frame of a body to h2 as a whole once there is room for any of it, and polls for
/// the next frame when the whole has been sent; progress in between is not visible. Small pieces
/// make the progress of a client with a slowly opening window visible.
#[derive(Debug)]
pub(super) struct Pieces {
    size: usize,
    /// Time at which the last piece was passed on; 0 once hyper has polled for more.
    given_at: Millis,
    rest: Bytes,
}

/// Sizes of pieces in bytes: for a slow client, for a client of unknown speed, and at most.
const SLOW: usize = 1 << 10;
const FIRST: usize = 4 << 10;
const MOST: usize = 1 << 20;

/// A piece that waited for longer than this, in milliseconds, shows that the client is slow.
const PROMPT: Millis = 100;

impl Default for Pieces {
    fn default() -> Self {
        Self { size: FIRST, given_at: 0, rest: Bytes::new() }
    }
}

impl Pieces {
    /// Adapts the size of pieces when hyper polls for more at `now`, and returns the next piece of
    /// the buffered data, if any.
    pub(super) fn next(&mut self, now: Millis) -> Option<Bytes> {
        if self.given_at != 0 {
            let waited = now.saturating_sub(self.given_at);
            self.size = if waited > PROMPT { SLOW } else { (self.size * 2).min(MOST) };
            self.given_at = 0;
        }
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then(|| self.cut(rest, now))
    }

    /// Returns the first piece of `data` and buffers the rest.
    pub(super) fn cut(&mut self, mut data: Bytes, now: Millis) -> Bytes {
        self.given_at = now;
        if data.len() > self.size {
            self.rest = data.split_off(self.size);
        }
        data
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_grow_for_the_prompt_and_shrink_for_the_slow() {
        let mut pieces = Pieces::default();
        let body = Bytes::from(vec![b'x'; 64 << 10]);
        let mut sizes = vec![pieces.cut(body.clone(), 1000).len()];
        // The first two pieces are sent at once, the third after a while, the others at once again.
        for now in [1000, 1100, 1500, 1500, 1500] {
            sizes.push(pieces.next(now).unwrap().len());
        }
        assert_eq!(sizes, [4096, 8192, 16_384, 1024, 2048, 4096]);
        let mut all: usize = sizes.iter().sum();
        while let Some(piece) = pieces.next(1500) {
            all += piece.len();
        }
        assert_eq!(all, body.len());
        assert!(pieces.is_empty());
    }

    #[test]
    fn a_wait_for_the_backend_is_no_wait_for_the_client() {
        let mut pieces = Pieces::default();
        assert_eq!(pieces.cut(Bytes::from_static(&[0; 100]), 1000).len(), 100);
        assert_eq!(pieces.next(1000), None, "asked at once, and then the backend is slow");
        assert_eq!(pieces.next(9000), None);
        assert_eq!(pieces.cut(Bytes::from(vec![0; 10_000]), 9000).len(), 8192);
    }

    #[tokio::test]
    async fn only_what_waits_for_room_has_a_limit() {
        let done = Cell::new(false);
        within(Duration::ZERO, async {
            is_owed();
            is_given();
            tokio::time::sleep(Duration::from_millis(1)).await;
            done.set(true);
        })
        .await;
        assert!(done.get(), "nothing was owed while it waited");
        let owed = within(Duration::ZERO, async {
            is_owed();
            std::future::pending::<()>().await;
        });
        assert!(tokio::time::timeout(Duration::from_secs(20), owed).await.is_ok());
    }
}
