//! Loading: from files to objects.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::api::{Object, ObjectKey};
use crate::config::{
    self, CheckedObject, Diagnostic, Environment, Fault, FileOrigin, Settings, field_path,
};

use super::files;
use super::loaded::{Loaded, SourceFile};

/// Reads the files that `settings` names.
pub(crate) fn load(settings: &Settings, environment: Environment<'_>) -> Loaded {
    let mut read = files::read(&settings.paths);
    if settings.names_unread {
        let unread = read.unread(&settings.paths);
        read.diagnostics.extend(unread);
    }
    let mut loading = Loading::new(environment);
    loading.loaded.of_paths.clone_from(&read.diagnostics);
    loading.files(read);
    loading.finish()
}

/// Like [`load`], but uses the `kept` files of an earlier load; only those of the path `renewed`
/// are read again.
pub(crate) fn load_kept(
    settings: &Settings,
    kept: &[SourceFile],
    renewed: Option<&Path>,
    environment: Environment<'_>,
) -> Loaded {
    let mut loading = Loading::new(environment);
    let mut seen = HashSet::new();
    for path in &settings.paths {
        if renewed == Some(path) {
            loading.files(files::read(std::slice::from_ref(path)));
            continue;
        }
        if !path.exists() {
            loading.loaded.missing.push(path.clone());
        }
        for file in kept.iter().filter(|file| file.is_of(path)) {
            if seen.insert(&file.path) {
                loading.text(&file.path, Arc::clone(file.text()));
            }
        }
    }
    loading.finish()
}

/// Returns true if the files of `paths` have the same content as `read`, byte by byte.
pub(crate) fn is_unchanged(paths: &[PathBuf], read: &[SourceFile]) -> bool {
    let files = files::read(paths).files;
    files.len() == read.len()
        && files
            .iter()
            .zip(read)
            .all(|(now, then)| now.path == then.path && now.bytes == then.text().as_bytes())
}

/// Reads one file that is in memory. Never panics, whatever the bytes are.
pub(crate) fn parse_bytes(file: &Path, bytes: &[u8], environment: Environment<'_>) -> Loaded {
    let mut loading = Loading::new(environment);
    loading.file(&file.into(), bytes.into());
    loading.finish()
}

/// A load in progress.
struct Loading<'a> {
    environment: Environment<'a>,
    /// The result so far. It has no objects until all files are read.
    loaded: Loaded,
    read: Vec<(Object, FileOrigin)>,
}

impl<'a> Loading<'a> {
    fn new(environment: Environment<'a>) -> Self {
        Self { environment, loaded: Loaded::default(), read: Vec::new() }
    }

    fn files(&mut self, mut read: files::ReadFiles) {
        self.loaded.prints.append(&mut read.prints);
        self.loaded.missing.append(&mut read.missing);
        self.loaded.unread.append(&mut read.diagnostics);
        for file in read.files {
            self.file(&file.path, file.bytes);
        }
    }

    fn file(&mut self, path: &Arc<Path>, bytes: Vec<u8>) {
        match String::from_utf8(bytes) {
            Ok(text) => self.text(path, text.into()),
            Err(error) => {
                let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
                let problem = format!("line {line} is not UTF-8 text; save the file as UTF-8");
                self.loaded.unread.push(Diagnostic::unreadable(path, problem));
            }
        }
    }

    fn text(&mut self, path: &Arc<Path>, text: Arc<str>) {
        let mut read = config::read(path, &text, self.environment);
        self.read.append(&mut read.objects);
        self.loaded.unread.append(&mut read.diagnostics);
        self.loaded.files.push(SourceFile::new(Arc::clone(path), text));
    }

    /// Checks the objects for duplicates and against the rules of their kinds.
    fn finish(self) -> Loaded {
        let Self { mut loaded, read, .. } = self;
        let mut first: HashMap<ObjectKey, usize> = HashMap::new();
        let mut duplicates = Vec::new();
        for (object, origin) in read {
            let key = object.key();
            // Unsupported objects may be repeated and may have no name; every policy counts.
            let may_repeat = matches!(object, Object::SecurityPolicy(_) | Object::Unsupported(_));
            if let Some(first) = first.get(&key).filter(|_| !may_repeat) {
                duplicates.push((*first, key, origin));
                continue;
            }
            if !may_repeat {
                first.insert(key, loaded.objects.len());
            }
            loaded.objects.push(CheckedObject::new(object));
            loaded.origins.push(origin);
        }
        for (first, key, origin) in duplicates {
            let field = field_path!(metadata.name);
            let place = loaded.place(first, &field);
            let problem =
                format!("duplicate of the object at {place}, which is served; remove one");
            let duplicate = loaded.diagnostic_at(&origin, Fault::error(key, field, problem));
            loaded.unread.push(duplicate);
        }
        loaded
    }
}
