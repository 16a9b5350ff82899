//! Routes with their parents, hostnames and references looked up.

use crate::api::{ObjectKey, ParentReference};
use crate::config::Fault;
use crate::net::HostPattern;

use super::backend_tls::Encryption;
use super::references::RuleRefs;
use super::route_object::RouteObject;
use super::verdict::ConditionResult;

/// A route with at least one Gateway of this controller, or a ListenerSet of one, as a parent.
#[derive(Debug)]
pub(crate) struct Route<'a> {
    pub object: RouteObject<'a>,
    pub key: ObjectKey,
    /// The hostnames; empty for every host of the listener.
    pub hostnames: Vec<HostPattern>,
    /// The parentRefs to Gateways of this controller or their ListenerSets, in the order in which
    /// they are written.
    pub parents: Vec<Parent<'a>>,
    /// The resolved references of each rule.
    pub rules: Vec<RuleRefs<'a>>,
    /// `Err` if the route as a whole cannot be served; it is then attached to no listener.
    pub(super) valid: ConditionResult,
    /// Violations of the rules of the kind that concern a single rule of the route.
    pub(super) broken: Vec<&'a Fault>,
}

/// A parentRef to a Gateway of this controller, or to a ListenerSet of one.
#[derive(Debug)]
pub(crate) struct Parent<'a> {
    pub reference: &'a ParentReference,
    /// `Ok` if at least one listener accepts the route.
    pub attached: ConditionResult,
}

impl Route<'_> {
    /// Returns true if TLS is configured for any backend of the route.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.rules
            .iter()
            .flat_map(RuleRefs::targets)
            .any(|target| *target.encryption() != Encryption::Clear)
    }

    /// Returns true if a rule violates the rules of its kind. It cannot run, whatever its values
    /// are.
    pub(crate) fn breaks_rules(&self, rule: usize) -> bool {
        self.broken.iter().any(|fault| fault.rule() == Some(rule))
    }
}
