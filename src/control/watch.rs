//! File watch: reports changes of the files that the gateway reads, as events.
//!
//! Watches are placed on directories, never on single files: editors and certbot replace files
//! rather than write to them. Beside each requested directory, all its parent directories are
//! watched, and those above the targets of symbolic links on the path: each of them can be renamed,
//! replaced or unmounted. Mounting a file system over one of them causes no inotify event, so the
//! list of mounts is watched, too.
//!
//! The kernel may refuse a watch: its limits are reached, or a directory is not readable. This
//! state is reported as long as it lasts, and meanwhile files are compared every few seconds.
//!
//! Invariant: reading a file causes no event. Otherwise each reload would cause the next one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf, absolute};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use nix::sys::statfs::{FsType, statfs};
use tokio::time::sleep_until;

use crate::clock;
use crate::control::readable::Readable;
use crate::provider;
use crate::stats::Trouble;

/// The quiet time: a change is reported when no further change follows for this long.
const QUIET: Duration = Duration::from_millis(300);
/// The maximum delay of a report after the first change, for files that keep changing.
const PATIENCE: Duration = Duration::from_secs(3);
/// The depth of the watch for certificates: `live/NAME` is two levels below /etc/letsencrypt.
const CERTIFICATE_DEPTH: usize = 2;
/// The maximum length of a chain of symbolic links that is followed.
const LINKS: usize = 8;
/// The maximum number of watched directories.
const DIRECTORIES: usize = 4096;
/// The maximum number of directories whose files are compared.
const COMPARED: usize = 65_536;
/// The interval of comparisons while not all files can be watched.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// The maximum number of passes over directories that change during the pass.
const TRIES: usize = 3;

/// Paths to watch. A path may be a directory or a file, and need not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watched {
    /// For a directory: the YAML files in it, without subdirectories.
    pub configuration: Vec<PathBuf>,
    /// For a directory: all files in it and up to two levels of subdirectories.
    pub certificates: Vec<PathBuf>,
}

/// The kinds of files that changed since the last event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    pub configuration: bool,
    pub certificates: bool,
}

/// The margin by which file timestamps may lag behind the clock: slightly more than a kernel tick.
const LAG: Duration = Duration::from_millis(10);

impl Watched {
    /// Returns the kinds of files changed at `moment` or later, by modification time. Covers the
    /// time between a load and the start of the watch, which has no events.
    pub(super) fn changed_since(&self, moment: SystemTime) -> Changed {
        let any = |paths: &[PathBuf]| paths.iter().any(|path| is_newer(path, moment));
        Changed { configuration: any(&self.configuration), certificates: any(&self.certificates) }
    }
}

/// True if a file was modified at `moment` or later, or if a directory or an entry of it was.
fn is_newer(path: &Path, moment: SystemTime) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let newer = |path: &Path| changed(path).is_ok_and(|at| at + LAG >= moment);
    newer(path)
        || fs::read_dir(path)
            .is_ok_and(|entries| entries.flatten().any(|entry| newer(&entry.path())))
}

const EVERYTHING: Changed = Changed { configuration: true, certificates: true };

/// A watch of files that lasts until it is dropped.
///
/// If the kernel refuses a watch, that state is reported as long as it lasts. Meanwhile files are
/// compared every few seconds, and each time the watches are tried again.
#[derive(Debug)]
pub(crate) struct FileWatch {
    watched: Watched,
    /// `None` if nothing is watched or the kernel provides no inotify instance.
    kernel: Option<Kernel>,
    mounts: Option<Mounts>,
    /// The watches, with the meaning of their events.
    armed: Armed,
    /// The watch of each directory path.
    places: HashMap<PathBuf, WatchDescriptor>,
    inbox: Inbox,
    /// The next check whether mounts have replaced a directory.
    look_at: Option<Instant>,
    /// Set while files are compared, because not all of them are watched.
    comparing: Option<Comparing>,
    /// The reason why changes are not detected at once, exported to other components.
    trouble: Arc<Trouble>,
    /// The maximum number of watched directories.
    most: usize,
}

/// An inotify instance and its readiness.
#[derive(Debug)]
struct Kernel {
    events: Inotify,
    readable: Readable,
}

/// The list of mounts and its readiness, which signals that a mount was added or removed.
#[derive(Debug)]
struct Mounts {
    changes: Readable,
    /// Kept open, because the kernel's notification state belongs to this open file.
    _list: File,
}

/// The state of the fallback that compares files.
#[derive(Debug)]
struct Comparing {
    trouble: String,
    /// The previous state of the files.
    seen: Print,
    /// The time of the next comparison.
    at: Instant,
}

type Armed = HashMap<WatchDescriptor, BTreeSet<(Role, Names)>>;
/// Metadata of files, obtained without reading them, by role and path.
type Print = BTreeMap<(Role, PathBuf), Option<FileStamp>>;

/// The metadata that shows that a file was replaced or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    file: (u64, u64),
    /// Size and times; `None` for a directory, since relevant entries have their own stamp.
    content: Option<(u64, i64, i64, i64, i64)>,
}

/// Changes that were detected and not yet reported.
#[derive(Debug, Default)]
struct Inbox(Option<PendingChange>);

#[derive(Clone, Copy, Debug)]
struct PendingChange {
    changed: Changed,
    first: Instant,
    last: Instant,
}

impl FileWatch {
    /// Begins to watch. `trouble` holds from then on the reason why changes are not detected at
    /// once, as long as there is one. Must be called inside a runtime.
    pub(crate) fn start(watched: Watched, trouble: Arc<Trouble>) -> Self {
        Self::of(watched, trouble, DIRECTORIES)
    }

    fn of(watched: Watched, trouble: Arc<Trouble>, most: usize) -> Self {
        let mut watch = Self {
            watched,
            kernel: None,
            mounts: None,
            armed: Armed::new(),
            places: HashMap::new(),
            inbox: Inbox::default(),
            look_at: None,
            comparing: None,
            trouble,
            most,
        };
        watch.arm();
        watch
    }

    /// Watches `watched` from now on. Should be called at every reload, even with equal paths,
    /// because symbolic links may have other targets by now.
    pub(crate) fn rewatch(&mut self, watched: Watched) {
        if self.watched != watched {
            self.watched = watched;
            // Its state belongs to other files.
            if let Some(comparing) = &mut self.comparing {
                comparing.seen.clear();
            }
        }
        self.arm();
    }

    /// Waits until files have changed and then been quiet for 300 ms. Files that were created or
    /// replaced are watched before this returns, so before the caller reads them. Cancel safe.
    pub(crate) async fn next(&mut self) -> Changed {
        loop {
            // Takes pending events before the quiet time is checked.
            self.take_all();
            let now = clock::now();
            let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            if is_due(self.look_at) {
                self.look_at = None;
                self.look_for_others(now);
            }
            if is_due(self.comparing.as_ref().map(|comparing| comparing.at)) {
                self.arm();
            }
            if is_due(self.inbox.due())
                && let Some(seen) = self.inbox.0.take()
            {
                self.arm();
                return seen.changed;
            }
            let compare_at = self.comparing.as_ref().map(|comparing| comparing.at);
            let next = [self.inbox.due(), self.look_at, compare_at].into_iter().flatten().min();
            tokio::select! {
                events = told(self.kernel.as_ref()) => self.take(&events, clock::now()),
                () = remounted(self.mounts.as_ref()) => {
                    // The start of one container causes many mounts.
                    self.look_at.get_or_insert_with(|| clock::now() + QUIET);
                }
                () = until(next) => {}
            }
        }
    }

    /// Takes all events that are pending in the kernel.
    fn take_all(&mut self) {
        while let Some(Ok(events)) = self.kernel.as_ref().map(|kernel| kernel.events.read_events())
        {
            self.take(&events, clock::now());
        }
    }

    fn take(&mut self, events: &[InotifyEvent], now: Instant) {
        for event in events {
            self.inbox.put(changed(&self.armed, event), now);
        }
    }

    /// Checks whether a path now names another directory. No event reports this: a file system may
    /// have been mounted over the directory, or unmounted.
    fn look_for_others(&mut self, now: Instant) {
        let before = std::mem::take(&mut self.places);
        self.arm();
        for (directory, watch) in &before {
            if let Some(other) = self.places.get(directory).filter(|other| *other != watch) {
                for (role, _) in self.armed.get(other).into_iter().flatten() {
                    self.inbox.put(Changed::of(*role), now);
                }
            }
        }
    }

    /// Updates the watches to match the current directories. Watches that remain keep reporting, so
    /// no change is missed in between; a change may be reported twice.
    fn arm(&mut self) {
        // Pending events have the meaning of the previous watches.
        self.take_all();
        let mut wires = Wires::new(&self.watched);
        let mut trouble = None;
        for _ in 0..TRIES {
            trouble = self.armed_for(&wires);
            // Repeats the pass if something was replaced during it.
            let now = Wires::new(&self.watched);
            if std::mem::replace(&mut wires, now) == wires {
                break;
            }
        }
        self.comparing = match (trouble, self.comparing.take()) {
            (None, None) => None,
            (None, Some(before)) => {
                self.compare(&before.seen, &wires.print());
                self.trouble.ends();
                tracing::info!("files are watched again");
                None
            }
            (Some(trouble), before) => {
                let now = wires.print();
                self.trouble.begins(&trouble);
                if let Some(before) = &before {
                    self.compare(&before.seen, &now);
                }
                if before.is_none_or(|before| before.trouble != trouble) {
                    let every_s = COMPARE_EVERY.as_secs();
                    tracing::warn!(
                        reason = trouble,
                        every_s,
                        "files cannot be watched and are compared"
                    );
                }
                Some(Comparing { trouble, seen: now, at: clock::now() + COMPARE_EVERY })
            }
        };
    }

    /// Records the differences between two prints of the same files.
    fn compare(&mut self, before: &Print, now: &Print) {
        if before.is_empty() {
            return;
        }
        let differs = |one: &Print, other: &Print| -> BTreeSet<Role> {
            let others = one.iter().filter(|(key, stamp)| other.get(*key) != Some(*stamp));
            others.map(|((role, _), _)| *role).collect()
        };
        for role in differs(before, now).union(&differs(now, before)) {
            self.inbox.put(Changed::of(*role), clock::now());
        }
    }

    /// Watches the directories of `wires` and no others. Returns a reason if some cannot be
    /// watched.
    fn armed_for(&mut self, wires: &Wires) -> Option<String> {
        if wires.directories.is_empty() {
            (self.kernel, self.mounts) = (None, None);
            self.armed.clear();
            self.places.clear();
            return None;
        }
        if self.kernel.is_none() {
            match Kernel::new() {
                Ok(kernel) => self.kernel = Some(kernel),
                Err(error) => return Some(no_instance(&error)),
            }
            // Optional: without the list, changes of mounts are not detected.
            self.mounts = Mounts::new().ok();
        }
        let Some(kernel) = &self.kernel else { return None };
        let mut trouble: Option<String> = None;
        let (mut armed, mut places) = (Armed::new(), HashMap::new());
        let mut masks: HashMap<WatchDescriptor, AddWatchFlags> = HashMap::new();
        if wires.directories.len() > self.most {
            trouble = Some(format!("there are more than {} directories", self.most));
        }
        for (directory, means) in wires.directories.iter().take(self.most) {
            let mask = mask(means);
            let added = kernel.events.add_watch(directory, mask).and_then(|watch| {
                // A bind mount shows the same directory under another name: one watch serves both.
                let both = masks.get(&watch).map_or(mask, |other| *other | mask);
                masks.insert(watch, both);
                if both == mask { Ok(watch) } else { kernel.events.add_watch(directory, both) }
            });
            match added {
                Ok(watch) => {
                    armed.entry(watch).or_default().extend(means.iter().cloned());
                    places.insert(directory.clone(), watch);
                    if is_told_elsewhere(directory, means) {
                        trouble.get_or_insert_with(|| {
                            format!("`{}` may be changed by other hosts", directory.display())
                        });
                    }
                }
                // Removed since the directories were listed: the parent's watch reports when it
                // returns.
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(Errno::ENOSPC) => {
                    trouble = Some("the limit fs.inotify.max_user_watches is reached".into());
                    break;
                }
                Err(error) => {
                    let fault = io::Error::from(error);
                    trouble.get_or_insert_with(|| format!("`{}`: {fault}", directory.display()));
                }
            }
        }
        for watch in self.armed.keys().filter(|watch| !armed.contains_key(*watch)) {
            // Fails if the directory, and with it the watch, is gone already.
            let _ = kernel.events.rm_watch(*watch);
        }
        (self.armed, self.places) = (armed, places);
        trouble
    }
}

/// True for a directory on a file system that other hosts may change: the kernel reports only
/// changes made by this host. Directories that are only a step on a path do not count.
fn is_told_elsewhere(directory: &Path, means: &BTreeSet<(Role, Names)>) -> bool {
    let is_step = means.iter().all(|(_, names)| matches!(names, Names::Step(_)));
    !is_step && statfs(directory).is_ok_and(|found| is_shared(found.filesystem_type()))
}

/// True for network file systems, and for FUSE, which may present one.
fn is_shared(kind: FsType) -> bool {
    // The magic numbers of statfs(2) that Linux supports.
    const CEPH: u32 = 0x00c3_6400;
    const CIFS: u32 = 0xff53_4d42;
    const FUSE: u32 = 0x6573_5546;
    const NFS: u32 = 0x6969;
    const PLAN9: u32 = 0x0102_1997;
    const SMB: u32 = 0x517b;
    const SMB2: u32 = 0xfe53_4d42;
    // The numbers have 32 bits, whatever the sign of the type that holds them.
    let FsType(kind) = kind;
    [CEPH, CIFS, FUSE, NFS, PLAN9, SMB, SMB2]
        .iter()
        .any(|shared| i64::from(*shared) == kind & 0xffff_ffff)
}

impl Kernel {
    fn new() -> Result<Self, io::Error> {
        let events = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        Ok(Self { readable: Readable::of(&events)?, events })
    }
}

impl Mounts {
    fn new() -> io::Result<Self> {
        let list = File::open("/proc/self/mountinfo")?;
        Ok(Self { changes: Readable::of(&list)?, _list: list })
    }
}

/// Returns the reason why inotify cannot be initialised.
fn no_instance(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE) => {
            "the limit fs.inotify.max_user_instances, or that of open files, is reached".into()
        }
        _ => format!("inotify: {error}"),
    }
}

async fn told(kernel: Option<&Kernel>) -> Vec<InotifyEvent> {
    if let Some(Kernel { events, readable }) = kernel
        && let Ok(events) = readable.read(|| events.read_events().map_err(io::Error::from)).await
    {
        return events;
    }
    std::future::pending().await
}

async fn remounted(mounts: Option<&Mounts>) {
    if let Some(mounts) = mounts
        && mounts.changes.word().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

impl Inbox {
    fn put(&mut self, changed: Changed, now: Instant) {
        if changed == Changed::default() {
            return;
        }
        let seen = self.0.get_or_insert(PendingChange { changed, first: now, last: now });
        seen.changed.configuration |= changed.configuration;
        seen.changed.certificates |= changed.certificates;
        seen.last = now;
    }

    /// The time at which the pending change is to be reported.
    fn due(&self) -> Option<Instant> {
        self.0.map(|seen| (seen.last + QUIET).min(seen.first + PATIENCE))
    }
}

impl Changed {
    fn of(role: Role) -> Self {
        Self {
            configuration: role == Role::Configuration,
            certificates: role == Role::Certificates,
        }
    }
}

/// Returns the kinds of files that an event concerns.
fn changed(armed: &Armed, event: &InotifyEvent) -> Changed {
    // The queue overflowed and events were lost, so anything may have changed.
    if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
        return EVERYTHING;
    }
    let mut changed = Changed::default();
    // An event may also belong to a watch that was removed meanwhile.
    let Some(means) = armed.get(&event.wd) else { return changed };
    let is_unmounted = event.mask.contains(AddWatchFlags::IN_UNMOUNT);
    for (role, names) in means {
        let matters = match (&event.name, names) {
            _ if is_unmounted => true,
            // The watch has ended; the event that ended it was reported before.
            _ if event.mask.contains(AddWatchFlags::IN_IGNORED) => false,
            // An event of the directory itself matters only if the whole directory is watched.
            (None, names) => *names == Names::Any,
            (Some(name), Names::Any) => role.cares_for(name),
            (Some(name), Names::One(one) | Names::Step(one)) => name == one,
        };
        if matters {
            changed.configuration |= *role == Role::Configuration;
            changed.certificates |= *role == Role::Certificates;
        }
    }
    changed
}

/// Returns the events to watch for in a directory. A directory that is only a step on a path needs
/// only events that replace the next step: directories such as `/tmp` have many irrelevant writes.
fn mask(means: &BTreeSet<(Role, Names)>) -> AddWatchFlags {
    let steps = AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_ONLYDIR;
    match means.iter().all(|(_, names)| matches!(names, Names::Step(_))) {
        true => steps,
        false => steps | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MODIFY,
    }
}

/// Directories to watch, by real path, with the meaning of their events.
#[derive(Debug, Default, PartialEq)]
struct Wires {
    directories: BTreeMap<PathBuf, BTreeSet<(Role, Names)>>,
    /// Paths that were walked already.
    ways: BTreeSet<(Role, PathBuf)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Certificates,
    Configuration,
}

/// The names in a directory that matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Names {
    /// All names that are relevant for the role.
    Any,
    /// A requested file or directory.
    One(OsString),
    /// The next component of the path to a requested file or directory.
    Step(OsString),
}

impl Wires {
    fn new(watched: &Watched) -> Self {
        let mut wires = Self::default();
        for path in &watched.configuration {
            wires.add(path, Role::Configuration, 0);
        }
        for path in &watched.certificates {
            wires.add(path, Role::Certificates, CERTIFICATE_DEPTH);
        }
        wires
    }

    fn add(&mut self, path: &Path, role: Role, depth: usize) {
        self.add_way(path, role, LINKS);
        self.add_directory(path, role, depth);
    }

    /// Adds the directories in which `path` can be created, removed or replaced: every directory
    /// above it, and above the targets of symbolic links on the path.
    fn add_way(&mut self, path: &Path, role: Role, links: usize) {
        let Ok(path) = absolute(path) else { return };
        if !self.ways.insert((role, path.clone())) {
            return;
        }
        let mut above = PathBuf::new();
        for component in path.components() {
            let name = component.as_os_str();
            let here = above.join(name);
            let found = fs::symlink_metadata(&here);
            let is_link = found.as_ref().is_ok_and(fs::Metadata::is_symlink);
            if matches!(component, Component::Normal(_)) {
                let names = if here == path { Names::One } else { Names::Step };
                self.put(&above, role, names(name.to_owned()));
            }
            if let (true, Ok(target)) = (is_link && links > 0, fs::read_link(&here)) {
                self.add_way(&above.join(target), role, links - 1);
            }
            if found.is_err() {
                return;
            }
            above = here;
        }
    }

    /// Returns the current metadata of the watched files.
    fn print(&self) -> Print {
        let mut print = Print::new();
        for (directory, means) in &self.directories {
            for (role, names) in means {
                let mut put = |name: &OsStr, is_step: bool| {
                    let path = directory.join(name);
                    let stamp = FileStamp::of(&path, is_step);
                    print.insert((*role, path), stamp);
                };
                match names {
                    Names::One(name) => put(name, false),
                    Names::Step(name) => put(name, true),
                    Names::Any => {
                        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
                        let names = entries.map(|entry| entry.file_name());
                        names
                            .filter(|name| role.cares_for(name))
                            .for_each(|name| put(&name, false));
                    }
                }
            }
        }
        print
    }

    /// Adds the contents of `path`, if it is a directory.
    fn add_directory(&mut self, path: &Path, role: Role, depth: usize) {
        let Ok(entries) = fs::read_dir(path) else { return };
        self.put(path, role, Names::Any);
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_symlink() && role.cares_for(&entry.file_name()) {
                // The target of the link may be replaced while the link stays the same.
                self.add_way(&entry.path(), role, LINKS);
            }
            if depth > 0 && (kind.is_dir() || (kind.is_symlink() && entry.path().is_dir())) {
                self.add_directory(&entry.path(), role, depth - 1);
            }
        }
    }

    fn put(&mut self, directory: &Path, role: Role, names: Names) {
        // By real path: a directory that is watched under two names reports only one of them.
        let Ok(directory) = directory.canonicalize() else { return };
        if self.directories.len() < COMPARED || self.directories.contains_key(&directory) {
            self.directories.entry(directory).or_default().insert((role, names));
        }
    }
}

impl FileStamp {
    /// `None` if the file does not exist.
    fn of(path: &Path, is_step: bool) -> Option<Self> {
        let found = fs::metadata(path).or_else(|_| fs::symlink_metadata(path)).ok()?;
        let content = (!is_step && !found.is_dir()).then(|| {
            let (written, changed) =
                ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
            (found.size(), written.0, written.1, changed.0, changed.1)
        });
        Some(Self { file: (found.dev(), found.ino()), content })
    }
}

impl Role {
    /// True for relevant file names; false for temporary files of editors and certbot. `..data` is
    /// the link that Kubernetes replaces to update a mounted volume.
    fn cares_for(self, name: &OsStr) -> bool {
        let bytes = name.as_bytes();
        if bytes.starts_with(b"..") {
            return true;
        }
        if bytes.starts_with(b".") || bytes.starts_with(b"#") || bytes.ends_with(b"~") {
            return false;
        }
        match self {
            Self::Certificates => true,
            Self::Configuration => provider::is_configuration(&name.to_string_lossy()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);
    /// Longer than the report of an event takes.
    const SILENCE: Duration = Duration::from_millis(700);
    const CONFIGURATION: Changed = Changed { configuration: true, certificates: false };
    const CERTIFICATES: Changed = Changed { configuration: false, certificates: true };

    /// Creates a watched directory with `routes/` and `live/shop.test/`.
    fn house() -> (tempfile::TempDir, PathBuf, FileWatch) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("routes")).unwrap();
        fs::create_dir_all(root.join("live/shop.test")).unwrap();
        fs::write(root.join("routes/a.yaml"), "a").unwrap();
        fs::write(root.join("live/shop.test/cert.pem"), "a").unwrap();
        let watch = started(Watched {
            configuration: vec![root.join("routes")],
            certificates: vec![root.join("live")],
        });
        (dir, root, watch)
    }

    #[test]
    fn what_is_read_is_watched() {
        for (name, is_watched) in [
            ("a.yaml", true),
            ("a.yml", true),
            ("a.json", true),
            ("a.YAML", true),
            ("..data", true),
            ("a.txt", false),
            (".a.json.swp", false),
            ("a.yaml~", false),
            ("#a.yaml#", false),
        ] {
            assert_eq!(Role::Configuration.cares_for(OsStr::new(name)), is_watched, "{name}");
        }
    }

    fn started(watched: Watched) -> FileWatch {
        FileWatch::start(watched, Arc::default())
    }

    async fn expect(watch: &mut FileWatch, want: Changed, what: &str) {
        let got = timeout(LONG, watch.next()).await;
        assert_eq!(got, Ok(want), "{what}");
    }

    /// Expects that no event is reported. Only waiting can show that.
    async fn expect_silence(watch: &mut FileWatch, what: &str) {
        assert!(timeout(SILENCE, watch.next()).await.is_err(), "{what}");
    }

    #[tokio::test]
    async fn changes_close_together_are_one_event() {
        let (_dir, root, mut watch) = house();
        let begin = clock::now();
        for step in 0..3 {
            fs::write(root.join(format!("routes/{step}.yaml")), "x").unwrap();
            // Shorter than the quiet time, which therefore starts again.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        expect(&mut watch, CONFIGURATION, "three files").await;
        assert!(clock::now() - begin >= Duration::from_millis(600));
        expect_silence(&mut watch, "they are one event").await;

        fs::write(root.join("routes/a.yaml"), "x").unwrap();
        fs::write(root.join("live/shop.test/cert.pem"), "x").unwrap();
        expect(&mut watch, EVERYTHING, "one file of each").await;
    }

    #[test]
    fn files_that_never_rest_are_reported_all_the_same() {
        let mut inbox = Inbox::default();
        let begin = clock::now();
        let at = |millis| begin + Duration::from_millis(millis);
        assert_eq!(inbox.due(), None);
        inbox.put(Changed::default(), at(0));
        assert_eq!(inbox.due(), None);
        // (time of a change in ms, time of the report in ms)
        for (change, due) in [(0, 300), (200, 500), (2600, 2900), (2800, 3000), (2950, 3000)] {
            inbox.put(CONFIGURATION, at(change));
            assert_eq!(inbox.due(), Some(at(due)), "{change}");
        }
    }

    #[tokio::test]
    async fn what_is_not_a_change_is_no_event() {
        let (_dir, root, mut watch) = house();
        fs::read(root.join("routes/a.yaml")).unwrap();
        fs::read_dir(root.join("routes")).unwrap().count();
        fs::read(root.join("live/shop.test/cert.pem")).unwrap();
        for name in [".a.yaml.swp", "a.yaml~", "#a.yaml#", "4913", "notes.txt"] {
            fs::write(root.join("routes").join(name), "x").unwrap();
        }
        fs::write(root.join("live/.certbot.lock"), "x").unwrap();
        fs::write(root.join("elsewhere.yaml"), "x").unwrap();
        expect_silence(&mut watch, "reads and editors' files").await;
    }

    #[tokio::test]
    async fn every_way_to_change_a_file_is_seen() {
        let (_dir, root, mut watch) = house();
        let file = root.join("routes/a.yaml");

        fs::write(root.join("routes/.a.yaml.tmp"), "new").unwrap();
        fs::rename(root.join("routes/.a.yaml.tmp"), &file).unwrap();
        expect(&mut watch, CONFIGURATION, "renamed over").await;

        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        expect(&mut watch, CONFIGURATION, "made readable").await;

        fs::remove_file(&file).unwrap();
        expect(&mut watch, CONFIGURATION, "removed").await;
    }

    #[tokio::test]
    async fn a_lineage_is_seen_when_it_comes_and_when_its_links_are_swapped() {
        let (_dir, root, mut watch) = house();
        fs::create_dir_all(root.join("archive/new.test")).unwrap();
        fs::write(root.join("archive/new.test/cert1.pem"), "1").unwrap();
        fs::write(root.join("archive/new.test/cert2.pem"), "2").unwrap();

        fs::create_dir(root.join("live/new.test")).unwrap();
        let link = root.join("live/new.test/cert.pem");
        symlink("../../archive/new.test/cert1.pem", &link).unwrap();
        expect(&mut watch, CERTIFICATES, "a new lineage").await;

        fs::remove_file(&link).unwrap();
        symlink("../../archive/new.test/cert2.pem", &link).unwrap();
        expect(&mut watch, CERTIFICATES, "a renewal").await;

        fs::write(root.join("archive/new.test/cert2.pem"), "3").unwrap();
        expect(&mut watch, CERTIFICATES, "written behind its link").await;

        fs::write(root.join("archive/new.test/cert1.pem"), "3").unwrap();
        expect_silence(&mut watch, "no link leads there any more").await;
    }

    #[tokio::test]
    async fn a_directory_that_is_replaced_is_watched_under_its_name() {
        let (_dir, root, mut watch) = house();
        let routes = root.join("routes");

        fs::create_dir(root.join("next")).unwrap();
        fs::rename(&routes, root.join("before")).unwrap();
        fs::rename(root.join("next"), &routes).unwrap();
        expect(&mut watch, CONFIGURATION, "renamed in").await;
        fs::write(routes.join("b.yaml"), "x").unwrap();
        expect(&mut watch, CONFIGURATION, "a file in the new one").await;
        fs::write(root.join("before/a.yaml"), "x").unwrap();
        expect_silence(&mut watch, "the old one is nobody's").await;

        fs::remove_dir_all(&routes).unwrap();
        expect(&mut watch, CONFIGURATION, "removed").await;
        fs::create_dir(&routes).unwrap();
        expect(&mut watch, CONFIGURATION, "created again").await;
        fs::write(routes.join("c.yaml"), "x").unwrap();
        expect(&mut watch, CONFIGURATION, "a file in it").await;
    }

    /// Each parent directory is renamed and replaced by another one: from then on, the files in the
    /// new one are watched, including files that are saved later.
    #[tokio::test]
    async fn every_directory_above_may_be_replaced() {
        let way = ["srv", "volume", "etc", "gateway"];
        for (depth, name) in way.iter().enumerate() {
            for (place, want) in [("routes", CONFIGURATION), ("live", CERTIFICATES)] {
                let dir = tempfile::tempdir().unwrap();
                let root = dir.path().canonicalize().unwrap();
                let path = way.iter().fold(root.clone(), |path, part| path.join(part)).join(place);
                fs::create_dir_all(&path).unwrap();
                fs::write(path.join("a.yaml"), "a").unwrap();
                let watched = match place {
                    "live" => Watched { certificates: vec![path.clone()], ..Watched::default() },
                    _ => Watched { configuration: vec![path.clone()], ..Watched::default() },
                };
                let mut watch = started(watched);
                let above = way[..=depth].iter().fold(root.clone(), |path, part| path.join(part));
                let what = format!("{place}, {name}");

                fs::rename(&above, root.join("away")).unwrap();
                expect(&mut watch, want, &format!("{what} is renamed")).await;
                fs::create_dir_all(&path).unwrap();
                expect(&mut watch, want, &format!("{what} is made again")).await;
                fs::write(path.join("b.yaml"), "b").unwrap();
                expect(&mut watch, want, &format!("a file in the new {what}")).await;
                fs::rename(&above, root.join("second")).unwrap();
                fs::rename(root.join("away"), &above).unwrap();
                expect(&mut watch, want, &format!("{what} is replaced at once")).await;
                fs::write(path.join("a.yaml"), "changed").unwrap();
                expect(&mut watch, want, &format!("a file in the old {what}")).await;
            }
        }
    }

    #[tokio::test]
    async fn what_a_link_leads_to_may_be_replaced_above() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let routes = root.join("volumes/one/deep/routes");
        fs::create_dir_all(&routes).unwrap();
        symlink("volumes/one/deep", root.join("current")).unwrap();
        let configuration = vec![root.join("current/routes")];
        let mut watch = started(Watched { configuration, ..Watched::default() });
        fs::rename(root.join("volumes"), root.join("gone")).unwrap();
        expect(&mut watch, CONFIGURATION, "renamed above the target").await;
        fs::create_dir_all(&routes).unwrap();
        expect(&mut watch, CONFIGURATION, "made again").await;
        fs::write(routes.join("a.yaml"), "x").unwrap();
        expect(&mut watch, CONFIGURATION, "a file in the new one").await;
    }

    #[tokio::test]
    async fn what_happens_beside_a_step_is_no_event() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/b/routes")).unwrap();
        let configuration = vec![root.join("a/b/routes")];
        let mut watch = started(Watched { configuration, ..Watched::default() });
        for beside in ["x.yaml", "a/x.yaml", "a/b/x.yaml"] {
            fs::write(root.join(beside), "x").unwrap();
            fs::rename(root.join(beside), root.join(format!("{beside}.yaml"))).unwrap();
        }
        expect_silence(&mut watch, "files beside the way").await;
    }

    /// If not everything can be watched, this state is reported, changes are still detected, and
    /// the state ends once watches are available.
    #[tokio::test]
    async fn what_cannot_be_watched_is_compared_and_told() {
        const PATIENT: Duration = Duration::from_secs(60);
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("routes")).unwrap();
        fs::create_dir_all(root.join("live/shop.test")).unwrap();
        fs::write(root.join("routes/a.yaml"), "a").unwrap();
        let watched = Watched {
            configuration: vec![root.join("routes")],
            certificates: vec![root.join("live")],
        };
        let trouble = Arc::new(Trouble::default());
        // Only the root directory is watched, so the kernel reports none of the changes.
        let mut watch = FileWatch::of(watched.clone(), Arc::clone(&trouble), 1);
        let told = trouble.told().unwrap_or_default();
        assert!(told.contains("more than 1 directories"), "{told}");

        for (file, want) in
            [("routes/a.yaml", CONFIGURATION), ("live/shop.test/cert.pem", CERTIFICATES)]
        {
            fs::write(root.join(file), "changed").unwrap();
            let got = timeout(PATIENT, watch.next()).await;
            assert_eq!(got, Ok(want), "{file}");
        }
        assert!(trouble.told().is_some());

        watch.most = DIRECTORIES;
        watch.rewatch(watched);
        assert_eq!(trouble.told(), None);
        fs::write(root.join("live/shop.test/key.pem"), "x").unwrap();
        let got = timeout(PATIENT, watch.next()).await.unwrap();
        assert!(got.certificates, "the kernel tells again");
    }

    #[test]
    fn file_systems_that_others_write_to_are_known() {
        assert!(is_shared(FsType(0x6969)) && is_shared(FsType(0x6573_5546)));
        assert!(is_shared(FsType(0xff53_4d42)) && is_shared(FsType(-11_317_950)));
        // ext4, tmpfs, overlayfs
        for own in [0xef53, 0x0102_1994, 0x794c_7630] {
            assert!(!is_shared(FsType(own)), "{own:x}");
        }
    }

    #[tokio::test]
    async fn a_release_link_on_the_way_is_watched() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for release in ["1", "2"] {
            fs::create_dir_all(root.join("releases").join(release).join("routes")).unwrap();
        }
        symlink("releases/1", root.join("current")).unwrap();
        let configuration = vec![root.join("current/routes")];
        let mut watch = started(Watched { configuration, ..Watched::default() });

        symlink("releases/2", root.join("next")).unwrap();
        fs::rename(root.join("next"), root.join("current")).unwrap();
        expect(&mut watch, CONFIGURATION, "the link").await;
        fs::write(root.join("releases/2/routes/a.yaml"), "x").unwrap();
        expect(&mut watch, CONFIGURATION, "a file in the new release").await;
        fs::write(root.join("releases/1/routes/a.yaml"), "x").unwrap();
        expect_silence(&mut watch, "a file in the old release").await;
    }

    #[tokio::test]
    async fn what_is_missing_is_seen_when_it_appears() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let configuration = vec![root.join("a/b/routes"), root.join("gateway.yaml")];
        let mut watch = started(Watched { configuration, ..Watched::default() });

        fs::create_dir(root.join("a")).unwrap();
        expect(&mut watch, CONFIGURATION, "the first step").await;
        fs::create_dir_all(root.join("a/b/routes")).unwrap();
        fs::write(root.join("a/b/routes/a.yaml"), "x").unwrap();
        expect(&mut watch, CONFIGURATION, "the rest").await;
        fs::write(root.join("a/b/routes/b.yaml"), "x").unwrap();
        expect(&mut watch, CONFIGURATION, "a file in it").await;
        fs::write(root.join("gateway.yaml"), "x").unwrap();
        expect(&mut watch, CONFIGURATION, "a file by itself").await;
    }

    #[tokio::test]
    async fn a_wait_that_was_given_up_loses_nothing() {
        let (_dir, root, mut watch) = house();
        fs::write(root.join("routes/a.yaml"), "x").unwrap();
        // Ends within the quiet time, so the change was detected and not reported.
        assert!(timeout(QUIET / 2, watch.next()).await.is_err());
        expect(&mut watch, CONFIGURATION, "the change before").await;
    }

    #[tokio::test]
    async fn other_paths_may_be_watched_from_now_on() {
        let (_dir, root, mut watch) = house();
        fs::create_dir(root.join("other")).unwrap();
        watch.rewatch(Watched { configuration: vec![root.join("other")], ..Watched::default() });
        // The old watch is closed by another thread.
        expect_silence(&mut watch, "nothing has changed yet").await;
        fs::write(root.join("routes/a.yaml"), "x").unwrap();
        expect_silence(&mut watch, "the old directory").await;
        fs::write(root.join("other/a.yaml"), "x").unwrap();
        expect(&mut watch, CONFIGURATION, "the new directory").await;
    }

    #[test]
    fn what_was_saved_before_the_watch_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let [configuration, certificates] =
            ["configuration", "certificates"].map(|name| folder.path().join(name));
        for name in [&configuration, &certificates] {
            fs::create_dir(name).unwrap();
            fs::write(name.join("a"), "").unwrap();
        }
        let at = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        let watched = Watched {
            configuration: vec![configuration.clone(), folder.path().join("not there")],
            certificates: vec![certificates.clone()],
        };
        let later = at(&certificates.join("a")) + Duration::from_secs(5);
        assert_eq!(watched.changed_since(later), Changed::default());
        let file = File::options().write(true).open(configuration.join("a")).unwrap();
        file.set_modified(later).unwrap();
        let changed = Changed { configuration: true, certificates: false };
        assert_eq!(watched.changed_since(later), changed);
        file.set_modified(later - Duration::from_secs(1)).unwrap();
        assert_eq!(watched.changed_since(later), Changed::default());
        assert!(watched.changed_since(at(&certificates)).certificates);
    }
}
