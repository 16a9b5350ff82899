//! BackendTrafficPolicies: the way from routes to backends.
//!
//! Of two BackendTrafficPolicies for the same target, the first in tie-breaking order applies, as in
//! Envoy Gateway. One that cannot be applied closes the HTTP routes among its targets: requests are
//! answered with 500. It does not apply to other routes.

use crate::api::envoy::BackendTrafficPolicySpec;
use crate::graph::index::ObjectIndex;
use crate::graph::verdict::Faults;

use super::claims::OnConflict;
use super::policies::{Applied, AppliedPolicy, AttachedPolicies};

/// The BackendTrafficPolicies of a load.
pub(crate) type TrafficPolicies<'a> = AttachedPolicies<'a, BackendTrafficPolicySpec>;

/// The BackendTrafficPolicy for a rule, or a refusal in its place.
pub(crate) type TrafficEffect<'p> = Applied<'p, BackendTrafficPolicySpec>;

/// The BackendTrafficPolicy that applies to a rule.
pub(crate) type AppliedTraffic<'p> = AppliedPolicy<'p, BackendTrafficPolicySpec>;

pub(in crate::graph) fn traffic_policies<'a>(
    index: &ObjectIndex<'a>,
    faults: &mut Faults,
) -> TrafficPolicies<'a> {
    AttachedPolicies::new(&index.traffic_policies, OnConflict::FirstWins, index, faults)
}
