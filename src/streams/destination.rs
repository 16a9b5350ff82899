//! Choice of the backend for a connection or flow.

use std::sync::Arc;

use crate::failure::Failure;
use crate::filters::Authorization;
use crate::snapshot::{Choice, Forward};
use crate::stats::{Sharded, Upstream};
use crate::streams::stream_record::StreamRecord;
use crate::upstream::{Aim, Cluster, hash_of_client};

/// The cluster for a connection, and the counters of its route.
#[derive(Debug)]
pub(crate) struct Destination {
    pub cluster: Arc<Cluster>,
    /// Used if no endpoint of the cluster accepts the connection.
    pub fallback: Option<Arc<Cluster>>,
    pub counts: Arc<Sharded<Upstream>>,
    pub aim: Aim,
}

/// Chooses the cluster for a connection, once for its whole lifetime.
///
/// # Errors
///
/// Fails if the route does not allow the client or has no usable backend. The connection is closed,
/// since no response is possible.
pub(crate) fn choose_destination(
    forward: Option<&Arc<Forward>>,
    record: &mut StreamRecord,
) -> Result<Destination, Failure> {
    let forward = forward.ok_or(Failure::NoRoute)?;
    forward.counts.here().hits.one_more();
    record.route = Some(Arc::clone(&forward.name));
    if let Some(authorization) = &forward.authorization
        && let Err(details) = authorization.check(record.peer.ip(), None)
    {
        record.details = details;
        return Err(Failure::Denied(Authorization::DENIAL));
    }
    let backends = forward.backends.as_ref().ok_or(Failure::NoBackend)?;
    let hash = forward.hashes_clients.then(|| hash_of_client(record.peer.ip()));
    match backends.next(hash) {
        Choice::Cluster { cluster, .. } => {
            let counts = Arc::clone(&forward.counts);
            let aim = Aim { hash, ..Aim::default() };
            let fallback = backends.fallback_of(cluster).map(|of| of.next_of_priority(hash));
            let fallback = fallback.and_then(|choice| match choice {
                Choice::Cluster { cluster, .. } => Some(Arc::clone(cluster)),
                Choice::Invalid => None,
            });
            Ok(Destination { cluster: Arc::clone(cluster), fallback, counts, aim })
        }
        Choice::Invalid => Err(Failure::BackendInvalid),
    }
}
