//! The objects of one load, with the files that they come from.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::api::ObjectKey;
use crate::config::{CheckedObject, Diagnostic, Fault, FieldPath, FileOrigin, Place, SourceMap};

use super::files::FilePrint;

/// The result of a load.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// In the order of the files. No two have the same key, except policies and unsupported
    /// objects.
    pub objects: Vec<CheckedObject>,
    /// The origin of each object, in the same order.
    pub origins: Vec<FileOrigin>,
    /// The files that were read.
    pub files: Vec<SourceFile>,
    /// The states of the files that were read from the disk, just before they were read.
    pub prints: Vec<FilePrint>,
    /// Paths of the settings that do not exist.
    pub missing: Vec<PathBuf>,
    /// Diagnostics about paths, and not about the content of a file.
    pub of_paths: Vec<Diagnostic>,
    /// All diagnostics found before there were objects to assign them to, including `of_paths`.
    pub(super) unread: Vec<Diagnostic>,
}

/// A file that was read.
#[derive(Debug)]
pub(crate) struct SourceFile {
    pub path: Arc<Path>,
    text: Arc<str>,
    map: OnceLock<SourceMap>,
}

impl SourceFile {
    pub(crate) fn new(path: Arc<Path>, text: impl Into<Arc<str>>) -> Self {
        Self { path, text: text.into(), map: OnceLock::new() }
    }

    /// Returns the file without its cached source map.
    pub(crate) fn kept(self) -> Self {
        Self::new(self.path, self.text)
    }

    /// Returns true if `path` of the settings leads to this file.
    pub(crate) fn is_of(&self, path: &Path) -> bool {
        *self.path == *path || self.path.parent() == Some(path)
    }

    /// Returns the text as read, with its variables not replaced.
    pub(crate) fn text(&self) -> &Arc<str> {
        &self.text
    }
}

impl Loaded {
    /// Returns true if nothing of this load may be served.
    pub(crate) fn is_fatal(&self) -> bool {
        self.unread.iter().any(|diagnostic| diagnostic.fatal)
    }

    /// Returns all diagnostics, sorted by file and place: those found while the files were read,
    /// the rules of their kind that objects break, and `found`, faults that others found in the
    /// objects.
    ///
    /// This is the only place where a fault becomes a diagnostic.
    pub(crate) fn diagnostics(&self, found: impl IntoIterator<Item = Fault>) -> Vec<Diagnostic> {
        let mut all = self.unread.clone();
        let each = self.objects.iter().enumerate();
        let broken = each.flat_map(|(index, of)| of.faults.iter().map(move |one| (index, one)));
        all.extend(broken.map(|(index, fault)| self.diagnostic(index, fault.clone())));
        let mut found = found.into_iter().peekable();
        if found.peek().is_some() {
            let keys = self.objects.iter().map(|of| of.object.key()).zip(0..);
            let by_key: HashMap<ObjectKey, usize> = keys.collect();
            let found = found.filter_map(|fault| {
                let index = *by_key.get(&fault.object)?;
                Some(self.diagnostic(index, fault))
            });
            all.extend(found);
        }
        all.sort_by(|a, b| a.place.cmp(&b.place));
        all
    }

    fn diagnostic(&self, index: usize, fault: Fault) -> Diagnostic {
        self.diagnostic_at(&self.origins[index], fault)
    }

    /// Converts a fault of the object written at `origin` to a diagnostic with its place.
    pub(super) fn diagnostic_at(&self, origin: &FileOrigin, fault: Fault) -> Diagnostic {
        Diagnostic {
            severity: fault.severity,
            fatal: false,
            place: self.place_at(origin, &fault.field),
            object: fault.object.to_string(),
            field: origin.in_document(&fault.field).to_string(),
            problem: fault.problem,
            origin: fault.origin,
        }
    }

    /// Returns the place of a field of the object with this index, or of its nearest ancestor that
    /// is written; the place of the object if `field` is empty.
    pub(crate) fn place(&self, index: usize, field: &FieldPath) -> Place {
        self.place_at(&self.origins[index], field)
    }

    fn place_at(&self, origin: &FileOrigin, field: &FieldPath) -> Place {
        let file = self.files.iter().find(|file| file.path == origin.file);
        let position = file.map(|file| {
            let map = file.map.get_or_init(|| SourceMap::new(&file.path, &file.text));
            map.locate(&origin.document, &origin.in_document(field))
        });
        Place { file: Arc::clone(&origin.file), position }
    }
}
