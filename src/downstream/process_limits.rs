//! Limits of the process on connections and flows, over all listeners.

use crate::upstream::Bounds;

/// Limits on all clients together, on each peer and on each backend. They are set on the command
/// line; the limits on a single connection are in [`ClientLimits`](crate::snapshot::ClientLimits).
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessLimits {
    /// Open downstream connections; at the limit, the longest idle one is closed. Default: 20,000.
    pub connections: usize,
    /// Open downstream connections of one peer that is not a trusted proxy: an IPv4 address, or an
    /// IPv6 /64. At the limit, the longest idle one of that peer is closed. Default: 5,000.
    pub connections_a_peer: usize,
    /// Upstream connections that the requests, tunnels and flows of such a peer use, or of a client
    /// that a trusted proxy names; 503 beyond it. Default: no limit.
    pub upstream_a_peer: usize,
    /// Connections to all backends together, including datagram flows; 503 beyond it. Default: no
    /// limit.
    pub upstream_connections: usize,
    /// Limits on one backend; 503 beyond them.
    pub backend: Bounds,
    /// Datagram flows, divided equally among the UDP listeners. At the limit, those never answered
    /// are evicted first, then those idle for longest. Default: 4096.
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
