//! State that all clusters of the process share.

use std::net::IpAddr;
use std::sync::Arc;

use crate::upstream::breaker::Bounds;
use crate::upstream::descriptors::Descriptors;
use crate::upstream::host::Hosts;
use crate::upstream::names::Names;

/// Names, hosts and limits. They outlive a configuration, and the clusters of the next one reuse
/// them.
#[derive(Debug)]
pub(crate) struct Upstreams {
    pub(super) names: Arc<Names>,
    pub(super) hosts: Arc<Hosts>,
    /// Default limits of a cluster.
    bounds: Bounds,
    /// Limits over all clusters.
    pub(super) descriptors: &'static Descriptors,
}

impl Upstreams {
    /// Creates the state with names that the system's resolver looks up. Names in `fixed`
    /// (`--resolve`) are never looked up; hosts are compared case-insensitively.
    pub(crate) fn new(fixed: impl IntoIterator<Item = (String, Vec<IpAddr>)>) -> Arc<Self> {
        Self::with_names(Names::new(fixed))
    }

    pub(super) fn with_names(names: Arc<Names>) -> Arc<Self> {
        let descriptors = Descriptors::unlimited();
        Arc::new(Self { names, hosts: Arc::default(), bounds: Bounds::default(), descriptors })
    }

    /// Returns the same names and hosts with other limits.
    pub(crate) fn bounded(&self, bounds: Bounds, descriptors: &'static Descriptors) -> Arc<Self> {
        let (names, hosts) = (Arc::clone(&self.names), Arc::clone(&self.hosts));
        Arc::new(Self { names, hosts, bounds, descriptors })
    }

    /// Returns the limits of a cluster that has none of its own.
    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }
}
