//! Construction of the tree of a document from the events of the YAML parser.

use std::collections::HashMap;
use std::sync::Arc;

use serde_yaml::granit_parser::{Event, Marker, ScalarStyle, Span, Tag};

use super::diagnostic::Position;
use super::scalar::shown;
use super::tree::{Entry, MAX_DEPTH, Node, TextFault, Value, too_deep, too_many};

/// The maximum number of fields that `<<` copies in one document.
const MAX_MERGED: usize = 100_000;

/// Builds the tree of one document from the parser's events.
pub(super) struct TreeBuilder {
    lines: usize,
    /// The whole tree, once it is complete.
    pub root: Option<Arc<Node>>,
    open: Vec<OpenCollection>,
    anchors: HashMap<usize, Arc<Node>>,
    merged: usize,
    /// Faults that do not end the document.
    pub faults: Vec<TextFault>,
}

/// A list or mapping whose end has not been read yet.
struct OpenCollection {
    at: Position,
    anchor: usize,
    items: Collection,
}

enum Collection {
    List(Vec<Arc<Node>>),
    Map {
        fields: Fields,
        /// The key whose value comes next; `None` while a key is expected.
        key: Option<Key>,
        merged: Vec<Arc<Node>>,
    },
}

/// A key of a mapping whose value has not been read yet.
enum Key {
    Field(String, Position),
    /// `<<`, whose value is merged into the mapping.
    Merge(Position),
    /// A key that was a fault; its value is dropped.
    Dropped,
}

/// The number of fields up to which keys are compared one by one, without a hash table.
const FEW_FIELDS: usize = 8;

/// The fields of a mapping that have been read, in order and without duplicates.
#[derive(Default)]
struct Fields {
    entries: Vec<Entry>,
    /// The place of each key, once there are more than a few.
    places: HashMap<String, Position>,
}

impl Fields {
    /// Returns the place of a key that has been read.
    fn place(&self, key: &str) -> Option<Position> {
        if self.entries.len() > FEW_FIELDS {
            return self.places.get(key).copied();
        }
        self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.key_at)
    }

    /// Adds a field whose key has not been read before.
    fn push(&mut self, entry: Entry) {
        if self.entries.len() == FEW_FIELDS {
            let places = self.entries.iter().map(|entry| (entry.key.clone(), entry.key_at));
            self.places = places.collect();
        }
        if self.entries.len() >= FEW_FIELDS {
            self.places.insert(entry.key.clone(), entry.key_at);
        }
        self.entries.push(entry);
    }
}

impl TreeBuilder {
    /// Begins a document of a text that `lines` lines precede.
    pub(super) fn new(lines: usize) -> Self {
        Self {
            lines,
            root: None,
            open: Vec::new(),
            anchors: HashMap::new(),
            merged: 0,
            faults: Vec::new(),
        }
    }

    /// Handles one event; an error ends the document.
    pub(super) fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), TextFault> {
        let at = position(span.start, self.lines);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = self.is_plain(style == ScalarStyle::Plain, tag.as_deref(), at);
                self.scalar(text.into_owned(), plain, at, anchor)
            }
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some(node) => self.put(node, at),
                None => Err(TextFault {
                    at,
                    problem: "this alias is inside of what it refers to".into(),
                }),
            },
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), "seq", at);
                self.begin_list(at, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), "map", at);
                self.begin_map(at, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            _ => Ok(()),
        }
    }

    /// Adds a scalar; `anchor` is 0 if it has none.
    pub(super) fn scalar(
        &mut self,
        text: String,
        plain: bool,
        at: Position,
        anchor: usize,
    ) -> Result<(), TextFault> {
        if anchor == 0 && self.expects_key() {
            self.key(text, plain, at);
            return Ok(());
        }
        self.close(Node::bounded(at, Value::Scalar { text, plain })?, anchor)
    }

    /// Begins a list; `anchor` is 0 if it has none.
    pub(super) fn begin_list(&mut self, at: Position, anchor: usize) -> Result<(), TextFault> {
        self.begin(at, anchor, Collection::List(Vec::new()))
    }

    /// Begins a mapping; `anchor` is 0 if it has none.
    pub(super) fn begin_map(&mut self, at: Position, anchor: usize) -> Result<(), TextFault> {
        let (fields, merged) = (Fields::default(), Vec::new());
        self.begin(at, anchor, Collection::Map { fields, key: None, merged })
    }

    fn begin(&mut self, at: Position, anchor: usize, items: Collection) -> Result<(), TextFault> {
        if self.open.len() >= MAX_DEPTH {
            return Err(TextFault { at, problem: too_deep() });
        }
        self.open.push(OpenCollection { at, anchor, items });
        Ok(())
    }

    /// Ends the innermost list or mapping.
    pub(super) fn end(&mut self) -> Result<(), TextFault> {
        let Some(OpenCollection { at, anchor, items }) = self.open.pop() else { return Ok(()) };
        let value = match items {
            Collection::List(items) => Value::List(items),
            Collection::Map { mut fields, merged, .. } => {
                for entry in merged.iter().filter_map(|node| node.entries()).flatten() {
                    self.merged += 1;
                    if self.merged > MAX_MERGED {
                        return Err(TextFault { at, problem: too_many() });
                    }
                    if fields.place(&entry.key).is_none() {
                        fields.push(entry.clone());
                    }
                }
                Value::Map(fields.entries)
            }
        };
        self.close(Node::bounded(at, value)?, anchor)
    }

    /// Completes a node: stores it for its aliases and adds it to its parent.
    fn close(&mut self, node: Node, anchor: usize) -> Result<(), TextFault> {
        let (at, node) = (node.at, Arc::new(node));
        if anchor != 0 {
            self.anchors.insert(anchor, Arc::clone(&node));
        }
        self.put(node, at)
    }

    /// Adds a node, which begins at `at`, to the innermost open collection.
    fn put(&mut self, node: Arc<Node>, at: Position) -> Result<(), TextFault> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        let (fields, key, merged) = match &mut open.items {
            Collection::List(items) => {
                items.push(node);
                return Ok(());
            }
            Collection::Map { fields, key, merged } => (fields, key, merged),
        };
        match (key.take(), &node.value) {
            (None, Value::Scalar { text, plain }) => self.key(text.clone(), *plain, at),
            (None, Value::List(_) | Value::Map(_)) => {
                let problem = "a field's name must be a word; put quotes around a text that \
                               begins with a bracket";
                return Err(TextFault { at, problem: problem.into() });
            }
            (Some(Key::Field(key, key_at)), _) => fields.push(Entry { key, key_at, value: node }),
            (Some(Key::Merge(_)), Value::Map(_)) => merged.push(node),
            (Some(Key::Merge(_)), Value::List(items))
                if items.iter().all(|item| item.entries().is_some()) =>
            {
                merged.extend(items.iter().cloned());
            }
            (Some(Key::Merge(key_at)), _) => self.faults.push(TextFault {
                at: key_at,
                problem: "expected a mapping after `<<`, or a list of mappings".into(),
            }),
            (Some(Key::Dropped), _) => {}
        }
        Ok(())
    }

    /// Returns true if the next scalar is the key of a mapping.
    fn expects_key(&self) -> bool {
        let innermost = self.open.last().map(|open| &open.items);
        matches!(innermost, Some(Collection::Map { key: None, .. }))
    }

    /// Takes a key of the innermost open mapping.
    fn key(&mut self, name: String, plain: bool, at: Position) {
        let Some(Collection::Map { fields, key, .. }) =
            self.open.last_mut().map(|open| &mut open.items)
        else {
            return;
        };
        *key = Some(if plain && name == "<<" {
            Key::Merge(at)
        } else if let Some(first) = fields.place(&name) {
            let problem = format!(
                "duplicate field `{}`, the first one is on line {}; remove one",
                shown(&name),
                first.line
            );
            self.faults.push(TextFault { at, problem });
            Key::Dropped
        } else {
            Key::Field(name, at)
        });
    }

    /// Returns true if a scalar may be read as a number or a boolean, with its tag considered.
    fn is_plain(&mut self, plain: bool, tag: Option<&Tag>, at: Position) -> bool {
        match tag.map(|tag| (tag, tag.core_suffix())) {
            None => plain,
            Some((_, Some("str"))) => false,
            Some((_, Some("bool" | "float" | "int" | "null"))) => true,
            Some((tag, _)) => {
                self.refuse_tag(tag, at);
                plain
            }
        }
    }

    fn check_tag(&mut self, tag: Option<&Tag>, allowed: &str, at: Position) {
        if let Some(tag) = tag.filter(|tag| tag.core_suffix() != Some(allowed)) {
            self.refuse_tag(tag, at);
        }
    }

    fn refuse_tag(&mut self, tag: &Tag, at: Position) {
        let problem = format!(
            "the tag `{}` means nothing here; put quotes around a text that begins with `!`",
            shown(&tag.original())
        );
        self.faults.push(TextFault { at, problem });
    }
}

/// Returns the place of a marker in a text that `lines` lines precede.
pub(super) fn position(marker: Marker, lines: usize) -> Position {
    Position { line: marker.line() + lines, column: marker.col() + 1 }
}
