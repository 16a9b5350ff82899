//! Values of a route that cannot run.

use crate::config::FieldPath;

/// The reason why a value cannot run. The rule that has the value answers 500.
#[derive(Debug, PartialEq)]
pub(super) enum Misfit {
    /// It breaks a rule of its kind; `config` checks those and has reported it.
    Reported,
    /// It keeps the rules of its kind, but this gateway cannot run it.
    Unusable { field: FieldPath, problem: String },
}

impl Misfit {
    /// Returns a misfit of the field `field` of the match or filter; of the whole match or filter
    /// if `field` is empty.
    pub(super) fn unusable(field: impl Into<FieldPath>, problem: &impl ToString) -> Self {
        Self::Unusable { field: field.into(), problem: problem.to_string() }
    }
}
