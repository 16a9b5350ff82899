//! Diagnostics: faults in files, with their places, for the person who wrote the files.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::fault::{Origin, Severity};

/// The line and column of a character, both from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Position {
    pub line: usize,
    pub column: usize,
}

impl Position {
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

/// A place in a file, or a file or directory as a whole.
///
/// Prints as `file:line:column`, the form editors and `grep` understand.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub file: Arc<Path>,
    /// `None` if the fault concerns the file itself: it is missing or not readable.
    pub position: Option<Position>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match self.position {
            Some(Position { line, column }) => write!(f, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}

/// One fault or warning about the configuration.
///
/// Prints as `file:line:column: Kind namespace/name: field: problem`. Unknown parts are left out; a
/// warning has the word `warning: ` before the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    pub severity: Severity,
    /// True if nothing of this load may be served: a document could not be decoded, so the intent
    /// of its writer is not known. Other errors take one object out of service and leave the rest.
    pub fatal: bool,
    pub place: Place,
    /// `HTTPRoute shop/cart`; empty if the object is not known.
    pub object: String,
    /// `spec.rules[0].filters[1].type`; empty if the fault concerns the object as a whole.
    pub field: String,
    /// The problem, and the correct form.
    pub problem: String,
    pub origin: Origin,
}

impl Diagnostic {
    /// Returns an error about a file or directory as a whole, which makes the load fail.
    pub(crate) fn unreadable(file: &Path, problem: String) -> Self {
        Self {
            severity: Severity::Error,
            fatal: true,
            place: Place { file: file.into(), position: None },
            object: String::new(),
            field: String::new(),
            problem,
            origin: Origin::Written,
        }
    }
}

impl Diagnostic {
    /// Formats the diagnostic without its severity, for a log whose lines have a level.
    pub(crate) fn without_severity(&self) -> impl fmt::Display {
        struct Unprefixed<'a>(&'a Diagnostic);

        impl fmt::Display for Unprefixed<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write(f, "")
            }
        }
        Unprefixed(self)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, severity: &str) -> fmt::Result {
        write!(f, "{}: {severity}", self.place)?;
        for part in [&self.object, &self.field] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.problem)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, if self.severity == Severity::Warning { "warning: " } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_prints_what_is_known_of_it() {
        let diagnostic = |severity, position, object: &str, field: &str| Diagnostic {
            severity,
            fatal: false,
            place: Place { file: Path::new("a.yaml").into(), position },
            object: object.into(),
            field: field.into(),
            problem: "it is wrong".into(),
            origin: Origin::Written,
        };
        let at = Some(Position { line: 3, column: 7 });

        // (diagnostic, as printed)
        let table = [
            (
                diagnostic(Severity::Error, at, "HTTPRoute shop/cart", "spec.rules"),
                "a.yaml:3:7: HTTPRoute shop/cart: spec.rules: it is wrong",
            ),
            (
                diagnostic(Severity::Warning, at, "HTTPRoute shop/cart", ""),
                "a.yaml:3:7: warning: HTTPRoute shop/cart: it is wrong",
            ),
            (diagnostic(Severity::Error, None, "", ""), "a.yaml: it is wrong"),
        ];
        for (diagnostic, want) in table {
            assert_eq!(diagnostic.to_string(), want);
            assert_eq!(diagnostic.without_severity().to_string(), want.replace("warning: ", ""));
        }
    }
}
