//! The door: what the control wing describes and the data wing serves, immutable and complete.
//!
//! `compile` fills a [`Snapshot`], `proxy` reads it, and nothing else crosses between the wings.

pub(crate) mod bind;
mod bind_key;
mod carried;
mod client_limits;
pub(crate) mod forward;
pub(crate) mod host_table;
pub(crate) mod matcher;
pub(crate) mod route_table;
pub(crate) mod rule;
pub(crate) mod session;
mod weighted_clusters;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::net::HostPattern;
use crate::trace::Collector;
use crate::upstream::{Cluster, ClusterSettings};

pub(crate) use bind::{Bind, Listener, Traffic};
pub(crate) use bind_key::{BindKey, Transport};
pub(crate) use carried::Carried;
pub(crate) use client_limits::ClientLimits;
pub(crate) use forward::{Forward, Forwards};
pub(crate) use host_table::HostTable;
pub(crate) use matcher::{Conditions, HeaderMatch, PathMatch, QueryMatch, ValueMatch};
pub(crate) use route_table::{Entry, RouteTable, Row};
pub(crate) use rule::{Limit, Mirror, Retry, Rule, Timeouts};
pub(crate) use session::{Carrier, Session};
pub(crate) use weighted_clusters::{Choice, WeightedClusters};

/// Everything that is served, as of one load.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// 1 for the first, +1 with each that is published.
    pub generation: u64,
    pub binds: Vec<Arc<Bind>>,
    /// Every cluster by its settings.
    pub clusters: HashMap<ClusterSettings, Arc<Cluster>>,
    /// Every rule by its name, for those who look at what it counts.
    pub rules: BTreeMap<Arc<str>, Arc<Rule>>,
    /// The same of what is no HTTP. Of two with one name, which differ in how they speak to their
    /// backends and count together, only one is here.
    pub forwards: BTreeMap<Arc<str>, Arc<Forward>>,
    /// Everywhere that traces go to.
    pub collectors: Vec<Arc<Collector>>,
    /// Handed on from snapshot to snapshot.
    pub carried: Arc<Carried>,
    /// For the status line and the log.
    pub counts: Counts,
}

/// How much a snapshot serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub gateways: usize,
    pub listeners: usize,
    /// Routes attached to at least one listener.
    pub routes: usize,
    pub backends: usize,
}

impl Snapshot {
    /// What is served on a bind now; none if a reload took it away.
    pub(crate) fn bind(&self, key: BindKey) -> Option<&Arc<Bind>> {
        // A host has a handful of binds, so looking along the list is as quick as hashing.
        self.binds.iter().find(|bind| bind.key == key)
    }

    /// Every listener, once for each address that it is on.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = (BindKey, &Arc<Listener>)> {
        self.binds.iter().flat_map(|bind| {
            bind.listeners.sorted().into_iter().map(|(_, listener)| (bind.key, listener))
        })
    }

    /// The longest that any listener lets a connection rest.
    pub(crate) fn longest_idle_timeout(&self) -> Duration {
        let of_listeners = self.listeners().map(|(_, listener)| listener.limits.idle_timeout);
        of_listeners.max().unwrap_or_default()
    }

    /// The listener of a bind for everything that a listener with this hostname is for, if one is.
    pub(crate) fn covering(
        &self,
        key: BindKey,
        hostname: Option<&HostPattern>,
    ) -> Option<&Arc<Listener>> {
        let listeners = &self.bind(key)?.listeners;
        match hostname.map(|pattern| (pattern.exact(), pattern.suffix())) {
            None => listeners.best(""),
            Some((Some(name), _)) => listeners.best(name),
            // No hostname begins with a space, so that an exact one never takes its place.
            Some((None, suffix)) => listeners.best(&format!(" {}", suffix.unwrap_or_default())),
        }
    }
}

/// The one door between the control wing and the data wing.
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

    pub(crate) fn publish(&self, next: Snapshot) {
        self.0.store(Arc::new(next));
    }
}
