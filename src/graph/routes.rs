//! Routes with their parents, hostnames and references looked up.

use crate::api::{ObjectKey, ParentReference};
use crate::config::Fault;
use crate::net::HostPattern;

use super::backend_tls::Encryption;
use super::references::RuleRefs;
use super::route_object::RouteObject;
use super::verdict::Judged;

/// A route that names at least one of our Gateways, or a ListenerSet of one, as a parent.
#[derive(Debug)]
pub(crate) struct Route<'a> {
    pub object: RouteObject<'a>,
    pub key: ObjectKey,
    /// Empty for every host of the listener.
    pub hostnames: Vec<HostPattern>,
    /// The parentRefs that name Gateways of ours or their ListenerSets, in the order in which they are written.
    pub parents: Vec<Parent<'a>>,
    /// Where the references of each rule lead.
    pub rules: Vec<RuleRefs<'a>>,
    /// False if the route as a whole cannot be served: no listener gets it.
    pub(super) valid: Judged,
    /// The rules of its kind that rules of the route break.
    pub(super) broken: Vec<&'a Fault>,
}

/// A parentRef that names a Gateway of ours, or a ListenerSet of one.
#[derive(Debug)]
pub(crate) struct Parent<'a> {
    pub reference: &'a ParentReference,
    /// True where at least one listener took the route.
    pub attached: Judged,
}

impl Route<'_> {
    /// True if TLS is asked for with a backend of it.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.rules
            .iter()
            .flat_map(RuleRefs::targets)
            .any(|target| *target.encryption() != Encryption::Clear)
    }

    /// True if a rule breaks the rules of its kind: it cannot run, whatever its values are.
    pub(crate) fn breaks_rules(&self, rule: usize) -> bool {
        self.broken.iter().any(|fault| fault.rule() == Some(rule))
    }
}
