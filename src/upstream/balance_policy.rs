//! Load-balancing policies of clusters.

use std::time::Duration;

/// The choice of a host for each request. Default: round robin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct BalancePolicy {
    pub kind: BalanceKind,
    /// The time in which a host that begins to serve comes to its full share. Zero: it has that at
    /// once.
    pub slow_start: Duration,
}

impl BalancePolicy {
    /// Returns true if the policy compares all hosts of the cluster. The plain round robin does not:
    /// it looks only at the endpoint whose turn it is.
    pub(super) fn compares_hosts(&self) -> bool {
        *self != Self::default()
    }

    /// Returns true if the requests in progress at each host are counted.
    pub(super) fn counts_requests(&self) -> bool {
        self.kind == BalanceKind::LeastRequest
    }
}

/// The way in which a host is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum BalanceKind {
    /// The same host for the same hash, by a Maglev table of this size. A request without a hash
    /// goes to a random host.
    ConsistentHash {
        /// A prime number.
        table_size: u32,
    },
    /// Of two random hosts the one with fewer requests in progress.
    LeastRequest,
    Random,
    /// Without slow start: over the endpoints, and over the addresses of a name. With slow start:
    /// over all addresses.
    #[default]
    RoundRobin,
}
