//! YAML text as trees of values with their places. This file and `tree_builder` contain the only
//! uses of `serde_yaml`.
//!
//! The crate's own deserializer stops at the first fault and hides the tree. Both passes over a
//! document, the lookup of a field's place and the search for all faults at once, need the tree.
//! These files therefore use the event parser that the crate builds on, and `decode` is the
//! deserializer.
//!
//! Everything that can grow with a file is bounded: its bytes by `files`, its depth and its number
//! of values by `tree`, where an alias counts as often as it is used.

use std::ops::Range;
use std::sync::Arc;

use serde_yaml::granit_parser::{ErrorKind, Event, Parser, StrInput};

use super::diagnostic::Position;
use super::simple_yaml;
use super::tree::{MAX_VALUES, Node, TextFault, too_deep, too_many};
use super::tree_builder::{TreeBuilder, position};

/// The maximum number of broken documents in one file. A file that is not YAML at all is not
/// reported line by line.
const MAX_BROKEN: usize = 100;

/// One document. `root` is `None` if a fault of the text leaves nothing to read.
#[derive(Debug)]
pub(super) struct Document {
    pub root: Option<Arc<Node>>,
    pub faults: Vec<TextFault>,
    pub span: DocumentSpan,
}

/// The part of a text that is one document and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DocumentSpan {
    pub bytes: Range<usize>,
    /// The number of lines before it.
    pub lines: usize,
}

/// Returns the documents of a file, including faults. Reading continues after a broken document.
///
/// Each document is read when it is asked for, so that no more than one tree is in memory.
pub(super) fn documents(text: &str) -> Documents<'_> {
    let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    Documents::new(text, DocumentSpan { bytes: start..start, lines: 0 })
}

/// Returns the root of the document at `span`, with its places in the whole text.
pub(super) fn root(text: &str, span: &DocumentSpan) -> Option<Arc<Node>> {
    let DocumentSpan { bytes, lines } = span.clone();
    let start = DocumentSpan { bytes: bytes.start..bytes.start, lines };
    Documents::new(&text[..bytes.end], start).next()?.root
}

/// The documents of a text, in its order.
pub(super) struct Documents<'t> {
    text: &'t str,
    /// The parser, while it reads; `None` at the start of a document.
    parser: Option<Parser<'t, StrInput<'t>>>,
    /// True after the last document.
    is_over: bool,
    /// The start of the parser's text, in bytes, and the number of lines before it.
    from: usize,
    lines: usize,
    /// The start of the parser's document, in bytes from `from`.
    document_start: usize,
    /// The end of the document before.
    end: DocumentSpan,
    /// The number of values read from the text so far.
    values: usize,
    /// The number of broken documents so far.
    broken: usize,
}

impl Iterator for Documents<'_> {
    type Item = Document;

    fn next(&mut self) -> Option<Document> {
        if self.is_over {
            return None;
        }
        if self.parser.is_none() {
            if let Some(document) = self.simple() {
                return Some(document);
            }
            self.start_parser();
        }
        let fault = match self.read()? {
            Ok(document) => return Some(document),
            Err(fault) => fault,
        };
        self.broken += 1;
        let start = self.from + self.document_start;
        let mut fault = foreign(self.text, start, &fault).unwrap_or(fault);
        if self.broken >= MAX_BROKEN {
            fault.problem.push_str("; after so many faults the rest was not read");
        }
        // Content cannot have `---` at the start of a line, so the next document begins there.
        let is_last = self.values > MAX_VALUES || self.broken >= MAX_BROKEN;
        let next = if is_last { None } else { next_document(self.text, start) };
        self.parser = None;
        self.is_over = next.is_none();
        let next = next.unwrap_or(self.text.len());
        let lines = self.lines + self.text[self.from..next].matches('\n').count();
        let span = self.span(next, lines);
        Some(Document { root: None, faults: vec![fault], span })
    }
}

impl<'t> Documents<'t> {
    /// Begins at the end of the document before, which may be empty.
    fn new(text: &'t str, end: DocumentSpan) -> Self {
        let (from, lines) = (end.bytes.end, end.lines);
        let (parser, is_over, document_start, values, broken) = (None, false, 0, 0, 0);
        Self { text, parser, is_over, from, lines, document_start, end, values, broken }
    }

    /// Reads the next document without the parser, if it is simple.
    fn simple(&mut self) -> Option<Document> {
        let DocumentSpan { bytes, lines } = &self.end;
        let left = MAX_VALUES - self.values.min(MAX_VALUES);
        let read = simple_yaml::read(&self.text[bytes.end..], *lines, left)?;
        self.values += read.values;
        let span = self.span(self.end.bytes.end + read.bytes, self.end.lines + read.lines);
        let TreeBuilder { root, faults, .. } = read.tree;
        Some(Document { root, faults, span })
    }

    /// Starts the parser at the end of the document before.
    fn start_parser(&mut self) {
        (self.from, self.document_start) = (self.end.bytes.end, 0);
        self.lines = self.end.lines;
        self.parser = Some(Parser::new_from_str(&self.text[self.from..]));
    }

    /// Reads the next document by the parser; `None` at the end of the text. After an error the
    /// parser is of no use.
    fn read(&mut self) -> Option<Result<Document, TextFault>> {
        let parser = self.parser.as_mut()?;
        let lines = self.lines;
        let mut builder = TreeBuilder::new(lines);
        while let Some(next) = parser.next_event() {
            let (event, span) = match next {
                Ok(next) => next,
                Err(error) => {
                    let at = position(*error.marker(), lines);
                    return Some(Err(TextFault { at, problem: parse_problem(error.kind()) }));
                }
            };
            match event {
                Event::DocumentStart(..) => {
                    self.document_start = span.start.byte_offset().unwrap_or(self.document_start);
                }
                Event::DocumentEnd => {
                    self.document_start = span.start.byte_offset().unwrap_or(self.document_start);
                    let end = self.from + span.end.byte_offset().unwrap_or(self.document_start);
                    let span = self.span(end, lines + span.end.line() - 1);
                    // After other ends there may be an error that only this parser can find.
                    if is_mark(self.text, end) {
                        self.parser = None;
                    }
                    let TreeBuilder { root, faults, .. } = builder;
                    return Some(Ok(Document { root, faults, span }));
                }
                Event::StreamStart | Event::StreamEnd => {}
                event => {
                    self.values += 1;
                    let taken = if self.values > MAX_VALUES {
                        Err(TextFault { at: position(span.start, lines), problem: too_many() })
                    } else {
                        builder.event(event, &span)
                    };
                    if let Err(fault) = taken {
                        return Some(Err(fault));
                    }
                }
            }
        }
        self.is_over = true;
        None
    }

    /// Returns the span of a document that ends at byte `end`, with `lines` before that.
    fn span(&mut self, end: usize, lines: usize) -> DocumentSpan {
        let next = DocumentSpan { bytes: end..end, lines };
        let DocumentSpan { bytes, lines } = std::mem::replace(&mut self.end, next);
        DocumentSpan { bytes: bytes.start..end, lines }
    }
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

/// Returns the start of the first line after `from` that begins a document.
fn next_document(text: &str, from: usize) -> Option<usize> {
    let mut marks = text[from..].match_indices("\n---").map(|(at, _)| from + at + 1);
    marks.find(|at| is_mark(text, *at))
}

/// Returns true if a line that begins a document is at byte `at`.
fn is_mark(text: &str, at: usize) -> bool {
    let is_line = at == 0 || text.as_bytes()[at - 1] == b'\n';
    let after = text[at..].strip_prefix("---").map(|rest| rest.bytes().next());
    is_line && after.is_some_and(|next| next.is_none_or(|byte| byte.is_ascii_whitespace()))
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

/// Returns false if a text is read otherwise than by the parser alone, which would be a fault of
/// `simple_yaml`. Texts with aliases are not compared: what they stand for may be large.
pub(crate) fn reads_as_parsed(text: &str) -> bool {
    text.contains(['&', '*']) || printed(text, false) == printed(text, true)
}

/// Returns the trees and faults of a text; if `parsed`, as the parser reads it.
fn printed(text: &str, parsed: bool) -> String {
    let mut documents = documents(text);
    let mut printed = String::new();
    loop {
        if parsed && documents.parser.is_none() && !documents.is_over {
            documents.start_parser();
        }
        let Some(Document { root, faults, .. }) = documents.next() else { return printed };
        printed.push_str(&format!("{root:?} {faults:?}\n"));
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tree::Value;

    use super::*;

    /// Returns the place of `name` in each document; `None` for a broken document.
    fn places(text: &str) -> Vec<Option<Position>> {
        let place = |root: Arc<Node>| root.entry("name").map(|entry| entry.key_at);
        documents(text).map(|document| document.root.and_then(place)).collect()
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
            let faults: Vec<_> = documents(text).flat_map(|of| of.faults).collect();
            let Some(first) = faults.first() else { panic!("{text}: no fault") };
            assert!(first.problem.contains(want), "{text}: {faults:?}");
            assert_eq!(first.at, Position { line, column }, "{text}: {faults:?}");
        }
        // They have no special meaning inside text.
        for text in ["a: |\n  <<<<<<< HEAD\n  {{ x }}\n", "a: \"{{ x }}\"\n"] {
            let faults: Vec<_> = documents(text).flat_map(|of| of.faults).collect();
            assert!(faults.is_empty(), "{text}: {faults:?}");
        }
    }

    #[test]
    fn a_file_that_is_no_yaml_is_given_up_after_a_hundred_faults() {
        let text = "a: [\n---\n".repeat(1_000);
        let documents: Vec<_> = documents(&text).collect();
        assert_eq!(documents.len(), MAX_BROKEN);
        let last = &documents[MAX_BROKEN - 1].faults[0].problem;
        assert!(last.ends_with("the rest was not read"), "{last}");
    }

    #[test]
    fn a_file_of_too_many_values_is_refused_once() {
        let text = "- a\n---\n".repeat(400_000);
        let documents: Vec<_> = documents(&text).collect();
        let faults: Vec<_> = documents.iter().flat_map(|document| &document.faults).collect();
        assert_eq!(faults.len(), 1, "{faults:?}");
    }

    #[test]
    fn a_simple_document_is_read_as_the_parser_reads_it() {
        const SIMPLE: &str = "\
# first
---
apiVersion: v1
kind: ConfigMap # what it is
metadata:
  name: \"a.b\"
  'quoted key': 'x y'
  annotations:
    edge-gateway.io/lineage: shop.example

    # inside
    url: https://a.test:80/x#y?z=1
    empty: \"\"
    nothing:
    tilde: ~
    time: 10:30
    below: -5
    dash: a - b -c
    ${KEY}: $5
spec:
- a
- b: 1
  c:
    - d
    - e: f
      g: h
    -
    - k: /p/(a|b)*
      l:
- \"q\"
---
list:
  - name: one
    deep:
      deeper:
        - k: v
  - name: two


last: end
";
        const PARTS: [&str; 44] = [
            " ", "  ", "\n", "-", "- ", ":", ": ", "#", " #", "\"", "'", "[", "]", "{", "}", ",",
            "&a", "*a", "!", "|", ">", "?", "? ", "%", "@", "`", "\t", "---\n", "...\n", "--- ",
            "~", "<<: ", "a: b", "a:\n", "- a\n", "\\", "\u{e9}", "\r\n", "0", "''", ":a", "-a",
            "$", "\u{feff}",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        let (mut simple, rounds) = (0, 4_000);
        for round in 0..rounds {
            let mut text = SIMPLE.to_owned();
            for _ in 0..round.min(1 + random.usize(0..3)) {
                let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
                let Some(place) = random.choice(places) else { break };
                match random.u8(0..3) {
                    0 => drop(text.remove(place)),
                    1 => text.truncate(place),
                    _ => text.insert_str(place, random.choice(PARTS).unwrap()),
                }
            }
            assert_eq!(printed(&text, false), printed(&text, true), "{text}");
            simple += usize::from(simple_yaml::read(&text, 0, MAX_VALUES).is_some());
        }
        assert!(simple > rounds / 4, "only {simple} of {rounds} texts are simple");
    }

    #[test]
    fn a_merge_adds_what_is_not_written() {
        let text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {x: 3, <<: [*a, *b]}\n";
        let documents: Vec<_> = documents(text).collect();
        assert!(documents[0].faults.is_empty(), "{documents:?}");
        let merged = documents[0].root.as_ref().unwrap().entry("c").unwrap();
        let Value::Map(entries) = &merged.value.value else { panic!("a mapping") };
        let got: Vec<_> = entries.iter().map(|e| (e.key.as_str(), e.value.text())).collect();
        assert_eq!(got, [("x", Some("3")), ("y", Some("1")), ("z", Some("2"))]);
    }
}
