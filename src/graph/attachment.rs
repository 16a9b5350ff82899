//! Attachment of Envoy Gateway's policies to their targets.
//!
//! A policy names its targets (`targetRef`, `targetRefs`) or selects them by labels
//! (`targetSelectors`), always in its own namespace. A target is an object, or one section of it: a
//! listener of a Gateway or ListenerSet, a rule of a route. The most specific policy governs, whole:
//! rule, route, listener of a ListenerSet, ListenerSet, listener of a Gateway, Gateway. Two policies
//! for one target close it; the fault is of the younger one, or of the second by name.

use std::collections::HashMap;

use crate::api::envoy::{PolicySelector, PolicyTarget};
use crate::api::{self, GATEWAY_GROUP, Kind, ObjectKey, ObjectMeta};

use super::index::Index;
use super::route_object::RouteObject;
use super::verdict::{Faults, Judged, Refusal, refuse};

/// The targets of one policy, as written.
pub(super) struct Targets<'a> {
    /// The policy.
    pub key: &'a ObjectKey,
    /// Those by name, each with its field.
    pub named: Vec<(String, &'a PolicyTarget)>,
    pub selectors: &'a [PolicySelector],
}

/// The policies of one kind by target. A policy is known by its place.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    by_target: HashMap<ObjectKey, OfTarget>,
    /// By policy whether every target of it is there and its own.
    pub judged: Vec<Judged>,
    /// By policy the objects that it targets.
    pub targets: Vec<Vec<ObjectKey>>,
}

#[derive(Debug, Default)]
struct OfTarget {
    whole: Option<Claim>,
    sections: HashMap<String, Claim>,
}

/// What governs a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Policy(usize),
    /// A policy names the target and cannot be applied as it is written.
    Broken,
}

impl Attachments {
    /// Attaches policies, in the order of ties, to targets of `kinds`.
    ///
    /// A section that is not there closes the whole object, and a second policy closes what both
    /// want: which part the writer meant to protect is not known.
    pub(super) fn new<'a>(
        policies: impl IntoIterator<Item = Targets<'a>>,
        kinds: &[Kind],
        index: &Index<'_>,
        faults: &mut Faults,
    ) -> Self {
        let mut attachments = Self::default();
        let policies: Vec<Targets<'_>> = policies.into_iter().collect();
        if policies.is_empty() {
            return attachments;
        }
        let objects = Objects::new(index);
        for (place, policy) in policies.iter().enumerate() {
            let mut judged = Ok(());
            let mut targets = Vec::new();
            for selector in policy.selectors {
                let Some(kind) = kind_of(selector.group.as_deref(), &selector.kind, kinds) else {
                    let problem = not_a_target(&selector.kind, kinds);
                    faults.error(policy.key, "spec.targetSelectors", &*problem);
                    refuse(&mut judged, Refusal::new("Invalid", problem));
                    continue;
                };
                for key in objects.selected(kind, &policy.key.namespace, selector) {
                    let claimed = attachments.claim(key, None, place, &policies);
                    if let Err(problem) = claimed {
                        faults.error(policy.key, "spec.targetSelectors", &*problem);
                        refuse(&mut judged, Refusal::new("Conflicted", problem));
                    }
                    targets.push(key.clone());
                }
            }
            for (field, target) in &policy.named {
                let found = objects.find(target, &policy.key.namespace, kinds);
                let (key, missing) = match found {
                    Ok(found) => found,
                    Err((rest, refusal)) => {
                        faults.error(policy.key, format!("{field}.{rest}"), &*refusal.message);
                        refuse(&mut judged, refusal);
                        continue;
                    }
                };
                targets.push(key.clone());
                if let Some(refusal) = missing {
                    attachments.by_target.entry(key).or_default().whole = Some(Claim::Broken);
                    let field = format!("{field}.sectionName");
                    faults.error(policy.key, field, &*refusal.message);
                    refuse(&mut judged, refusal);
                    continue;
                }
                let section = target.section_name.as_deref();
                if let Err(problem) = attachments.claim(&key, section, place, &policies) {
                    faults.error(policy.key, field.as_str(), &*problem);
                    refuse(&mut judged, Refusal::new("Conflicted", problem));
                }
            }
            attachments.judged.push(judged);
            attachments.targets.push(targets);
        }
        attachments
    }

    /// Gives a target to a policy, unless another one has it.
    fn claim(
        &mut self,
        key: &ObjectKey,
        section: Option<&str>,
        place: usize,
        policies: &[Targets<'_>],
    ) -> Result<(), String> {
        let of = self.by_target.entry(key.clone()).or_default();
        let slot = match section {
            Some(section) => of.sections.entry(section.to_owned()).or_insert(Claim::Policy(place)),
            None => of.whole.get_or_insert(Claim::Policy(place)),
        };
        match *slot {
            Claim::Policy(first) if first == place => Ok(()),
            Claim::Policy(first) => {
                *slot = Claim::Broken;
                let first = policies[first].key;
                Err(format!(
                    "{key} is a target of {first} already, which is older or comes first by name. \
                     So as not to expose it, it gets 500. Remove one of the two"
                ))
            }
            Claim::Broken => Err(format!("{key} is a target of another policy already")),
        }
    }

    /// The policy for an object as a whole.
    pub(super) fn whole(&self, key: &ObjectKey) -> Option<Claim> {
        self.by_target.get(key)?.whole
    }

    /// The policy for one section of an object, and not for all of it.
    pub(super) fn section(&self, key: &ObjectKey, section: &str) -> Option<Claim> {
        self.by_target.get(key)?.sections.get(section).copied()
    }
}

/// The objects that policies may target.
struct Objects<'a> {
    sections: HashMap<ObjectKey, Vec<&'a str>>,
    /// In the order of ties.
    all: Vec<(ObjectKey, &'a ObjectMeta)>,
}

impl<'a> Objects<'a> {
    fn new(index: &Index<'a>) -> Self {
        let mut objects = Self { sections: HashMap::new(), all: Vec::new() };
        let listeners = |of: &'a [api::Listener]| of.iter().map(|one| &*one.name).collect();
        for of in &index.gateways {
            objects.add(Kind::Gateway, &of.metadata, listeners(&of.spec.listeners));
        }
        for of in &index.listener_sets {
            objects.add(Kind::ListenerSet, &of.metadata, listeners(&of.spec.listeners));
        }
        for of in &index.routes {
            objects.add(of.kind(), of.metadata(), rule_names(*of).into_iter().flatten().collect());
        }
        objects
    }

    fn add(&mut self, kind: Kind, metadata: &'a ObjectMeta, sections: Vec<&'a str>) {
        let key = ObjectKey::new(kind, metadata.namespace(), &metadata.name);
        self.all.push((key.clone(), metadata));
        self.sections.entry(key).or_insert(sections);
    }

    fn selected<'s>(
        &'s self,
        kind: Kind,
        namespace: &'s str,
        selector: &PolicySelector,
    ) -> impl Iterator<Item = &'s ObjectKey> {
        let labels = selector.labels();
        let ours =
            self.all.iter().filter(move |(key, _)| key.kind == kind && key.namespace == namespace);
        ours.filter(move |(_, of)| labels.accepts(&of.labels)).map(|(key, _)| key)
    }

    /// The object that a policy names, and what is wrong with the section of it.
    fn find(
        &self,
        target: &PolicyTarget,
        namespace: &str,
        kinds: &[Kind],
    ) -> Result<(ObjectKey, Option<Refusal>), (&'static str, Refusal)> {
        let PolicyTarget { group, kind, name, section_name } = target;
        let Some(kind) = kind_of(group.as_deref(), kind, kinds) else {
            return Err(("kind", Refusal::new("Invalid", not_a_target(kind, kinds))));
        };
        let key = ObjectKey::new(kind, namespace, name);
        let Some(sections) = self.sections.get(&key) else {
            let message = format!("{key} does not exist");
            return Err(("name", Refusal::new("TargetNotFound", message)));
        };
        let missing = section_name.as_deref().filter(|name| !sections.contains(name));
        let missing = missing.map(|section| {
            let what = match kind {
                Kind::Gateway | Kind::ListenerSet => "listener",
                _ => "rule",
            };
            let message = format!(
                "{key} has no {what} named `{section}`. So as not to expose what the policy \
                 protects, all of {key} gets 500"
            );
            Refusal::new("TargetNotFound", message)
        });
        Ok((key, missing))
    }
}

/// The kind of a target, if it is one of `kinds`. The group of the Gateway API where none is
/// written.
fn kind_of(group: Option<&str>, kind: &str, kinds: &[Kind]) -> Option<Kind> {
    let ours = group.is_none_or(|group| group == GATEWAY_GROUP);
    kinds.iter().copied().find(|known| ours && known.as_str() == kind)
}

fn not_a_target(kind: &str, kinds: &[Kind]) -> String {
    let kinds: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
    format!("`{kind}` cannot be a target; use {} of {GATEWAY_GROUP}", kinds.join(", "))
}

/// The names of the rules of a route, of those that have one.
pub(super) fn rule_names(route: RouteObject<'_>) -> Vec<Option<&str>> {
    fn names<'r>(of: impl Iterator<Item = &'r Option<String>>) -> Vec<Option<&'r str>> {
        of.map(Option::as_deref).collect()
    }
    match route {
        RouteObject::Grpc(of) => names(of.spec.rules.iter().map(|rule| &rule.name)),
        RouteObject::Http(of) => names(of.spec.rules().iter().map(|rule| &rule.name)),
        RouteObject::Tcp(of) => names(of.spec.rules.iter().map(|rule| &rule.name)),
        RouteObject::Tls(of) => names(of.spec.rules.iter().map(|rule| &rule.name)),
        RouteObject::Udp(of) => names(of.spec.rules.iter().map(|rule| &rule.name)),
    }
}
