//! What happens to connections and datagrams that are not looked into.

use std::sync::Arc;

use crate::snapshot::{HostTable, WeightedClusters};
use crate::stats::{Sharded, Upstream};

/// A route whose bytes are nobody's but the client's and the backend's (TLSRoute, TCPRoute,
/// UDPRoute).
#[derive(Debug)]
pub(crate) struct Forward {
    /// `tcproute/NAMESPACE/NAME/rule/0`, for logs.
    pub name: Arc<str>,
    /// A choice a connection, or a flow of datagrams. `None`: there is nowhere to go (all weigh 0,
    /// or the route cannot run); connections are closed and datagrams dropped.
    pub backends: Option<WeightedClusters>,
    /// What happens to its connections to backends.
    pub counts: Arc<Sharded<Upstream>>,
}

/// Forwards by the name that the client asks for; where nothing says one, the one for any.
pub(crate) type Forwards = HostTable<Arc<Forward>>;
