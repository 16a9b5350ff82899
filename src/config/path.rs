//! The way from the root of a document to a value.

use std::fmt;

/// A path such as `spec.rules[0].name` or `metadata.labels["a.b/c"]`; written out only when there
/// is something to say.
#[derive(Clone, Copy)]
pub(super) enum Path<'p> {
    Root,
    Field(&'p Self, &'p str),
    Item(&'p Self, usize),
}

impl<'p> Path<'p> {
    pub(super) fn field(&'p self, name: &'p str) -> Self {
        Self::Field(self, name)
    }

    pub(super) fn item(&'p self, index: usize) -> Self {
        Self::Item(self, index)
    }

    /// True for the field `name`, whatever it is a field of, and for the items of its list.
    pub(super) fn is_of(&self, name: &str) -> bool {
        match self {
            Self::Root => false,
            Self::Field(_, field) => *field == name,
            Self::Item(list, _) => list.is_of(name),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            // In quotes where the name holds what a path is cut at.
            Self::Field(parent, name) if name.is_empty() || name.contains(['.', '[', ']', '"']) => {
                write!(f, "{parent}[\"{name}\"]")
            }
            Self::Field(Path::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl fmt::Debug for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The path of a field of `parent`, both written out; either may be empty.
pub(super) fn join(parent: &str, name: &str) -> String {
    match (parent, name) {
        ("", _) => name.into(),
        (_, "") => parent.into(),
        _ => format!("{parent}.{name}"),
    }
}
