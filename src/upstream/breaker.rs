//! The bound on the connections of a cluster: Envoy's circuit breaker.
//!
//! So many connections may be open at once, over all workers, those at rest too. A request that
//! finds neither a connection nor room for one waits in line; so many may wait, and one more is
//! refused. A connection that becomes free goes to the next in the line of its own worker, or is
//! closed for one that waits at another: by lot, as many wait here and there. The room of a closed
//! connection goes to whoever has waited longest anywhere.
//!
//! While nothing waits, a request meets nothing of this but one load; opening and closing a
//! connection costs two counters.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::stats::{Sharded, Upstream};
use crate::upstream::descriptors::Descriptors;

thread_local! {
    /// Requests of this worker that wait, by cluster. A line is here while somebody stands in it.
    static LINES: RefCell<HashMap<u64, Arc<Line>>> = RefCell::default();
}

/// What a cluster may take. The defaults are Envoy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    /// Connections open at once, or flows of datagrams. 1024.
    pub connections: usize,
    /// Requests that wait for one. 1024.
    pub pending: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: 1024, pending: 1024 }
    }
}

/// Closes a connection that rests at this worker, of this cluster or of any. False if none was closed
/// by now.
pub(super) type MakeRoom = fn(Option<u64>) -> bool;

/// Counts what the connections of one cluster take.
#[derive(Debug)]
pub(super) struct Breaker {
    /// That of the cluster.
    id: u64,
    bounds: Bounds,
    descriptors: &'static Descriptors,
    make_room: MakeRoom,
    open: AtomicUsize,
    /// Requests that have no connection yet, and do not open one.
    pending: AtomicUsize,
    /// Of them, those that wait in line for another to become free.
    waiting: AtomicUsize,
    /// There is room for a connection.
    freed: Notify,
}

/// Why a request has neither a connection nor a place in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// The process has no descriptor left for backends.
    NoDescriptor,
    /// The cluster has as many connections, and as many requests wait, as may.
    Overflow,
}

/// Why there is no room for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    Cluster,
    Process,
}

/// What a request was admitted to.
#[derive(Debug)]
pub(super) enum Way<T> {
    Found(T),
    Open(Permit),
}

/// What is to become of a connection that is no longer used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Somebody waits at another worker, or descriptors are scarce.
    Close,
    Rest,
}

impl Breaker {
    pub(super) fn new(
        id: u64,
        bounds: Bounds,
        descriptors: &'static Descriptors,
        make_room: MakeRoom,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            bounds,
            descriptors,
            make_room,
            open: 0.into(),
            pending: 0.into(),
            waiting: 0.into(),
            freed: Notify::new(),
        })
    }

    /// What `find` finds, or else room for a connection; waits in line for either.
    ///
    /// # Errors
    ///
    /// `Overflow`: as many wait as may. `NoDescriptor`: the process has none left for backends.
    pub(super) async fn admit<T>(
        self: &Arc<Self>,
        counts: &Arc<Sharded<Upstream>>,
        mut find: impl FnMut() -> Option<T>,
    ) -> Result<Way<T>, Denied> {
        if self.line().is_none() {
            if let Some(found) = find() {
                return Ok(Way::Found(found));
            }
            // Room that becomes free is for those who wait already, at whichever worker.
            if !self.is_contended()
                && let Some(permit) = self.permit_or_full()?
            {
                return Ok(Way::Open(permit));
            }
        }
        counts.here().connection_overflows.one_more();
        let _pending = self.pend(counts)?;
        let (waiting, mut behind) = Waiting::new(self);
        loop {
            let mut here = pin!(waiting.line.turn.notified());
            let mut anywhere = pin!(self.freed.notified());
            // From here on nothing is missed.
            here.as_mut().enable();
            anywhere.as_mut().enable();
            if !std::mem::take(&mut behind)
                && let Some(way) = self.look(&mut find)?
            {
                return Ok(way);
            }
            tokio::select! {
                () = here => {}
                () = anywhere => {}
            }
        }
    }

    /// Room for a connection; waits in line for it.
    ///
    /// # Errors
    ///
    /// As [`admit`](Self::admit).
    pub(super) async fn room(
        self: &Arc<Self>,
        counts: &Arc<Sharded<Upstream>>,
    ) -> Result<Permit, Denied> {
        match self.admit(counts, || None::<Infallible>).await? {
            Way::Open(permit) => Ok(permit),
            Way::Found(never) => match never {},
        }
    }

    /// `None` if there is nothing now.
    fn look<T>(
        self: &Arc<Self>,
        find: &mut impl FnMut() -> Option<T>,
    ) -> Result<Option<Way<T>>, Denied> {
        match find() {
            Some(found) => Ok(Some(Way::Found(found))),
            None => Ok(self.permit_or_full()?.map(Way::Open)),
        }
    }

    /// `None` if the cluster is full.
    fn permit_or_full(self: &Arc<Self>) -> Result<Option<Permit>, Denied> {
        match self.permit() {
            Ok(permit) => Ok(Some(permit)),
            Err(Full::Cluster) => Ok(None),
            Err(Full::Process) => Err(Denied::NoDescriptor),
        }
    }

    /// Room for a connection, at once.
    ///
    /// # Errors
    ///
    /// As [`admit`](Self::admit), but that it waits for nobody.
    pub(super) fn permit_now(
        self: &Arc<Self>,
        counts: &Sharded<Upstream>,
    ) -> Result<Permit, Denied> {
        self.permit_or_full()?.ok_or_else(|| {
            counts.here().connection_overflows.one_more();
            Denied::Overflow
        })
    }

    /// What rests at this worker makes room, if nothing else does.
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
        // Not more for a moment either: somebody else would see no room, and tell nobody of it.
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
    /// `Overflow`: there are as many as may be.
    pub(super) fn pend(
        self: &Arc<Self>,
        counts: &Arc<Sharded<Upstream>>,
    ) -> Result<Pending, Denied> {
        if !one_more(&self.pending, self.bounds.pending) {
            counts.here().pending_overflows.one_more();
            return Err(Denied::Overflow);
        }
        counts.here().pending.one_more();
        Ok(Pending { breaker: Arc::clone(self), counts: Arc::clone(counts) })
    }

    /// True if a request waits anywhere.
    pub(super) fn is_contended(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// The line at this worker, if there is one.
    fn line(&self) -> Option<Arc<Line>> {
        if !self.is_contended() {
            return None;
        }
        LINES.with_borrow(|lines| lines.get(&self.id).cloned())
    }

    /// True if what rests here is to be closed: it is of use elsewhere.
    pub(super) fn wants_rest(&self) -> bool {
        self.descriptors.are_scarce() || self.is_contended() && self.line().is_none()
    }

    /// A connection is no longer used by its request. If it may rest, [`offer`](Self::offer) is to
    /// follow.
    pub(super) fn fate(&self) -> Fate {
        if !self.is_contended() {
            return if self.descriptors.are_scarce() { Fate::Close } else { Fate::Rest };
        }
        let here = self.line().map_or(0, |line| line.length.load(Ordering::Relaxed));
        let all = self.waiting.load(Ordering::Relaxed).max(1);
        if fastrand::usize(..all) < here { Fate::Rest } else { Fate::Close }
    }

    /// There is a connection, or a stream of one, to be had at this worker.
    pub(super) fn offer(&self) {
        if let Some(line) = self.line() {
            line.turn.notify_one();
        }
    }

    /// Tells the next in line if there is room for a connection. Whoever makes room looks for a line
    /// afterwards, and whoever joins one looks for room afterwards, all in one order.
    fn tell(&self) {
        if self.is_contended() && self.open.load(Ordering::SeqCst) < self.bounds.connections {
            self.freed.notify_one();
        }
    }
}

/// Counts one more up to `most`. False if there are as many.
fn one_more(counter: &AtomicUsize, most: usize) -> bool {
    let next = |count| (count < most).then_some(count + 1);
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
}

/// Room for one connection. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Permit(Arc<Breaker>);

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

/// Requests of one worker that wait for one cluster.
#[derive(Debug, Default)]
struct Line {
    length: AtomicUsize,
    turn: Notify,
}

/// A request that waits.
#[derive(Debug)]
struct Waiting {
    breaker: Arc<Breaker>,
    line: Arc<Line>,
}

impl Waiting {
    /// Joins the line; true if others wait before this one, who will tell it of what they leave.
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
            // Where the runtime of a worker ends, its thread's values may have gone before.
            let _ = LINES.try_with(|lines| lines.borrow_mut().remove(&self.breaker.id));
        }
        self.breaker.waiting.fetch_sub(1, Ordering::SeqCst);
        // It may have been told of room and have found something else.
        self.breaker.tell();
    }
}

#[cfg(test)]
mod tests;
