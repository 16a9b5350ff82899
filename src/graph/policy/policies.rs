//! The policies of one kind, and the lookup of the policy that applies to a rule on a listener.

use std::collections::HashMap;

use serde::de::DeserializeOwned;

use crate::api::envoy::{BODY_KEY, EnvoyPolicy, EnvoyPolicySpec, MergeType};
use crate::api::{GATEWAY_GROUP, ObjectKey, ObjectMeta};
use crate::config::{FieldPath, field_path};
use crate::graph::gateways::Gateway;
use crate::graph::index::ObjectIndex;
use crate::graph::listener_sets::{ListenerSet, all_listeners};
use crate::graph::listeners::Listener;
use crate::graph::routes::Route;
use crate::graph::verdict::{ConditionResult, FalseCondition, Faults, refuse};

use super::attachment::{Asking, PolicyTargets, TargetRef, attach};
use super::claims::{Claim, Claims, OnConflict};
use super::merge::merged;
use super::targets::Targetable;

/// The policies of a load whose spec is `S`, with the objects that they apply to.
#[derive(Debug)]
pub(crate) struct AttachedPolicies<'a, S> {
    /// In tie-breaking order.
    pub(super) all: Vec<AttachedPolicy<'a, S>>,
    pub(super) claims: Claims,
    /// The values of ConfigMaps that policies refer to, by namespace and name.
    values: Values<'a>,
    /// The merged spec by child and parent, or the reason why the merge failed.
    pub(super) merged: HashMap<(usize, usize), Result<S, String>>,
}

/// Values of ConfigMaps, by namespace and name.
type Values<'a> = HashMap<(String, String), &'a str>;

/// A policy with its targets.
#[derive(Debug)]
pub(super) struct AttachedPolicy<'a, S> {
    pub object: &'a EnvoyPolicy<S>,
    pub key: ObjectKey,
    /// `Ok` if the policy can be applied at all, regardless of its targets.
    pub usable: ConditionResult,
    pub targets: PolicyTargets,
}

/// The policy that applies to a rule, or a refusal in its place.
#[derive(Debug, PartialEq)]
pub(crate) enum Applied<'p, S> {
    /// The policy cannot be applied: no request may pass.
    Refused,
    Policy(AppliedPolicy<'p, S>),
}

/// The spec that applies to a rule, with the policies that it was written in.
#[derive(Debug, PartialEq)]
pub(crate) struct AppliedPolicy<'p, S> {
    pub spec: &'p S,
    own: &'p EnvoyPolicy<S>,
    /// The policy that `own` is merged with.
    parent: Option<&'p EnvoyPolicy<S>>,
    values: &'p Values<'p>,
}

impl<'p, S> Applied<'p, S> {
    /// Returns the policy, if it can be applied.
    pub(crate) fn policy(self) -> Option<AppliedPolicy<'p, S>> {
        match self {
            Self::Refused => None,
            Self::Policy(policy) => Some(policy),
        }
    }
}

impl<'p, S> AppliedPolicy<'p, S> {
    /// Returns the metadata of the policy itself.
    pub(crate) fn metadata(&self) -> &'p ObjectMeta {
        &self.own.metadata
    }

    /// Returns the policy that a field was written in: the own one if its spec `has` the field,
    /// otherwise the one that it is merged with.
    pub(crate) fn author(&self, has: impl FnOnce(&S) -> bool) -> &'p ObjectMeta {
        let inherited = self.parent.filter(|_| !has(&self.own.spec));
        &inherited.unwrap_or(self.own).metadata
    }

    /// Returns the value of a ConfigMap that `author` refers to.
    pub(crate) fn value(&self, author: &ObjectMeta, name: &str) -> Option<&'p str> {
        self.values.get(&(author.namespace().to_owned(), name.to_owned())).copied()
    }
}

impl<S> Clone for AppliedPolicy<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for AppliedPolicy<'_, S> {}

impl<S> Clone for Applied<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Applied<'_, S> {}

/// The policy of a listener. It applies to those rules on the listener that have no policy of their
/// own, and is the parent of policies that are merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListenerPolicy(pub(super) Option<Claim>);

/// All policies of a listener, the most specific first: its own, that of its ListenerSet, that of its
/// Gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListenerPolicies([Option<Claim>; 3]);

impl ListenerPolicies {
    /// Returns the one that applies to rules without a policy of their own.
    pub(crate) fn nearest(self) -> ListenerPolicy {
        ListenerPolicy(self.0.into_iter().flatten().next())
    }
}

impl<'a, S: EnvoyPolicySpec + DeserializeOwned> AttachedPolicies<'a, S> {
    /// Attaches `policies`, in tie-breaking order, to their targets.
    pub(in crate::graph) fn new(
        policies: &[&'a EnvoyPolicy<S>],
        on_conflict: OnConflict,
        index: &ObjectIndex<'a>,
        faults: &mut Faults,
    ) -> Self {
        if policies.is_empty() {
            let claims = Claims::new(on_conflict);
            let (values, merged) = (HashMap::new(), HashMap::new());
            return Self { all: Vec::new(), claims, values, merged };
        }
        let keys: Vec<ObjectKey> = policies.iter().map(|policy| key(policy)).collect();
        let targetable = Targetable::new(index, S::TARGETS);
        let asking = policies.iter().zip(&keys);
        let asking: Vec<Asking<'_>> =
            asking.map(|(policy, key)| ask(policy, key, &targetable, faults)).collect();
        let find = |key: &ObjectKey, target: &TargetRef<'_>| targetable.find(key, target);
        let misplaced = |place: usize, kind| policies[place].spec.misplaced_on(kind);
        let (claims, targets) = attach(&asking, on_conflict, find, misplaced, faults);
        let mut values = HashMap::new();
        let all = policies.iter().zip(targets).zip(keys);
        let all = all.map(|((object, targets), key)| {
            let found = look_up(*object, &key, index, &mut values, faults);
            let usable = usable(object, &key, index);
            let usable = usable.and_then(|()| targets.valid.clone()).and(found);
            AttachedPolicy { object: *object, key, usable, targets }
        });
        let all = all.collect();
        Self { all, claims, values, merged: HashMap::new() }
    }

    /// Merges the policies with a `mergeType` with those above them, for every listener of their
    /// routes.
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
        for listener in all_listeners(gateways, sets) {
            let ListenerPolicy(Some(Claim::Policy(parent))) = self.on_listener(listener) else {
                continue;
            };
            for on in &listener.routes {
                let Some(claims) = self.claims.of(&routes[on.route].key) else { continue };
                let claims = claims.whole.iter().chain(claims.sections.values());
                let claims: Vec<_> = claims.copied().collect();
                for claim in claims {
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

    /// Returns the index and merge type of a claim's policy, if it can be applied and has a
    /// `mergeType`.
    pub(super) fn merges(&self, claim: Claim) -> Option<(usize, &'a MergeType)> {
        let Claim::Policy(place) = claim else { return None };
        let AttachedPolicy { object, usable, .. } = &self.all[place];
        Some((place, object.spec.merge_type().filter(|_| usable.is_ok())?))
    }

    /// Returns the policy of a listener: its own, or else that of its ListenerSet, or else that of
    /// its Gateway.
    pub(crate) fn on_listener(&self, listener: &Listener<'_>) -> ListenerPolicy {
        ListenerPolicy(self.levels(listener).map(|(claim, _)| claim).next())
    }

    /// Returns the policy of a listener, for a kind that applies to listeners and not to rules.
    pub(super) fn applied_on(&self, listener: &Listener<'_>) -> Option<Applied<'_, S>> {
        self.on_listener(listener).0.map(|claim| self.applied(claim))
    }

    /// Returns all policies of a listener.
    pub(crate) fn all_on_listener(&self, listener: &Listener<'_>) -> ListenerPolicies {
        let mut levels = self.levels(listener).map(|(claim, _)| claim);
        ListenerPolicies(std::array::from_fn(|_| levels.next()))
    }

    /// Returns the claims on a listener with their targets, the most specific first: an object,
    /// and the listener if the claim is on that alone. Claims on single listeners of a Gateway do
    /// not affect the listeners of its ListenerSets.
    pub(super) fn levels<'l>(
        &self,
        listener: &'l Listener<'_>,
    ) -> impl Iterator<Item = (Claim, (&'l ObjectKey, Option<&'l str>))> {
        let owner = listener.owner.object();
        let name = &*listener.spec.name;
        let own = self.claims.section(owner, name).map(|claim| (claim, (owner, Some(name))));
        let whole = |key| Some((self.claims.whole(key)?, (key, None)));
        let of_set = listener.owner.listener_set.as_ref().and_then(whole);
        let of_gateway = whole(&listener.owner.gateway);
        own.into_iter().chain(of_set).chain(of_gateway)
    }

    /// Returns the policy of a rule on a listener with the policy `of_listener`: that of the rule,
    /// or else that of the route, or else that of the listener. Policies are not mixed unless
    /// `mergeType` says so.
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
                let (own, parent) = (self.all[child].object, Some(self.all[parent].object));
                let values = &self.values;
                let applied = spec.map(|spec| AppliedPolicy { spec, own, parent, values });
                let applied = applied.map(Applied::Policy);
                Some(applied.unwrap_or(Applied::Refused))
            }
            (Some(_), Some(Claim::Closed)) => Some(Applied::Refused),
            (Some(_), None) | (None, _) => Some(self.applied(own)),
        }
    }

    /// Returns the policies that reach the rules of a route on a listener with the policies
    /// `of_listener`, the most specific first. For routes to which a policy does not apply as a
    /// whole, but attribute by attribute.
    pub(crate) fn each_on_route(
        &self,
        route: &Route<'_>,
        of_listener: ListenerPolicies,
    ) -> impl Iterator<Item = Applied<'_, S>> {
        let own = self.on_rule(route, 0, of_listener.nearest());
        let whole = self.claims.whole(&route.key);
        let further = whole.into_iter().chain(of_listener.0.into_iter().flatten());
        own.into_iter().chain(further.map(|claim| self.applied(claim)))
    }

    fn applied(&self, claim: Claim) -> Applied<'_, S> {
        match claim {
            Claim::Policy(place) if self.all[place].usable.is_ok() => {
                let own = self.all[place].object;
                let values = &self.values;
                Applied::Policy(AppliedPolicy { spec: &own.spec, own, parent: None, values })
            }
            Claim::Policy(_) | Claim::Closed => Applied::Refused,
        }
    }
}

fn key<S: EnvoyPolicySpec>(policy: &EnvoyPolicy<S>) -> ObjectKey {
    ObjectKey::new(S::KIND, policy.metadata.namespace(), &policy.metadata.name)
}

/// Returns the targets that a policy names or selects.
fn ask<'a, S: EnvoyPolicySpec>(
    policy: &'a EnvoyPolicy<S>,
    key: &'a ObjectKey,
    targetable: &Targetable<'_, '_>,
    faults: &mut Faults,
) -> Asking<'a> {
    for (old, new) in policy.spec.deprecated() {
        let list = if old == "targetRef" { ", which is a list" } else { "" };
        faults.warning(
            key,
            FieldPath::from(format!("spec.{old}")),
            format!("deprecated; use `{new}`{list}"),
        );
    }
    for (field, problem) in policy.spec.idle() {
        faults.warning(key, FieldPath::from(field), problem);
    }
    let one = policy.spec.target_ref().map(|target| (field_path!(spec.targetRef), target));
    let many = policy.spec.target_refs().into_iter().flatten().enumerate();
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

/// Looks up the ConfigMaps that a policy refers to, in its own namespace.
fn look_up<'a, S: EnvoyPolicySpec>(
    policy: &'a EnvoyPolicy<S>,
    key: &ObjectKey,
    index: &ObjectIndex<'a>,
    values: &mut Values<'a>,
    faults: &mut Faults,
) -> ConditionResult {
    let mut all = Ok(());
    for (field, name) in policy.spec.config_maps() {
        let map = index.config_map(&key.namespace, name);
        match map.and_then(|map| map.data.get(BODY_KEY).or_else(|| map.data.values().next())) {
            Some(text) => {
                values.insert((key.namespace.clone(), name.to_owned()), text.as_str());
            }
            None => {
                let map = format!("{}/{name}", key.namespace);
                let problem = format!("there is no ConfigMap {map} with a value in it");
                faults.error(key, FieldPath::from(field), &*problem);
                refuse(&mut all, FalseCondition::new("Invalid", problem));
            }
        }
    }
    all
}

/// Judges a policy by itself: it must keep the rules of its kind and have no unsupported fields.
fn usable<S: EnvoyPolicySpec>(
    policy: &EnvoyPolicy<S>,
    key: &ObjectKey,
    index: &ObjectIndex<'_>,
) -> ConditionResult {
    if let Some(fault) = index.broken(key).next() {
        return Err(FalseCondition::new("Invalid", fault.to_string()));
    }
    match policy.unsupported.first() {
        Some(field) => Err(FalseCondition::new("Invalid", format!("{field}: not supported yet"))),
        None => Ok(()),
    }
}
