//! The files of a configuration, in the order in which they are read.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Diagnostic, Severity};

/// The maximum size of a configuration file, in bytes.
const MAX_BYTES: u64 = 10 * 1024 * 1024;

/// A file that was read.
#[derive(Debug)]
pub(super) struct ReadFile {
    /// The path by which the file was found: the path in the settings, and the name in the
    /// directory.
    pub path: Arc<Path>,
    pub bytes: Vec<u8>,
}

/// The result of one walk over the paths of the settings.
#[derive(Debug, Default)]
pub(super) struct ReadFiles {
    pub files: Vec<ReadFile>,
    /// The state of every file just before it was read.
    pub prints: Vec<FilePrint>,
    /// Paths that do not exist.
    pub missing: Vec<PathBuf>,
    /// Faults of paths and files as such.
    pub diagnostics: Vec<Diagnostic>,
    /// Entries of directories that are not read, although their names give no reason.
    others: Vec<PathBuf>,
}

/// Reads every `.yaml`, `.yml` and `.json` file of `paths`, in the order of `paths` and by name
/// within each.
///
/// A path is a directory, which is not read recursively (as in Envoy Gateway), or a file. Symlinks
/// are followed; a file that is reached twice is read once. Hidden files, backup files of editors
/// and the entries that [`ReadFiles::unread`] reports are skipped. A missing path is a warning; a
/// file that cannot be read makes the load fail, because other files may refer to its objects.
pub(super) fn read(paths: &[PathBuf]) -> ReadFiles {
    let mut read = ReadFiles::default();
    let mut seen = HashSet::new();
    for path in paths {
        let listed = match fs::metadata(path) {
            Ok(data) => list(path, &data),
            Err(error) => {
                read.missing.push(path.clone());
                Err(error)
            }
        };
        match listed {
            Ok(mut listed) => {
                read.others.append(&mut listed.others);
                for file in listed.files {
                    read.read(file, &mut seen);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let problem = "there is no such directory or file; make it, or take it out of \
                               `provider.custom.resource.file.paths`";
                read.diagnostics.push(warning(path, problem.into()));
            }
            Err(error) => {
                read.diagnostics.push(Diagnostic::unreadable(path, unreadable(&error)));
            }
        }
    }
    read
}

impl ReadFiles {
    fn read(&mut self, path: PathBuf, seen: &mut HashSet<PathBuf>) {
        let data = fs::metadata(&path);
        self.prints.push(FilePrint::new(&path, data.as_ref().ok()));
        match data.and_then(|data| read_once(&path, &data, seen)) {
            Ok(FileContent::Read) => {}
            Ok(FileContent::NotAFile) => {
                self.diagnostics.push(warning(&path, "not a regular file, not read".into()));
            }
            Ok(FileContent::Bytes(bytes)) => self.files.push(ReadFile { path: path.into(), bytes }),
            Err(error) => {
                self.diagnostics.push(Diagnostic::unreadable(&path, unreadable(&error)));
            }
        }
    }

    /// Returns a warning for each entry of `paths` that is skipped although its name does not show
    /// that it is not part of the configuration: Envoy Gateway reads every file that is not hidden.
    pub(super) fn unread(&self, paths: &[PathBuf]) -> Vec<Diagnostic> {
        let named: HashSet<PathBuf> =
            paths.iter().filter_map(|path| path.canonicalize().ok()).collect();
        let mut warnings: Vec<Diagnostic> = Vec::new();
        for warning in self.others.iter().filter_map(|other| passed_over(other, &named)) {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        warnings
    }
}

/// The state of a file, to detect changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FilePrint {
    path: PathBuf,
    /// Device, inode, size in bytes, and time of the last change (seconds, nanoseconds); `None` if
    /// the file cannot be inspected.
    state: Option<(u64, u64, u64, i64, i64)>,
}

impl FilePrint {
    fn new(path: &Path, data: Option<&Metadata>) -> Self {
        let state =
            data.map(|data| (data.dev(), data.ino(), data.len(), data.ctime(), data.ctime_nsec()));
        Self { path: path.to_owned(), state }
    }

    /// Returns true for a file of a directory.
    pub(crate) fn is_in(&self, directory: &Path) -> bool {
        self.path.parent() == Some(directory)
    }
}

/// Returns the current states of the files that a load would read.
pub(crate) fn fingerprint(paths: &[PathBuf]) -> Vec<FilePrint> {
    let files = paths.iter().flat_map(|path| candidates(path).unwrap_or_default().files);
    files.map(|path| FilePrint::new(&path, fs::metadata(&path).ok().as_ref())).collect()
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "permission denied; let the user that the gateway runs as read it".into()
        }
        io::ErrorKind::NotFound => {
            "the target of this link does not exist; repair the link or remove it".into()
        }
        _ => format!("cannot be read: {error}"),
    }
}

fn warning(path: &Path, problem: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        fatal: false,
        ..Diagnostic::unreadable(path, problem)
    }
}

/// The entries of a path, each list sorted by name.
#[derive(Debug, Default)]
struct Listed {
    /// Files to read.
    files: Vec<PathBuf>,
    /// Entries that are not read, although their names give no reason.
    others: Vec<PathBuf>,
}

fn candidates(path: &Path) -> io::Result<Listed> {
    list(path, &fs::metadata(path)?)
}

fn list(path: &Path, data: &Metadata) -> io::Result<Listed> {
    if !data.is_dir() {
        return Ok(Listed { files: vec![path.to_owned()], others: Vec::new() });
    }
    let mut listed = Listed::default();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if is_configuration(&name) {
            listed.files.push(entry.path());
        } else if !is_leftover(&name) && !is_readme(&name) {
            listed.others.push(entry.path());
        }
    }
    listed.files.sort();
    listed.others.sort();
    Ok(listed)
}

/// Returns true for the name of a file to read: not `.a.yaml`, `a.yaml~`, `#a.yaml#`, `a.yaml.swp`.
pub(crate) fn is_configuration(name: &str) -> bool {
    let extension = Path::new(name).extension();
    let is_read = extension.is_some_and(|extension| {
        ["yaml", "yml", "json"].iter().any(|read| extension.eq_ignore_ascii_case(read))
    });
    is_read && !is_leftover(name)
}

/// Returns true for hidden files and for backup files of editors.
fn is_leftover(name: &str) -> bool {
    name.starts_with(['.', '#']) || name.ends_with('~') || name.ends_with(".swp")
}

fn is_readme(name: &str) -> bool {
    name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("readme"))
}

/// Returns the warning about a directory entry that is not read, if it needs one. A directory needs
/// one if it has files that would be read and is not itself one of the paths.
fn passed_over(path: &Path, named: &HashSet<PathBuf>) -> Option<Diagnostic> {
    let is_directory = fs::metadata(path).is_ok_and(|data| data.is_dir());
    if !is_directory {
        let problem = "not read: the name does not end in `.yaml`, `.yml` or `.json`; rename it, or \
                       move it elsewhere";
        return Some(warning(path, problem.into()));
    }
    let is_named = path.canonicalize().is_ok_and(|path| named.contains(&path));
    let has_files = || candidates(path).is_ok_and(|listed| !listed.files.is_empty());
    let problem = "not read: a directory inside of a directory; add it to \
                   `provider.custom.resource.file.paths`, or move it elsewhere";
    (!is_named && has_files()).then(|| warning(path, problem.into()))
}

/// The content of a path.
enum FileContent {
    Bytes(Vec<u8>),
    /// A directory, a pipe, a device.
    NotAFile,
    /// The file has been read before.
    Read,
}

fn read_once(path: &Path, data: &Metadata, seen: &mut HashSet<PathBuf>) -> io::Result<FileContent> {
    // A pipe or device must not be opened: that may block for ever.
    if !data.is_file() {
        return Ok(FileContent::NotAFile);
    }
    if !seen.insert(fs::canonicalize(path)?) {
        return Ok(FileContent::Read);
    }
    // With room for all of it, nothing is copied while it is read.
    let length = usize::try_from(data.len().min(MAX_BYTES)).unwrap_or_default();
    let mut bytes = Vec::with_capacity(length + 1);
    fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_BYTES) {
        return Err(io::Error::other("it is larger than 10 MiB; split it"));
    }
    Ok(FileContent::Bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(read: &[ReadFile], under: &Path) -> Vec<String> {
        read.iter()
            .map(|file| file.path.strip_prefix(under).unwrap().display().to_string())
            .collect()
    }

    #[test]
    fn each_file_is_read_once_in_a_fixed_order() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for sub in ["a", "b", "a/deep", "a/empty", "target"] {
            fs::create_dir(at(sub)).unwrap();
        }
        for name in [
            "a/2.yaml",
            "a/1.yml",
            "a/.hidden.yaml",
            "a/2.yaml~",
            "a/#2.yaml#",
            "a/.2.yaml.swp",
            "a/3.json",
            "a/4.YAML",
            "a/2.yaml.bak",
            "a/notes.txt",
            "a/README",
            "a/readme.md",
            "a/route",
            "a/deep/3.yaml",
            "b/0.yaml",
            "target/real.yaml",
        ] {
            fs::write(at(name), name).unwrap();
        }
        symlink(at("target/real.yaml"), at("a/link.yaml")).unwrap();
        symlink(at("a/2.yaml"), at("b/again.yaml")).unwrap();
        symlink(at("b"), at("b-again")).unwrap();

        let paths = [at("a"), at("b"), at("b-again"), at("a"), at("target/real.yaml")];
        let read = read(&paths);
        assert_eq!(
            names(&read.files, dir.path()),
            ["a/1.yml", "a/2.yaml", "a/3.json", "a/4.YAML", "a/link.yaml", "b/0.yaml"]
        );
        assert_eq!(read.files[4].bytes, b"target/real.yaml");
        assert_eq!(read.diagnostics, []);
        assert_eq!(read.prints, fingerprint(&paths), "of the same walk");
        let told = |diagnostic: &Diagnostic| {
            assert!(!diagnostic.fatal && diagnostic.severity == Severity::Warning);
            diagnostic.place.file.strip_prefix(dir.path()).unwrap().display().to_string()
        };
        let told: Vec<String> = read.unread(&paths).iter().map(told).collect();
        assert_eq!(told, ["a/2.yaml.bak", "a/deep", "a/notes.txt", "a/route"]);
    }

    #[test]
    fn a_directory_that_is_named_itself_is_no_surprise() {
        let dir = tempfile::tempdir().unwrap();
        let routes = dir.path().join("routes");
        fs::create_dir(&routes).unwrap();
        fs::write(routes.join("a.yaml"), "").unwrap();
        for (paths, warnings) in
            [(vec![dir.path().to_owned()], 1), (vec![dir.path().to_owned(), routes], 0)]
        {
            assert_eq!(read(&paths).unread(&paths).len(), warnings, "{paths:?}");
        }
    }

    #[test]
    fn a_file_that_was_written_to_has_another_print() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [dir.path().to_owned()];
        fs::write(dir.path().join("a.yaml"), "one").unwrap();
        let before = fingerprint(&paths);
        assert_eq!(fingerprint(&paths), before);
        fs::write(dir.path().join("b.yaml"), "two").unwrap();
        let more = fingerprint(&paths);
        assert_ne!(more, before);
        fs::write(dir.path().join("a.yaml"), "three").unwrap();
        assert_ne!(fingerprint(&paths), more);
        fs::write(dir.path().join("notes.txt"), "four").unwrap();
        let last = fingerprint(&paths);
        fs::remove_file(dir.path().join("notes.txt")).unwrap();
        assert_eq!(fingerprint(&paths), last);
    }

    #[test]
    fn a_missing_directory_warns_and_an_unreadable_file_is_fatal() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/nowhere/at/all.yaml", dir.path().join("dangling.yaml")).unwrap();
        let missing = dir.path().join("missing");
        let ReadFiles { files, diagnostics, missing: not_there, .. } =
            read(&[missing.clone(), dir.path().to_owned()]);
        assert!(files.is_empty());
        assert_eq!(not_there, [missing]);
        let fatal: Vec<bool> = diagnostics.iter().map(|diagnostic| diagnostic.fatal).collect();
        assert_eq!(fatal, [false, true], "{diagnostics:?}");
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("large.yaml")).unwrap();
        file.set_len(MAX_BYTES + 1).unwrap();
        let ReadFiles { files, diagnostics, .. } = read(&[dir.path().to_owned()]);
        assert!(files.is_empty());
        assert!(diagnostics[0].to_string().contains("larger than 10 MiB"), "{diagnostics:?}");
    }

    #[test]
    fn a_pipe_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let mode = nix::sys::stat::Mode::S_IRWXU;
        nix::unistd::mkfifo(&dir.path().join("pipe.yaml"), mode).unwrap();
        let ReadFiles { files, diagnostics, .. } = read(&[dir.path().to_owned()]);
        assert!(files.is_empty() && diagnostics.len() == 1, "{diagnostics:?}");
        assert!(diagnostics[0].to_string().contains("pipe.yaml: warning: not a regular file"));
    }
}
