//! What happens to connections and datagrams that are not looked into.

use std::sync::Arc;

use crate::snapshot::{HostTable, Transport, WeightedClusters};
use crate::stats::{Sharded, Upstream};

/// A route whose bytes are nobody's but the client's and the backend's (TLSRoute, TCPRoute,
/// UDPRoute).
#[derive(Debug)]
pub(crate) struct Forward {
    /// `tcproute/NAMESPACE/NAME/rule/0`, for logs and metrics.
    pub name: Arc<str>,
    /// What it carries: a stream of bytes, or datagrams.
    pub transport: Transport,
    /// A choice a connection, or a flow of datagrams. `None`: there is nowhere to go (all weigh 0,
    /// or the route cannot run); connections are closed and datagrams dropped.
    pub backends: Option<WeightedClusters>,
    /// Carried over from snapshot to snapshot, by name.
    pub counts: Arc<Sharded<Upstream>>,
}

/// Forwards by the name that the client asks for; where nothing says one, the one for any.
pub(crate) type Forwards = HostTable<Arc<Forward>>;
