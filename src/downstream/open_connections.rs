//! The list of all open downstream connections, with one part per worker.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::downstream::connection_watch::{Ending, Millis, Watch};
use crate::snapshot::{BindKey, CountedConnection};
use crate::upstream::Holder;

/// All open connections, worker by worker.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: AtomicUsize,
    /// Number of connections ever opened: the number of the next one.
    opened: AtomicU64,
    /// Number of connections of each peer. Locked when a connection opens or closes. A peer without
    /// a connection has no entry, so the map is no larger than the limit on connections.
    peers: Mutex<HashMap<PeerNetwork, usize>>,
    workers: Mutex<Vec<Arc<WorkerConnections>>>,
}

/// Clients whose connections are counted together: an IPv4 address, or an IPv6 /64, the smallest
/// network that a customer gets.
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

/// The connections of one worker. The list is locked when a connection opens or closes and by the
/// sweep, not by requests.
#[derive(Debug, Default)]
pub(crate) struct WorkerConnections {
    /// Number of connections that are assigned to the worker, those not yet admitted included.
    assigned: AtomicUsize,
    connections: Mutex<OpenConnections>,
    /// Number of exchanges that were open, and of connections that were parked, at the last sweep.
    exchanges: AtomicUsize,
    parked: AtomicUsize,
}

#[derive(Debug, Default)]
struct OpenConnections {
    /// Connections by the number under which they were admitted.
    by_number: HashMap<u64, (BindKey, Arc<Watch>)>,
    /// Number of connections of each bind. A bind without a connection has no entry.
    by_bind: BTreeMap<BindKey, usize>,
    /// Connections of listeners with a limit, by their numbers.
    limited: HashMap<u64, CountedConnection>,
}

/// A connection that is counted for a worker. Dropping it ends the count.
#[derive(Debug)]
pub(crate) struct Assignment(Arc<WorkerConnections>);

impl Drop for Assignment {
    fn drop(&mut self) {
        self.0.assigned.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    /// Returns the number of open connections.
    pub(crate) fn count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Returns the number of exchanges that were open at the last sweeps.
    pub(crate) fn exchanges(&self) -> usize {
        self.sum(|worker| &worker.exchanges)
    }

    /// Returns the number of connections that were parked at the last sweeps.
    pub(crate) fn parked(&self) -> usize {
        self.sum(|worker| &worker.parked)
    }

    fn sum(&self, of: impl Fn(&WorkerConnections) -> &AtomicUsize) -> usize {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().map(|worker| of(worker).load(Ordering::Relaxed)).sum()
    }

    /// Returns the number of open connections of each bind, worker by worker.
    pub(crate) fn of_workers(&self) -> Vec<BTreeMap<BindKey, usize>> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().map(|worker| worker.connections().by_bind.clone()).collect()
    }

    /// Adds a worker and returns its list.
    pub(crate) fn add_worker(&self) -> Arc<WorkerConnections> {
        let worker = Arc::<WorkerConnections>::default();
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&worker));
        worker
    }

    /// Counts one more connection and returns its number. At `limit`, the connection that has been
    /// idle for longest is closed to make room. Returns `None` if none is idle.
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

    /// Counts one more connection of `peer`. At `limit`, the peer's connection that has been idle
    /// for longest is closed to make room. Returns false if none is idle.
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

    /// Ends the connection that has been idle for longest among those of the peers that `counts`
    /// accepts. Returns false if none is idle.
    fn end_longest_idle(&self, counts: impl Fn(PeerNetwork) -> bool) -> bool {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = workers.iter().filter_map(|worker| worker.longest_idle(&counts));
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

    /// Records that a connection has ended.
    pub(crate) fn left(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WorkerConnections {
    fn connections(&self) -> MutexGuard<'_, OpenConnections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, number: u64, bind: BindKey, watch: Arc<Watch>) {
        let mut connections = self.connections();
        connections.by_number.insert(number, (bind, watch));
        *connections.by_bind.entry(bind).or_default() += 1;
    }

    /// Puts `watch` in the place of that of the connection.
    fn replace(&self, number: u64, watch: Arc<Watch>) {
        if let Some((_, of)) = self.connections().by_number.get_mut(&number) {
            *of = watch;
        }
    }

    fn take(&self, number: u64) {
        let mut connections = self.connections();
        let Some((bind, _)) = connections.by_number.remove(&number) else { return };
        if !connections.limited.is_empty() {
            connections.limited.remove(&number);
        }
        if let Some(count) = connections.by_bind.get_mut(&bind) {
            *count -= 1;
            if *count == 0 {
                connections.by_bind.remove(&bind);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.connections().by_number.is_empty()
    }

    /// Assigns one more connection to this worker.
    pub(crate) fn assign(self: &Arc<Self>) -> Assignment {
        self.assigned.fetch_add(1, Ordering::Relaxed);
        Assignment(Arc::clone(self))
    }

    /// Returns the number of connections that are assigned to this worker.
    pub(crate) fn count(&self) -> usize {
        self.assigned.load(Ordering::Relaxed)
    }

    /// Calls `judge` for each connection, and ends those for which it returns an ending.
    pub(crate) fn end_where(&self, judge: impl Fn(BindKey, &Watch) -> Option<Ending>) {
        let (mut exchanges, mut parked) = (0, 0);
        for (bind, watch) in self.connections().by_number.values() {
            exchanges += watch.open_exchanges();
            parked += usize::from(watch.is_parked());
            if let Some(ending) = judge(*bind, watch) {
                watch.end(ending);
            }
        }
        self.exchanges.store(exchanges, Ordering::Relaxed);
        self.parked.store(parked, Ordering::Relaxed);
    }

    /// Returns the connection that has been idle for longest among those of the peers that `counts`
    /// accepts, and its rank; of several that are idle for as long, the oldest. Connections that
    /// were already asked to end are skipped.
    fn longest_idle(
        &self,
        counts: &impl Fn(PeerNetwork) -> bool,
    ) -> Option<((Millis, u64), Arc<Watch>)> {
        let connections = self.connections();
        let idle = connections.by_number.iter().filter(|(_, (_, watch))| {
            !watch.is_ending() && counts(PeerNetwork::of(watch.peer.ip()))
        });
        let ranked =
            idle.filter_map(|(number, (_, watch))| Some(((watch.idle_since()?, *number), watch)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(rank, watch)| (rank, Arc::clone(watch)))
    }
}

/// The entry of a connection in the list of its worker. Dropping it removes the entry.
#[derive(Debug)]
pub(crate) struct Registration {
    all: Arc<Connections>,
    assignment: Assignment,
    number: u64,
    /// `None` for a trusted proxy, whose connections carry many clients, and until the PROXY header
    /// of a connection is read.
    peer: Option<(PeerNetwork, Holder)>,
}

impl Registration {
    /// Adds a connection that was admitted under `number` to the list of its worker.
    pub(crate) fn new(
        all: Arc<Connections>,
        assignment: Assignment,
        number: u64,
        bind: BindKey,
        peer: Option<(PeerNetwork, Holder)>,
        watch: &Arc<Watch>,
    ) -> Self {
        assignment.0.put(number, bind, Arc::clone(watch));
        Self { all, assignment, number, peer }
    }

    /// Records the client of a connection that was admitted for no client. It is counted already.
    pub(crate) fn is_of(&mut self, peer: Option<(PeerNetwork, Holder)>, watch: &Arc<Watch>) {
        self.peer = peer;
        self.assignment.0.replace(self.number, Arc::clone(watch));
    }

    /// Counts the connection for the limit of its listener, to its end.
    pub(crate) fn counts_for(&self, limit: CountedConnection) {
        self.assignment.0.connections().limited.insert(self.number, limit);
    }

    /// Returns the holder to which the descriptors of the requests are charged; `None` for a
    /// trusted proxy.
    pub(crate) fn client(&self) -> Option<Holder> {
        self.peer.map(|(_, client)| client)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.assignment.0.take(self.number);
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
        // (one address, another, same peer)
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
