//! Faults of objects: one thing wrong with one field, as a value.

use std::fmt;

use crate::api::ObjectKey;

use super::field_path::FieldPath;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Something that was asked for is not done.
    Error,
    /// Everything that was asked for is done, or was never going to be.
    Warning,
}

/// Where the mistake is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The host: nothing that is written is wrong. A port that another process has, say.
    Host,
    /// The object that a reference names, which is missing or cannot be used.
    Referent(ObjectKey),
    /// The field that the fault is about.
    Written,
}

/// The reason of a route's condition Accepted where a fault takes rules of it out of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    IncompatibleFilters,
    UnsupportedValue,
}

impl Reason {
    /// The word of the specification.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::IncompatibleFilters => "IncompatibleFilters",
            Self::UnsupportedValue => "UnsupportedValue",
        }
    }
}

/// One thing wrong with one object, or a warning about it.
///
/// A fault knows nothing of files: whoever provided the object knows where it was written, and makes
/// a [`Diagnostic`](super::Diagnostic) of the fault. Prints as `field: problem`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub object: ObjectKey,
    /// Empty where the object as a whole is meant.
    pub field: FieldPath,
    /// What is wrong; what would be right.
    pub problem: String,
    pub severity: Severity,
    pub origin: Origin,
    pub reason: Reason,
}

impl Fault {
    /// An error in a value that was written.
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

    /// A warning about a value that was written.
    pub(crate) fn warning(
        object: ObjectKey,
        field: impl Into<FieldPath>,
        problem: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(object, field, problem) }
    }

    /// The number of the rule that the fault is in, for a fault of a route.
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
