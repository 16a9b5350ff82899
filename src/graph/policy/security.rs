//! SecurityPolicies: access control.
//!
//! A SecurityPolicy that cannot be applied closes its targets: requests are answered with 500, as
//! in Envoy Gateway. Two SecurityPolicies for the same target close it as well.

use crate::api::envoy::SecurityPolicySpec;
use crate::graph::index::ObjectIndex;
use crate::graph::verdict::Faults;

use super::claims::OnConflict;
use super::policies::{Applied, AppliedPolicy, AttachedPolicies};

/// The SecurityPolicies of a load.
pub(crate) type SecurityPolicies<'a> = AttachedPolicies<'a, SecurityPolicySpec>;

/// The SecurityPolicy for a rule, or a refusal in its place.
pub(crate) type Guard<'p> = Applied<'p, SecurityPolicySpec>;

/// The SecurityPolicy that applies to a rule.
pub(crate) type AppliedSecurity<'p> = AppliedPolicy<'p, SecurityPolicySpec>;

pub(in crate::graph) fn security_policies<'a>(
    index: &ObjectIndex<'a>,
    faults: &mut Faults,
) -> SecurityPolicies<'a> {
    AttachedPolicies::new(&index.security_policies, OnConflict::Close, index, faults)
}
