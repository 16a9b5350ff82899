//! The last good configuration: a copy of the files, for a start at which the current files cannot
//! be served.
//!
//! A refused reload leaves the running configuration in service, but at a start there is none. So
//! the files of the last load without new faults are kept as they were read, without replacing
//! variables, and with their paths, so that diagnostics name the user's files and not the copies.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::provider::{self, SourceFile};

/// The directory of the copies.
#[derive(Clone, Debug)]
pub(super) struct LastGood {
    directory: PathBuf,
}

/// The index of a copy: the settings, and the paths of the files.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct KeptIndex {
    controller_name: String,
    enable_backend: bool,
    log_level: Option<String>,
    #[serde(default)]
    names_unread: bool,
    paths: Vec<PathBuf>,
    /// In the order of reading. The copies are numbered in this order.
    files: Vec<PathBuf>,
}

const INDEX: &str = "index.json";
/// Written for an older version, which reads it after a downgrade.
const DOCUMENT: &str = "edge-gateway.yaml";
const RESOURCES: &str = "resources";

impl LastGood {
    /// The copy below the state directory (`$STATE_DIRECTORY`, systemd's `StateDirectory=`).
    pub(super) fn new(state: &Path) -> Self {
        Self { directory: state.join("last-good") }
    }

    /// Reads the kept settings and files; `None` if there are none, or they cannot be read.
    pub(super) fn read(&self) -> Option<(Settings, Vec<SourceFile>)> {
        // If `keep` was interrupted between its two renames, only the previous copy exists.
        let directories = [self.directory.clone(), self.beside("old")];
        let directory = directories.into_iter().find(|one| one.join(DOCUMENT).is_file())?;
        let read = if directory.join(INDEX).is_file() {
            read(&directory)
        } else {
            read_without_index(&directory)
        };
        read.inspect_err(|error| {
            let directory = directory.display();
            tracing::warn!(%directory, %error, "the last good configuration cannot be read");
        })
        .ok()
    }

    /// Replaces the previous copy by `files`, atomically.
    ///
    /// The files may contain Secrets, so only their owner may read them.
    ///
    /// # Errors
    ///
    /// Fails if the directory cannot be written. The previous copy remains.
    pub(super) fn keep(&self, settings: &Settings, files: &[SourceFile]) -> io::Result<()> {
        let (new, old) = (self.beside("new"), self.beside("old"));
        remove(&new)?;
        let resources = new.join(RESOURCES);
        DirBuilder::new().recursive(true).mode(0o700).create(&resources)?;
        write(&new.join(DOCUMENT), &document(settings))?;
        let index = KeptIndex {
            controller_name: settings.controller_name.clone(),
            enable_backend: settings.enable_backend,
            log_level: settings.log_level.clone(),
            names_unread: settings.names_unread,
            paths: settings.paths.clone(),
            files: files.iter().map(|file| file.path.to_path_buf()).collect(),
        };
        write(&new.join(INDEX), &serde_json::to_string_pretty(&index)?)?;
        for (number, file) in files.iter().enumerate() {
            write(&resources.join(copy(number, &file.path)), file.text())?;
        }
        remove(&old)?;
        if self.directory.exists() {
            fs::rename(&self.directory, &old)?;
        }
        fs::rename(&new, &self.directory)?;
        remove(&old)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        self.directory.with_extension(suffix)
    }
}

/// Returns the name of the copy of a file. File names may occur in several directories, so the
/// copies are numbered.
fn copy(number: usize, path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A file that the settings name is read whatever its name is; in a directory it needs this
    // ending.
    let ending = if provider::is_configuration(&name) { "" } else { ".yaml" };
    format!("{number:05}-{name}{ending}")
}

fn read(directory: &Path) -> io::Result<(Settings, Vec<SourceFile>)> {
    let index: KeptIndex = serde_json::from_str(&fs::read_to_string(directory.join(INDEX))?)?;
    let mut files = Vec::with_capacity(index.files.len());
    for (number, path) in index.files.iter().enumerate() {
        let text = fs::read_to_string(directory.join(RESOURCES).join(copy(number, path)))?;
        files.push(SourceFile::new(path.as_path().into(), text));
    }
    let settings = Settings {
        controller_name: index.controller_name,
        enable_backend: index.enable_backend,
        log_level: index.log_level,
        names_unread: index.names_unread,
        paths: index.paths,
    };
    Ok((settings, files))
}

/// Reads a copy written by an older version. The paths are those of the copies.
fn read_without_index(directory: &Path) -> io::Result<(Settings, Vec<SourceFile>)> {
    let file = directory.join(DOCUMENT);
    let (settings, _) = Settings::read(&file, None, &|_| None).map_err(|faults| {
        io::Error::other(faults.first().map_or_else(String::new, ToString::to_string))
    })?;
    let entries = fs::read_dir(directory.join(RESOURCES))?;
    let mut copies =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    copies.sort();
    let mut files = Vec::with_capacity(copies.len());
    for path in copies {
        let text = fs::read_to_string(&path)?;
        files.push(SourceFile::new(path.into(), text));
    }
    Ok((settings, files))
}

/// Returns an EnvoyGateway document that reads the kept files with the same settings.
fn document(settings: &Settings) -> String {
    let text = |value: &str| serde_json::Value::from(value).to_string();
    format!(
        "# Written by edge-gateway: the last configuration that loaded. Changes here are lost.\n\
         apiVersion: gateway.envoyproxy.io/v1alpha1\n\
         kind: EnvoyGateway\n\
         gateway: {{controllerName: {}}}\n\
         provider:\n  type: Custom\n  custom:\n    resource:\n      type: File\n      file: {{paths: [{}]}}\n\
         extensionApis: {{enableBackend: {}}}\n",
        text(&settings.controller_name),
        text(RESOURCES),
        settings.enable_backend,
    )
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(read: Option<(Settings, Vec<SourceFile>)>) -> Vec<(String, String)> {
        let (_, files) = read.expect("something was kept");
        files
            .iter()
            .map(|file| (file.path.display().to_string(), file.text().to_string()))
            .collect()
    }

    #[test]
    fn files_are_kept_under_the_paths_that_they_were_read_from() {
        let state = tempfile::tempdir().unwrap();
        let last_good = LastGood::new(state.path());
        assert!(last_good.read().is_none());
        let settings = Settings {
            controller_name: "example.org/own".into(),
            enable_backend: false,
            log_level: Some("debug".into()),
            ..Settings::of_paths(vec!["/etc/a".into(), "/etc/b".into()])
        };
        let file = |path: &str, text: &str| SourceFile::new(Path::new(path).into(), text);
        let files = [file("/etc/a/x.yaml", "# ${A}\n"), file("/etc/b/x.yaml", "b\n")];
        for _ in 0..2 {
            last_good.keep(&settings, &files).unwrap();
        }
        assert_eq!(last_good.read().unwrap().0, settings);
        let want = [("/etc/a/x.yaml", "# ${A}\n"), ("/etc/b/x.yaml", "b\n")];
        assert_eq!(shown(last_good.read()), want.map(|(path, text)| (path.into(), text.into())));

        // The state after only the first of the two renames.
        fs::rename(state.path().join("last-good"), state.path().join("last-good.old")).unwrap();
        assert_eq!(shown(last_good.read()).len(), 2);
    }

    #[test]
    fn what_an_older_version_kept_is_read() {
        let state = tempfile::tempdir().unwrap();
        let last_good = LastGood::new(state.path());
        let settings = Settings::of_paths(vec!["/etc/a".into()]);
        let file = SourceFile::new(Path::new("/etc/a/x.yaml").into(), "a\n");
        last_good.keep(&settings, &[file]).unwrap();
        let directory = state.path().join("last-good");
        fs::remove_file(directory.join(INDEX)).unwrap();
        let (read, _) = last_good.read().unwrap();
        assert_eq!(read.paths, [directory.join(RESOURCES)]);
        let copy = directory.join(RESOURCES).join("00000-x.yaml");
        assert_eq!(shown(last_good.read()), [(copy.display().to_string(), "a\n".to_owned())]);
    }

    #[test]
    fn a_copy_that_is_missing_is_no_configuration() {
        let state = tempfile::tempdir().unwrap();
        let last_good = LastGood::new(state.path());
        let file = SourceFile::new(Path::new("/etc/a/x.yaml").into(), "a\n");
        last_good.keep(&Settings::of_paths(vec!["/etc/a".into()]), &[file]).unwrap();
        fs::remove_file(state.path().join("last-good/resources/00000-x.yaml")).unwrap();
        assert!(last_good.read().is_none());
    }
}
