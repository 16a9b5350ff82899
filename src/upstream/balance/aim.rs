//! Preferences of a caller among the endpoints of a cluster.

use std::net::IpAddr;

use crate::stable_hash::hash_64;
use crate::upstream::address::EndpointName;

/// Preferences of a caller among the endpoints of the cluster. By default, there are none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aim {
    /// Comes first, if it is an address of the cluster and is available.
    pub prefer: Option<EndpointName>,
    /// The hash by which a policy of consistent hashing chooses the host; with `None` a random host
    /// is chosen.
    pub hash: Option<u64>,
    /// These come last: they failed to serve an earlier attempt of the same request.
    pub avoid: Vec<EndpointName>,
}

/// Returns the hash of a client's address, for [`Aim::hash`].
pub(crate) fn hash_of_client(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(client) => hash_64(&client.octets()),
        IpAddr::V6(client) => hash_64(&client.octets()),
    }
}
