//! SecurityPolicies: which one governs a rule, and whether it can be applied.
//!
//! A SecurityPolicy says who may come in. So one that cannot be applied closes its targets: they get
//! 500, as in Envoy Gateway.

use std::collections::{BTreeSet, HashMap};

use crate::api::{Kind, ObjectKey, SecurityPolicy};

use super::attachment::{Attachments, Claim, Targets, rule_names};
use super::gateways::Gateway;
use super::guard::Guard;
use super::index::Index;
use super::listener_sets::ListenerSet;
use super::listeners::ListenerOwner;
use super::route_object::RouteObject;
use super::routes::Route;
use super::verdict::{Faults, Judged, Refusal};

/// What a SecurityPolicy may target.
const KINDS: [Kind; 5] =
    [Kind::Gateway, Kind::ListenerSet, Kind::HttpRoute, Kind::GrpcRoute, Kind::TcpRoute];

/// The SecurityPolicies of a load with their targets.
#[derive(Debug, Default)]
pub(super) struct SecurityPolicies<'a> {
    /// In the order of ties.
    all: Vec<Policy<'a>>,
    attachments: Attachments,
}

/// A policy that was judged.
#[derive(Debug)]
struct Policy<'a> {
    object: &'a SecurityPolicy,
    key: ObjectKey,
    usable: Judged,
}

/// A policy, for its status.
#[derive(Debug)]
pub(crate) struct GoverningPolicy<'a> {
    pub object: &'a SecurityPolicy,
    pub key: ObjectKey,
    /// The Gateways and ListenerSets that it governs something on.
    pub ancestors: BTreeSet<ObjectKey>,
    /// Condition Accepted.
    pub(super) accepted: Judged,
}

impl<'a> SecurityPolicies<'a> {
    /// Judges every policy and attaches it to its targets.
    pub(super) fn new(index: &Index<'a>, faults: &mut Faults) -> Self {
        let all: Vec<_> = index.security_policies.iter().map(|of| judge(of, index)).collect();
        let targets = all.iter().map(|policy| Targets {
            key: &policy.key,
            named: policy.object.spec.targets().collect(),
            selectors: &policy.object.spec.target_selectors,
        });
        let attachments = Attachments::new(targets, &KINDS, index, faults);
        Self { all, attachments }
    }

    fn guard(&self, claim: Claim) -> Guard<'a> {
        match claim {
            Claim::Policy(place) if self.all[place].usable.is_ok() => {
                Guard::Policy(&self.all[place].object.spec)
            }
            Claim::Policy(_) | Claim::Broken => Guard::Refused,
        }
    }

    /// Notes with every listener and every rule what governs it.
    pub(super) fn govern(
        &self,
        gateways: &mut [Gateway<'a>],
        sets: &mut [ListenerSet<'a>],
        routes: &mut [Route<'a>],
    ) {
        if self.all.is_empty() {
            return;
        }
        for route in routes {
            route.guards = self.of_route(&route.key, route.object);
        }
        for set in sets {
            for listener in &mut set.listeners {
                listener.guard = self.of_listener(&listener.owner, &listener.spec.name);
            }
        }
        for gateway in gateways {
            for listener in &mut gateway.listeners {
                listener.guard = self.of_listener(&listener.owner, &listener.spec.name);
            }
        }
    }

    /// What governs each rule of a route, wherever it is attached.
    fn of_route(&self, key: &ObjectKey, route: RouteObject<'_>) -> Vec<Option<Guard<'a>>> {
        let whole = self.attachments.whole(key);
        let of_rule = |name: Option<&str>| {
            let own = name.and_then(|name| self.attachments.section(key, name));
            own.or(whole).map(|claim| self.guard(claim))
        };
        let mut names = rule_names(route);
        if names.is_empty() {
            // The CRD's default: one rule, without a name.
            names.push(None);
        }
        names.into_iter().map(of_rule).collect()
    }

    /// The guard of the rules on a listener that have no policy of their own.
    fn of_listener(&self, owner: &ListenerOwner, listener: &str) -> Option<Guard<'a>> {
        let of = &self.attachments;
        let own = of.section(owner.object(), listener).or_else(|| of.whole(owner.object()));
        own.or_else(|| of.whole(&owner.gateway)).map(|claim| self.guard(claim))
    }

    /// The policies for their statuses, once the routes have found their parents.
    pub(super) fn into_governing(self, routes: &[Route<'_>]) -> Vec<GoverningPolicy<'a>> {
        let Self { all, attachments } = self;
        let Attachments { judged, targets, .. } = attachments;
        let by_key: HashMap<_, _> = routes.iter().map(|route| (&route.key, route)).collect();
        let judged = all.into_iter().zip(judged).zip(targets);
        judged
            .map(|((policy, attached), targets)| {
                let ancestors = targets.into_iter().flat_map(|target| match target.kind {
                    Kind::Gateway | Kind::ListenerSet => vec![target],
                    _ => by_key.get(&target).map_or_else(Vec::new, |route| parents_of(route)),
                });
                GoverningPolicy {
                    ancestors: ancestors.collect(),
                    object: policy.object,
                    key: policy.key,
                    accepted: policy.usable.and(attached),
                }
            })
            .collect()
    }
}

/// Whether a policy can be applied by itself.
fn judge<'a>(object: &'a SecurityPolicy, index: &Index<'a>) -> Policy<'a> {
    let metadata = &object.metadata;
    let key = ObjectKey::new(Kind::SecurityPolicy, metadata.namespace(), &metadata.name);
    let mut usable = Ok(());
    if let Some(fault) = index.broken(&key).next() {
        usable = Err(Refusal::new("Invalid", fault.to_string()));
    } else if let Some(field) = object.unsupported.first() {
        usable = Err(Refusal::new("Invalid", format!("{field}: not supported yet")));
    }
    Policy { object, key, usable }
}

fn parents_of(route: &Route<'_>) -> Vec<ObjectKey> {
    let parents = route.parents.iter().map(|parent| {
        let reference = parent.reference;
        let namespace = reference.namespace.as_deref().unwrap_or(&route.key.namespace);
        let kind = match reference.kind() {
            "ListenerSet" => Kind::ListenerSet,
            _ => Kind::Gateway,
        };
        ObjectKey::new(kind, namespace, &reference.name)
    });
    parents.collect()
}
