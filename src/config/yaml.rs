//! YAML text as trees of values with their places. This file contains the only use of `serde_yaml`.
//!
//! The crate's own deserializer stops at the first fault and hides the tree. Both passes over a
//! document, the lookup of a field's place and the search for all faults at once, need the tree.
//! This file therefore uses the event parser that the crate builds on, and `decode` is the
//! deserializer.
//!
//! Everything that can grow with a file is bounded: its bytes by `files`, its depth and its number
//! of values here, where an alias counts as often as it is used.

use std::collections::HashMap;
use std::sync::Arc;

use serde_yaml::granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, Span, Tag};

use super::diagnostic::Position;
use super::scalar::{Word, shown, word};

/// The maximum depth of mappings and lists. A GRPCRoute with every field needs 12.
const MAX_DEPTH: usize = 64;
/// The maximum number of values in one file, and in one document with aliases counted as often as
/// they are used.
const MAX_VALUES: usize = 1_000_000;
/// The maximum number of broken documents in one file. A file that is not YAML at all is not
/// reported line by line.
const MAX_BROKEN: usize = 100;
/// The maximum number of fields that `<<` copies in one document.
const MAX_MERGED: usize = 100_000;

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
        let children: Vec<&Arc<Self>> = match &value {
            Value::List(items) => items.iter().collect(),
            Value::Map(entries) => entries.iter().map(|entry| &entry.value).collect(),
            Value::Scalar { .. } => Vec::new(),
        };
        let depth = 1 + children.iter().map(|child| child.depth).max().unwrap_or(0);
        let values = children.iter().fold(1, |sum: usize, child| sum.saturating_add(child.values));
        (depth <= MAX_DEPTH && values <= MAX_VALUES).then_some(Self { at, value, depth, values })
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

/// One document. `root` is `None` if a fault of the text leaves nothing to read.
#[derive(Debug)]
pub(super) struct Document {
    pub root: Option<Arc<Node>>,
    pub faults: Vec<TextFault>,
}

/// Returns the documents of a file, including faults. Reading continues after a broken document.
pub(super) fn documents(text: &str) -> Vec<Document> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    // The start of the parser's text in bytes, and the number of lines before it.
    let (mut from, mut lines) = (0, 0);
    let mut values = 0;
    for broken in 1.. {
        let Err(mut failure) = read(&text[from..], lines, &mut values, &mut documents) else {
            break;
        };
        if let Some(fault) = foreign(text, from + failure.document_start, &failure.fault) {
            failure.fault = fault;
        }
        let is_last = values > MAX_VALUES || broken >= MAX_BROKEN;
        if broken >= MAX_BROKEN {
            failure.fault.problem.push_str("; after so many faults the rest was not read");
        }
        documents.push(Document { root: None, faults: vec![failure.fault] });
        if is_last {
            break;
        }
        // Content cannot have `---` at the start of a line, so the next document begins there.
        let Some(next) = next_document(text, from + failure.document_start) else { break };
        lines += text[from..next].matches('\n').count();
        from = next;
    }
    documents
}

/// Returns the cause of the fault `told` if another tool made it: text that the tool put into the
/// document that begins at byte `start`, or a placeholder that it has not replaced yet.
fn foreign(text: &str, start: usize, told: &TextFault) -> Option<TextFault> {
    let first = text[..start].matches('\n').count() + 1;
    // The parser may report a conflict mark at the line after it.
    let lines =
        text[start..].lines().zip(first..).take_while(|(_, line)| *line <= told.at.line + 1);
    let mut template = None;
    for (content, line) in lines {
        let at = |column| Position { line, column };
        let is_mark = ["<<<<<<< ", "||||||| ", ">>>>>>> "].iter().any(|m| content.starts_with(m));
        if is_mark || content == "=======" {
            let problem = "a mark of a merge conflict; resolve the conflict";
            return Some(TextFault { at: at(1), problem: problem.into() });
        }
        let is_near = line + 1 >= told.at.line && line <= told.at.line;
        if let Some(before) = content.find("{{").filter(|_| is_near) {
            let column = content[..before].chars().count() + 1;
            let problem = "`{{` begins an expression of a template; render the template first (with \
                           `helm template`, for instance) and use what it prints";
            template.get_or_insert_with(|| TextFault { at: at(column), problem: problem.into() });
        }
    }
    template
}

/// A fault that ends the parsing of the text.
struct ParseFailure {
    /// The start of the broken document, in bytes from the start of the parser's text.
    document_start: usize,
    fault: TextFault,
}

/// Returns the start of the first line after `from` that begins a document.
fn next_document(text: &str, from: usize) -> Option<usize> {
    let marks = text[from..].match_indices("\n---").map(|(at, _)| from + at + 1);
    marks.into_iter().find(|at| {
        let after = text[at + 3..].bytes().next();
        after.is_none_or(|byte| byte.is_ascii_whitespace())
    })
}

fn read(
    text: &str,
    lines: usize,
    values: &mut usize,
    documents: &mut Vec<Document>,
) -> Result<(), ParseFailure> {
    let mut parser = Parser::new_from_str(text);
    let mut document_start = 0;
    let mut builder = Builder::new(lines);
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(|error| ParseFailure {
            document_start,
            fault: TextFault {
                at: position(*error.marker(), lines),
                problem: parse_problem(error.kind()),
            },
        })?;
        match event {
            Event::DocumentStart(..) => {
                document_start = span.start.byte_offset().unwrap_or(document_start);
                builder = Builder::new(lines);
            }
            Event::DocumentEnd => {
                document_start = span.start.byte_offset().unwrap_or(document_start);
                let done = std::mem::replace(&mut builder, Builder::new(lines));
                documents.push(Document { root: done.root, faults: done.faults });
            }
            event => {
                *values += 1;
                let taken = if *values > MAX_VALUES {
                    Err(TextFault { at: position(span.start, lines), problem: too_many() })
                } else {
                    builder.event(event, &span)
                };
                taken.map_err(|fault| ParseFailure { document_start, fault })?;
            }
        }
    }
    Ok(())
}

fn position(marker: Marker, lines: usize) -> Position {
    Position { line: marker.line() + lines, column: marker.col() + 1 }
}

/// Returns the parser's error in words that say how to correct it, if such words are known.
fn parse_problem(kind: &ErrorKind) -> String {
    let known = match kind {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => "a tab in the indentation; use spaces",
        ErrorKind::UnclosedQuotedScalar => "a quote opens here and is never closed",
        ErrorKind::DocumentIndicatorInQuotedScalar => {
            "the document ends inside of a quoted text; close the quote"
        }
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping => {
            "a `[` or `{` is never closed; close it, or put quotes around a text that holds one"
        }
        ErrorKind::ExpectedFlowSequenceSeparator | ErrorKind::ExpectedFlowMappingSeparator => {
            "a comma or a closing bracket is missing; put quotes around a text that holds \
             brackets, such as \"${NAME}\""
        }
        ErrorKind::InvalidIndentation
        | ErrorKind::InvalidBlockScalarIndent
        | ErrorKind::InvalidQuotedScalarIndent
        | ErrorKind::InvalidFlowScalarIndent
        | ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::ExpectedBlockSequenceEntry => {
            "wrong indentation: this line fits no block above it; align it with its neighbours"
        }
        ErrorKind::MappingValueNotAllowed | ErrorKind::MappingKeyNotAllowed => {
            "unexpected `:`; put quotes around text that contains `: `, or check the indentation"
        }
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            "a field has no `:` after its name; write `name: value`"
        }
        ErrorKind::BlockSequenceEntryNotAllowed | ErrorKind::BlockEntryInFlowCollection => {
            "unexpected `- `; put the list on lines of its own"
        }
        ErrorKind::UnknownAnchor => {
            "this alias has no anchor before it; put quotes around a text that begins with `*`"
        }
        ErrorKind::UnknownQuotedScalarEscape => {
            "no such escape in double quotes; double the `\\`, or use single quotes"
        }
        ErrorKind::RecursionLimitExceeded => return too_deep(),
        other => return format!("this is not YAML: {other}"),
    };
    known.into()
}

fn too_deep() -> String {
    format!("nested deeper than {MAX_DEPTH} levels")
}

fn too_many() -> String {
    format!(
        "the file holds more than {MAX_VALUES} values, aliases counted as often as they are used; \
         split it"
    )
}

/// Builds the tree of one document from the parser's events.
struct Builder {
    lines: usize,
    root: Option<Arc<Node>>,
    open: Vec<OpenCollection>,
    anchors: HashMap<usize, Arc<Node>>,
    merged: usize,
    faults: Vec<TextFault>,
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
        entries: Vec<Entry>,
        /// The place of each key, for lookups in constant time.
        seen: HashMap<String, Position>,
        /// The key whose value comes next. The outer option is `None` while a key is expected; the
        /// inner one is `None` if the key was a fault and its value is dropped.
        key: Option<Option<(String, Position)>>,
        merged: Vec<Arc<Node>>,
    },
}

impl Builder {
    fn new(lines: usize) -> Self {
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
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), TextFault> {
        let at = position(span.start, self.lines);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = self.is_plain(style == ScalarStyle::Plain, tag.as_deref(), at);
                let value = Value::Scalar { text: text.into_owned(), plain };
                self.close(Node { at, value, depth: 1, values: 1 }, anchor)
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
                self.begin(at, anchor, Collection::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), "map", at);
                let (entries, seen, merged) = (Vec::new(), HashMap::new(), Vec::new());
                self.begin(at, anchor, Collection::Map { entries, seen, key: None, merged })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, at: Position, anchor: usize, items: Collection) -> Result<(), TextFault> {
        if self.open.len() >= MAX_DEPTH {
            return Err(TextFault { at, problem: too_deep() });
        }
        self.open.push(OpenCollection { at, anchor, items });
        Ok(())
    }

    fn end(&mut self) -> Result<(), TextFault> {
        let Some(OpenCollection { at, anchor, items }) = self.open.pop() else { return Ok(()) };
        let value = match items {
            Collection::List(items) => Value::List(items),
            Collection::Map { mut entries, mut seen, merged, .. } => {
                for entry in merged.iter().filter_map(|node| node.entries()).flatten() {
                    self.merged += 1;
                    if self.merged > MAX_MERGED {
                        return Err(TextFault { at, problem: too_many() });
                    }
                    if !seen.contains_key(&entry.key) {
                        seen.insert(entry.key.clone(), entry.key_at);
                        entries.push(entry.clone());
                    }
                }
                Value::Map(entries)
            }
        };
        let children: Vec<&Arc<Node>> = match &value {
            Value::List(items) => items.iter().collect(),
            Value::Map(entries) => entries.iter().map(|entry| &entry.value).collect(),
            Value::Scalar { .. } => Vec::new(),
        };
        let depth = 1 + children.iter().map(|child| child.depth).max().unwrap_or(0);
        let values = children.iter().fold(1, |sum: usize, child| sum.saturating_add(child.values));
        if depth > MAX_DEPTH {
            return Err(TextFault { at, problem: too_deep() });
        }
        if values > MAX_VALUES {
            return Err(TextFault { at, problem: too_many() });
        }
        self.close(Node { at, value, depth, values }, anchor)
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
        let (entries, seen, key, merged) = match &mut open.items {
            Collection::List(items) => {
                items.push(node);
                return Ok(());
            }
            Collection::Map { entries, seen, key, merged } => (entries, seen, key, merged),
        };
        let Some(pending) = key.take() else {
            let name = match &node.value {
                Value::Scalar { text, .. } => text.clone(),
                Value::List(_) | Value::Map(_) => {
                    let problem = "a field's name must be a word; put quotes around a text that \
                                   begins with a bracket";
                    return Err(TextFault { at, problem: problem.into() });
                }
            };
            let is_merge = name == "<<" && matches!(node.value, Value::Scalar { plain: true, .. });
            *key = Some(match seen.get(&name) {
                Some(first) if !is_merge => {
                    let problem = format!(
                        "duplicate field `{}`, the first one is on line {}; remove one",
                        shown(&name),
                        first.line
                    );
                    self.faults.push(TextFault { at, problem });
                    None
                }
                _ => {
                    if !is_merge {
                        seen.insert(name.clone(), at);
                    }
                    Some((name, at))
                }
            });
            return Ok(());
        };
        match (pending, &node.value) {
            (Some((name, key_at)), value) if name == "<<" && !seen.contains_key("<<") => {
                match value {
                    Value::Map(_) => merged.push(node),
                    Value::List(items) if items.iter().all(|item| item.entries().is_some()) => {
                        merged.extend(items.iter().cloned());
                    }
                    _ => self.faults.push(TextFault {
                        at: key_at,
                        problem: "expected a mapping after `<<`, or a list of mappings".into(),
                    }),
                }
            }
            (Some((key, key_at)), _) => entries.push(Entry { key, key_at, value: node }),
            (None, _) => {}
        }
        Ok(())
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

impl Node {
    fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            Value::Scalar { .. } | Value::List(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the place of `name` in each document; `None` for a broken document.
    fn places(text: &str) -> Vec<Option<Position>> {
        let place = |root: Arc<Node>| root.entry("name").map(|entry| entry.key_at);
        documents(text).into_iter().map(|document| document.root.and_then(place)).collect()
    }

    #[test]
    fn reading_goes_on_at_the_document_after_a_broken_one() {
        let at = |line, column| Some(Position { line, column });
        // (text, places of `name`)
        let table = [
            ("name: a\n---\nname: b\n", vec![at(1, 1), at(3, 1)]),
            ("---\nname: a\n---\nname: b\n", vec![at(2, 1), at(4, 1)]),
            ("--- {name: a}\n--- {name: b}\n", vec![at(1, 6), at(2, 6)]),
            ("a: [\n---\nname: b\n", vec![None, at(3, 1)]),
            ("name: a\n---\n\tx: y\n---\nname: c\n", vec![at(1, 1), None, at(5, 1)]),
            ("a: \"\n---\nb: '\n---\nname: c\n", vec![None, None, at(5, 1)]),
            ("a: [\n--- # next\nname: b\n", vec![None, at(3, 1)]),
            ("a: [\n---b\n---\nname: c\n", vec![None, at(4, 1)]),
            ("a: [\r\n---\r\nname: b\r\n", vec![None, at(3, 1)]),
            ("\u{feff}name: a\n", vec![at(1, 1)]),
            ("# only a comment\n", vec![]),
            ("", vec![]),
        ];
        for (text, want) in table {
            assert_eq!(places(text), want, "{text:?}");
        }
    }

    #[test]
    fn what_another_tool_left_is_named() {
        // (text, line, column, part of the problem)
        let table = [
            ("name: {{ .Values.x }}\n", 1, 7, "template"),
            ("a: 1\n{{- if .Values.x }}\nb: 1\n{{- end }}\n", 2, 1, "template"),
            ("a:\n  - {{ .x }}: y\n", 2, 5, "template"),
            ("a: 1\n---\nname: {{ x }}\n", 3, 7, "template"),
            ("a: 1\n<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> x\n", 2, 1, "merge conflict"),
            ("a:\n  b: 1\n<<<<<<< HEAD\n  c: 1\n=======\n", 3, 1, "merge conflict"),
            ("a: [\n<<<<<<< HEAD\n", 2, 1, "merge conflict"),
            ("<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> x\n", 1, 1, "merge conflict"),
        ];
        for (text, line, column, want) in table {
            let faults: Vec<_> = documents(text).into_iter().flat_map(|of| of.faults).collect();
            let Some(first) = faults.first() else { panic!("{text}: no fault") };
            assert!(first.problem.contains(want), "{text}: {faults:?}");
            assert_eq!(first.at, Position { line, column }, "{text}: {faults:?}");
        }
        // They have no special meaning inside text.
        for text in ["a: |\n  <<<<<<< HEAD\n  {{ x }}\n", "a: \"{{ x }}\"\n"] {
            assert!(documents(text)[0].faults.is_empty(), "{text}");
        }
    }

    #[test]
    fn a_file_that_is_no_yaml_is_given_up_after_a_hundred_faults() {
        let documents = documents(&"a: [\n---\n".repeat(1_000));
        assert_eq!(documents.len(), MAX_BROKEN);
        let last = &documents[MAX_BROKEN - 1].faults[0].problem;
        assert!(last.ends_with("the rest was not read"), "{last}");
    }

    #[test]
    fn a_file_of_too_many_values_is_refused_once() {
        let documents = documents(&"- a\n---\n".repeat(400_000));
        let faults: Vec<_> = documents.iter().flat_map(|document| &document.faults).collect();
        assert_eq!(faults.len(), 1, "{faults:?}");
    }

    #[test]
    fn a_merge_adds_what_is_not_written() {
        let text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {x: 3, <<: [*a, *b]}\n";
        let documents = documents(text);
        assert!(documents[0].faults.is_empty(), "{documents:?}");
        let merged = documents[0].root.as_ref().unwrap().entry("c").unwrap();
        let Value::Map(entries) = &merged.value.value else { panic!("a mapping") };
        let got: Vec<_> = entries.iter().map(|e| (e.key.as_str(), e.value.text())).collect();
        assert_eq!(got, [("x", Some("3")), ("y", Some("1")), ("z", Some("2"))]);
    }
}
