//! Forwarding of connections and datagrams without inspection.

use std::sync::Arc;

use crate::filters::Authorization;
use crate::snapshot::{HostTable, Transport, WeightedClusters};
use crate::stats::{Sharded, Upstream};

/// A route whose bytes are forwarded without inspection (TLSRoute, TCPRoute, UDPRoute).
#[derive(Debug)]
pub(crate) struct Forward {
    /// `tcproute/NAMESPACE/NAME/rule/0`, for logs and metrics.
    pub name: Arc<str>,
    /// The transport: a stream of bytes, or datagrams.
    pub transport: Transport,
    /// The clients that are allowed; every client if `None`.
    pub authorization: Option<Authorization>,
    /// One choice per connection, or per flow of datagrams. `None` if there is no destination (all
    /// weights are 0, or the route cannot run); connections are closed and datagrams dropped.
    pub backends: Option<WeightedClusters>,
    /// True if connections of one client address go to the same host.
    pub hashes_clients: bool,
    /// Carried over from snapshot to snapshot, by name.
    pub counts: Arc<Sharded<Upstream>>,
}

/// Forwards by the server name (SNI) of the client; without a name, the one for any host.
pub(crate) type Forwards = HostTable<Arc<Forward>>;
