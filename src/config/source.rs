//! Places of fields in a text.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::diagnostic::Position;
use super::field_path::{FieldPath, Segment};
use super::text;
use super::tree::{Node, Value};
use super::yaml::{self, DocumentSpan};

/// The places of one file: maps a document and a field path to a line and column.
///
/// A document is read a second time, when a diagnostic about it must be shown, so that a load
/// without faults has no cost. Diagnostics come by object, so only the last document is kept.
#[derive(Debug)]
pub(crate) struct SourceMap {
    text: Arc<str>,
    /// The start of a document, in bytes, and its tree.
    last: Mutex<Option<(usize, Arc<Node>)>>,
}

impl SourceMap {
    pub(crate) fn new(path: &Path, text: &Arc<str>) -> Self {
        let text = match text::is_json(path) {
            false => Arc::clone(text),
            // Without an object nothing has a place.
            true => text::as_yaml(path, text).unwrap_or_default().into(),
        };
        Self { text, last: Mutex::default() }
    }

    /// Returns the place of a field, or of its nearest ancestor that is written.
    pub(crate) fn locate(&self, document: &DocumentSpan, field: &FieldPath) -> Position {
        let start = document.bytes.start;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|(of, _)| *of != start) {
            *last = yaml::root(&self.text, document).map(|root| (start, root));
        }
        last.as_ref().map_or(Position::START, |(_, root)| position_in(root, field))
    }
}

/// Returns the place of a field in one document, or of its nearest ancestor that is written.
///
/// For a scalar this is the place of the value; for a list or mapping, the place of its name.
pub(super) fn position_in(root: &Arc<Node>, field: &FieldPath) -> Position {
    let (mut node, mut at) = (root, root.at);
    for segment in field.segments() {
        let found = match (&node.value, segment) {
            (Value::Map(_), Segment::Field(name)) => {
                node.entry(name).map(|entry| (&entry.value, Some(entry.key_at)))
            }
            (Value::List(items), Segment::Item(index)) => {
                items.get(*index).map(|item| (item, None))
            }
            _ => None,
        };
        let Some((next, named_at)) = found else { break };
        at = match (&next.value, named_at) {
            (Value::List(_) | Value::Map(_), Some(named_at)) => named_at,
            _ => next.at,
        };
        node = next;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_or_its_nearest_ancestor() {
        let text = "\
first: 1
---
spec:
  rules:
    - name: a
      filters:
        - type: X
    - {name: b}
";
        let text: Arc<str> = text.into();
        let map = SourceMap::new(Path::new("a.yaml"), &text);
        let documents: Vec<_> = yaml::documents(&text).map(|document| document.span).collect();
        // (document, field, line, column)
        let table = [
            (0, "first", 1, 8),
            (1, "spec", 3, 1),
            (1, "spec.rules", 4, 3),
            (1, "spec.rules[0]", 5, 7),
            (1, "spec.rules[0].name", 5, 13),
            (1, "spec.rules[0].filters[0].type", 7, 17),
            (1, "spec.rules[0].filters[7].type", 6, 7),
            (1, "spec.rules[0].timeouts.request", 5, 7),
            (1, "spec.rules[1].name", 8, 14),
            (1, "nothing", 3, 1),
            (1, "", 3, 1),
            (0, "first", 1, 8),
        ];
        for (document, field, line, column) in table {
            let got = map.locate(&documents[document], &field.into());
            assert_eq!(got, Position { line, column }, "{document} {field}");
        }
    }
}
