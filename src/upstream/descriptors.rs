//! Limits on the process's descriptors for backends: for all backends together, and for one client.
//!
//! A client holds one descriptor for each connection to a backend that its requests, tunnels and
//! flows use; its own connections have a separate limit. Clients are counted without a lock and
//! without a growing table: each is counted in two of a fixed number of counters, chosen by keyed
//! hashes, and the lower counter is used. So two clients are mistaken for one only if they share
//! both counters, which no outsider can arrange.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Number of counters for each of the two hashes.
const COUNTERS: usize = 4096;

/// The counters and limits. Created once, for the life of the process.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// Connections to backends and flows.
    upstream: AtomicUsize,
    most_upstream: usize,
    most_a_client: u32,
    keys: [RandomState; 2],
    counters: Box<[[AtomicU32; 2]]>,
}

impl Descriptors {
    /// Creates the limits: `upstream` for all backends together, `a_client` for one client.
    pub(crate) fn new(upstream: usize, a_client: usize) -> &'static Self {
        Box::leak(Box::new(Self {
            upstream: 0.into(),
            most_upstream: upstream,
            most_a_client: u32::try_from(a_client).unwrap_or(u32::MAX),
            keys: Default::default(),
            counters: (0..COUNTERS).map(|_| <[AtomicU32; 2]>::default()).collect(),
        }))
    }

    /// Creates counters without limits.
    pub(crate) fn unlimited() -> &'static Self {
        Self::new(usize::MAX, usize::MAX)
    }

    pub(crate) fn client(&'static self, client: impl Hash) -> Holder {
        #[allow(clippy::cast_possible_truncation, reason = "the remainder is a small number")]
        let place = |key: &RandomState| (key.hash_one(&client) % COUNTERS as u64) as usize;
        Holder { of: self, places: [place(&self.keys[0]), place(&self.keys[1])] }
    }

    /// Takes a descriptor for a backend. Returns false if none is left.
    pub(super) fn take(&self) -> bool {
        if self.upstream.fetch_add(1, Ordering::Relaxed) < self.most_upstream {
            return true;
        }
        self.give_back();
        false
    }

    pub(super) fn give_back(&self) {
        self.upstream.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns true if three quarters are taken: connections are then not kept idle.
    pub(super) fn are_scarce(&self) -> bool {
        self.upstream.load(Ordering::Relaxed) >= self.most_upstream / 4 * 3
    }
}

/// A client that holds descriptors by its requests, tunnels and flows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder {
    of: &'static Descriptors,
    places: [usize; 2],
}

impl Holder {
    /// Takes a descriptor. `None` if the client has reached its limit.
    pub(crate) fn take(self) -> Option<Share> {
        let before = self.counters().map(|counter| counter.fetch_add(1, Ordering::Relaxed));
        let share = Share(self);
        (before[0].min(before[1]) < self.of.most_a_client).then_some(share)
    }

    fn counters(&self) -> [&AtomicU32; 2] {
        [0, 1].map(|hash| &self.of.counters[self.places[hash]][hash])
    }
}

/// One descriptor that counts for a client. Dropping it releases the descriptor.
#[derive(Debug)]
#[must_use = "the descriptor is counted only while this lives"]
pub(crate) struct Share(Holder);

impl Drop for Share {
    fn drop(&mut self) {
        for counter in self.0.counters() {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_share_and_gives_it_back() {
        let descriptors = Descriptors::new(100, 3);
        let (client, other) = (descriptors.client("one"), descriptors.client("another"));
        let mut held: Vec<_> = (0..3).map(|_| client.take().unwrap()).collect();
        assert!(client.take().is_none() && client.take().is_none());
        assert!(other.take().is_some(), "another has its own");
        held.pop();
        held.push(client.take().unwrap());
        assert!(client.take().is_none());
        drop(held);
        assert!(descriptors.counters.iter().flatten().all(|of| of.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn clients_at_their_limit_harm_hardly_anybody() {
        let descriptors = Descriptors::new(100, 1);
        let greedy: Vec<_> =
            (0..100).filter_map(|number| descriptors.client(number).take()).collect();
        let innocent = (1000..11_000).filter(|number| descriptors.client(number).take().is_none());
        // Each of the two hashes collides with one of them with a probability of 1/40: 6 of 10,000.
        let harmed = innocent.count();
        assert!(harmed < 60, "{harmed} of 10,000");
        drop(greedy);
    }

    #[test]
    fn backends_together_have_a_limit() {
        let descriptors = Descriptors::new(8, 1);
        assert!((0..5).all(|_| descriptors.take()) && !descriptors.are_scarce());
        assert!(descriptors.take() && descriptors.are_scarce());
        assert!(descriptors.take() && descriptors.take());
        assert!(!descriptors.take() && !descriptors.take());
        descriptors.give_back();
        assert!(descriptors.take());
    }
}
