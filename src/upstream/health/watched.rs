//! The part of a cluster whose hosts have health settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::stats::{Sharded, Upstream};
use crate::upstream::breaker::Breaker;
use crate::upstream::health::group::HealthGroup;

/// The link between a cluster and the task that checks its hosts.
#[derive(Debug)]
pub(in crate::upstream) struct Watched {
    group: Arc<HealthGroup>,
    /// The connections of checks have limits and counters of their own: those of the cluster are for
    /// requests.
    breaker: Arc<Breaker>,
    counts: Arc<Sharded<Upstream>>,
    has_task: AtomicBool,
    /// Dropped with the cluster, which ends the task.
    alive: watch::Sender<()>,
}

impl Watched {
    pub(in crate::upstream) fn new(group: Arc<HealthGroup>, breaker: Arc<Breaker>) -> Self {
        let alive = watch::channel(()).0;
        Self { group, breaker, counts: Arc::default(), has_task: AtomicBool::new(false), alive }
    }

    pub(in crate::upstream) fn group(&self) -> &Arc<HealthGroup> {
        &self.group
    }

    pub(super) fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    pub(super) fn counts(&self) -> &Arc<Sharded<Upstream>> {
        &self.counts
    }

    /// Returns a receiver whose sender is dropped with the cluster; `None` after the first call.
    pub(super) fn begin(&self) -> Option<watch::Receiver<()>> {
        (!self.has_task.swap(true, Ordering::Relaxed)).then(|| self.alive.subscribe())
    }
}
