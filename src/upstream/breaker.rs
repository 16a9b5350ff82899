//! Limits on the connections of a cluster: Envoy's circuit breaker.
//!
//! The number of open connections is limited over all workers; idle connections count. A request
//! that finds neither an idle connection nor room for a new one waits in a queue, for at most
//! [`LONGEST_WAIT`]. The number of pending requests is limited too; the next one is refused, unless
//! a connection is known to be idle at another worker. A connection that becomes free goes to
//! the next request in the queue of its own worker, or is closed in favour of a request that waits
//! at another worker: the choice is random, weighted by the number of requests that wait here and
//! elsewhere. The room of a closed connection goes to the request that has waited longest at any
//! worker.
//!
//! While no request waits, the cost for a request is one atomic load; opening and closing a
//! connection costs two counters.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::stats::{Sharded, Upstream};
use crate::upstream::descriptors::Descriptors;
use crate::upstream::request_limits::{RequestLimits, one_more};

thread_local! {
    /// Queues of the requests that wait at this worker, by cluster id. An empty queue is removed.
    static LINES: RefCell<HashMap<u64, Arc<Line>>> = RefCell::default();
}

/// Maximum time that a request waits for a connection. Most requests end earlier, by a timeout of
/// their rule or by `--response-timeout`; a gRPC call, and a rule whose timeout is off, have no other
/// limit.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A limit of a circuit breaker, by its name in a BackendTrafficPolicy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BreakerLimit {
    /// `maxConnections`
    Connections,
    /// `maxParallelRequests`
    ParallelRequests,
    /// `maxPendingRequests`
    PendingRequests,
}

/// Limits of a cluster. The defaults are Envoy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    /// Maximum number of open connections, or flows of datagrams. Default 1024.
    pub connections: usize,
    /// Maximum number of requests that wait for a connection. Default 1024.
    pub pending: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: 1024, pending: 1024 }
    }
}

/// Closes an idle connection of this worker, of the given cluster or of any. Returns false if none
/// has been closed yet.
pub(super) type MakeRoom = fn(Option<u64>) -> bool;

/// Counters and limits of the connections of one cluster.
#[derive(Debug)]
pub(super) struct Breaker {
    /// The id of the cluster.
    id: u64,
    bounds: Bounds,
    /// `None` if the cluster does not count its requests.
    requests: Option<Arc<RequestLimits>>,
    /// [`LONGEST_WAIT`], except in tests.
    longest_wait: Duration,
    descriptors: &'static Descriptors,
    make_room: MakeRoom,
    open: AtomicUsize,
    /// Requests that have no connection yet and are not opening one.
    pending: AtomicUsize,
    /// The pending requests that wait in a queue for a connection to become free.
    waiting: AtomicUsize,
    /// Notified when there is room for a connection.
    freed: Notify,
}

/// The reason why a request gets neither a connection nor a place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// The process has no descriptor left for backends.
    NoDescriptor,
    /// The cluster has reached a limit.
    Overflow(BreakerLimit),
}

/// The limit that leaves no room for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    Cluster,
    Process,
}

/// The result of an admission: a connection that was found, or a permit to open one.
#[derive(Debug)]
pub(super) enum Way<T> {
    Found(T),
    Open(Permit),
}

/// The treatment of a connection that its request no longer uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A request waits at another worker, or descriptors are scarce.
    Close,
    Rest,
}

impl Breaker {
    pub(super) fn new(
        id: u64,
        bounds: Bounds,
        requests: Option<Arc<RequestLimits>>,
        descriptors: &'static Descriptors,
        make_room: MakeRoom,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            bounds,
            requests,
            longest_wait: LONGEST_WAIT,
            descriptors,
            make_room,
            open: 0.into(),
            pending: 0.into(),
            waiting: 0.into(),
            freed: Notify::new(),
        })
    }

    pub(super) fn cluster_id(&self) -> u64 {
        self.id
    }

    /// Returns the limits on requests; `None` if the cluster does not count its requests.
    pub(super) fn requests(&self) -> Option<&Arc<RequestLimits>> {
        self.requests.as_ref()
    }

    /// Returns how many more connections may be opened, and how many more requests may wait.
    pub(super) fn left(&self) -> (usize, usize) {
        let left =
            |most: usize, count: &AtomicUsize| most.saturating_sub(count.load(Ordering::Relaxed));
        (left(self.bounds.connections, &self.open), left(self.bounds.pending, &self.pending))
    }

    /// Returns the result of `find`, unless requests wait at this worker already.
    pub(super) fn at_hand<T>(&self, find: impl FnOnce() -> Option<T>) -> Option<T> {
        if self.line().is_some() { None } else { find() }
    }

    /// Returns the result of `find`, or else a permit for a new connection; waits in the queue for
    /// either.
    ///
    /// # Errors
    ///
    /// `Overflow`: the limit of pending requests is reached, or no connection became free within
    /// [`LONGEST_WAIT`]. `NoDescriptor`: the process has no descriptor left for backends.
    pub(super) async fn admit<T>(
        self: &Arc<Self>,
        counts: &Arc<Sharded<Upstream>>,
        mut find: impl FnMut() -> Option<T>,
    ) -> Result<Way<T>, Denied> {
        if self.line().is_none() {
            if let Some(found) = find() {
                return Ok(Way::Found(found));
            }
            // Requests that wait already, at any worker, have precedence for room that becomes
            // free.
            if !self.is_contended()
                && let Some(permit) = self.permit_or_full()?
            {
                return Ok(Way::Open(permit));
            }
        }
        counts.here().connection_overflows.one_more();
        let _pending = self.pend(counts)?;
        match tokio::time::timeout(self.longest_wait, self.wait(&mut find)).await {
            Ok(way) => way,
            Err(_) => Err(Denied::Overflow(BreakerLimit::Connections)),
        }
    }

    /// Waits in the queue for the result of `find`, or for room for a connection.
    async fn wait<T>(
        self: &Arc<Self>,
        find: &mut impl FnMut() -> Option<T>,
    ) -> Result<Way<T>, Denied> {
        let (waiting, mut behind) = Waiting::new(self);
        loop {
            let mut here = pin!(waiting.line.turn.notified());
            let mut anywhere = pin!(self.freed.notified());
            // From here on, no notification is missed.
            here.as_mut().enable();
            anywhere.as_mut().enable();
            if !std::mem::take(&mut behind)
                && let Some(way) = self.look(find)?
            {
                return Ok(way);
            }
            tokio::select! {
                () = here => {}
                () = anywhere => {}
            }
        }
    }

    /// Returns a permit for a connection; waits in the queue for it.
    ///
    /// # Errors
    ///
    /// See [`admit`](Self::admit).
    pub(super) async fn room(
        self: &Arc<Self>,
        counts: &Arc<Sharded<Upstream>>,
    ) -> Result<Permit, Denied> {
        match self.admit(counts, || None::<Infallible>).await? {
            Way::Open(permit) => Ok(permit),
            Way::Found(never) => match never {},
        }
    }

    /// Returns `None` if there is neither a connection nor room for one now.
    fn look<T>(
        self: &Arc<Self>,
        find: &mut impl FnMut() -> Option<T>,
    ) -> Result<Option<Way<T>>, Denied> {
        match find() {
            Some(found) => Ok(Some(Way::Found(found))),
            None => Ok(self.permit_or_full()?.map(Way::Open)),
        }
    }

    /// Returns `None` if the cluster is full.
    fn permit_or_full(self: &Arc<Self>) -> Result<Option<Permit>, Denied> {
        match self.permit() {
            Ok(permit) => Ok(Some(permit)),
            Err(Full::Cluster) => Ok(None),
            Err(Full::Process) => Err(Denied::NoDescriptor),
        }
    }

    /// Returns a permit for a connection without waiting.
    ///
    /// # Errors
    ///
    /// See [`admit`](Self::admit); a full cluster is an `Overflow` at once.
    pub(super) fn permit_now(
        self: &Arc<Self>,
        counts: &Sharded<Upstream>,
    ) -> Result<Permit, Denied> {
        self.permit_or_full()?.ok_or_else(|| {
            counts.here().connection_overflows.one_more();
            Denied::Overflow(BreakerLimit::Connections)
        })
    }

    /// Returns a permit; if there is no room, closes an idle connection of this worker to make
    /// some.
    fn permit(self: &Arc<Self>) -> Result<Permit, Full> {
        self.take().or_else(|full| {
            let cluster = match full {
                Full::Cluster => Some(self.id),
                Full::Process => None,
            };
            if (self.make_room)(cluster) { self.take() } else { Err(full) }
        })
    }

    fn take(self: &Arc<Self>) -> Result<Permit, Full> {
        // The count must not exceed the limit even for a moment: another request would see no room,
        // and the correction would not wake it.
        if !one_more(&self.open, self.bounds.connections) {
            return Err(Full::Cluster);
        }
        if !self.descriptors.take() {
            self.open.fetch_sub(1, Ordering::SeqCst);
            return Err(Full::Process);
        }
        Ok(Permit(Arc::clone(self)))
    }

    /// Counts a request that has no connection yet.
    ///
    /// # Errors
    ///
    /// `Overflow`: the limit of pending requests is reached.
    pub(super) fn pend(
        self: &Arc<Self>,
        counts: &Arc<Sharded<Upstream>>,
    ) -> Result<Pending, Denied> {
        if !one_more(&self.pending, self.bounds.pending) {
            if !self.rests_elsewhere() {
                counts.here().pending_overflows.one_more();
                return Err(Denied::Overflow(BreakerLimit::PendingRequests));
            }
            self.pending.fetch_add(1, Ordering::SeqCst);
        }
        counts.here().pending.one_more();
        Ok(Pending { breaker: Arc::clone(self), counts: Arc::clone(counts) })
    }

    /// Returns true if a connection is idle at another worker, for a request that has none. Its
    /// worker closes it for a request that waits, within a sweep. Always false if the cluster does
    /// not count its requests.
    fn rests_elsewhere(&self) -> bool {
        // The other requests hold at most one connection each.
        let others = |limits: &Arc<RequestLimits>| limits.requests().saturating_sub(1);
        let open = self.open.load(Ordering::SeqCst);
        self.requests.as_ref().is_some_and(|limits| open > others(limits))
    }

    /// Returns true if a request waits at any worker.
    pub(super) fn is_contended(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Returns the queue at this worker, if there is one.
    fn line(&self) -> Option<Arc<Line>> {
        if !self.is_contended() {
            return None;
        }
        LINES.with_borrow(|lines| lines.get(&self.id).cloned())
    }

    /// Returns true if idle connections of this worker should be closed because their room is
    /// needed elsewhere.
    pub(super) fn wants_rest(&self) -> bool {
        self.descriptors.are_scarce() || self.is_contended() && self.line().is_none()
    }

    /// Decides between closing and keeping a connection that its request no longer uses. If the
    /// connection is kept, the caller must call [`offer`](Self::offer).
    pub(super) fn fate(&self) -> Fate {
        if !self.is_contended() {
            return if self.descriptors.are_scarce() { Fate::Close } else { Fate::Rest };
        }
        let here = self.line().map_or(0, |line| line.length.load(Ordering::Relaxed));
        let all = self.waiting.load(Ordering::Relaxed).max(1);
        if fastrand::usize(..all) < here { Fate::Rest } else { Fate::Close }
    }

    /// Wakes the next request in the queue of this worker: a connection, or a stream of one, is
    /// available.
    pub(super) fn offer(&self) {
        if let Some(line) = self.line() {
            line.turn.notify_one();
        }
    }

    /// Wakes the request that has waited longest if there is room for a connection. A thread that
    /// makes room checks for a queue afterwards, and a thread that joins a queue checks for room
    /// afterwards; all these operations are sequentially consistent.
    fn tell(&self) {
        if self.is_contended() && self.open.load(Ordering::SeqCst) < self.bounds.connections {
            self.freed.notify_one();
        }
    }
}

/// Permit for one connection. Dropping it releases the room.
#[derive(Debug)]
pub(super) struct Permit(Arc<Breaker>);

impl Permit {
    /// Returns the limits that the connection counts for.
    pub(super) fn breaker(&self) -> &Breaker {
        &self.0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.descriptors.give_back();
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        self.0.tell();
    }
}

/// A request that has no connection yet.
#[derive(Debug)]
pub(super) struct Pending {
    breaker: Arc<Breaker>,
    counts: Arc<Sharded<Upstream>>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.breaker.pending.fetch_sub(1, Ordering::Relaxed);
        self.counts.here().pending.one_less();
    }
}

/// Queue of the requests of one worker that wait for one cluster.
#[derive(Debug, Default)]
struct Line {
    length: AtomicUsize,
    turn: Notify,
}

/// A request in a queue.
#[derive(Debug)]
struct Waiting {
    breaker: Arc<Breaker>,
    line: Arc<Line>,
}

impl Waiting {
    /// Joins the queue. Returns true if other requests wait already; they notify the next request
    /// of room that they leave.
    fn new(breaker: &Arc<Breaker>) -> (Self, bool) {
        let line = LINES.with_borrow_mut(|lines| Arc::clone(lines.entry(breaker.id).or_default()));
        line.length.fetch_add(1, Ordering::Relaxed);
        let behind = breaker.waiting.fetch_add(1, Ordering::SeqCst) > 0;
        (Self { breaker: Arc::clone(breaker), line }, behind)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.line.length.fetch_sub(1, Ordering::Relaxed) == 1 {
            // The thread-local values of a worker may be destroyed before its runtime.
            let _ = LINES.try_with(|lines| lines.borrow_mut().remove(&self.breaker.id));
        }
        self.breaker.waiting.fetch_sub(1, Ordering::SeqCst);
        // This request may have been notified of room and have found something else.
        self.breaker.tell();
    }
}

#[cfg(test)]
mod tests;
