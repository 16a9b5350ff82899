//! The documents of a file, in the format that its name implies: JSON or YAML.

use std::borrow::Cow;
use std::path::Path;

use serde::Deserialize as _;
use serde::de::IgnoredAny;

use super::diagnostic::Position;
use super::tree::TextFault;
use super::yaml::{self, Document, DocumentSpan};

/// Calls `each` with every document of the file at `path`, including broken ones, and its number.
/// A document is dropped before the next one is read.
pub(super) fn documents(path: &Path, text: &str, mut each: impl FnMut(usize, Document)) {
    match as_yaml(path, text) {
        Ok(text) => {
            let documents = yaml::documents(&text).enumerate();
            documents.for_each(|(number, document)| each(number, document));
        }
        Err(fault) => {
            let span = DocumentSpan::default();
            each(0, Document { root: None, faults: vec![fault], span });
        }
    }
}

/// Returns the text of a file as YAML. Spans of documents are parts of this text.
///
/// # Errors
///
/// A JSON file is not one JSON value.
pub(super) fn as_yaml<'t>(path: &Path, text: &'t str) -> Result<Cow<'t, str>, TextFault> {
    if is_json(path) { json_as_yaml(text) } else { Ok(Cow::Borrowed(text)) }
}

pub(super) fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

/// Converts one JSON text to YAML with the same values in the same places.
///
/// YAML is a superset of JSON with two exceptions: JSON may indent with tabs, and may write a
/// character beyond the first plane as a pair of surrogates. A space replaces each tab. One escape
/// replaces the pair; it is shorter, so spaces follow the string.
fn json_as_yaml(text: &str) -> Result<Cow<'_, str>, TextFault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    check_json(text)?;
    if !text.contains(['\t', '\\']) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut padding) = (false, 0);
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let mut length = next.len_utf8();
        match (next, in_string) {
            ('"', true) => {
                out.push('"');
                out.extend(std::iter::repeat_n(' ', std::mem::take(&mut padding)));
                in_string = false;
            }
            ('"', false) => {
                out.push('"');
                in_string = true;
            }
            ('\t', false) => out.push(' '),
            ('\\', true) => {
                if let Some(character) = surrogate_pair(rest) {
                    length = PAIR;
                    out.push_str(&format!("\\U{:08x}", u32::from(character)));
                    padding += PAIR - "\\U00000000".len();
                } else {
                    // The escaped character is copied too, so that `\"` does not end the string.
                    length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                    out.push_str(&rest[..length]);
                }
            }
            (other, _) => out.push(other),
        }
        rest = &rest[length..];
    }
    Ok(Cow::Owned(out))
}

/// The length of `\ud83d\ude00` in bytes.
const PAIR: usize = 12;

/// Returns the character at the start of `text`, if it is written as two surrogate escapes.
fn surrogate_pair(text: &str) -> Option<char> {
    let unit = |at: usize| {
        let escape = text.get(at..at + 6)?;
        u16::from_str_radix(escape.strip_prefix("\\u")?, 16).ok()
    };
    let units = [unit(0)?, unit(6)?];
    // Two ordinary escapes are two characters.
    let is_pair = (0xd800..0xdc00).contains(&units[0]);
    char::decode_utf16(units).next()?.ok().filter(|_| is_pair)
}

/// Checks that the text is one JSON value and nothing more.
fn check_json(text: &str) -> Result<(), TextFault> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let read = IgnoredAny::deserialize(&mut parser).map_err(|error| (error, "this is not JSON"));
    let hint = "expected the end of the file; put several objects into `items` of a `List`";
    let read = read.and_then(|_| parser.end().map_err(|error| (error, hint)));
    read.map_err(|(error, problem)| {
        let at = Position { line: error.line().max(1), column: error.column().max(1) };
        let text = error.to_string();
        let detail = text.split(" at line ").next().unwrap_or_default();
        TextFault { at, problem: format!("{problem}: {detail}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the documents of a JSON file.
    fn read(text: &str) -> Vec<Document> {
        let mut read = Vec::new();
        documents(Path::new("a.JSON"), text, |_, document| read.push(document));
        read
    }

    fn at(text: &str, name: &str) -> Position {
        let documents = read(text);
        assert!(documents[0].faults.is_empty(), "{documents:?}");
        documents[0].root.as_ref().unwrap().entry(name).unwrap().key_at
    }

    #[test]
    fn a_field_of_json_has_its_place() {
        let position = |line, column| Position { line, column };
        // (text, place of `b`)
        let table = [
            ("{\"a\": 1, \"b\": 2}", position(1, 10)),
            ("{\n\t\"a\": 1,\n\t\"b\": 2\n}\n", position(3, 2)),
            ("{\"a\":\t\"\\ud83d\\ude00\\ud83d\\ude00\", \"b\": 2}", position(1, 35)),
            ("\u{feff}{\"b\": 2}", position(1, 2)),
            ("{\"a\": \"\\\\\", \"b\": 1}", position(1, 13)),
        ];
        for (text, want) in table {
            assert_eq!(at(text, "b"), want, "{text}");
        }
    }

    #[test]
    fn a_string_of_json_says_what_it_says() {
        let table = [
            (r#""\ud83d\ude00""#, "\u{1f600}"),
            (r#""\u00e9\n\/\\\"\t""#, "\u{e9}\n/\\\"\t"),
            (r#""yes""#, "yes"),
            (r#""a: {b} # c""#, "a: {b} # c"),
        ];
        for (text, want) in table {
            let documents = read(&format!("{{\"a\": {text}}}"));
            let root = documents[0].root.as_ref().unwrap();
            assert_eq!(root.entry("a").unwrap().value.text(), Some(want), "{text}");
        }
    }

    #[test]
    fn what_is_not_one_json_value_is_refused_at_its_place() {
        // (text, line, column, part of the problem)
        let table = [
            ("", 1, 1, "EOF while parsing"),
            ("{\"a\": 1,}", 1, 9, "key must be a string"),
            ("{a: 1}", 1, 2, "key must be a string"),
            ("{\"a\": 1}\n{\"b\": 1}", 2, 1, "`items` of a `List`"),
            ("{\"a\": \"\\ud83d\"}", 1, 1, ""),
        ];
        for (text, line, column, want) in table {
            let documents = read(text);
            let fault = &documents[0].faults[0];
            assert!(fault.problem.contains(want), "{text}: {}", fault.problem);
            if !want.is_empty() {
                assert_eq!(fault.at, Position { line, column }, "{text}: {}", fault.problem);
            }
        }
    }
}
