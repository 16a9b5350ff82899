//! Statuses of policies, in the same form for every kind: ancestors, and the conditions of each.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::de::DeserializeOwned;

use crate::api::envoy::EnvoyPolicySpec;
use crate::api::{Kind, ObjectKey};
use crate::graph::gateways::Gateway;
use crate::graph::listener_sets::{ListenerSet, all_listeners};
use crate::graph::routes::Route;
use crate::graph::verdict::{ConditionResult, FalseCondition, refuse};
use crate::observe::listed;

use super::claims::Claim;
use super::policies::{AttachedPolicies, AttachedPolicy};

/// The maximum number of names of one kind in a message.
const MOST: usize = 10;

/// The data for the status of a policy.
#[derive(Debug)]
pub(in crate::graph) struct PolicyReport {
    pub key: ObjectKey,
    pub generation: i64,
    pub ancestors: BTreeMap<Ancestor, AncestorReport>,
}

/// A Gateway or ListenerSet of this controller that the policy applies to, or one listener of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::graph) struct Ancestor {
    pub key: ObjectKey,
    pub section: Option<String>,
}

/// The conditions of a policy for one ancestor.
#[derive(Debug)]
pub(in crate::graph) struct AncestorReport {
    /// Condition Accepted. `accepted_message` is its message if it is True.
    pub accepted: ConditionResult,
    pub accepted_message: &'static str,
    /// Condition ResolvedRefs, for kinds that have it.
    pub resolved: Option<ConditionResult>,
    /// The message of condition Merged, if it is True.
    pub merged: Option<String>,
    /// The message of condition Overridden, if it is True.
    pub overridden: Option<String>,
    /// The reasons and messages of condition Warning, if it is True.
    pub warnings: Vec<(&'static str, String)>,
}

/// The objects on which another policy replaces a policy or is merged with it.
#[derive(Debug, Default)]
struct Others {
    listeners: BTreeSet<String>,
    listener_sets: BTreeSet<String>,
    routes: BTreeSet<String>,
    rules: BTreeSet<String>,
}

impl Others {
    fn in_words(&self) -> String {
        let kinds = [
            ("listeners", &self.listeners),
            ("ListenerSets", &self.listener_sets),
            ("routes", &self.routes),
            ("rules", &self.rules),
        ];
        let kinds = kinds.iter().filter(|(_, names)| !names.is_empty());
        let kinds = kinds.map(|(word, names)| format!("{word} {}", listed((*names).clone(), MOST)));
        kinds.collect::<Vec<_>>().join("; ")
    }
}

/// The index of a policy, and one of its targets: an object, and the listener if it is one.
type PolicyTarget = (usize, ObjectKey, Option<String>);

/// Relations between policies.
#[derive(Debug, Default)]
struct Relations {
    /// More specific policies that replace it.
    overridden: HashMap<PolicyTarget, Others>,
    /// Policies of routes that are merged with it.
    children: HashMap<PolicyTarget, Others>,
    /// For a merged policy of a route: the listeners of the route, each with the parent policy.
    parents: HashMap<(usize, ObjectKey), BTreeMap<Ancestor, Option<usize>>>,
}

impl<'a, S: EnvoyPolicySpec + DeserializeOwned> AttachedPolicies<'a, S> {
    /// Returns the statuses of the policies. The routes must already be attached to listeners.
    pub(in crate::graph) fn reports(
        &self,
        gateways: &[Gateway<'a>],
        sets: &[ListenerSet<'a>],
        routes: &[Route<'a>],
    ) -> Vec<PolicyReport> {
        if self.all.is_empty() {
            return Vec::new();
        }
        let relations = self.relations(gateways, sets, routes);
        let own = gateways.iter().map(|gateway| &gateway.key);
        let ours: HashSet<&ObjectKey> = own.chain(sets.iter().map(|set| &set.key)).collect();
        let routes: HashMap<_, _> = routes.iter().map(|route| (&route.key, route)).collect();
        let reports = self.all.iter().enumerate().map(|(place, policy)| {
            let mut ancestors: BTreeMap<Ancestor, AncestorReport> = BTreeMap::new();
            for target in &policy.targets.targets {
                let key = target.key.clone();
                let mut listener = None;
                let of_target = match key.kind {
                    Kind::Gateway | Kind::ListenerSet if ours.contains(&key) => {
                        listener.clone_from(&target.section);
                        vec![(Ancestor { key: key.clone(), section: listener.clone() }, None)]
                    }
                    Kind::Gateway | Kind::ListenerSet => Vec::new(),
                    _ => match (relations.parents.get(&(place, key.clone())), routes.get(&key)) {
                        (Some(parents), _) => parents.clone().into_iter().collect(),
                        (None, Some(route)) => {
                            parents_of(route).into_iter().map(|parent| (parent, None)).collect()
                        }
                        (None, None) => Vec::new(),
                    },
                };
                let at: PolicyTarget = (place, key, listener);
                for (ancestor, parent) in of_target {
                    let report = ancestors.entry(ancestor).or_insert_with(|| report(policy));
                    if let Err(refusal) = &target.attached {
                        refuse(&mut report.accepted, refusal.clone());
                        report.warnings.clear();
                    }
                    if let Some(parent) = parent {
                        self.tell_merged(place, parent, report);
                    }
                    if let Some(children) = relations.children.get(&at) {
                        let children = children.in_words();
                        report.merged = Some(format!("merged with the policies of {children}"));
                    }
                    if let Some(others) = relations.overridden.get(&at) {
                        let (kind, others) = (S::KIND, others.in_words());
                        report.overridden =
                            Some(format!("a more specific {kind} applies to {others}"));
                    }
                }
            }
            PolicyReport {
                key: policy.key.clone(),
                generation: policy.object.metadata.generation.unwrap_or(1),
                ancestors,
            }
        });
        reports.collect()
    }

    /// Records in `report` that the policy is merged with the one at `parent`.
    fn tell_merged(&self, place: usize, parent: usize, report: &mut AncestorReport) {
        match self.merged.get(&(place, parent)) {
            Some(Ok(_)) => {
                report.merged = Some(format!("merged with {}", self.all[parent].key));
            }
            Some(Err(problem)) => {
                refuse(&mut report.accepted, FalseCondition::new("Invalid", problem.as_str()));
            }
            None => {}
        }
    }

    fn relations(
        &self,
        gateways: &[Gateway<'a>],
        sets: &[ListenerSet<'a>],
        routes: &[Route<'a>],
    ) -> Relations {
        let mut relations = Relations::default();
        for listener in all_listeners(gateways, sets) {
            let owner = listener.owner.object();
            let has_own = self.claims.section(owner, &listener.spec.name).is_some();
            let mut levels = self.levels(listener);
            let applies = levels.next();
            for (claim, target) in levels {
                let Claim::Policy(place) = claim else { continue };
                let others = relations.overridden.entry(policy_target(place, target)).or_default();
                if has_own {
                    let name = format!("{} of {owner}", listener.spec.name);
                    others.listeners.insert(name);
                } else {
                    others.listener_sets.insert(format!("{}/{}", owner.namespace, owner.name));
                }
            }
            for on in &listener.routes {
                let route = &routes[on.route].key;
                let Some(claims) = self.claims.of(route) else { continue };
                let whole = claims.whole.iter().map(|claim| (*claim, None));
                let rules = claims.sections.iter().map(|(rule, claim)| (*claim, Some(rule)));
                for (claim, rule) in whole.chain(rules) {
                    let child = self.merges(claim).map(|(child, _)| child);
                    let parent = applies.and_then(|(claim, target)| match claim {
                        Claim::Policy(parent) => Some(policy_target(parent, target)),
                        Claim::Closed => None,
                    });
                    if let Some(child) = child {
                        let ancestor = Ancestor {
                            key: owner.clone(),
                            section: Some(listener.spec.name.clone()),
                        };
                        let parent = parent.as_ref().map(|(parent, ..)| *parent);
                        let parents = relations.parents.entry((child, route.clone())).or_default();
                        parents.insert(ancestor, parent);
                    }
                    let Some(parent) = parent else { continue };
                    let related = match child {
                        Some(_) => &mut relations.children,
                        None => &mut relations.overridden,
                    };
                    let others = related.entry(parent).or_default();
                    match rule {
                        None => others.routes.insert(route.to_string()),
                        Some(rule) => others.rules.insert(format!("{rule} of {route}")),
                    };
                }
            }
        }
        for route in routes {
            let Some(claims) = self.claims.of(&route.key) else { continue };
            let Some(Claim::Policy(place)) = claims.whole else { continue };
            if !claims.sections.is_empty() {
                let at = (place, route.key.clone(), None);
                let rules = claims.sections.keys().cloned();
                relations.overridden.entry(at).or_default().rules.extend(rules);
            }
        }
        relations
    }
}

fn policy_target(place: usize, (key, listener): (&ObjectKey, Option<&str>)) -> PolicyTarget {
    (place, key.clone(), listener.map(str::to_owned))
}

fn report<S: EnvoyPolicySpec>(policy: &AttachedPolicy<'_, S>) -> AncestorReport {
    let deprecated = policy.object.spec.deprecated().into_iter();
    let warnings = deprecated
        .map(|(old, new)| ("DeprecatedField", format!("spec.{old} is deprecated, use spec.{new}")));
    AncestorReport {
        accepted: policy.usable.clone(),
        accepted_message: "the policy is applied",
        resolved: None,
        merged: None,
        overridden: None,
        warnings: warnings.collect(),
    }
}

/// Returns the parents of a route, as the route names them.
fn parents_of(route: &Route<'_>) -> Vec<Ancestor> {
    let parents = route.parents.iter().map(|parent| {
        let reference = parent.reference;
        let namespace = reference.namespace.as_deref().unwrap_or(&route.key.namespace);
        let kind = match reference.kind() {
            "ListenerSet" => Kind::ListenerSet,
            _ => Kind::Gateway,
        };
        Ancestor {
            key: ObjectKey::new(kind, namespace, &reference.name),
            section: reference.section_name.clone(),
        }
    });
    parents.collect()
}
