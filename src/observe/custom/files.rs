//! The files of access logs: one queue and one thread for each file, shared by all settings that
//! name it.
//!
//! An existing file is opened when a configuration that names it is loaded. A missing file is
//! created when that configuration is served. Each load and each SIGUSR1 checks the path again: if
//! another file is there, because the old one was rotated, lines are written to the new one. A file
//! is closed when no configuration in use names it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::{AccessFlags, eaccess};

use crate::carry_over::CarryOver;
use crate::clock;
use crate::observe::sink::{Descriptor, Lost, Sink};
use crate::observe::spool::Spool;

/// The mode of a created file: readable by its owner and by a group such as `adm`.
const MODE: u32 = 0o640;

/// All open files; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct LogFiles(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// False if files are only checked and not opened.
    is_opening: bool,
    /// The queues of the gateway's own logs that write to these descriptors.
    stdout: Option<Spool>,
    stderr: Option<Spool>,
    open: CarryOver<PathBuf, Open>,
    /// Files to create once a configuration that names them is served.
    later: Mutex<Vec<Weak<Later>>>,
    /// Number of lines dropped from the queues of files that are now closed.
    dropped: AtomicU64,
}

/// A file of an access log; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct LogFile {
    path: Arc<Path>,
    /// `None` if the file was only checked and not opened.
    to: Option<To>,
}

#[derive(Clone, Debug)]
enum To {
    File(Arc<Open>),
    Later(Arc<Later>),
    /// The queue of the gateway's own log.
    Shared(Spool),
}

/// A file that is missing when a configuration that names it is loaded. It is not yet known whether
/// that configuration will be served.
#[derive(Debug)]
struct Later {
    path: Arc<Path>,
    open: OnceLock<Arc<Open>>,
}

#[derive(Debug)]
struct Open {
    path: Arc<Path>,
    spool: Spool,
    next: Arc<Mutex<Option<File>>>,
    /// Device and inode of the open file.
    identity: Mutex<Option<(u64, u64)>>,
    /// The reason why the file that is now at the path could not be opened.
    unopened: Mutex<Option<String>>,
    of: Weak<Shared>,
}

/// The reason why a file cannot be opened. A file that was open under the same name (`before`)
/// stays in use.
#[derive(Debug)]
pub(crate) struct Unopened {
    pub problem: String,
    pub before: Option<LogFile>,
}

impl LogFiles {
    /// Creates the set of files. `stdout` and `stderr` are the queues that already write there.
    pub(in crate::observe) fn new(stdout: Option<Spool>, stderr: Option<Spool>) -> Self {
        Self::of(true, stdout, stderr)
    }

    /// Creates a set that opens no files and only checks their paths.
    pub(crate) fn unopened() -> Self {
        Self::of(false, None, None)
    }

    fn of(is_opening: bool, stdout: Option<Spool>, stderr: Option<Spool>) -> Self {
        let (open, later, dropped) = (CarryOver::default(), Mutex::default(), AtomicU64::new(0));
        Self(Arc::new(Shared { is_opening, stdout, stderr, open, later, dropped }))
    }

    /// Opens the file at an absolute path. [`make_missing`](Self::make_missing) creates a missing
    /// file.
    ///
    /// # Errors
    ///
    /// The reason why the file cannot be written to, and a correction.
    pub(crate) fn open(&self, path: &str) -> Result<LogFile, Unopened> {
        let unopened = |problem: String| Unopened { problem, before: None };
        if !path.starts_with('/') || path.contains('\0') {
            let problem = format!(
                "`{}` is not an absolute path; use one such as /var/log/edge-gateway/access.log, or \
                 /dev/stdout",
                path.escape_debug()
            );
            return Err(unopened(problem));
        }
        let file = LogFile { path: Path::new(path).into(), to: None };
        if !self.0.is_opening {
            return match missing(&file.path) {
                None => Ok(file),
                Some(error) => Err(unopened(cannot(path, &error))),
            };
        }
        if let Some(shared) = self.shared(&file.path) {
            return Ok(LogFile { to: Some(To::Shared(shared)), ..file });
        }
        if let Some(open) = self.0.open.get(&*file.path) {
            let again = open.again(&file.path);
            let file = LogFile { to: Some(To::File(open)), ..file };
            let is_open = again.as_ref().err().map(ToString::to_string);
            if let Some(To::File(open)) = &file.to {
                *held(&open.unopened) = is_open;
            }
            return match again {
                Ok(()) => Ok(file),
                Err(error) => Err(Unopened { problem: cannot(path, &error), before: Some(file) }),
            };
        }
        if Stream::named(&file.path).is_none() && !file.path.exists() {
            let later = self.later(&file.path).map_err(|error| unopened(cannot(path, &error)))?;
            return Ok(LogFile { to: Some(To::Later(later)), ..file });
        }
        let open = Open::new(&file.path, &self.0);
        let open = open.map(Arc::new).map_err(|error| unopened(cannot(path, &error)))?;
        self.0.open.insert(file.path.to_path_buf(), &open);
        Ok(LogFile { to: Some(To::File(open)), ..file })
    }

    /// Registers a file to create, once for all settings that name it.
    ///
    /// # Errors
    ///
    /// The file could not be created, as far as this can be checked in advance.
    fn later(&self, path: &Arc<Path>) -> io::Result<Arc<Later>> {
        if let Some(error) = missing(path) {
            return Err(error);
        }
        if let Some(directory) = path.parent() {
            eaccess(directory, AccessFlags::W_OK | AccessFlags::X_OK)?;
        }
        let mut all = held(&self.0.later);
        all.retain(|one| one.strong_count() > 0);
        if let Some(known) = all.iter().filter_map(Weak::upgrade).find(|one| one.path == *path) {
            return Ok(known);
        }
        let later = Arc::new(Later { path: Arc::clone(path), open: OnceLock::new() });
        all.push(Arc::downgrade(&later));
        Ok(later)
    }

    /// Creates the files that were missing at the load, now that the configuration that names them
    /// is served. A failure is logged; the next load tries again.
    pub(crate) fn make_missing(&self) {
        let all = std::mem::take(&mut *held(&self.0.later));
        for later in all.iter().filter_map(Weak::upgrade) {
            match Open::new(&later.path, &self.0).map(Arc::new) {
                Ok(open) => {
                    let path = later.path.to_path_buf();
                    self.0.open.insert(path, &open);
                    let _ = later.open.set(open);
                }
                Err(error) => {
                    let file = later.path.display();
                    tracing::error!(%file, %error, "log file cannot be opened");
                }
            }
        }
    }

    /// Returns the queue of the gateway's own log if it writes to the same descriptor: two threads
    /// that write to one pipe would interleave parts of lines.
    fn shared(&self, path: &Path) -> Option<Spool> {
        match Stream::named(path)? {
            Stream::Output => self.0.stdout.clone(),
            Stream::Error => self.0.stderr.clone(),
        }
    }

    /// Returns the number of dropped lines, including those of closed files.
    pub(in crate::observe) fn dropped(&self) -> u64 {
        let open = self.0.open.all();
        let now: u64 = open.iter().map(|open| open.spool.dropped()).sum();
        now + self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until every line is written or lost, in total for at most `patience`. Returns false on
    /// timeout.
    pub(in crate::observe) fn flush(&self, patience: Duration) -> bool {
        let until = clock::now() + patience;
        let left = || until.saturating_duration_since(clock::now());
        let mut is_done = true;
        for open in self.0.open.all() {
            // Every file is flushed, even if there is no time left to wait for it.
            is_done &= open.spool.flush(left());
        }
        is_done
    }

    /// Reopens each file by its path and creates it if it is missing. A failure is logged, and the
    /// file that is open stays in use.
    pub(in crate::observe) fn reopen(&self) {
        let (mut opened, mut failed) = (0_u64, 0_u64);
        for open in self.0.open.all() {
            let again = open.again(&open.path);
            if let Err(error) = &again {
                let file = open.path.display();
                tracing::error!(%file, %error, "log file cannot be opened again");
            }
            *held(&open.unopened) = again.as_ref().err().map(ToString::to_string);
            *if again.is_ok() { &mut opened } else { &mut failed } += 1;
        }
        tracing::info!(opened, failed, "log files opened again");
    }

    /// Returns the current faults: each file that cannot be written or reopened, with the reason.
    /// Includes the gateway's own logs.
    pub(in crate::observe) fn faults(&self) -> Vec<String> {
        let streams = [&self.0.stdout, &self.0.stderr].into_iter().flatten();
        let files = self.0.open.all();
        let of_files = files.iter().flat_map(|open| {
            let unopened = held(&open.unopened).clone();
            let unopened = unopened
                .map(|error| format!("{}: cannot be opened again: {error}", open.path.display()));
            open.spool.fault().into_iter().chain(unopened)
        });
        streams.filter_map(Spool::fault).chain(of_files).collect()
    }
}

impl LogFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line to the queue, or drops and counts it.
    pub(super) fn push(&self, line: &[u8]) {
        match &self.to {
            Some(To::File(open)) => open.spool.push(line),
            Some(To::Later(later)) => {
                if let Some(open) = later.open.get() {
                    open.spool.push(line);
                }
            }
            Some(To::Shared(spool)) => spool.push(line),
            None => {}
        }
    }
}

impl Open {
    fn new(path: &Path, of: &Arc<Shared>) -> io::Result<Self> {
        let next = Arc::<Mutex<Option<File>>>::default();
        let (to, identity) = match Stream::named(path) {
            // Opened by path, it would be a separate open file; for a socket, it would fail.
            Some(Stream::Output) => (Descriptor::stdout()?, None),
            Some(Stream::Error) => (Descriptor::stderr()?, None),
            None => {
                let file = open(path)?;
                let identity = identity(&file.metadata()?);
                (Descriptor::new(file), Some(identity))
            }
        };
        let sink = Rotating { to, next: Arc::clone(&next) };
        let spool = Spool::for_records(&path.display().to_string(), sink)?;
        let (identity, unopened) = (Mutex::new(identity), Mutex::default());
        Ok(Self { path: path.into(), spool, next, identity, unopened, of: Arc::downgrade(of) })
    }

    /// Switches to the file that is now at the path, if it is another one.
    fn again(&self, path: &Path) -> io::Result<()> {
        let mut identity = held(&self.identity);
        let Some(before) = *identity else { return Ok(()) };
        if fs::metadata(path).is_ok_and(|metadata| self::identity(&metadata) == before) {
            return Ok(());
        }
        let file = open(path)?;
        *identity = Some(self::identity(&file.metadata()?));
        *held(&self.next) = Some(file);
        // Otherwise the old file would stay open and use disk space until the next line.
        self.spool.hurry();
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(shared) = self.of.upgrade() {
            shared.dropped.fetch_add(self.spool.dropped(), Ordering::Relaxed);
        }
    }
}

/// A standard stream of the process.
enum Stream {
    Output,
    Error,
}

impl Stream {
    /// Returns the stream that a path names, if any.
    fn named(path: &Path) -> Option<Self> {
        match path.to_str()? {
            "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1" => Some(Self::Output),
            "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" => Some(Self::Error),
            _ => None,
        }
    }
}

/// A sink whose file can be replaced.
struct Rotating {
    to: Descriptor<File>,
    next: Arc<Mutex<Option<File>>>,
}

impl Sink for Rotating {
    fn write(&mut self, batch: &[u8], lines: u64) -> Result<(), Lost> {
        self.to.write(batch, lines)
    }

    fn turn(&mut self) {
        if let Some(next) = held(&self.next).take() {
            self.to = Descriptor::new(next);
        }
    }
}

/// Opens a file for appending and creates it if it is missing. Does not block, as it would for a
/// pipe without a reader.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let mut options = OpenOptions::new();
    options.append(true).mode(MODE).custom_flags(flags);
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            // Sets the mode regardless of the umask.
            file.set_permissions(Permissions::from_mode(MODE))?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path),
        // For example a directory.
        Err(error) => options.open(path).map_err(|_| error),
    }
}

/// Returns an error if the path is a directory or its parent is missing. Opens nothing.
fn missing(path: &Path) -> Option<io::Error> {
    if path.is_dir() {
        return Some(io::ErrorKind::IsADirectory.into());
    }
    let directory = path.parent()?;
    fs::metadata(directory).err().filter(|error| error.kind() == io::ErrorKind::NotFound)
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn cannot(path: &str, error: &io::Error) -> String {
    format!(
        "`{}` cannot be opened: {error}; name a file that the gateway may write to, such as one below \
         /var/log/edge-gateway",
        path.escape_debug()
    )
}

/// Locks a mutex. A panic while it is held cannot leave a partial value, so poisoning is ignored.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn one_file_has_one_queue_and_is_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        fs::write(&path, "before\n").unwrap();
        let files = LogFiles::new(None, None);
        let [one, other] = [0, 1].map(|_| files.open(path.to_str().unwrap()).unwrap());
        one.push(b"one\n");
        other.push(b"other\n");
        assert!(files.flush(PATIENCE));
        let mut lines: Vec<String> =
            fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
        lines[1..].sort();
        assert_eq!(lines, ["before", "one", "other"]);
        assert_eq!(files.0.open.all().len(), 1);
        drop((one, other));
        assert_eq!(files.0.open.all().len(), 0);
    }

    #[test]
    fn a_file_that_is_made_can_be_read_by_its_group_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let files = LogFiles::new(None, None);
        let _file = files.open(path.to_str().unwrap()).unwrap();
        files.make_missing();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, MODE);
    }

    #[test]
    fn what_was_rotated_away_is_let_go_with_the_next_load() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let name = path.to_str().unwrap();
        let files = LogFiles::new(None, None);
        let first = files.open(name).unwrap();
        files.make_missing();
        first.push(b"one\n");
        assert!(files.flush(PATIENCE));
        fs::rename(&path, &old).unwrap();
        first.push(b"two\n");
        assert!(files.flush(PATIENCE));
        let second = files.open(name).unwrap();
        first.push(b"three\n");
        second.push(b"four\n");
        assert!(files.flush(PATIENCE));
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\nfour\n");

        // If the path cannot be opened any more, the open file stays in use.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let Unopened { problem, before } = files.open(name).unwrap_err();
        assert!(problem.contains("cannot be opened"), "{problem}");
        assert!(before.is_some());
    }

    #[test]
    fn a_file_is_opened_again_when_somebody_asks_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let files = LogFiles::new(None, None);
        let file = files.open(path.to_str().unwrap()).unwrap();
        files.make_missing();
        file.push(b"one\n");
        assert!(files.flush(PATIENCE));
        fs::rename(&path, &old).unwrap();
        files.reopen();
        assert_eq!(files.faults(), [""; 0]);
        file.push(b"two\n");
        assert!(files.flush(PATIENCE));
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");

        // If the path cannot be opened, the fault is reported while it lasts, and the open file
        // stays in use.
        fs::rename(&path, &old).unwrap();
        fs::create_dir(&path).unwrap();
        files.reopen();
        let [fault] = &files.faults()[..] else { panic!("{:?}", files.faults()) };
        assert!(fault.contains("access.log: cannot be opened again: "), "{fault}");
        file.push(b"three\n");
        assert!(files.flush(PATIENCE));
        assert_eq!(fs::read_to_string(&old).unwrap(), "two\nthree\n");
        fs::remove_dir(&path).unwrap();
        files.reopen();
        assert_eq!(files.faults(), [""; 0]);
    }

    #[test]
    fn what_cannot_be_opened_says_why_and_nothing_waits() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let shown = |path: &Path| path.to_str().unwrap().to_owned();
        let table = [
            ("access.log".to_owned(), "is not an absolute path"),
            (String::new(), "is not an absolute path"),
            ("/a\0b".to_owned(), "is not an absolute path"),
            (shown(dir.path()), "cannot be opened: "),
            (shown(&dir.path().join("none/access.log")), "No such file or directory"),
            // A pipe without a reader.
            (shown(&pipe), "cannot be opened: "),
        ];
        let files = LogFiles::new(None, None);
        for (path, want) in table {
            let Unopened { problem, before } = files.open(&path).unwrap_err();
            assert!(problem.contains(want), "{path:?}: {problem}");
            assert!(before.is_none());
        }
    }

    /// A refused configuration creates no file.
    #[test]
    fn a_file_is_made_when_it_is_served_and_not_when_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let name = path.to_str().unwrap();
        let files = LogFiles::new(None, None);
        drop(files.open(name).unwrap());
        files.make_missing();
        assert!(!path.exists(), "nobody is left who would write to it");

        let [one, other] = [0, 1].map(|_| files.open(name).unwrap());
        one.push(b"lost\n");
        assert!(!path.exists());
        files.make_missing();
        one.push(b"one\n");
        other.push(b"other\n");
        assert!(files.flush(PATIENCE));
        assert_eq!(files.0.open.all().len(), 1);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() == 10 && text.contains("one\n") && text.contains("other\n"), "{text}");
        // The next load finds the file open.
        files.open(name).unwrap().push(b"again\n");
        assert!(files.flush(PATIENCE));
        assert!(fs::read_to_string(&path).unwrap().ends_with("again\n"));
    }

    #[test]
    fn who_only_looks_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let files = LogFiles::unopened();
        files.open(path.to_str().unwrap()).unwrap().push(b"nowhere\n");
        assert!(!path.exists());
        let none = dir.path().join("none/access.log");
        assert!(files.open(none.to_str().unwrap()).is_err());
        assert!(files.open(dir.path().to_str().unwrap()).is_err());
    }
}
