//! Reader of simple YAML documents, in a tenth of the instructions of the parser.
//!
//! A simple document has block mappings and block lists of scalars on one line: without quotes, or
//! in quotes without escapes. Most configuration is written so. [`read()`] gives up at the first
//! sign of anything else, and at every error; the parser then reads the document. So this file knows
//! no fault, and has no say in what YAML is: a test holds that it reads what the parser reads, at
//! the same places (docs/adr/0017-simple-documents-without-the-parser.md).

use memchr::{memchr, memchr2_iter};

use super::diagnostic::Position;
use super::tree_builder::TreeBuilder;

/// A document that was read.
pub(super) struct SimpleDocument {
    pub tree: TreeBuilder,
    /// The length of its text, in bytes and in lines.
    pub bytes: usize,
    pub lines: usize,
    /// The number of its parts, as the parser counts them.
    pub values: usize,
}

/// Reads the document at the start of `text`, which `lines` lines precede. Returns `None` if it is
/// not simple, or has more than `most` parts.
pub(super) fn read(text: &str, lines: usize, most: usize) -> Option<SimpleDocument> {
    let mut reader = Reader { tree: TreeBuilder::new(lines), open: Vec::new(), values: 0, most };
    let (mut at, mut line, mut is_marked) = (0, lines, false);
    while at < text.len() {
        let end = memchr(b'\n', &text.as_bytes()[at..]).map_or(text.len(), |end| at + end);
        let content = &text[at..end];
        if content.starts_with("---") {
            if !reader.open.is_empty() {
                // The next document begins here, if it is a mark.
                matches!(content.as_bytes().get(3), None | Some(b' ')).then_some(())?;
                break;
            }
            if is_marked || content != "---" {
                return None;
            }
            is_marked = true;
        } else {
            reader.line(content, line + 1)?;
        }
        line += 1;
        at = (end + 1).min(text.len());
    }
    // A document without content is not for this reader.
    reader.open.last()?;
    while !reader.open.is_empty() {
        reader.close()?;
    }
    let Reader { tree, values, .. } = reader;
    Some(SimpleDocument { tree, bytes: at, lines: line - lines, values })
}

/// The kind of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    List,
    Map,
}

/// A collection whose end has not been read yet.
struct Open {
    kind: Kind,
    /// The column of its keys or dashes, from 0.
    column: usize,
    /// The place of a value that may still come: on the next lines, or not at all.
    pending: Option<Position>,
}

struct Reader {
    tree: TreeBuilder,
    open: Vec<Open>,
    values: usize,
    most: usize,
}

impl Reader {
    /// Reads a line.
    fn line(&mut self, line: &str, number: usize) -> Option<()> {
        let mut content = line.trim_start_matches(' ');
        let mut column = line.len() - content.len();
        // Tabs, other line breaks and letters beyond ASCII have rules of their own.
        if !content.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return None;
        }
        if content.is_empty() || content.starts_with('#') {
            return Some(());
        }
        if column == 0 && content.starts_with("...") {
            return None;
        }
        let is_item = content == "-" || content.starts_with("- ");
        self.close_deeper(column, is_item)?;
        if is_item {
            let rest = content[1..].trim_start_matches(' ');
            let after = line.len() - rest.len();
            self.item(column, after, number)?;
            if content == "-" {
                self.open.last_mut()?.pending = Some(at(number, column + 1));
                return Some(());
            }
            (content, column) = (rest, after);
        }
        let word = word(content)?;
        let Some(value) = word.rest.strip_prefix(':') else {
            // Text on a line of its own may continue that of the line above.
            return (is_item && ends(word.rest)).then(|| self.scalar(word, at(number, column)))?;
        };
        let colon = at(number, line.len() - word.rest.len());
        self.key(word, column, number, is_item)?;
        if ends(value) {
            self.open.last_mut()?.pending = Some(colon);
            return Some(());
        }
        let value = value.strip_prefix(' ')?.trim_start_matches(' ');
        let word = self::word(value)?;
        ends(word.rest).then(|| self.scalar(word, at(number, line.len() - value.len())))?
    }

    /// Closes the collections that end before a line whose content begins at `column`.
    fn close_deeper(&mut self, column: usize, is_item: bool) -> Option<()> {
        while let Some(open) = self.open.last() {
            // The dashes of a list may be in the column of the key that has the list.
            let is_after_list = open.column == column && open.kind == Kind::List && !is_item;
            if open.column <= column && !is_after_list {
                break;
            }
            self.close()?;
            // Nothing may follow the root.
            self.open.last()?;
        }
        Some(())
    }

    fn close(&mut self) -> Option<()> {
        let pending = self.open.pop()?.pending;
        self.nothing(pending)?;
        self.count()?;
        self.tree.end().ok()
    }

    /// Begins an item of a list whose dash is at `column` and whose content is at `after`.
    fn item(&mut self, column: usize, after: usize, number: usize) -> Option<()> {
        let Some(open) = self.open.last_mut() else {
            return if column == 0 { self.begin(Kind::List, 0, at(number, 0)) } else { None };
        };
        let pending = open.pending.take();
        match (open.kind, open.column == column) {
            (Kind::List, true) => self.nothing(pending),
            // The parser places a list in the column of its key at its first item.
            (Kind::Map, true) => {
                pending.and_then(|_| self.begin(Kind::List, column, at(number, after)))
            }
            (Kind::List | Kind::Map, false) => {
                pending.and_then(|_| self.begin(Kind::List, column, at(number, column)))
            }
        }
    }

    /// Adds a key at `column`, to a new mapping if it is the first one.
    fn key(&mut self, word: Word<'_>, column: usize, number: usize, is_item: bool) -> Option<()> {
        let place = at(number, column);
        match self.open.last_mut() {
            None if column == 0 => self.begin(Kind::Map, column, place)?,
            None => return None,
            Some(_) if is_item => self.begin(Kind::Map, column, place)?,
            Some(open) => {
                let pending = open.pending.take();
                match (open.kind, open.column == column) {
                    (Kind::Map, true) => self.nothing(pending)?,
                    (Kind::List, true) => return None,
                    (Kind::List | Kind::Map, false) => {
                        pending?;
                        self.begin(Kind::Map, column, place)?;
                    }
                }
            }
        }
        self.scalar(word, place)
    }

    fn begin(&mut self, kind: Kind, column: usize, place: Position) -> Option<()> {
        self.open.push(Open { kind, column, pending: None });
        self.count()?;
        let begun = match kind {
            Kind::List => self.tree.begin_list(place, 0),
            Kind::Map => self.tree.begin_map(place, 0),
        };
        begun.ok()
    }

    /// Adds the value of a key or dash that has none, where one was possible.
    fn nothing(&mut self, pending: Option<Position>) -> Option<()> {
        let Some(place) = pending else { return Some(()) };
        self.scalar(Word { text: "~", plain: true, rest: "" }, place)
    }

    fn scalar(&mut self, word: Word<'_>, place: Position) -> Option<()> {
        self.count()?;
        self.tree.scalar(word.text.to_owned(), word.plain, place, 0).ok()
    }

    fn count(&mut self) -> Option<()> {
        self.values += 1;
        (self.values <= self.most).then_some(())
    }
}

/// Returns the place of a column, from 0, of a line.
fn at(line: usize, column: usize) -> Position {
    Position { line, column: column + 1 }
}

/// A scalar on one line.
#[derive(Clone, Copy)]
struct Word<'t> {
    text: &'t str,
    /// True if it has no quotes.
    plain: bool,
    /// The rest of the line; it begins with the colon if the scalar is a key.
    rest: &'t str,
}

/// The maximum length of a key in bytes. The parser has a limit, too, which is higher.
const MAX_KEY: usize = 128;

/// Returns the scalar at the start of `text`.
fn word(text: &str) -> Option<Word<'_>> {
    let bytes = text.as_bytes();
    let word = match bytes.first()? {
        quote @ (b'"' | b'\'') => {
            let end = 1 + memchr(*quote, &bytes[1..])?;
            let (inner, rest) = (&text[1..end], &text[end + 1..]);
            // An escape, or a quote that stands for itself.
            if (*quote == b'"' && inner.contains('\\')) || rest.starts_with('\'') {
                return None;
            }
            Word { text: inner, plain: false, rest }
        }
        b'-' if !bytes.get(1)?.is_ascii_alphanumeric() => return None,
        b'-'
        | b'0'..=b'9'
        | b'A'..=b'Z'
        | b'a'..=b'z'
        | b'/'
        | b'.'
        | b'_'
        | b'$'
        | b'~'
        | b'('
        | b'+'
        | b'^'
        | b'<'
        | b'='
        | b';'
        | b'\\' => {
            let is_end = |at: &usize| match bytes[*at] {
                b':' => matches!(bytes.get(at + 1), None | Some(b' ')),
                _ => bytes[at - 1] == b' ',
            };
            let end = memchr2_iter(b':', b'#', bytes).find(is_end).unwrap_or(text.len());
            let word = text[..end].trim_end_matches(' ');
            Word { text: word, plain: true, rest: &text[word.len()..] }
        }
        _ => return None,
    };
    let after = word.rest.trim_start_matches(' ');
    let Some(value) = after.strip_prefix(':') else { return Some(word) };
    let is_key = (value.is_empty() || value.starts_with(' ')) && word.text.len() <= MAX_KEY;
    is_key.then_some(Word { rest: after, ..word })
}

/// Returns true if nothing but a comment is left of a line.
fn ends(rest: &str) -> bool {
    let after = rest.trim_start_matches(' ');
    after.is_empty() || (after.starts_with('#') && after.len() < rest.len())
}
