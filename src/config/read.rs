//! Reading of a text: its documents as objects.

use std::path::Path;
use std::sync::Arc;

use crate::api::Object;

use super::decode::Environment;
use super::diagnostic::Diagnostic;
use super::fault::Severity;
use super::file_origin::FileOrigin;
use super::objects::DocumentReader;
use super::text;

/// The objects of a text, in its order, and the diagnostics of documents that are not objects.
#[derive(Debug)]
pub(crate) struct ReadText {
    pub objects: Vec<(Object, FileOrigin)>,
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads `text`, the content of `file`, and replaces its variables. Never panics, whatever the text
/// contains.
pub(crate) fn read(file: &Arc<Path>, text: &Arc<str>, environment: Environment<'_>) -> ReadText {
    let mut reading = DocumentReader {
        file,
        // The text of a JSON file is converted before it is read.
        text: (!text::is_json(file)).then_some(text),
        environment,
        lenient: false,
        verbatim: false,
        objects: Vec::new(),
        diagnostics: Vec::new(),
    };
    text::documents(file, text, |_, document| reading.document(&document));
    let DocumentReader { objects, mut diagnostics, .. } = reading;
    if objects.is_empty() && diagnostics.is_empty() {
        let is_blank = text.trim_matches(['\u{feff}', ' ', '\n', '\r', '\t']).is_empty();
        let problem = match is_blank {
            true => "the file is empty; restore it, or remove it",
            false => "there is no object in this file; write one, or remove the file",
        };
        diagnostics.push(Diagnostic {
            severity: Severity::Warning,
            fatal: false,
            ..Diagnostic::unreadable(file, problem.into())
        });
    }
    ReadText { objects, diagnostics }
}
