//! Verdicts: what is wrong with an object, and conditions that are False.

use crate::api::ObjectKey;
use crate::config::{Origin, Severity};

/// One thing wrong with the meaning of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub object: ObjectKey,
    /// `spec.rules[0].backendRefs[1]`.
    pub field: String,
    /// What is wrong; what would be right.
    pub problem: String,
    pub severity: Severity,
    pub origin: Origin,
}

/// Something in the values of a rule that cannot run. Such a rule answers 500 for what it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleFault {
    /// Its place in `spec.rules`.
    pub rule: usize,
    /// `spec.rules[0].matches[1].path.value`
    pub field: String,
    /// `UnsupportedValue` or `IncompatibleFilters`.
    pub reason: &'static str,
    pub problem: String,
}

/// A condition that is False: its reason, one word of the specification, and its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub reason: &'static str,
    pub message: String,
}

impl Refusal {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// A condition: True, or False and why.
pub(crate) type Judged = Result<(), Refusal>;

/// Refuses, unless that was done before: a condition has one reason, and the first is it.
pub(super) fn refuse(judged: &mut Judged, refusal: Refusal) {
    if judged.is_ok() {
        *judged = Err(refusal);
    }
}

/// Faults as they are found.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn into_vec(self) -> Vec<Fault> {
        self.0
    }

    pub(super) fn error(
        &mut self,
        object: &ObjectKey,
        field: impl Into<String>,
        problem: impl Into<String>,
    ) {
        self.push(Severity::Error, object, field.into(), problem.into(), Origin::Written);
    }

    /// An error that `origin` makes.
    pub(super) fn error_of(
        &mut self,
        origin: Origin,
        object: &ObjectKey,
        field: impl Into<String>,
        problem: impl Into<String>,
    ) {
        self.push(Severity::Error, object, field.into(), problem.into(), origin);
    }

    pub(super) fn warning(
        &mut self,
        object: &ObjectKey,
        field: impl Into<String>,
        problem: impl Into<String>,
    ) {
        self.push(Severity::Warning, object, field.into(), problem.into(), Origin::Written);
    }

    fn push(
        &mut self,
        severity: Severity,
        object: &ObjectKey,
        field: String,
        problem: String,
        origin: Origin,
    ) {
        self.0.push(Fault { object: object.clone(), field, problem, severity, origin });
    }
}
