//! State that each snapshot passes to the next.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::body::HeldMemory;
use crate::carry_over::CarryOver;
use crate::filters::rate_limit::Buckets;
use crate::snapshot::{BindKey, CountedTogether};
use crate::stats::{Compression, Downstream, Faults, RateLimits, Sharded, Upstream};
use crate::trace::{Collector, CollectorSettings, Spans};
use crate::upstream::{Cluster, ClusterSettings};

/// State that outlives a snapshot; there is one for the process. `compile` takes the state of the
/// previous snapshot from it, by key.
///
/// To add state of a filter or policy (buckets, keys), add a field whose key has the name of its
/// owner and the settings that the state depends on.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    pub bind_counts: CarryOver<BindKey, Sharded<Downstream>>,
    /// Numbers of open connections that have a limit.
    pub open_connections: CarryOver<CountedTogether, AtomicUsize>,
    /// With their connections and the state of their endpoints.
    pub clusters: CarryOver<ClusterSettings, Cluster>,
    /// With their queued spans.
    pub collectors: CarryOver<CollectorSettings, Collector>,
    /// By the name of the rule.
    pub rule_counts: CarryOver<Arc<str>, Sharded<Upstream>>,
    /// Of each limit, by [`LimitKey`].
    pub limits: CarryOver<LimitKey, Buckets>,
    pub limit_counts: Arc<Sharded<RateLimits>>,
    pub compression_counts: Arc<Sharded<Compression>>,
    pub fault_counts: Arc<Sharded<Faults>>,
    pub held_memory: Arc<HeldMemory>,
    pub spans: Arc<Spans>,
}

/// The identity of a limit of requests. Another limit, or one with other selectors, has buckets of
/// its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LimitKey {
    /// The rule of the route, by name.
    pub rule: Arc<str>,
    /// The policy that the limit is written in: namespace and name.
    pub policy: (Box<str>, Box<str>),
    /// The selectors and the limit, as written.
    pub written: Box<str>,
    /// The number of limits before it that are written in the same way.
    pub number: usize,
}
