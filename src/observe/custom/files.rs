//! The files that lines go to: one queue and one thread for each, however many settings name it.
//!
//! A file is opened when the configuration is loaded that names it, made where it is missing when that
//! configuration is served, and looked for again with every load and every SIGUSR1: where another file
//! has its name by then, since the old one was rotated away, that is written from then on. It is closed
//! when no configuration that is in use names it any more.

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
use crate::observe::spool::{Descriptor, Lost, Sink, Spool};

/// Who may read a file that is made here: its owner, and a group such as `adm`.
const MODE: u32 = 0o640;

/// Every file that is open; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct LogFiles(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// False for somebody who only wants to know whether they could be.
    is_opening: bool,
    /// The queues of those who write to the same descriptors already.
    stdout: Option<Spool>,
    stderr: Option<Spool>,
    open: CarryOver<PathBuf, Open>,
    /// Files that are to be made once a configuration is served that names them.
    later: Mutex<Vec<Weak<Later>>>,
    /// Lines that were dropped on their way to files which are closed by now.
    dropped: AtomicU64,
}

/// A file that lines go to; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct LogFile {
    path: Arc<Path>,
    /// None where it is not to be opened.
    to: Option<To>,
}

#[derive(Clone, Debug)]
enum To {
    File(Arc<Open>),
    Later(Arc<Later>),
    /// The queue of the gateway's own log.
    Shared(Spool),
}

/// A file that nothing has the name of, when a configuration is loaded that names it: whether that is
/// served is not known yet.
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
    /// Device and inode of what is written to.
    identity: Mutex<Option<(u64, u64)>>,
    /// Why what has the name now is not what is written to.
    unopened: Mutex<Option<String>>,
    of: Weak<Shared>,
}

/// Why a file cannot be opened; what was open under its name goes on being written to.
#[derive(Debug)]
pub(crate) struct Unopened {
    pub problem: String,
    pub before: Option<LogFile>,
}

impl LogFiles {
    /// `stdout` and `stderr` are the queues that write there already.
    pub(in crate::observe) fn new(stdout: Option<Spool>, stderr: Option<Spool>) -> Self {
        Self::of(true, stdout, stderr)
    }

    /// Opens nothing, and says of what nobody could.
    pub(crate) fn unopened() -> Self {
        Self::of(false, None, None)
    }

    fn of(is_opening: bool, stdout: Option<Spool>, stderr: Option<Spool>) -> Self {
        let (open, later, dropped) = (CarryOver::default(), Mutex::default(), AtomicU64::new(0));
        Self(Arc::new(Shared { is_opening, stdout, stderr, open, later, dropped }))
    }

    /// The file of an absolute path. Where it is missing, [`make_missing`](Self::make_missing) makes it.
    ///
    /// # Errors
    ///
    /// Why it cannot be written to, and what would be right.
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

    /// A file that is to be made, once however many settings name it.
    ///
    /// # Errors
    ///
    /// Why it could not be made, as far as that can be seen.
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

    /// Makes the files that were missing when they were named, now that the configuration is served
    /// which names them. One that cannot be made is told; the next load tries again.
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

    /// The queue of the gateway's own log, where that goes to the same descriptor: two threads that
    /// write to one pipe would tear each other's lines.
    fn shared(&self, path: &Path) -> Option<Spool> {
        match Stream::named(path)? {
            Stream::Output => self.0.stdout.clone(),
            Stream::Error => self.0.stderr.clone(),
        }
    }

    /// Lines that were dropped, on the way to files that are closed too.
    pub(in crate::observe) fn dropped(&self) -> u64 {
        let open = self.0.open.all();
        let now: u64 = open.iter().map(|open| open.spool.dropped()).sum();
        now + self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until every line was written or lost, all together at most `patience`; false if that was
    /// not enough.
    pub(in crate::observe) fn flush(&self, patience: Duration) -> bool {
        let until = clock::now() + patience;
        let left = || until.saturating_duration_since(clock::now());
        let mut is_done = true;
        for open in self.0.open.all() {
            // Each is asked, also where there is no time to wait for it.
            is_done &= open.spool.flush(left());
        }
        is_done
    }

    /// Writes to what has the name of each file now, and makes it where nothing has. A file that
    /// cannot be opened is told, and what was open under its name goes on being written to.
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

    /// What cannot be written, and why, as long as that is so: the gateway's own logs too.
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

    /// Puts a line in, or drops and counts it.
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
            // Opened by its name it would be another file, or none where it is a socket.
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

    /// Writes to what has the name now, if that is another file.
    fn again(&self, path: &Path) -> io::Result<()> {
        let mut identity = held(&self.identity);
        let Some(before) = *identity else { return Ok(()) };
        if fs::metadata(path).is_ok_and(|metadata| self::identity(&metadata) == before) {
            return Ok(());
        }
        let file = open(path)?;
        *identity = Some(self::identity(&file.metadata()?));
        *held(&self.next) = Some(file);
        // Else the old one would be kept open, and its disk full, until the next line comes.
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

/// A stream that the process has from its beginning.
enum Stream {
    Output,
    Error,
}

impl Stream {
    /// The one that a path means, if it means one.
    fn named(path: &Path) -> Option<Self> {
        match path.to_str()? {
            "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1" => Some(Self::Output),
            "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" => Some(Self::Error),
            _ => None,
        }
    }
}

/// A file that another may take the place of.
struct Rotating {
    to: Descriptor<File>,
    next: Arc<Mutex<Option<File>>>,
}

impl Sink for Rotating {
    fn frame(batch: &mut Vec<u8>, line: &[u8]) {
        Descriptor::<File>::frame(batch, line);
    }

    fn write(&mut self, batch: &[u8], lines: u64) -> Result<(), Lost> {
        self.to.write(batch, lines)
    }

    fn turn(&mut self) {
        if let Some(next) = held(&self.next).take() {
            self.to = Descriptor::new(next);
        }
    }
}

/// Opens a file to append to it. Never waits, as a pipe that nobody reads would have it.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let mut options = OpenOptions::new();
    options.append(true).mode(MODE).custom_flags(flags);
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            // Whatever the umask is.
            file.set_permissions(Permissions::from_mode(MODE))?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path),
        // A directory, say.
        Err(error) => options.open(path).map_err(|_| error),
    }
}

/// What speaks against a file, as far as that can be seen without opening it.
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

/// A panic while the lock was held leaves a whole value behind.
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

        // And where it cannot be had any more, what is open is written on.
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

        // Where it cannot be had, that is told as long as it is so, and what is open is written on.
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
            // Nobody reads it.
            (shown(&pipe), "cannot be opened: "),
        ];
        let files = LogFiles::new(None, None);
        for (path, want) in table {
            let Unopened { problem, before } = files.open(&path).unwrap_err();
            assert!(problem.contains(want), "{path:?}: {problem}");
            assert!(before.is_none());
        }
    }

    /// A configuration that is refused makes no file.
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
        // The next load finds it open.
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
