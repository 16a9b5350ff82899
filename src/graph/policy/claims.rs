//! Claims of policies on targets, and conflicts between claims.

use std::collections::HashMap;

use crate::api::ObjectKey;

/// The targets of the policies of one kind. A policy is identified by its index among them.
#[derive(Debug)]
pub(in crate::graph) struct Claims {
    by_target: HashMap<ObjectKey, TargetClaims>,
    on_conflict: OnConflict,
}

/// The handling of a target that two policies claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::graph) enum OnConflict {
    /// The target is closed: neither policy shows for certain what its author wants to protect.
    Close,
    /// The first policy in tie-breaking order applies.
    FirstWins,
}

/// The claims on one object.
#[derive(Debug, Default)]
pub(in crate::graph) struct TargetClaims {
    /// Every policy that names the object, whether or not another one takes precedence.
    naming: Vec<usize>,
    pub whole: Option<Claim>,
    /// Claims by the name of a listener or rule, or of a port of a Service.
    pub sections: HashMap<String, Claim>,
}

/// The claim on a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Policy(usize),
    /// A policy names the target but cannot be applied as it is written.
    Closed,
}

impl Claims {
    pub(super) fn new(on_conflict: OnConflict) -> Self {
        Self { by_target: HashMap::new(), on_conflict }
    }

    /// Claims a target, or a section of it, for a policy.
    ///
    /// # Errors
    ///
    /// The policy that already has the target; `None` if the target is closed.
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

    /// Records that a policy names a section of the target that does not exist. With
    /// [`OnConflict::Close`] the whole target is closed.
    pub(super) fn misses_section(&mut self, target: &ObjectKey) {
        if self.on_conflict == OnConflict::Close {
            self.by_target.entry(target.clone()).or_default().whole = Some(Claim::Closed);
        }
    }

    /// Closes a target, or a section of it.
    pub(super) fn close(&mut self, target: &ObjectKey, section: Option<&str>) {
        let of = self.by_target.entry(target.clone()).or_default();
        match section {
            Some(section) => drop(of.sections.insert(section.to_owned(), Claim::Closed)),
            None => of.whole = Some(Claim::Closed),
        }
    }

    pub(super) fn closes(&self) -> bool {
        self.on_conflict == OnConflict::Close
    }

    pub(in crate::graph) fn of(&self, target: &ObjectKey) -> Option<&TargetClaims> {
        self.by_target.get(target)
    }

    /// Returns the policies that name an object, applied or not.
    pub(in crate::graph) fn naming(&self, target: &ObjectKey) -> &[usize] {
        self.by_target.get(target).map_or(&[], |of| &of.naming)
    }

    /// Returns the claim on an object as a whole.
    pub(in crate::graph) fn whole(&self, target: &ObjectKey) -> Option<Claim> {
        self.by_target.get(target)?.whole
    }

    /// Returns the claim on one section of an object, not on the whole object.
    pub(in crate::graph) fn section(&self, target: &ObjectKey, section: &str) -> Option<Claim> {
        self.by_target.get(target)?.sections.get(section).copied()
    }
}
