//! The backend that a connection or flow goes to.

use std::sync::Arc;

use crate::failure::Failure;
use crate::snapshot::{Choice, Forward};
use crate::stats::{Sharded, Upstream};
use crate::streams::stream_record::StreamRecord;
use crate::upstream::Cluster;

/// The cluster that a connection goes to, and the counters of its route.
#[derive(Debug)]
pub(crate) struct Destination {
    pub cluster: Arc<Cluster>,
    pub counts: Arc<Sharded<Upstream>>,
}

/// Chooses where a connection goes, once for all of its bytes.
///
/// # Errors
///
/// The route has no usable backend. The connection is closed, since there is no way to answer.
pub(crate) fn choose_destination(
    forward: Option<&Arc<Forward>>,
    record: &mut StreamRecord,
) -> Result<Destination, Failure> {
    let forward = forward.ok_or(Failure::NoRoute)?;
    forward.counts.here().hits.one_more();
    record.route = Some(Arc::clone(&forward.name));
    match forward.backends.as_ref().ok_or(Failure::NoBackend)?.next() {
        Choice::Cluster { cluster, .. } => {
            let counts = Arc::clone(&forward.counts);
            Ok(Destination { cluster: Arc::clone(cluster), counts })
        }
        Choice::Invalid => Err(Failure::BackendInvalid),
    }
}
