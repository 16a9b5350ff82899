//! Kinds of background tasks.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;

use crate::snapshot::Snapshot;
use crate::trace::{Collector, CollectorSettings};
use crate::upstream::{Cluster, ClusterSettings};

/// A task that a snapshot needs; one variant for each kind.
#[derive(Clone, Debug)]
pub(super) enum Task {
    /// Checks the hosts of a cluster.
    HealthCheck(Arc<Cluster>),
    /// Exports spans to a collector.
    TraceExport(Arc<Collector>),
}

/// Identity of a task. Tasks with equal descriptions are one task across a reload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Description {
    HealthCheck(ClusterSettings),
    TraceExport(CollectorSettings),
}

/// The future of a task. It returns when the task is done.
pub(super) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Task {
    /// Returns the tasks that a snapshot needs.
    pub(super) fn named_by(snapshot: &Snapshot) -> impl Iterator<Item = Self> {
        let checked = snapshot.clusters.values().filter(|of| of.health_group().is_some());
        let checks = checked.cloned().map(Self::HealthCheck);
        checks.chain(snapshot.collectors.iter().cloned().map(Self::TraceExport))
    }

    pub(super) fn description(&self) -> Description {
        match self {
            Self::HealthCheck(cluster) => Description::HealthCheck(cluster.settings().clone()),
            Self::TraceExport(collector) => Description::TraceExport(collector.settings().clone()),
        }
    }

    /// Returns the future of the task; `None` if it already runs for an earlier snapshot. When
    /// `ending` becomes true, the process is ending and the task finishes without delay.
    pub(super) fn work(&self, ending: watch::Receiver<bool>) -> Option<Work> {
        match self {
            Self::HealthCheck(cluster) => Some(Box::pin(cluster.check_hosts(ending)?)),
            Self::TraceExport(collector) => Some(Box::pin(collector.export(ending)?)),
        }
    }
}
