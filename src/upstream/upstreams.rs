//! What all clusters of the process share.

use std::net::IpAddr;
use std::sync::Arc;

use crate::upstream::breaker::Bounds;
use crate::upstream::descriptors::Descriptors;
use crate::upstream::host::Hosts;
use crate::upstream::names::Names;

/// Names, hosts and bounds: what outlives a configuration and is found again by the clusters of the
/// next.
#[derive(Debug)]
pub(crate) struct Upstreams {
    pub(super) names: Arc<Names>,
    pub(super) hosts: Arc<Hosts>,
    /// Those of a cluster that has none of its own.
    bounds: Bounds,
    /// Those of all of them together.
    pub(super) descriptors: &'static Descriptors,
}

impl Upstreams {
    /// Names by the system's resolver. A name in `fixed` (`--resolve`) is never looked up; hosts are
    /// compared without regard to case.
    pub(crate) fn new(fixed: impl IntoIterator<Item = (String, Vec<IpAddr>)>) -> Arc<Self> {
        Self::with_names(Names::new(fixed))
    }

    pub(super) fn with_names(names: Arc<Names>) -> Arc<Self> {
        let descriptors = Descriptors::unlimited();
        Arc::new(Self { names, hosts: Arc::default(), bounds: Bounds::default(), descriptors })
    }

    /// The same with other bounds.
    pub(crate) fn bounded(&self, bounds: Bounds, descriptors: &'static Descriptors) -> Arc<Self> {
        let (names, hosts) = (Arc::clone(&self.names), Arc::clone(&self.hosts));
        Arc::new(Self { names, hosts, bounds, descriptors })
    }

    /// The bounds of a cluster that has none of its own.
    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }
}
