//! Preferences of a caller among the endpoints of a cluster.

use crate::upstream::address::EndpointName;

/// Preferences of a caller among the endpoints of the cluster. By default, there are none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aim {
    /// Comes first, if it is an address of the cluster and is available.
    pub prefer: Option<EndpointName>,
    /// These come last: they failed to serve an earlier attempt of the same request.
    pub avoid: Vec<EndpointName>,
}
