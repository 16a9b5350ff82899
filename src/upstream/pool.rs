//! Pool of idle HTTP/1.1 connections. Each worker thread has its own, so there is no lock.
//!
//! The connection that was used last is reused first: busy connections stay in use and the others
//! expire. Each worker calls [`sweep`] about once a second; it closes connections whose cluster no
//! longer exists, that exceeded the idle timeout, or that the backend closed.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::clock;
use crate::upstream::address::Address;
use crate::upstream::breaker::Fate;
use crate::upstream::cluster::{Cluster, PoolKey};
use crate::upstream::connect::Look;
use crate::upstream::h1::Connection;
use crate::upstream::h2;

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

#[derive(Debug, Default)]
struct Pool {
    shelves: HashMap<PoolKey, Shelf>,
    closed: bool,
}

#[derive(Debug)]
struct Shelf {
    cluster: Weak<Cluster>,
    idle_timeout: Duration,
    /// Oldest first.
    resting: VecDeque<(Instant, Box<Connection>)>,
}

/// Closes the idle connections of this thread that exceeded the idle timeout, that the backend
/// closed, or whose cluster no longer exists.
pub(crate) fn sweep(now: Instant) {
    POOL.with_borrow_mut(|pool| pool.sweep(now));
    h2::sweep(now);
}

/// Closes all idle connections of this thread; from then on, each connection is closed after its
/// exchange. Must be called before the runtime of this thread ends.
pub(crate) fn drain() {
    POOL.with_borrow_mut(|pool| {
        pool.closed = true;
        pool.shelves.clear();
    });
    h2::drain();
}

/// Takes the usable connection to `address` that was used last.
pub(super) fn take(cluster: &Cluster, address: &Address, look: Look) -> Option<Box<Connection>> {
    let key = cluster.pool_key(address);
    POOL.with_borrow_mut(|pool| pool.shelves.get_mut(&key)?.take(clock::now(), look))
}

/// Closes the connection of this worker that has been idle longest, of one cluster or of all.
/// Returns false if there is none.
pub(super) fn close_one(cluster: Option<u64>) -> bool {
    POOL.with_borrow_mut(|pool| pool.close_one(cluster))
}

/// Returns a connection to the pool after a complete exchange.
pub(super) fn put(cluster: &Arc<Cluster>, address: Address, connection: Box<Connection>) {
    POOL.with_borrow_mut(|pool| pool.put(cluster, address, connection, clock::now()));
}

impl Pool {
    fn put(
        &mut self,
        cluster: &Arc<Cluster>,
        address: Address,
        mut connection: Box<Connection>,
        now: Instant,
    ) {
        let settings = cluster.settings();
        if self.closed
            || settings.max_idle_per_endpoint == 0
            || cluster.breaker().fate() == Fate::Close
        {
            return;
        }
        connection.rest();
        let shelf = self.shelves.entry((cluster.id(), address)).or_insert_with(|| Shelf {
            cluster: Arc::downgrade(cluster),
            idle_timeout: settings.idle_timeout,
            resting: VecDeque::new(),
        });
        if shelf.resting.len() >= settings.max_idle_per_endpoint {
            shelf.resting.pop_front();
        }
        shelf.resting.push_back((now, connection));
        cluster.breaker().offer();
    }

    fn close_one(&mut self, cluster: Option<u64>) -> bool {
        let of = self.shelves.iter_mut().filter(|((id, _), _)| cluster.is_none_or(|of| of == *id));
        let oldest = of
            .filter_map(|(_, shelf)| Some((shelf.resting.front()?.0, shelf)))
            .min_by_key(|(since, _)| *since);
        oldest.is_some_and(|(_, shelf)| shelf.resting.pop_front().is_some())
    }

    fn sweep(&mut self, now: Instant) {
        self.shelves.retain(|_, shelf| {
            let Some(cluster) = shelf.cluster.upgrade() else { return false };
            if cluster.breaker().wants_rest() {
                return false;
            }
            let limit = shelf.idle_timeout;
            shelf.resting.retain_mut(|(since, connection)| {
                now.saturating_duration_since(*since) < limit && connection.is_quiet(Look::Seen)
            });
            !shelf.resting.is_empty()
        });
    }
}

impl Shelf {
    fn take(&mut self, now: Instant, look: Look) -> Option<Box<Connection>> {
        while let Some((since, mut connection)) = self.resting.pop_back() {
            if now.saturating_duration_since(since) >= self.idle_timeout {
                // The remaining connections have been idle even longer.
                self.resting.clear();
                return None;
            }
            if connection.is_quiet(look) {
                return Some(connection);
            }
        }
        None
    }
}

#[cfg(test)]
pub(super) fn resting(cluster: &Cluster) -> usize {
    POOL.with_borrow(|pool| {
        let shelves = pool.shelves.iter().filter(|((id, _), _)| *id == cluster.id());
        shelves.map(|(_, shelf)| shelf.resting.len()).sum()
    })
}

#[cfg(test)]
mod tests;
