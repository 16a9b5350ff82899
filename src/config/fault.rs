//! Faults of objects: one thing wrong with one field, as a value.

use std::fmt;

use crate::api::ObjectKey;

use super::field_path::FieldPath;

/// The severity of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// The configuration asks for something that is not done.
    Error,
    /// Everything that the configuration asks for is done, or cannot have any effect.
    Warning,
}

/// The cause of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The host; nothing that is written is wrong. An example is a port that another process uses.
    Host,
    /// The object that a reference names; it is missing or cannot be used.
    Referent(ObjectKey),
    /// The field of the fault itself.
    Written,
}

/// The reason of a route's condition Accepted if a fault takes rules of the route out of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    IncompatibleFilters,
    UnsupportedValue,
}

impl Reason {
    /// Returns the word of the specification.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::IncompatibleFilters => "IncompatibleFilters",
            Self::UnsupportedValue => "UnsupportedValue",
        }
    }
}

/// One fault of one object, or a warning about it.
///
/// A fault has no file: the provider of the object knows where it is written, and makes a
/// [`Diagnostic`](super::Diagnostic) of the fault. Prints as `field: problem`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub object: ObjectKey,
    /// Empty if the fault concerns the object as a whole.
    pub field: FieldPath,
    /// The problem, and the correct form.
    pub problem: String,
    pub severity: Severity,
    pub origin: Origin,
    pub reason: Reason,
}

impl Fault {
    /// Returns an error in a value that is written.
    pub(crate) fn error(
        object: ObjectKey,
        field: impl Into<FieldPath>,
        problem: impl Into<String>,
    ) -> Self {
        Self {
            object,
            field: field.into(),
            problem: problem.into(),
            severity: Severity::Error,
            origin: Origin::Written,
            reason: Reason::UnsupportedValue,
        }
    }

    /// Returns a warning about a value that is written.
    pub(crate) fn warning(
        object: ObjectKey,
        field: impl Into<FieldPath>,
        problem: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(object, field, problem) }
    }

    /// Returns the index of the rule that contains the fault, for a fault of a route.
    pub(crate) fn rule(&self) -> Option<usize> {
        self.field.rule()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.segments().is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.problem)
    }
}
