//! Limits of the process: how many connections and flows there may be, over all listeners.

use crate::upstream::Bounds;

/// How much all clients together may take, and how much each peer and each backend. Settings of the
/// command line; what a connection may take is in [`ClientLimits`](crate::snapshot::ClientLimits).
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessLimits {
    /// Downstream connections open at once; beyond it the longest idle one is closed. 20,000.
    pub connections: usize,
    /// Of them, those of one peer that is no trusted proxy: an IPv4 address, or a /64 of IPv6;
    /// beyond it the longest idle one of that peer is closed. 5,000.
    pub connections_a_peer: usize,
    /// Connections to backends that the requests, tunnels and flows of such a peer use, or of a
    /// client that a trusted proxy names; beyond it 503. No limit.
    pub upstream_a_peer: usize,
    /// Connections to all backends together, and flows of datagrams; beyond it 503. No limit.
    pub upstream_connections: usize,
    /// What one backend may take; beyond it 503.
    pub backend: Bounds,
    /// Flows of datagrams at once, shared out equally among the UDP listeners; beyond it those go
    /// that rest longest, first those never answered. 4096.
    pub udp_flows: usize,
}

impl Default for ProcessLimits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_a_peer: 5_000,
            upstream_a_peer: usize::MAX,
            upstream_connections: usize::MAX,
            backend: Bounds::default(),
            udp_flows: 4096,
        }
    }
}
