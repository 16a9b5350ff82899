//! Objects as written: their JSON, made when it is asked for.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use memchr::memchr2;
use serde_json::Value;

use super::json;
use super::variables::Variables;
use super::yaml::{self, DocumentSpan};

/// An object as written: with its variables replaced and its fields in order. Prints as `[written]`,
/// because it may be a Secret.
#[derive(Clone)]
pub(crate) struct Written(Form);

#[derive(Clone)]
enum Form {
    /// A text, because a tree of values takes ten times the memory.
    Json(Box<str>),
    /// A part of a YAML text: one document, without variables.
    Yaml { text: Arc<str>, span: DocumentSpan },
}

impl Written {
    pub(crate) fn new(value: &Value) -> Self {
        Self(Form::Json(value.to_string().into()))
    }

    /// Returns the object of the document at `span` of a YAML text; `None` if the document may
    /// contain variables. A backslash may be the escape of a dollar sign.
    pub(super) fn of_document(text: &Arc<str>, span: &DocumentSpan) -> Option<Self> {
        let document = text.as_bytes().get(span.bytes.clone())?;
        let is_plain = memchr2(b'$', b'\\', document).is_none();
        is_plain.then(|| Self(Form::Yaml { text: Arc::clone(text), span: span.clone() }))
    }

    /// Returns the text of a JSON value. Null fields are left out, as everywhere in Kubernetes.
    pub(crate) fn json(&self) -> Cow<'_, str> {
        match &self.0 {
            Form::Json(text) => Cow::Borrowed(text),
            Form::Yaml { text, span } => {
                let root = yaml::root(text, span);
                let value = root.map(|root| json::value(&root, &|_| None, Variables::Kept));
                value.unwrap_or_default().to_string().into()
            }
        }
    }

    fn text(&self) -> &str {
        match &self.0 {
            Form::Json(text) => text,
            Form::Yaml { text, span } => &text[span.bytes.clone()],
        }
    }
}

/// Equal hashes mean equal JSON. The reverse is not true: a comment changes the hash.
impl Hash for Written {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text().hash(state);
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[written]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_a_part_of_a_text_is_that_of_its_document() {
        let texts = [
            "a: 1\n---\nb: 2\n",
            "\u{feff}# first\na: 1\n--- # second\nb: {c: [1, two, ~]}\n",
            "--- {a: 1}\n--- {b: 2}\n...\n# third\n--- {c: 3}\n",
            "a: &x {y: 1}\nb: *x\nc: {<<: *x, z: 2}\n---\nd: &x 1\ne: *x\n",
            "%YAML 1.2\n---\na: 1\n...\n%TAG !e! tag:yaml.org,2002:\n---\nb: !e!str 2\n",
            "a: |\n  --- x\n  y\n---\nb: >-\n  one\n\n  two\n\n\n---\nc: 'z'\n",
            "---\n---\na: 1\n---\n# nothing\n---\nb: 1\n",
            "a: [\n---\nb: 1\n---\nc: 1\n",
            "a: 1\r\n---\r\nb: \u{e9}\u{1f600}\r\n...\r\n---\r\nc: 1\r\n",
        ];
        for text in texts {
            let text: Arc<str> = text.into();
            let mut end = 0;
            for document in yaml::documents(&text) {
                let DocumentSpan { bytes, lines } = document.span.clone();
                assert!(bytes.start >= end, "{text:?}: {document:?}");
                assert_eq!(lines, text[..bytes.start].matches('\n').count(), "{text:?}");
                end = bytes.end;
                let Some(root) = document.root else { continue };
                let want = json::value(&root, &|_| None, Variables::Kept);
                let written = Written::of_document(&text, &document.span).unwrap();
                assert_eq!(written.json(), want.to_string(), "{text:?}");
                let again = yaml::root(&text, &document.span);
                // With the same places.
                assert_eq!(format!("{again:?}"), format!("{:?}", Some(root)), "{text:?}");
            }
        }
    }

    #[test]
    fn a_document_with_a_dollar_sign_is_not_kept_as_a_part_of_its_text() {
        for text in ["a: ${A}\n", "a: $$\n", "a: \"\\x24{A}\"\n"] {
            let text: Arc<str> = text.into();
            let span = DocumentSpan { bytes: 0..text.len(), lines: 0 };
            assert!(Written::of_document(&text, &span).is_none(), "{text}");
        }
    }
}
