//! State that each snapshot hands on to the next.

use std::sync::Arc;

use crate::carry_over::CarryOver;
use crate::snapshot::BindKey;
use crate::stats::{Downstream, Sharded, Upstream};
use crate::trace::{Collector, CollectorSettings, Spans};
use crate::upstream::{Cluster, ClusterSettings};

/// State that outlives a snapshot: one for the process. `compile` takes from it what the snapshot
/// before used, by key.
///
/// To add state of a filter or policy (buckets, keys): a field, whose key has the name of its owner and
/// the settings that the state depends on.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    pub bind_counts: CarryOver<BindKey, Sharded<Downstream>>,
    /// With their connections and with what is known of their endpoints.
    pub clusters: CarryOver<ClusterSettings, Cluster>,
    /// With the spans that wait for them.
    pub collectors: CarryOver<CollectorSettings, Collector>,
    /// By the name of the rule, or of the route that has none.
    pub rule_counts: CarryOver<Arc<str>, Sharded<Upstream>>,
    pub spans: Arc<Spans>,
}
