//! Pool of idle HTTP/1.1 connections. Each worker thread has its own, so there is no lock.
//!
//! The connection that was used last is reused first: busy connections stay in use and the others
//! expire. Each worker calls [`sweep`] ten times a second; it closes connections whose cluster no
//! longer exists, that exceeded the idle timeout or their age, or that the backend closed. Times are those of
//! the [coarse clock](crate::clock::coarse_now).
//!
//! Closing a connection takes the kernel some microseconds. When a reload removes a cluster or a
//! backend restarts, hundreds of them become useless at once; they leave the pool at once, and each
//! sweep closes a limited number.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use crate::clock::coarse_now;
use crate::proxy_protocol::Addresses;
use crate::upstream::breaker::Fate;
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::Look;
use crate::upstream::h1::Connection;
use crate::upstream::h2;
use crate::upstream::member::{ByMember, Member};

/// Maximum number of idle connections of one worker, to all endpoints together. An idle connection
/// takes about 1 KiB beside its socket.
const MOST_IDLE: usize = 4096;

/// Maximum number of connections that one sweep closes.
const CLOSES: usize = 256;

/// Interval in milliseconds between two checks whether backends have closed idle connections.
const CHECK_INTERVAL: u64 = 1000;

thread_local! {
    static POOL: RefCell<Pool> = RefCell::new(Pool::new());
}

#[derive(Debug)]
struct Pool {
    shelves: ByMember<Shelf>,
    /// Number of connections on all shelves, and its maximum.
    idle: usize,
    most_idle: usize,
    /// Connections that are no longer usable, to be closed by the next sweeps.
    leaving: VecDeque<Box<Connection>>,
    /// Time of the last check whether backends have closed connections.
    checked_at: u64,
    closed: bool,
}

/// The idle connections to one member of a cluster.
#[derive(Debug)]
struct Shelf {
    cluster: Weak<Cluster>,
    cluster_id: u64,
    /// In milliseconds.
    idle_timeout: u64,
    most: usize,
    /// With the times since which they have been idle. Oldest first.
    resting: VecDeque<(u64, Box<Connection>)>,
}

/// Closes idle connections of this thread that exceeded the idle timeout, that the backend closed,
/// or whose cluster no longer exists. `now` is in milliseconds of the coarse clock.
pub(crate) fn sweep(now: u64) {
    POOL.with_borrow_mut(|pool| pool.sweep(now));
    h2::sweep(now);
}

/// Closes all idle connections of this thread; from then on, each connection is closed after its
/// exchange. Must be called before the runtime of this thread ends.
pub(crate) fn drain() {
    POOL.with_borrow_mut(|pool| {
        pool.closed = true;
        pool.shelves.clear();
        pool.idle = 0;
        pool.leaving.clear();
    });
    h2::drain();
}

/// Takes the usable connection to this member that was used last; of those with a PROXY header only
/// one for the same connection of a client.
pub(super) fn take(
    member: &Member,
    proxied: Option<&Addresses>,
    look: Look,
) -> Option<Box<Connection>> {
    POOL.with_borrow_mut(|pool| pool.take(member, proxied, coarse_now(), look))
}

/// Closes the connection of this worker that has been idle longest, of one cluster or of all.
/// Returns false if there is none.
pub(super) fn close_one(cluster: Option<u64>) -> bool {
    POOL.with_borrow_mut(|pool| pool.close_one(cluster))
}

/// Returns a connection to the pool after a complete exchange.
pub(super) fn put(connection: Box<Connection>) {
    POOL.with_borrow_mut(|pool| pool.put(connection, coarse_now()));
}

impl Pool {
    fn new() -> Self {
        Self {
            shelves: ByMember::default(),
            idle: 0,
            most_idle: MOST_IDLE,
            leaving: VecDeque::new(),
            checked_at: 0,
            closed: false,
        }
    }

    fn take(
        &mut self,
        member: &Member,
        proxied: Option<&Addresses>,
        now: u64,
        look: Look,
    ) -> Option<Box<Connection>> {
        let shelf = self.shelves.get_mut(member.number())?;
        // Without PROXY headers this is the last one. With them, the search is bounded by the limit
        // of the shelf.
        let fits = |(_, connection): &(u64, Box<Connection>)| connection.is_for(proxied);
        while let Some(at) = shelf.resting.iter().rposition(fits) {
            let (since, mut connection) = shelf.resting.remove(at)?;
            self.idle -= 1;
            if shelf.is_expired(since, now) {
                // Those before it have been idle even longer.
                self.idle -= at;
                let expired = shelf.resting.drain(..at);
                self.leaving.extend(expired.map(|(_, connection)| connection));
            } else if connection.is_quiet(look) && !connection.retires(now) {
                return Some(connection);
            }
            self.leaving.push_back(connection);
        }
        None
    }

    fn put(&mut self, mut connection: Box<Connection>, now: u64) {
        connection.has_served();
        if self.closed || connection.breaker().fate() == Fate::Close || connection.retires(now) {
            return;
        }
        if self.idle >= self.most_idle {
            self.close_one(None);
        }
        let number = connection.number();
        if self.shelves.get_mut(number).is_none() {
            let Some(shelf) = connection.cluster().upgrade().map(|of| Shelf::new(&of)) else {
                return;
            };
            if let Some(mut former) = self.shelves.insert(number, shelf) {
                self.idle -= former.resting.len();
                former.clear(&mut self.leaving);
            }
        }
        // None: the endpoint has left the cluster, and another one has its number.
        let Some(shelf) = self.shelves.get_mut(number).filter(|shelf| shelf.most > 0) else {
            return;
        };
        if shelf.resting.len() >= shelf.most {
            shelf.resting.pop_front();
            self.idle -= 1;
        }
        connection.rest();
        // A request that this wakes runs later, and finds the connection.
        connection.breaker().offer();
        shelf.resting.push_back((now, connection));
        self.idle += 1;
    }

    fn close_one(&mut self, cluster: Option<u64>) -> bool {
        let is_of = |id: u64| cluster.is_none_or(|of| of == id);
        let left = self.leaving.iter().position(|one| is_of(one.breaker().cluster_id()));
        if let Some(left) = left {
            return self.leaving.remove(left).is_some();
        }
        let of = self.shelves.values_mut().filter(|shelf| is_of(shelf.cluster_id));
        let oldest = of
            .filter_map(|shelf| Some((shelf.resting.front()?.0, shelf)))
            .min_by_key(|(since, _)| *since);
        let closed = oldest.is_some_and(|(_, shelf)| shelf.resting.pop_front().is_some());
        self.idle -= usize::from(closed);
        closed
    }

    fn sweep(&mut self, now: u64) {
        let Self { shelves, idle, leaving, .. } = self;
        let checks = now.saturating_sub(self.checked_at) >= CHECK_INTERVAL;
        if checks {
            self.checked_at = now;
        }
        shelves.retain(|shelf| {
            let before = shelf.resting.len();
            match shelf.cluster.upgrade() {
                Some(cluster) if !cluster.breaker().wants_rest() => {
                    shelf.expire(now, leaving);
                    if checks {
                        shelf.check(now, leaving);
                    }
                }
                _ => shelf.clear(leaving),
            }
            *idle -= before - shelf.resting.len();
            !shelf.resting.is_empty()
        });
        leaving.drain(..leaving.len().min(CLOSES));
    }
}

impl Shelf {
    fn new(cluster: &Arc<Cluster>) -> Self {
        let settings = cluster.settings();
        Self {
            cluster: Arc::downgrade(cluster),
            cluster_id: cluster.id(),
            idle_timeout: u64::try_from(settings.idle_timeout.as_millis()).unwrap_or(u64::MAX),
            most: settings.max_idle_per_endpoint,
            resting: VecDeque::new(),
        }
    }

    fn is_expired(&self, since: u64, now: u64) -> bool {
        now.saturating_sub(since) >= self.idle_timeout
    }

    /// Moves the connections that exceeded the idle timeout to `leaving`.
    fn expire(&mut self, now: u64, leaving: &mut VecDeque<Box<Connection>>) {
        let young = self.resting.iter().position(|(since, _)| !self.is_expired(*since, now));
        let expired = self.resting.drain(..young.unwrap_or(self.resting.len()));
        leaving.extend(expired.map(|(_, connection)| connection));
    }

    /// Moves the connections that the backend closed, and those that are too old, to `leaving`.
    fn check(&mut self, now: u64, leaving: &mut VecDeque<Box<Connection>>) {
        for _ in 0..self.resting.len() {
            let Some((since, mut connection)) = self.resting.pop_front() else { return };
            match connection.is_quiet(Look::Seen) && !connection.retires(now) {
                true => self.resting.push_back((since, connection)),
                false => leaving.push_back(connection),
            }
        }
    }

    /// Moves all connections to `leaving`.
    fn clear(&mut self, leaving: &mut VecDeque<Box<Connection>>) {
        leaving.extend(self.resting.drain(..).map(|(_, connection)| connection));
    }
}
#[cfg(test)]
pub(super) fn resting(cluster: &Cluster) -> usize {
    POOL.with_borrow(|pool| {
        let shelves = pool.shelves.values().filter(|shelf| shelf.cluster_id == cluster.id());
        shelves.map(|shelf| shelf.resting.len()).sum()
    })
}

#[cfg(test)]
mod tests;
