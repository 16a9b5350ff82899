//! The content of a document: a tree of values with their places.

use std::sync::Arc;

use super::diagnostic::Position;
use super::scalar::{Word, word};

/// The maximum depth of mappings and lists. A GRPCRoute with every field needs 12.
pub(super) const MAX_DEPTH: usize = 64;
/// The maximum number of values in one file, and in one document with aliases counted as often as
/// they are used.
pub(super) const MAX_VALUES: usize = 1_000_000;

/// One value with its place.
#[derive(Debug)]
pub(super) struct Node {
    pub at: Position,
    pub value: Value,
    depth: usize,
    values: usize,
}

#[derive(Debug)]
pub(super) enum Value {
    Scalar {
        text: String,
        /// True if the scalar has no quotes, so that `443` is a number and `no` is false.
        plain: bool,
    },
    List(Vec<Arc<Node>>),
    /// In the order of the file, without duplicates.
    Map(Vec<Entry>),
}

impl Value {
    /// Returns the depth and the number of values of a node with this value.
    fn extent(&self) -> (usize, usize) {
        let with = |(depth, values): (usize, usize), child: &Node| {
            (depth.max(1 + child.depth), values.saturating_add(child.values))
        };
        match self {
            Self::Scalar { .. } => (1, 1),
            Self::List(items) => items.iter().fold((1, 1), |sum, item| with(sum, item)),
            Self::Map(entries) => entries.iter().fold((1, 1), |sum, of| with(sum, &of.value)),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub key_at: Position,
    pub value: Arc<Node>,
}

impl Node {
    /// Returns a value that does not come from a text; `None` if it is deeper or larger than a text
    /// may be.
    pub(super) fn new(at: Position, value: Value) -> Option<Self> {
        Self::bounded(at, value).ok()
    }

    /// Like [`new`](Self::new), for a value of a text.
    ///
    /// # Errors
    ///
    /// The value is deeper or larger than a text may be.
    pub(super) fn bounded(at: Position, value: Value) -> Result<Self, TextFault> {
        let (depth, values) = value.extent();
        if depth > MAX_DEPTH {
            return Err(TextFault { at, problem: too_deep() });
        }
        if values > MAX_VALUES {
            return Err(TextFault { at, problem: too_many() });
        }
        Ok(Self { at, value, depth, values })
    }

    /// Returns the entry of `key`, if this is a mapping that has it.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            Value::Scalar { .. } | Value::List(_) => None,
        }
    }

    /// Returns the number of values in this node, including itself.
    pub(super) fn values(&self) -> usize {
        self.values
    }

    /// Returns true for `~`, `null` and an empty value.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if word(text) == Word::Null)
    }

    /// Returns the entries of a mapping.
    pub(super) fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            Value::Scalar { .. } | Value::List(_) => None,
        }
    }

    /// Returns the text of a scalar as written.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::List(_) | Value::Map(_) => None,
        }
    }
}

/// A fault of the text itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TextFault {
    pub at: Position,
    pub problem: String,
}

pub(super) fn too_deep() -> String {
    format!("nested deeper than {MAX_DEPTH} levels")
}

pub(super) fn too_many() -> String {
    format!(
        "the file holds more than {MAX_VALUES} values, aliases counted as often as they are used; \
         split it"
    )
}
