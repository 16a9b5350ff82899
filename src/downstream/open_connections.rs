//! Every downstream connection, in the hands of the worker that owns it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::downstream::connection_watch::{Ending, Millis, Watch};
use crate::snapshot::BindKey;
use crate::upstream::Holder;

/// All of them, worker by worker.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: AtomicUsize,
    /// Ever opened; numbers them in their order.
    opened: AtomicU64,
    /// How many each peer has. Locked when a connection comes or goes; a peer without one is not in
    /// it, so it is no larger than the limit on connections.
    peers: Mutex<HashMap<PeerNetwork, usize>>,
    shelves: Mutex<Vec<Arc<WorkerConnections>>>,
}

/// Whose connections are counted together: an IPv4 address, or a /64 of IPv6, which is what one
/// customer of a network gets at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PeerNetwork(IpAddr);

impl PeerNetwork {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// The connections of one worker. Locked when one comes or goes and by the sweep, not by requests.
#[derive(Debug, Default)]
pub(crate) struct WorkerConnections {
    slots: Mutex<Slots>,
    /// Exchanges that were open at the last sweep.
    exchanges: AtomicUsize,
}

#[derive(Debug, Default)]
struct Slots {
    open: HashMap<u64, (BindKey, Arc<Watch>)>,
}

impl Connections {
    /// How many are open now.
    pub(crate) fn count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many exchanges were open at the last sweeps.
    pub(crate) fn exchanges(&self) -> usize {
        let shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        shelves.iter().map(|shelf| shelf.exchanges.load(Ordering::Relaxed)).sum()
    }

    /// A shelf for one more worker.
    pub(crate) fn shelf(&self) -> Arc<WorkerConnections> {
        let shelf = Arc::<WorkerConnections>::default();
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&shelf));
        shelf
    }

    /// Counts one more and gives it a number; at `limit` the longest idle one has to go for it.
    /// `None` if none is idle.
    pub(crate) fn admit(&self, limit: usize) -> Option<u64> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        if self.open.fetch_add(1, Ordering::Relaxed) < limit {
            return Some(number);
        }
        if self.end_longest_idle(|_| true) {
            return Some(number);
        }
        self.left();
        None
    }

    /// Counts one more of `peer`; at `limit` its longest idle one has to go for it. False if none is
    /// idle.
    pub(crate) fn admit_peer(&self, peer: PeerNetwork, limit: usize) -> bool {
        let count = {
            let mut peers = self.peers();
            let count = peers.entry(peer).or_default();
            *count += 1;
            *count
        };
        if count <= limit || self.end_longest_idle(|of| of == peer) {
            return true;
        }
        self.peer_left(peer);
        false
    }

    /// Ends the connection that has been idle for longest among those of the peers that `count`.
    /// False if none is idle.
    fn end_longest_idle(&self, counts: impl Fn(PeerNetwork) -> bool) -> bool {
        let shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = shelves.iter().filter_map(|shelf| shelf.longest_idle(&counts));
        let Some((_, watch)) = idle.min_by_key(|(rank, _)| *rank) else { return false };
        watch.end(Ending::AtOnce);
        true
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<PeerNetwork, usize>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peer_left(&self, peer: PeerNetwork) {
        let mut peers = self.peers();
        if let Some(count) = peers.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&peer);
            }
        }
    }

    /// One is gone.
    pub(crate) fn left(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WorkerConnections {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, number: u64, bind: BindKey, watch: Arc<Watch>) {
        self.slots().open.insert(number, (bind, watch));
    }

    fn take(&self, number: u64) {
        self.slots().open.remove(&number);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots().open.is_empty()
    }

    /// Looks at each; what comes back is how it is to end, if it is.
    pub(crate) fn end_where(&self, judge: impl Fn(BindKey, &Watch) -> Option<Ending>) {
        let mut exchanges = 0;
        for (bind, watch) in self.slots().open.values() {
            exchanges += watch.open_exchanges();
            if let Some(ending) = judge(*bind, watch) {
                watch.end(ending);
            }
        }
        self.exchanges.store(exchanges, Ordering::Relaxed);
    }

    /// Of the peers that `counts` says, the one that is idle since the longest time, the first of those that rest alike; and its
    /// rank. What is told to end already is no longer in anybody's way.
    fn longest_idle(
        &self,
        counts: &impl Fn(PeerNetwork) -> bool,
    ) -> Option<((Millis, u64), Arc<Watch>)> {
        let slots = self.slots();
        let idle = slots.open.iter().filter(|(_, (_, watch))| {
            !watch.is_ending() && counts(PeerNetwork::of(watch.peer.ip()))
        });
        let ranked =
            idle.filter_map(|(number, (_, watch))| Some(((watch.idle_since()?, *number), watch)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(rank, watch)| (rank, Arc::clone(watch)))
    }
}

/// A connection's place among those of its worker; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Registration {
    all: Arc<Connections>,
    shelf: Arc<WorkerConnections>,
    number: u64,
    /// `None` for a trusted proxy, whose connections are those of many.
    peer: Option<(PeerNetwork, Holder)>,
}

impl Registration {
    /// Puts a connection that was admitted under `number` on the shelf of its worker.
    pub(crate) fn new(
        all: Arc<Connections>,
        shelf: Arc<WorkerConnections>,
        number: u64,
        bind: BindKey,
        peer: Option<(PeerNetwork, Holder)>,
        watch: &Arc<Watch>,
    ) -> Self {
        shelf.put(number, bind, Arc::clone(watch));
        Self { all, shelf, number, peer }
    }

    /// Whose descriptors its requests take; `None` for a trusted proxy.
    pub(crate) fn client(&self) -> Option<Holder> {
        self.peer.map(|(_, client)| client)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shelf.take(self.number);
        self.all.left();
        if let Some((peer, _)) = self.peer {
            self.all.peer_left(peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_an_address_or_a_network_of_one_customer() {
        let of = |address: &str| PeerNetwork::of(address.parse().unwrap());
        // (one, another, the same peer)
        let table = [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8::1", "2001:db8:0:0:ffff::2", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ];
        for (one, another, same) in table {
            assert_eq!(of(one) == of(another), same, "{one} and {another}");
        }
    }

    #[test]
    fn a_peer_that_left_is_forgotten() {
        let connections = Connections::default();
        let peers = ["192.0.2.1", "192.0.2.2"].map(|peer| PeerNetwork::of(peer.parse().unwrap()));
        for peer in peers {
            assert!(connections.admit_peer(peer, 2));
            assert!(connections.admit_peer(peer, 2));
            assert!(!connections.admit_peer(peer, 2), "a third, and none is idle");
        }
        for peer in [peers[0], peers[1], peers[0], peers[1]] {
            connections.peer_left(peer);
        }
        assert!(connections.peers().is_empty());
    }
}
