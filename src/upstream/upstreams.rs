//! What all clusters of the process share.

use std::net::IpAddr;
use std::sync::Arc;

use crate::upstream::host::Hosts;
use crate::upstream::names::Names;

/// Names, hosts: what outlives a configuration and is found again by the clusters of the next.
#[derive(Debug)]
pub(crate) struct Upstreams {
    pub(super) names: Arc<Names>,
    pub(super) hosts: Arc<Hosts>,
}

impl Upstreams {
    /// Names by the system's resolver. A name in `fixed` (`--resolve`) is never looked up; hosts are
    /// compared without regard to case.
    pub(crate) fn new(fixed: impl IntoIterator<Item = (String, Vec<IpAddr>)>) -> Arc<Self> {
        Self::with_names(Names::new(fixed))
    }

    pub(super) fn with_names(names: Arc<Names>) -> Arc<Self> {
        Arc::new(Self { names, hosts: Arc::default() })
    }
}
