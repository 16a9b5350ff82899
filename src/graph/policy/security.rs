//! SecurityPolicies: who may come in.
//!
//! One that cannot be applied closes its targets: they get 500, as in Envoy Gateway. So do two of
//! them for one target.

use crate::api::Kind;
use crate::api::envoy::SecurityPolicySpec;
use crate::graph::index::ObjectIndex;
use crate::graph::verdict::Faults;

use super::claims::OnConflict;
use super::policies::{Applied, AttachedPolicies};

/// The kinds of objects that a SecurityPolicy may target.
const TARGETS: &[Kind] =
    &[Kind::Gateway, Kind::ListenerSet, Kind::HttpRoute, Kind::GrpcRoute, Kind::TcpRoute];

/// The SecurityPolicies of a load.
pub(crate) type SecurityPolicies<'a> = AttachedPolicies<'a, SecurityPolicySpec>;

/// The SecurityPolicy for a rule, or the refusal in place of one.
pub(crate) type Guard<'p> = Applied<'p, SecurityPolicySpec>;

pub(in crate::graph) fn security_policies<'a>(
    index: &ObjectIndex<'a>,
    faults: &mut Faults,
) -> SecurityPolicies<'a> {
    AttachedPolicies::new(&index.security_policies, TARGETS, OnConflict::Close, index, faults)
}
