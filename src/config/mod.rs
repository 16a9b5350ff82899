//! What was written, and where: files in, objects and diagnostics out.
//!
//! [`load`] reads every file, finds every fault at once and never stops at the first. A document
//! that does not decode makes the load fail ([`Loaded::is_fatal`]); an object that breaks a rule of
//! its kind ([`Located::faults`]) is kept and marked, so that `graph` can say so in its status.
//!
//! The way of a document: [`files`] finds it, [`text`] and [`yaml`] make a tree of it, [`objects`]
//! reads its kind and then the whole with [`decode`], [`validate`] holds it against the rules of its
//! kind. [`source`] says later where a field stands. [`schema`](mod@schema) describes the fields of
//! a kind.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::api::{Object, ObjectKey};

mod decode;
mod diagnostic;
mod environment;
mod files;
mod json;
mod located;
mod names;
mod objects;
mod offered;
mod path;
mod scalar;
mod schema;
mod settings;
mod source;
mod suggest;
mod text;
mod validate;
mod variables;
mod yaml;

pub(crate) use self::decode::Environment;
#[cfg(test)]
pub(crate) use self::diagnostic::Position;
pub(crate) use self::diagnostic::{Diagnostic, Origin, Place, Severity};
pub(crate) use self::environment::{DOMAIN, fault_of_domain, value_of};
pub(crate) use self::files::{FilePrint, fingerprint, is_configuration};
pub(crate) use self::json::read_yaml;
pub(crate) use self::located::Located;
pub(crate) use self::offered::{Rejected, for_file, offered};
pub(crate) use self::schema::schema;
pub(crate) use self::settings::Settings;

use self::objects::Reading;
use self::source::SourceMap;

/// What a load gave.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// In the order of the files. No two have the same key.
    pub objects: Vec<Located<Object>>,
    /// By file, then by place.
    pub diagnostics: Vec<Diagnostic>,
    /// Every file that was read.
    pub files: Vec<SourceFile>,
    /// Those of the diagnostics that are about paths, and not about a file that was read.
    pub of_paths: Vec<Diagnostic>,
}

/// A file that was read.
#[derive(Debug)]
pub(crate) struct SourceFile {
    pub path: Arc<Path>,
    text: String,
    map: OnceLock<SourceMap>,
}

impl SourceFile {
    pub(crate) fn new(path: Arc<Path>, text: impl Into<String>) -> Self {
        Self { path, text: text.into(), map: OnceLock::new() }
    }

    /// The same without what was found of its places.
    pub(crate) fn kept(self) -> Self {
        Self::new(self.path, self.text)
    }

    /// True if `path` of the settings leads to it.
    pub(crate) fn is_of(&self, path: &Path) -> bool {
        *self.path == *path || self.path.parent() == Some(path)
    }

    /// As it was read, with its variables.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl Loaded {
    /// True if nothing of this load may be served.
    pub(crate) fn is_fatal(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.fatal)
    }

    /// The place of a field such as `spec.rules[0].filters[1].type`, or of the nearest ancestor
    /// that was written; of the object where `field` is empty.
    pub(crate) fn locate<T>(&self, object: &Located<T>, field: &str) -> Place {
        let file = self.files.iter().find(|file| file.path == object.file);
        let position = file.map(|file| {
            let map = file.map.get_or_init(|| SourceMap::new(&file.path, &file.text));
            map.locate(object.document, &object.field(field))
        });
        Place { file: Arc::clone(&object.file), position }
    }

    /// An error in a field that takes this object, or a part of it, out of service.
    pub(crate) fn fault(
        &self,
        object: &Located<Object>,
        field: &str,
        problem: String,
    ) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            fatal: false,
            place: self.locate(object, field),
            object: object.object.key().to_string(),
            field: object.field(field),
            problem,
            origin: Origin::Written,
        }
    }
}

/// Reads the files that `settings` names.
pub(crate) fn load(settings: &Settings, environment: Environment<'_>) -> Loaded {
    let (files, mut diagnostics) = files::read(&settings.paths);
    if settings.names_unread {
        diagnostics.extend(files::unread(&settings.paths));
    }
    let of_paths = diagnostics.clone();
    let mut loaded = Loaded { diagnostics, of_paths, ..Loaded::default() };
    for file in files {
        loaded.add(&file.path, &file.bytes, environment);
    }
    loaded.finish()
}

/// As [`load`], of `kept` files that were read before; those of the path `renewed` alone are read
/// again.
pub(crate) fn load_kept(
    settings: &Settings,
    kept: &[SourceFile],
    renewed: Option<&Path>,
    environment: Environment<'_>,
) -> Loaded {
    let mut loaded = Loaded::default();
    let mut seen = HashSet::new();
    for path in &settings.paths {
        if renewed == Some(path) {
            let (files, diagnostics) = files::read(std::slice::from_ref(path));
            loaded.diagnostics.extend(diagnostics);
            for file in files {
                loaded.add(&file.path, &file.bytes, environment);
            }
            continue;
        }
        for file in kept.iter().filter(|file| file.is_of(path)) {
            if seen.insert(&file.path) {
                loaded.add(&file.path, file.text.as_bytes(), environment);
            }
        }
    }
    loaded.finish()
}

/// True if the files of `paths` hold what `read` holds, byte by byte.
pub(crate) fn is_unchanged(paths: &[PathBuf], read: &[SourceFile]) -> bool {
    let (files, _) = files::read(paths);
    files.len() == read.len()
        && files
            .iter()
            .zip(read)
            .all(|(now, then)| now.path == then.path && now.bytes == then.text.as_bytes())
}

/// Reads one file that is in memory. Never panics, whatever the bytes are.
pub(crate) fn parse_bytes(file: &Path, bytes: &[u8], environment: Environment<'_>) -> Loaded {
    let mut loaded = Loaded::default();
    loaded.add(&file.into(), bytes, environment);
    loaded.finish()
}

impl Loaded {
    fn add(&mut self, path: &Arc<Path>, bytes: &[u8], environment: Environment<'_>) {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let line = 1 + bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count();
                let problem = format!("line {line} is not UTF-8 text; save the file as UTF-8");
                self.diagnostics.push(Diagnostic::unreadable(path, problem));
                return;
            }
        };
        let mut reading = Reading {
            file: path,
            environment,
            lenient: false,
            verbatim: false,
            objects: Vec::new(),
            diagnostics: Vec::new(),
        };
        for (index, document) in text::documents(path, text).iter().enumerate() {
            reading.document(index, document);
        }
        if reading.objects.is_empty() && reading.diagnostics.is_empty() {
            let is_blank = text.trim_matches(['\u{feff}', ' ', '\n', '\r', '\t']).is_empty();
            let problem = match is_blank {
                true => "the file is empty; restore it, or remove it",
                false => "there is no object in this file; write one, or remove the file",
            };
            self.diagnostics.push(Diagnostic {
                severity: Severity::Warning,
                fatal: false,
                ..Diagnostic::unreadable(path, problem.into())
            });
        }
        self.objects.append(&mut reading.objects);
        self.diagnostics.append(&mut reading.diagnostics);
        self.files.push(SourceFile::new(Arc::clone(path), text));
    }

    /// What can be said only of all files together, and what needs complete objects.
    fn finish(mut self) -> Self {
        self.drop_doubles();
        for index in 0..self.objects.len() {
            let located = &self.objects[index];
            let violations = validate::object(&located.object);
            let told = violations
                .iter()
                .map(|violation| self.fault(located, &violation.field, violation.problem.clone()));
            let told: Vec<Diagnostic> = told.collect();
            self.diagnostics.extend(told);
            self.objects[index].faults = violations
                .into_iter()
                .map(|violation| format!("{}: {}", violation.field, violation.problem))
                .collect();
        }
        self.diagnostics.sort_by(|a, b| a.place.cmp(&b.place));
        self
    }

    /// Of two objects with the same key the first is kept.
    fn drop_doubles(&mut self) {
        let mut first: HashMap<ObjectKey, usize> = HashMap::new();
        let mut doubles = Vec::new();
        for (index, located) in self.objects.iter().enumerate() {
            // Objects that do nothing may stand twice, and may have no name; of policies each counts.
            if matches!(located.object, Object::SecurityPolicy(_) | Object::Unsupported(_)) {
                continue;
            }
            if let Some(first) = first.get(&located.object.key()) {
                let place = self.locate(&self.objects[*first], "metadata.name");
                let problem =
                    format!("duplicate of the object at {place}, which is served; remove one");
                doubles.push((index, self.fault(located, "metadata.name", problem)));
            } else {
                first.insert(located.object.key(), index);
            }
        }
        let dropped: HashSet<usize> = doubles.iter().map(|(index, _)| *index).collect();
        let mut index = 0..;
        self.objects.retain(|_| index.next().is_some_and(|index| !dropped.contains(&index)));
        self.diagnostics.extend(doubles.into_iter().map(|(_, diagnostic)| diagnostic));
    }
}

#[cfg(test)]
mod tests;
