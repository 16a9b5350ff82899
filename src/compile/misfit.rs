//! Values of a route that cannot run.

use crate::config::FieldPath;

/// Why a value cannot run. The rule that has it answers 500.
#[derive(Debug, PartialEq)]
pub(super) enum Misfit {
    /// It breaks a rule of its kind. Those are judged by `config`, which has reported it.
    Reported,
    /// It keeps the rules of its kind, and this gateway cannot run it all the same.
    Unusable { field: FieldPath, problem: String },
}

impl Misfit {
    /// What is wrong with the field `field` of the match or filter; with all of it if that is empty.
    pub(super) fn unusable(field: impl Into<FieldPath>, problem: &impl ToString) -> Self {
        Self::Unusable { field: field.into(), problem: problem.to_string() }
    }
}
