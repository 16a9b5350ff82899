//! Policies: attachment to targets, precedence, merge and statuses.
//!
//! If several policies of a kind apply to a rule, the most specific one takes effect: that of the
//! rule, the route, the listener of a ListenerSet, the ListenerSet, the listener of a Gateway, the
//! Gateway. It takes effect as a whole, unless the policy of a route has a `mergeType`. Two
//! policies for the same target are a conflict: only the older one, or the first by name, is
//! accepted. `OnConflict` decides whether it still applies or the target is closed.
//!
//! Support for another kind of Envoy Gateway policy requires changes in four places, none of
//! them about attachment:
//!
//! 1. `src/api/envoy/`: its spec, with [`EnvoyPolicySpec`](crate::api::envoy::EnvoyPolicySpec) for
//!    it, and the variant of `Object`.
//! 2. `src/config/objects.rs`: the arm that reads it, with its unsupported features;
//!    `src/config/validate/`: the rules of its CRD, after those of `policy_targets`.
//! 3. A file beside `security.rs` here: the handling of a target in a conflict; `graph/build.rs`: its `AttachedPolicies`, and the reports for the statuses.
//! 4. `src/compile/`: its meaning, by `AttachedPolicies::on_listener` and
//!    `AttachedPolicies::on_rule`.
//!
//! BackendTLSPolicies are attached here, too ([`attachment::attach`]). Their targets are
//! Services and Backends, so everything else about them is in their own modules.
//!
//! A merged policy has fields of two authors. A reference in it is to an object in the namespace of the
//! policy that it was written in, its `author`.

mod attachment;
mod claims;
mod client;
mod merge;
mod policies;
mod report;
mod security;
mod targets;
#[cfg(test)]
mod tests;
mod traffic;

pub(super) use attachment::{
    Asking, Missing, NoTarget, PolicyTargets, TargetFound, TargetRef, attach,
};
pub(super) use claims::{Claim, Claims, OnConflict};
pub(super) use report::{Ancestor, AncestorReport, PolicyReport};
pub(super) use security::security_policies;
pub(super) use traffic::traffic_policies;

pub(crate) use client::{ClientEffect, ClientPolicies};
pub(crate) use policies::{ListenerPolicies, ListenerPolicy};
pub(crate) use security::{AppliedSecurity, Guard, SecurityPolicies};
pub(crate) use traffic::{AppliedTraffic, TrafficEffect, TrafficPolicies};
