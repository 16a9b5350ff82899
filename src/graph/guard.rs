//! What governs a rule on a listener.

use crate::api::envoy::SecurityPolicySpec;

/// The SecurityPolicy for a rule, or the refusal in place of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Guard<'a> {
    /// A policy that cannot be applied: no request may pass.
    Refused,
    Policy(&'a SecurityPolicySpec),
}
