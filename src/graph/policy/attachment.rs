//! Attachment of policies to the targets that they name or select.

use crate::api::{Kind, ObjectKey};
use crate::config::{FieldPath, field_path};
use crate::graph::verdict::{ConditionResult, FalseCondition, Faults, refuse};

use super::claims::{Claims, OnConflict};

/// A target as a policy names it.
#[derive(Clone, Debug)]
pub(in crate::graph) struct TargetRef<'a> {
    /// The field of the policy that names the target.
    pub field: FieldPath,
    pub group: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    pub section: Option<&'a str>,
}

/// A policy with the targets that it names or selects.
#[derive(Debug)]
pub(in crate::graph) struct Asking<'a> {
    pub policy: &'a ObjectKey,
    pub named: Vec<TargetRef<'a>>,
    /// Targets selected by labels, each with the field of its selector.
    pub selected: Vec<(FieldPath, ObjectKey)>,
    /// `Err` if a selector can select nothing that policies may target.
    pub valid: ConditionResult,
}

/// The object that a [`TargetRef`] refers to.
#[derive(Debug)]
pub(in crate::graph) struct TargetFound {
    pub key: ObjectKey,
    pub missing: Option<Missing>,
}

/// The part of a target that does not exist.
#[derive(Debug)]
pub(in crate::graph) enum Missing {
    Object(String),
    Section(String),
}

/// The error for a reference that cannot be a target: the rest of the field that is wrong, and the
/// problem.
pub(in crate::graph) type NoTarget = (&'static str, String);

/// The targets of one policy.
#[derive(Debug)]
pub(in crate::graph) struct PolicyTargets {
    pub targets: Vec<AttachedTarget>,
    /// `Err` if a reference cannot be a target at all.
    pub valid: ConditionResult,
}

/// A target of a policy.
#[derive(Debug)]
pub(in crate::graph) struct AttachedTarget {
    pub key: ObjectKey,
    /// The listener or rule, if the target is not the whole object.
    pub section: Option<String>,
    /// The field of the policy that names or selects the target.
    pub field: FieldPath,
    /// `Ok` if the target exists and no other policy has it.
    pub attached: ConditionResult,
}

/// Attaches the policies of one kind, in tie-breaking order, to their targets, which `find` looks
/// up. `misplaced` returns a field of the spec of the policy at an index that cannot apply to targets
/// of a kind.
pub(in crate::graph) fn attach<'a>(
    policies: &[Asking<'a>],
    on_conflict: OnConflict,
    find: impl Fn(&ObjectKey, &TargetRef<'a>) -> Result<TargetFound, NoTarget>,
    misplaced: impl Fn(usize, Kind) -> Option<&'static str>,
    faults: &mut Faults,
) -> (Claims, Vec<PolicyTargets>) {
    let mut claims = Claims::new(on_conflict);
    let mut attached = Vec::with_capacity(policies.len());
    for (place, Asking { policy, named, selected, valid }) in policies.iter().enumerate() {
        let mut all = PolicyTargets { targets: Vec::new(), valid: valid.clone() };
        for (field, key) in selected {
            let claimed = claim(&mut claims, policies, place, (key, None), field, faults);
            let fits = misplaced(place, key.kind).map_or(Ok(()), |field| {
                Err(unfit(&mut claims, policy, (key, None), field, faults))
            });
            let attached = claimed.and(fits);
            let (key, field) = (key.clone(), field.clone());
            all.targets.push(AttachedTarget { key, section: None, field, attached });
        }
        for target in named {
            let field = &target.field;
            let TargetFound { key, missing } = match find(policy, target) {
                Ok(found) => found,
                Err((rest, problem)) => {
                    faults.error(policy, field.clone().join(rest), &*problem);
                    refuse(&mut all.valid, FalseCondition::new("Invalid", problem));
                    continue;
                }
            };
            let mut exists = Ok(());
            if let Some(missing) = &missing {
                let (rest, problem) = match missing {
                    Missing::Object(problem) => ("name", problem.clone()),
                    Missing::Section(problem) if claims.closes() => {
                        let dot = if problem.ends_with('?') { "" } else { "." };
                        let effect = "So as not to expose what the policy protects, all of";
                        ("sectionName", format!("{problem}{dot} {effect} {key} gets 500"))
                    }
                    Missing::Section(problem) => ("sectionName", problem.clone()),
                };
                faults.error(policy, field.clone().field(rest), &*problem);
                exists = Err(FalseCondition::new("TargetNotFound", problem));
            }
            if let Some(Missing::Section(_)) = missing {
                claims.misses_section(&key);
            }
            // A target that does not exist yet is claimed as well: it must not be unprotected once
            // it exists.
            let of_target = (&key, target.section);
            let claimed = claim(&mut claims, policies, place, of_target, field, faults);
            let fits = misplaced(place, key.kind)
                .map_or(Ok(()), |field| Err(unfit(&mut claims, policy, of_target, field, faults)));
            all.targets.push(AttachedTarget {
                key,
                section: target.section.map(str::to_owned),
                field: field.clone(),
                attached: claimed.and(exists).and(fits),
            });
        }
        attached.push(all);
    }
    (claims, attached)
}

/// Claims a target for the policy at `place`, and reports a conflict at the field that names it.
fn claim(
    claims: &mut Claims,
    policies: &[Asking<'_>],
    place: usize,
    (target, section): (&ObjectKey, Option<&str>),
    field: &FieldPath,
    faults: &mut Faults,
) -> ConditionResult {
    let claimed = claims.claim(target, section, place);
    claimed.map_err(|first| {
        let refusal = conflict(claims, policies, target, section, first);
        faults.error(policies[place].policy, field.clone(), &*refusal.message);
        refusal
    })
}

/// Closes a target to which a field of its policy cannot apply, and reports the field.
fn unfit(
    claims: &mut Claims,
    policy: &ObjectKey,
    (target, section): (&ObjectKey, Option<&str>),
    field: &'static str,
    faults: &mut Faults,
) -> FalseCondition {
    claims.close(target, section);
    let problem = format!(
        "{target} is a target of this policy and carries no HTTP requests, so that this cannot apply \
         to it, and it is closed; give it a policy of its own that has `authorization` by \
         `clientCIDRs` alone"
    );
    faults.error(policy, field_path!(spec).field(field), &*problem);
    FalseCondition::new("Invalid", format!("spec.{field}: {problem}"))
}

fn conflict(
    claims: &Claims,
    policies: &[Asking<'_>],
    target: &ObjectKey,
    section: Option<&str>,
    first: Option<usize>,
) -> FalseCondition {
    let target = match section {
        Some(section) => format!("`{section}` of {target}"),
        None => target.to_string(),
    };
    let effect = if claims.closes() { "So as not to expose it, it gets 500. " } else { "" };
    let message = match first {
        Some(first) => format!(
            "{target} is a target of {} already, which is older or comes first by name. \
             {effect}Remove one of the two",
            policies[first].policy
        ),
        None => format!(
            "{target} is closed already: other policies for it conflict, or name a section that does \
             not exist"
        ),
    };
    FalseCondition::new("Conflicted", message)
}
