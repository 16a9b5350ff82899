//! Policies: their attachment to targets, the precedence between them, their merge and their statuses.
//!
//! Of several policies of a kind the most specific one applies to a rule: that of the rule, the
//! route, the listener of a ListenerSet, the ListenerSet, the listener of a Gateway, the Gateway. It
//! applies whole, unless the policy of a route has a `mergeType`. Two policies for one target are a
//! conflict: the older one, or the first by name, has it.
//!
//! A new kind of Envoy Gateway's policies is written in four places, none of them about attachment:
//!
//! 1. `src/api/envoy/`: its spec, with [`EnvoyPolicySpec`](crate::api::envoy::EnvoyPolicySpec) for
//!    it, and the variant of `Object`.
//! 2. `src/config/objects.rs`: the arm that reads it, with the features of it that are not served;
//!    `src/config/validate/`: the rules of its CRD, after those of `policy_targets`.
//! 3. A file beside `security.rs` here: the kinds that it may target, and what becomes of a target in
//!    a conflict; `graph/build.rs`: its [`AttachedPolicies`], and their reports for the statuses.
//! 4. `src/compile/`: its meaning, by [`AttachedPolicies::on_listener`] and
//!    [`AttachedPolicies::on_rule`].
//!
//! BackendTLSPolicies are attached here, too ([`attach`](attachment::attach)); their targets are
//! Services and Backends, so the rest is their own.
//!
//! A policy that is merged holds fields of two authors. References in it are not looked up yet: they
//! would belong to the namespace of the policy that they were written in.

mod attachment;
mod claims;
mod merge;
mod policies;
mod report;
mod security;
mod targets;
#[cfg(test)]
mod tests;

pub(super) use attachment::{
    Asking, Missing, NoTarget, PolicyTargets, TargetFound, TargetRef, attach,
};
pub(super) use claims::{Claim, Claims, OnConflict};
pub(super) use report::{Ancestor, AncestorReport, PolicyReport};
pub(super) use security::security_policies;

pub(crate) use policies::ListenerPolicy;
pub(crate) use security::{Guard, SecurityPolicies};
