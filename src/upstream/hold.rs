//! Requests that wait while the backends of a cluster restart, in place of a failure.
//!
//! While no address of the cluster accepts a connection, the requests that wait take turns: one at a
//! time tries to connect, at most once in [`INTERVAL`]. The first connection that is opened, for any
//! request of any worker, wakes all of them.
//!
//! A cluster without this setting has no such state. With it, a request that needs not wait pays for
//! one atomic load, and a connection that is opened for one counter.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::upstream::request_limits::one_more;

/// Interval between two attempts to connect.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long and how many requests wait for the backends of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HoldSettings {
    /// Maximum time that a request waits.
    pub patience: Duration,
    /// Maximum number of requests that wait, over all workers; the next one fails at once.
    pub most: usize,
}

/// The requests that wait for the backends of one cluster.
#[derive(Debug)]
pub(crate) struct Hold {
    settings: HoldSettings,
    waiting: AtomicUsize,
    /// Number of connections opened so far.
    connects: AtomicU64,
    /// Notified of a new connection.
    connected: Notify,
    /// Its one permit is held by the request whose turn it is to try.
    turn: Semaphore,
}

/// The turn of a request to try: until this is dropped, no other one tries.
#[derive(Debug)]
pub(crate) struct Turn<'h>(#[allow(dead_code, reason = "held, not read")] SemaphorePermit<'h>);

impl Hold {
    pub(super) fn new(settings: HoldSettings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            waiting: 0.into(),
            connects: 0.into(),
            connected: Notify::new(),
            turn: Semaphore::new(1),
        })
    }

    pub(crate) fn settings(&self) -> HoldSettings {
        self.settings
    }

    /// Counts a request as waiting; `None` if as many wait as may.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<HeldRequest> {
        one_more(&self.waiting, self.settings.most).then(|| HeldRequest(Arc::clone(self)))
    }

    /// Returns the number of connections that were opened so far.
    pub(crate) fn connects(&self) -> u64 {
        self.connects.load(Ordering::SeqCst)
    }

    /// Records that a connection was opened, and wakes the requests that wait.
    pub(super) fn connects_again(&self) {
        self.connects.fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.connected.notify_waiters();
        }
    }

    /// Resolves when a connection has been opened after the first `connects` ones.
    pub(crate) async fn connected(&self, connects: u64) {
        loop {
            let mut connected = pin!(self.connected.notified());
            // From here on, no notification is missed.
            connected.as_mut().enable();
            if self.connects() != connects {
                return;
            }
            connected.await;
        }
    }

    /// Waits until it is worth trying again after an attempt that failed: a connection has been
    /// opened after the first `connects` ones, or it is the turn of this request to try.
    pub(crate) async fn until_worth_a_try(&self, connects: u64) -> Option<Turn<'_>> {
        let turn = async {
            // Never closed.
            let turn = self.turn.acquire().await.ok()?;
            tokio::time::sleep(INTERVAL).await;
            Some(Turn(turn))
        };
        tokio::select! {
            biased;
            () = self.connected(connects) => None,
            turn = turn => turn,
        }
    }
}

/// A request that waits. Counts as waiting while this lives.
#[derive(Debug)]
#[must_use = "the request is counted only while this lives"]
pub(crate) struct HeldRequest(Arc<Hold>);

impl Drop for HeldRequest {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::testing::soon;

    fn hold(most: usize) -> Arc<Hold> {
        Hold::new(HoldSettings { patience: Duration::from_secs(9), most })
    }

    #[tokio::test]
    async fn a_new_connection_wakes_everybody_and_is_not_missed() {
        let hold = hold(3);
        let held: Vec<_> = (0..3).map(|_| hold.enter().unwrap()).collect();
        assert!(hold.enter().is_none(), "three may wait");
        let before = hold.connects();
        let waits = held.iter().map(|_| hold.until_worth_a_try(before));
        let mut waits = pin!(futures_util::future::join_all(waits));
        assert!(futures_util::poll!(waits.as_mut()).is_pending());
        hold.connects_again();
        let turns = soon(waits).await;
        assert!(turns.iter().all(Option::is_none));
        // One that failed before the connection was opened, and waits only now.
        assert!(hold.until_worth_a_try(before).await.is_none());
        drop(held);
        assert!(hold.enter().is_some());
    }

    #[tokio::test]
    async fn one_at_a_time_tries_and_the_next_follows_if_it_leaves() {
        let hold = hold(2);
        let now = hold.connects();
        let turn = soon(hold.until_worth_a_try(now)).await;
        assert!(turn.is_some());
        let mut waits = pin!(hold.until_worth_a_try(now));
        assert!(futures_util::poll!(waits.as_mut()).is_pending());
        // Long enough for a turn of its own.
        tokio::time::sleep(3 * INTERVAL).await;
        assert!(futures_util::poll!(waits.as_mut()).is_pending(), "the first one tries still");
        drop(turn);
        assert!(soon(waits).await.is_some());
    }
}
