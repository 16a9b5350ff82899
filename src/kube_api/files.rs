//! Objects as files: one file for each object, written completely or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::api::{Kind, ObjectKey};
use crate::config;
use crate::yaml::Yaml;

/// The maximum length of a file name in bytes, without its suffix.
const LONGEST: usize = 200;

/// A change of one file.
#[derive(Clone, PartialEq)]
pub(crate) struct FileChange {
    pub path: PathBuf,
    /// The new text; `None` removes the file.
    pub text: Option<String>,
    /// True if only the owner may read the file.
    pub secret: bool,
}

impl std::fmt::Debug for FileChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = if self.text.is_some() { "write" } else { "remove" };
        write!(f, "{verb} {}", self.path.display())
    }
}

/// The contents of files before a change.
#[derive(Debug)]
pub(crate) struct Undo(Vec<FileChange>);

/// Makes all changes, or none.
///
/// # Errors
///
/// The first file that cannot be read or written.
pub(crate) fn change(changes: &[FileChange]) -> io::Result<Undo> {
    let mut undo = Undo(Vec::new());
    for change in changes {
        let before = match fs::read_to_string(&change.path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                undo.undo();
                return Err(error);
            }
        };
        if let Err(error) = one(change) {
            undo.undo();
            return Err(error);
        }
        undo.0.push(FileChange { text: before, ..change.clone() });
    }
    Ok(undo)
}

impl Undo {
    /// Restores all files.
    pub(crate) fn undo(self) {
        for change in self.0.iter().rev() {
            if let Err(error) = one(change) {
                let path = change.path.display();
                tracing::error!(%error, "{path} cannot be put back as it was");
            }
        }
    }
}

fn one(change: &FileChange) -> io::Result<()> {
    let directory = change.path.parent().unwrap_or_else(|| Path::new("."));
    let Some(text) = &change.text else {
        match fs::remove_file(&change.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return File::open(directory)?.sync_all(),
        }
    };
    fs::DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
    // The name is hidden, so that no reader finds a partial file.
    let name = change.path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.new"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mode = if change.secret { 0o600 } else { 0o640 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let renamed = written.and_then(|()| fs::rename(&temporary, &change.path));
    if renamed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    renamed?;
    File::open(directory)?.sync_all()
}

/// Returns the text of the file for an object.
pub(super) fn text(object: &Value) -> String {
    let object = config::for_file(object.clone());
    format!("# Written over the API of edge-gateway.\n{}", Yaml(&object))
}

/// Returns the path for a new object: `kind.namespace.name.yaml`.
pub(super) fn path(directory: &Path, key: &ObjectKey) -> PathBuf {
    let kind = key.kind.as_str().to_ascii_lowercase();
    let mut name = match &*key.namespace {
        "" => format!("{kind}.{}", key.name),
        namespace => format!("{kind}.{namespace}.{}", key.name),
    };
    name.truncate(LONGEST);
    let first = directory.join(format!("{name}.yaml"));
    // The path is taken if the file there was not read, or if two long names begin alike.
    let others = (2..1000).map(|n| directory.join(format!("{name}.{n}.yaml")));
    std::iter::once(first.clone()).chain(others).find(|path| !path.exists()).unwrap_or(first)
}

pub(super) fn is_secret(kind: Kind) -> bool {
    kind == Kind::Secret
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use crate::provider;

    use super::*;

    fn file(path: &Path, text: Option<&str>) -> FileChange {
        FileChange { path: path.to_owned(), text: text.map(Into::into), secret: true }
    }

    #[test]
    fn a_change_is_done_whole_and_can_be_undone() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("api/old.yaml"), dir.path().join("api/new.yaml"));
        change(&[file(&old, Some("one"))]).unwrap();
        let mode = fs::metadata(&old).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let undo = change(&[file(&old, None), file(&new, Some("two"))]).unwrap();
        assert!(!old.exists());
        assert_eq!(fs::read_to_string(&new).unwrap(), "two");
        undo.undo();
        assert_eq!(fs::read_to_string(&old).unwrap(), "one");
        assert!(!new.exists());

        // The second cannot be written, so the first is put back.
        let blocked = dir.path().join("api/blocked.yaml");
        fs::create_dir(&blocked).unwrap();
        assert!(change(&[file(&old, Some("three")), file(&blocked, Some("x"))]).is_err());
        assert_eq!(fs::read_to_string(&old).unwrap(), "one");
        let left: Vec<_> = fs::read_dir(dir.path().join("api")).unwrap().collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn what_is_written_reads_back_as_it_is() {
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": "text", "annotations": { "a": "${HOME} costs $$5" } },
            "data": { "a": "${X}", "b": "^/a$", "c": "x\n$y\n", "d": "007", "e": "no", "f": "\u{1f600} \"\\" },
        });
        let loaded =
            provider::parse_bytes(Path::new("a.yaml"), text(&object).as_bytes(), &|_| None);
        assert_eq!(loaded.diagnostics([]), []);
        assert_eq!(loaded.origins[0].written.json(), object.to_string());
    }

    #[test]
    fn an_object_has_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let name = |key: &ObjectKey| {
            path(dir.path(), key).file_name().unwrap().to_string_lossy().into_owned()
        };
        let key = ObjectKey::new(Kind::HttpRoute, "shop", "cart.v1");
        assert_eq!(name(&key), "httproute.shop.cart.v1.yaml");
        fs::write(dir.path().join("httproute.shop.cart.v1.yaml"), "").unwrap();
        assert_eq!(name(&key), "httproute.shop.cart.v1.2.yaml");
        assert_eq!(name(&ObjectKey::new(Kind::GatewayClass, "", "eg")), "gatewayclass.eg.yaml");
        let long = ObjectKey::new(Kind::HttpRoute, &"n".repeat(63), &"a".repeat(253));
        assert!(name(&long).len() <= 255);
    }
}
