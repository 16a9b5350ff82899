//! The policies of one kind, and the one that applies to a rule on a listener.

use std::collections::HashMap;

use serde::de::DeserializeOwned;

use crate::api::envoy::{EnvoyPolicy, EnvoyPolicySpec, MergeType};
use crate::api::{GATEWAY_GROUP, Kind, ObjectKey};
use crate::config::field_path;
use crate::graph::gateways::Gateway;
use crate::graph::index::ObjectIndex;
use crate::graph::listener_sets::ListenerSet;
use crate::graph::listeners::Listener;
use crate::graph::routes::Route;
use crate::graph::verdict::{Faults, Judged, Refusal, refuse};

use super::attachment::{Asking, PolicyTargets, TargetRef, attach};
use super::claims::{Claim, Claims, OnConflict};
use super::merge::merged;
use super::targets::Targetable;

/// The policies of a load whose spec is `S`, with the objects that they apply to.
#[derive(Debug)]
pub(crate) struct AttachedPolicies<'a, S> {
    /// In the order of ties.
    pub(super) all: Vec<AttachedPolicy<'a, S>>,
    pub(super) claims: Claims,
    /// By child and parent the spec of both, or the reason why there is none.
    pub(super) merged: HashMap<(usize, usize), Result<S, String>>,
}

/// A policy with its targets.
#[derive(Debug)]
pub(super) struct AttachedPolicy<'a, S> {
    pub object: &'a EnvoyPolicy<S>,
    pub key: ObjectKey,
    /// Whether it can be applied at all, whatever its targets.
    pub usable: Judged,
    pub targets: PolicyTargets,
}

/// The policy that applies to a rule, or the refusal in place of one.
#[derive(Debug, PartialEq)]
pub(crate) enum Applied<'p, S> {
    /// A policy that cannot be applied: no request may pass.
    Refused,
    Policy(&'p S),
}

impl<S> Clone for Applied<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Applied<'_, S> {}

/// The policy of a listener: it applies to the rules on it that have none of their own, and is the
/// parent of those that are merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListenerPolicy(pub(super) Option<Claim>);

impl<'a, S: EnvoyPolicySpec + DeserializeOwned> AttachedPolicies<'a, S> {
    /// Attaches `policies`, in the order of ties, to their targets of `kinds`.
    pub(in crate::graph) fn new(
        policies: &[&'a EnvoyPolicy<S>],
        kinds: &'static [Kind],
        on_conflict: OnConflict,
        index: &ObjectIndex<'a>,
        faults: &mut Faults,
    ) -> Self {
        let keys: Vec<ObjectKey> = policies.iter().map(|policy| key(policy)).collect();
        let asking: Vec<Asking<'_>>;
        let (claims, targets) = if policies.is_empty() {
            (Claims::new(on_conflict), Vec::new())
        } else {
            let targetable = Targetable::new(index, kinds);
            let each = policies.iter().zip(&keys);
            asking = each.map(|(policy, key)| ask(policy, key, &targetable, faults)).collect();
            attach(&asking, on_conflict, |key, target| targetable.find(key, target), faults)
        };
        let all = policies.iter().zip(targets).zip(keys);
        let all = all.map(|((object, targets), key)| {
            let usable = usable(object, &key, index).and(targets.valid.clone());
            AttachedPolicy { object: *object, key, usable, targets }
        });
        Self { all: all.collect(), claims, merged: HashMap::new() }
    }

    /// Merges the policies that ask for it with those above them, for every listener of their routes.
    pub(in crate::graph) fn merge(
        &mut self,
        gateways: &[Gateway<'a>],
        sets: &[ListenerSet<'a>],
        routes: &[Route<'a>],
        faults: &mut Faults,
    ) {
        if !self.all.iter().any(|policy| policy.object.spec.merge_type().is_some()) {
            return;
        }
        for listener in listeners(gateways, sets) {
            let ListenerPolicy(Some(Claim::Policy(parent))) = self.on_listener(listener) else {
                continue;
            };
            for on in &listener.routes {
                let Some(claims) = self.claims.of(&routes[on.route].key) else { continue };
                let claims = claims.whole.iter().chain(claims.sections.values()).copied();
                for claim in claims.collect::<Vec<_>>() {
                    if let Some((child, merge_type)) = self.merges(claim) {
                        self.merge_one(child, parent, merge_type, faults);
                    }
                }
            }
        }
    }

    fn merge_one(
        &mut self,
        child: usize,
        parent: usize,
        merge_type: &MergeType,
        faults: &mut Faults,
    ) {
        if self.merged.contains_key(&(child, parent)) {
            return;
        }
        let (of_child, of_parent) = (&self.all[child], &self.all[parent]);
        let spec = match &of_parent.usable {
            Ok(()) => merged(&of_parent.object.written, &of_child.object.written, merge_type)
                .map_err(|why| format!("it cannot be merged with {}: {why}", of_parent.key)),
            Err(refusal) => Err(format!(
                "it is merged with {}, which cannot be applied: {}",
                of_parent.key, refusal.message
            )),
        };
        if let Err(problem) = &spec {
            faults.error(&of_child.key, field_path!(spec.mergeType), problem.as_str());
        }
        self.merged.insert((child, parent), spec);
    }

    /// The policy of a claim, if it can be applied and is merged with the one above it.
    pub(super) fn merges(&self, claim: Claim) -> Option<(usize, &'a MergeType)> {
        let Claim::Policy(place) = claim else { return None };
        let AttachedPolicy { object, usable, .. } = &self.all[place];
        Some((place, object.spec.merge_type().filter(|_| usable.is_ok())?))
    }

    /// The policy of a listener: its own, else that of its ListenerSet, else that of its Gateway.
    pub(crate) fn on_listener(&self, listener: &Listener<'_>) -> ListenerPolicy {
        ListenerPolicy(self.levels(listener).map(|(claim, _)| claim).next())
    }

    /// The claims on a listener with their targets, the most specific first. A listener of a ListenerSet
    /// has nothing of the listeners of its Gateway.
    pub(super) fn levels<'l>(
        &self,
        listener: &'l Listener<'_>,
    ) -> impl Iterator<Item = (Claim, &'l ObjectKey)> {
        let owner = listener.owner.object();
        let set = listener.owner.listener_set.as_ref();
        let own = self.claims.section(owner, &listener.spec.name).map(|claim| (claim, owner));
        let of_set = set.and_then(|set| Some((self.claims.whole(set)?, set)));
        let gateway = &listener.owner.gateway;
        let of_gateway = self.claims.whole(gateway).map(|claim| (claim, gateway));
        own.into_iter().chain(of_set).chain(of_gateway)
    }

    /// The policy of a rule of a route on a listener with `of_listener`: its own, else that of the
    /// route, else that of the listener; none of them is mixed with another, unless `mergeType` says
    /// so.
    pub(crate) fn on_rule(
        &self,
        route: &Route<'_>,
        rule: usize,
        of_listener: ListenerPolicy,
    ) -> Option<Applied<'_, S>> {
        if self.all.is_empty() {
            return None;
        }
        let own = route.object.rule_name(rule);
        let own = own.and_then(|name| self.claims.section(&route.key, name));
        let Some(own) = own.or_else(|| self.claims.whole(&route.key)) else {
            return of_listener.0.map(|claim| self.applied(claim));
        };
        match (self.merges(own), of_listener.0) {
            (Some((child, _)), Some(Claim::Policy(parent))) => {
                let spec = self.merged.get(&(child, parent)).and_then(|spec| spec.as_ref().ok());
                Some(spec.map_or(Applied::Refused, Applied::Policy))
            }
            (Some(_), Some(Claim::Closed)) => Some(Applied::Refused),
            (Some(_), None) | (None, _) => Some(self.applied(own)),
        }
    }

    fn applied(&self, claim: Claim) -> Applied<'_, S> {
        match claim {
            Claim::Policy(place) if self.all[place].usable.is_ok() => {
                Applied::Policy(&self.all[place].object.spec)
            }
            Claim::Policy(_) | Claim::Closed => Applied::Refused,
        }
    }
}

/// Every listener of the Gateways and of their ListenerSets.
pub(super) fn listeners<'g, 'a>(
    gateways: &'g [Gateway<'a>],
    sets: &'g [ListenerSet<'a>],
) -> impl Iterator<Item = &'g Listener<'a>> {
    let own = gateways.iter().flat_map(|gateway| &gateway.listeners);
    own.chain(sets.iter().flat_map(|set| &set.listeners))
}

fn key<S: EnvoyPolicySpec>(policy: &EnvoyPolicy<S>) -> ObjectKey {
    ObjectKey::new(S::KIND, policy.metadata.namespace(), &policy.metadata.name)
}

/// The targets that a policy asks for.
fn ask<'a, S: EnvoyPolicySpec>(
    policy: &'a EnvoyPolicy<S>,
    key: &'a ObjectKey,
    targetable: &Targetable<'_, '_>,
    faults: &mut Faults,
) -> Asking<'a> {
    if policy.spec.target_ref().is_some() {
        let problem = "deprecated; use `targetRefs`, which is a list";
        faults.warning(key, field_path!(spec.targetRef), problem);
    }
    let one = policy.spec.target_ref().map(|target| (field_path!(spec.targetRef), target));
    let many = policy.spec.target_refs().iter().enumerate();
    let many = many.map(|(number, target)| (field_path!(spec.targetRefs[number]), target));
    let named = one.into_iter().chain(many).map(|(field, target)| TargetRef {
        field,
        group: target.group.as_deref().unwrap_or(GATEWAY_GROUP),
        kind: &target.kind,
        name: &target.name,
        section: target.section_name.as_deref(),
    });
    let (mut selected, mut valid) = (Vec::new(), Ok(()));
    for (number, selector) in policy.spec.target_selectors().iter().enumerate() {
        let field = field_path!(spec.targetSelectors[number]);
        match targetable.selected(key, selector, &field, faults) {
            Ok(found) => selected.extend(found.into_iter().map(|key| (field.clone(), key))),
            Err(refusal) => refuse(&mut valid, refusal),
        }
    }
    Asking { policy: key, named: named.collect(), selected, valid }
}

/// Whether a policy can be applied by itself: it keeps the rules of its kind, and all of it is served.
fn usable<S: EnvoyPolicySpec>(
    policy: &EnvoyPolicy<S>,
    key: &ObjectKey,
    index: &ObjectIndex<'_>,
) -> Judged {
    if let Some(fault) = index.broken(key).next() {
        return Err(Refusal::new("Invalid", fault.to_string()));
    }
    match policy.unsupported.first() {
        Some(field) => Err(Refusal::new("Invalid", format!("{field}: not supported yet"))),
        None => Ok(()),
    }
}
