//! Claims of policies on their targets, and conflicts between them.

use std::collections::HashMap;

use crate::api::ObjectKey;

/// The targets of the policies of one kind. A policy is known by its place among them.
#[derive(Debug)]
pub(in crate::graph) struct Claims {
    by_target: HashMap<ObjectKey, TargetClaims>,
    on_conflict: OnConflict,
}

/// What becomes of a target that two policies claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::graph) enum OnConflict {
    /// It is closed: neither policy says for certain what its author wants to protect.
    Close,
    /// The first policy in the order of ties applies.
    FirstWins,
}

/// The claims on one object.
#[derive(Debug, Default)]
pub(in crate::graph) struct TargetClaims {
    /// Every policy that names it, whether or not another one takes precedence.
    naming: Vec<usize>,
    pub whole: Option<Claim>,
    /// By listener or rule, or by port of a Service.
    pub sections: HashMap<String, Claim>,
}

/// The policy of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Policy(usize),
    /// A policy names the target and cannot be applied as it is written.
    Closed,
}

impl Claims {
    pub(super) fn new(on_conflict: OnConflict) -> Self {
        Self { by_target: HashMap::new(), on_conflict }
    }

    /// Gives a target, or a section of it, to a policy.
    ///
    /// # Errors
    ///
    /// The policy that has it already; none where it is closed.
    pub(super) fn claim(
        &mut self,
        target: &ObjectKey,
        section: Option<&str>,
        policy: usize,
    ) -> Result<(), Option<usize>> {
        let of = self.by_target.entry(target.clone()).or_default();
        if of.naming.last() != Some(&policy) {
            of.naming.push(policy);
        }
        let slot = match section {
            Some(section) => of.sections.entry(section.to_owned()).or_insert(Claim::Policy(policy)),
            None => of.whole.get_or_insert(Claim::Policy(policy)),
        };
        match *slot {
            Claim::Policy(first) if first == policy => Ok(()),
            Claim::Policy(first) => {
                if self.on_conflict == OnConflict::Close {
                    *slot = Claim::Closed;
                }
                Err(Some(first))
            }
            Claim::Closed => Err(None),
        }
    }

    /// A policy names a section of the target that does not exist. Where policies close what they
    /// cannot protect, that is all of the target.
    pub(super) fn misses_section(&mut self, target: &ObjectKey) {
        if self.on_conflict == OnConflict::Close {
            self.by_target.entry(target.clone()).or_default().whole = Some(Claim::Closed);
        }
    }

    pub(super) fn closes(&self) -> bool {
        self.on_conflict == OnConflict::Close
    }

    pub(in crate::graph) fn of(&self, target: &ObjectKey) -> Option<&TargetClaims> {
        self.by_target.get(target)
    }

    /// The policies that name an object, applied or not.
    pub(in crate::graph) fn naming(&self, target: &ObjectKey) -> &[usize] {
        self.by_target.get(target).map_or(&[], |of| &of.naming)
    }

    /// The policy for an object as a whole.
    pub(in crate::graph) fn whole(&self, target: &ObjectKey) -> Option<Claim> {
        self.by_target.get(target)?.whole
    }

    /// The policy for one section of an object, and not for all of it.
    pub(in crate::graph) fn section(&self, target: &ObjectKey, section: &str) -> Option<Claim> {
        self.by_target.get(target)?.sections.get(section).copied()
    }
}
