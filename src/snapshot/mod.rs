//! The snapshot: the complete, immutable configuration that the control wing builds and the data
//! wing serves.
//!
//! `compile` fills a [`Snapshot`], `proxy` reads it, and nothing else crosses between the wings.

mod balancing;
pub(crate) mod bind;
mod bind_key;
mod carried;
mod client_limits;
mod client_policy;
mod connection_limit;
pub(crate) mod forward;
pub(crate) mod host_table;
pub(crate) mod matcher;
mod response_override;
pub(crate) mod route_table;
pub(crate) mod rule;
pub(crate) mod session;
mod weighted_clusters;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::net::HostPattern;
use crate::trace::Collector;
use crate::upstream::{Cluster, ClusterSettings};

pub(crate) use balancing::{Balancing, HashCookie, HashHeader, HashInput};
pub(crate) use bind::{Bind, Listener, Traffic};
pub(crate) use bind_key::{BindKey, Transport};
pub(crate) use carried::{Carried, LimitKey};
pub(crate) use client_limits::ClientLimits;
pub(crate) use client_policy::{
    AddressSource, ClientDetection, ClientPolicy, EscapedSlashes, ProxyHeader, RequestIds,
    Underscores,
};
pub(crate) use connection_limit::{
    ConnectionBound, ConnectionLimit, CountedConnection, CountedTogether,
};
pub(crate) use forward::{Forward, Forwards};
pub(crate) use host_table::HostTable;
pub(crate) use matcher::{Conditions, HeaderMatch, QueryMatch};
pub(crate) use response_override::{
    NewResponse, ReplacedSource, Replacement, ResponseOverride, ResponseOverrides, TextMatch,
};
pub(crate) use route_table::{Entry, RouteTable, Row};
pub(crate) use rule::{Limit, Mirror, RetriedFailures, Retry, Rule, Timeouts};
pub(crate) use session::{Carrier, Session};
pub(crate) use weighted_clusters::{Choice, WeightedClusters};

/// The running configuration, as of one load.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// 1 for the first snapshot; each published snapshot adds 1.
    pub generation: u64,
    pub binds: Vec<Arc<Bind>>,
    /// All clusters by their settings.
    pub clusters: HashMap<ClusterSettings, Arc<Cluster>>,
    /// All rules by name, for readers of their counters.
    pub rules: BTreeMap<Arc<str>, Arc<Rule>>,
    /// All forwards by name. If two have one name (they differ in the protocol towards their
    /// backends and share their counters), only one of them is here.
    pub forwards: BTreeMap<Arc<str>, Arc<Forward>>,
    /// The collectors of all traces.
    pub collectors: Vec<Arc<Collector>>,
    /// State that is passed from snapshot to snapshot.
    pub carried: Arc<Carried>,
    /// Counts for the status line and the log.
    pub counts: Counts,
}

/// Counts of the parts of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub gateways: usize,
    pub listeners: usize,
    /// Routes attached to at least one listener.
    pub routes: usize,
    pub backends: usize,
}

impl Snapshot {
    /// Returns the bind with this key; `None` if a reload removed it.
    pub(crate) fn bind(&self, key: BindKey) -> Option<&Arc<Bind>> {
        // A host has few binds, so a linear search is as fast as hashing.
        self.binds.iter().find(|bind| bind.key == key)
    }

    /// Returns every listener, once for each of its addresses.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = (BindKey, &Arc<Listener>)> {
        self.binds.iter().flat_map(|bind| {
            bind.listeners.sorted().into_iter().map(|(_, listener)| (bind.key, listener))
        })
    }

    /// Returns the longest idle timeout of any listener.
    pub(crate) fn longest_idle_timeout(&self) -> Duration {
        let of_listeners = self.listeners().map(|(_, listener)| listener.limits.idle_timeout);
        of_listeners.max().unwrap_or_default()
    }

    /// Returns the listener of a bind that handles everything that a listener with this hostname
    /// would handle, if there is one.
    pub(crate) fn covering(
        &self,
        key: BindKey,
        hostname: Option<&HostPattern>,
    ) -> Option<&Arc<Listener>> {
        let listeners = &self.bind(key)?.listeners;
        match hostname.map(|pattern| (pattern.exact(), pattern.suffix())) {
            None => listeners.best(""),
            Some((Some(name), _)) => listeners.best(name),
            // No hostname begins with a space, so an exact one can never match here.
            Some((None, suffix)) => listeners.best(&format!(" {}", suffix.unwrap_or_default())),
        }
    }
}

/// The current snapshot; the only connection between the control wing and the data wing.
///
/// Readers take the snapshot once per exchange and keep it to the end, so a request never sees two
/// configurations. The last reader of an old snapshot frees it.
#[derive(Debug)]
pub(crate) struct SnapshotCell(ArcSwap<Snapshot>);

impl SnapshotCell {
    pub(crate) fn new(first: Snapshot) -> Self {
        Self(ArcSwap::from_pointee(first))
    }

    pub(crate) fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Returns the current snapshot by this thread's own reference, so that the exchanges of all
    /// workers do not count in one place.
    ///
    /// A thread keeps the snapshot until its next call; the sweep of a worker is one.
    pub(crate) fn here(&self) -> LocalSnapshot {
        let current = self.0.load();
        let kept = HERE.take().filter(|kept| Arc::ptr_eq(&*kept.0, &*current));
        let here = kept.unwrap_or_else(|| LocalSnapshot(Arc::new(Arc::clone(&current))));
        HERE.set(Some(here.clone()));
        here
    }

    pub(crate) fn publish(&self, next: Snapshot) {
        self.0.store(Arc::new(next));
    }
}

/// A reference to a snapshot that is counted by the exchanges of one thread.
#[derive(Clone, Debug)]
#[expect(clippy::redundant_allocation, reason = "the outer count belongs to one thread")]
pub(crate) struct LocalSnapshot(Arc<Arc<Snapshot>>);

impl Deref for LocalSnapshot {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

thread_local! {
    /// The result of the last call of [`SnapshotCell::here`].
    static HERE: Cell<Option<LocalSnapshot>> = const { Cell::new(None) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(generation: u64) -> Snapshot {
        Snapshot { generation, ..Snapshot::default() }
    }

    #[test]
    fn a_thread_has_the_current_snapshot_and_lets_go_of_the_one_before() {
        let (cell, other) = (SnapshotCell::new(snapshot(1)), SnapshotCell::new(snapshot(10)));
        let first = Arc::downgrade(&cell.load());
        let exchange = cell.here();
        assert_eq!((other.here().generation, cell.here().generation), (10, 1));

        cell.publish(snapshot(2));
        assert_eq!((cell.here().generation, exchange.generation), (2, 1));
        drop(exchange);
        assert!(first.upgrade().is_none());
    }

    #[test]
    fn exchanges_of_one_thread_count_as_one() {
        let cell = SnapshotCell::new(snapshot(1));
        let exchanges: Vec<_> = (0..100).map(|_| cell.here()).collect();
        // Those of the cell, of this thread, and of the question.
        assert_eq!(Arc::strong_count(&cell.load()), 3);
        drop(exchanges);
        assert_eq!(Arc::strong_count(&cell.load()), 3);
    }
}
