//! The kinds of background tasks.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;

use crate::snapshot::Snapshot;
use crate::trace::{Collector, CollectorSettings};

/// A task that a snapshot needs, one variant for each kind.
#[derive(Clone, Debug)]
pub(super) enum Task {
    /// Sends spans to a collector.
    TraceExport(Arc<Collector>),
}

/// Everything that makes a task what it is. Equal descriptions are one task across a reload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Description {
    TraceExport(CollectorSettings),
}

/// A task at work. It returns when it is done.
pub(super) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Task {
    /// The tasks that a snapshot needs.
    pub(super) fn named_by(snapshot: &Snapshot) -> impl Iterator<Item = Self> {
        snapshot.collectors.iter().cloned().map(Self::TraceExport)
    }

    pub(super) fn description(&self) -> Description {
        match self {
            Self::TraceExport(collector) => Description::TraceExport(collector.settings().clone()),
        }
    }

    /// The work of the task; None where it is still being done for an earlier snapshot. `ending`
    /// becomes true when the process ends: the work is finished at once then.
    pub(super) fn work(&self, ending: watch::Receiver<bool>) -> Option<Work> {
        match self {
            Self::TraceExport(collector) => Some(Box::pin(collector.export(ending)?)),
        }
    }
}
