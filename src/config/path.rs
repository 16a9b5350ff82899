//! Paths of values, borrowed from the walk over a document.

use std::fmt;

use super::field_path::FieldPath;

/// A path such as `spec.rules[0].name` or `metadata.labels["a.b/c"]`; formatted only when there is
/// a fault to report.
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

    pub(super) fn to_field_path(self) -> FieldPath {
        match self {
            Self::Root => FieldPath::default(),
            Self::Field(parent, name) => parent.to_field_path().field((*name).to_owned()),
            Self::Item(parent, index) => parent.to_field_path().item(index),
        }
    }

    /// Returns true for the field `name` of any parent, and for the items of its list.
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
        fmt::Display::fmt(&self.to_field_path(), f)
    }
}

impl fmt::Debug for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
