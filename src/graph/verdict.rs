//! False conditions, and a collector of faults.

use crate::api::ObjectKey;
use crate::config::{Fault, FieldPath, Origin};

/// A condition that is False: its reason (one word of the specification) and its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FalseCondition {
    pub reason: &'static str,
    pub message: String,
}

impl FalseCondition {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// A condition: `Ok` if True, the refusal if False.
pub(crate) type ConditionResult = Result<(), FalseCondition>;

/// Records a refusal unless there already is one: a condition has one reason, which is the first.
pub(super) fn refuse(judged: &mut ConditionResult, refusal: FalseCondition) {
    if judged.is_ok() {
        *judged = Err(refusal);
    }
}

/// The faults found so far.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn into_vec(self) -> Vec<Fault> {
        self.0
    }

    pub(super) fn error(
        &mut self,
        object: &ObjectKey,
        field: impl Into<FieldPath>,
        problem: impl Into<String>,
    ) {
        self.0.push(Fault::error(object.clone(), field, problem));
    }

    /// Adds an error with the given `origin`.
    pub(super) fn error_of(
        &mut self,
        origin: Origin,
        object: &ObjectKey,
        field: impl Into<FieldPath>,
        problem: impl Into<String>,
    ) {
        self.0.push(Fault { origin, ..Fault::error(object.clone(), field, problem) });
    }

    pub(super) fn warning(
        &mut self,
        object: &ObjectKey,
        field: impl Into<FieldPath>,
        problem: impl Into<String>,
    ) {
        self.0.push(Fault::warning(object.clone(), field, problem));
    }
}
