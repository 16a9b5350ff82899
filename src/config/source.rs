//! Where a field stands.

use std::path::Path;
use std::sync::Arc;

use super::diagnostic::Position;
use super::text::documents;
use super::yaml::{Node, Value};

/// The places of one file: document and field path to line and column.
///
/// Made by reading the text a second time, and only when a diagnostic must be shown, so that a
/// load without faults pays nothing.
#[derive(Debug)]
pub(super) struct SourceMap {
    roots: Vec<Option<Arc<Node>>>,
}

impl SourceMap {
    pub(super) fn new(path: &Path, text: &str) -> Self {
        let documents = documents(path, text).into_iter();
        Self { roots: documents.map(|document| document.root).collect() }
    }

    /// The place of a field, or of the nearest ancestor that was written.
    pub(super) fn locate(&self, document: usize, field: &str) -> Position {
        match self.roots.get(document) {
            Some(Some(root)) => position_in(root, field),
            _ => Position::START,
        }
    }
}

/// The place of a field in one document, or of the nearest ancestor that was written.
///
/// A word or number is shown where its value stands, a list or mapping where its name does.
pub(super) fn position_in(root: &Arc<Node>, field: &str) -> Position {
    let (mut node, mut at) = (root, root.at);
    for segment in segments(field) {
        let found = match (&node.value, &segment) {
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

#[derive(Debug, PartialEq)]
enum Segment<'a> {
    Field(&'a str),
    Item(usize),
}

/// The parts of `spec.rules[0].name` and `metadata.labels["a.b/c"]`.
fn segments(mut rest: &str) -> Vec<Segment<'_>> {
    let mut segments = Vec::new();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let Some((name, after)) = quoted.split_once("\"]") else { break };
            segments.push(Segment::Field(name));
            rest = after;
        } else if let Some(bracket) = rest.strip_prefix('[') {
            let Some((index, after)) = bracket.split_once(']') else { break };
            let Ok(index) = index.parse() else { break };
            segments.push(Segment::Item(index));
            rest = after;
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            // `a..b`, or `a.[0]`, is no path; what was read of it will do.
            if end == 0 {
                break;
            }
            segments.push(Segment::Field(&rest[..end]));
            rest = &rest[end..];
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cut_at_dots_and_brackets() {
        use Segment::{Field, Item};
        let table: [(&str, Vec<Segment<'_>>); 6] = [
            ("", vec![]),
            ("spec", vec![Field("spec")]),
            ("spec.rules[0].name", vec![Field("spec"), Field("rules"), Item(0), Field("name")]),
            ("items[2]", vec![Field("items"), Item(2)]),
            ("metadata[\"a.b/c\"].d", vec![Field("metadata"), Field("a.b/c"), Field("d")]),
            ("a..b", vec![Field("a")]),
        ];
        for (path, want) in table {
            assert_eq!(segments(path), want, "{path}");
        }
    }

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
        let map = SourceMap::new(Path::new("a.yaml"), text);
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
            (7, "first", 1, 1),
        ];
        for (document, field, line, column) in table {
            let got = map.locate(document, field);
            assert_eq!(got, Position { line, column }, "{document} {field}");
        }
    }
}
