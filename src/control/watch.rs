//! Changes of the files we read, as events.
//!
//! What is armed is a set of directories, never single files: editors and certbot replace files
//! rather than write to them. Beside each directory that was asked for stand the places where it
//! could be replaced from under us: its parent, the parent of every symbolic link on the way to
//! it, and, while it does not exist, the nearest directory above that does.
//!
//! Invariant: reading a file causes no event, or a reload would cause the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf, absolute};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::time::sleep_until;

use crate::clock;
use crate::config;

/// A change is reported when nothing more has happened for this long,
const QUIET: Duration = Duration::from_millis(300);
/// or, where files never rest, this long after the first of it.
const PATIENCE: Duration = Duration::from_secs(3);
/// `live/NAME` below /etc/letsencrypt is two down.
const CERTIFICATE_DEPTH: usize = 2;
/// Symbolic links that are followed one into the other.
const LINKS: usize = 8;
/// No more directories than this are armed.
const DIRECTORIES: usize = 4096;

/// What to watch; a path may be a directory or a file, and need not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watched {
    /// Of a directory, the YAML files in it and not below it.
    pub configuration: Vec<PathBuf>,
    /// Of a directory, all files in it and up to two directories below it.
    pub certificates: Vec<PathBuf>,
}

/// Which files changed since the last event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    pub configuration: bool,
    pub certificates: bool,
}

/// How far the times of files may lag behind the clock: a tick of the kernel, and a little.
const LAG: Duration = Duration::from_millis(10);

impl Watched {
    /// What of it was changed at `moment` or later, by the times that files have. For the time
    /// between a load and the watch, in which nobody is told.
    pub(super) fn changed_since(&self, moment: SystemTime) -> Changed {
        let any = |paths: &[PathBuf]| paths.iter().any(|path| is_newer(path, moment));
        Changed { configuration: any(&self.configuration), certificates: any(&self.certificates) }
    }
}

/// True for a file that was changed then, and for a directory in which something was.
fn is_newer(path: &Path, moment: SystemTime) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let newer = |path: &Path| changed(path).is_ok_and(|at| at + LAG >= moment);
    newer(path)
        || fs::read_dir(path)
            .is_ok_and(|entries| entries.flatten().any(|entry| newer(&entry.path())))
}

const EVERYTHING: Changed = Changed { configuration: true, certificates: true };

/// Watches files until it is dropped.
///
/// Where the kernel has no watches left, that is one warning, and the gateway goes on without; the
/// next [`rewatch`](Self::rewatch) tries again.
#[derive(Debug)]
pub(crate) struct Watch {
    watched: Watched,
    inbox: Arc<Inbox>,
    /// Replaced as a whole, since a watch stays with its old directory when another one takes the
    /// name. None while nothing can be watched.
    watcher: Option<RecommendedWatcher>,
    /// What was complained of, so that it is said once.
    complaints: BTreeSet<PathBuf>,
}

/// Changes that were seen and not yet reported.
#[derive(Debug, Default)]
struct Inbox {
    seen: Mutex<Option<Seen>>,
    arrived: tokio::sync::Notify,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    changed: Changed,
    first: Instant,
    last: Instant,
}

impl Watch {
    /// Begins to watch.
    pub(crate) fn start(watched: Watched) -> Self {
        let inbox = Arc::default();
        let mut watch = Self { watched, inbox, watcher: None, complaints: BTreeSet::new() };
        watch.arm();
        watch
    }

    /// Watches `watched` from now on. Worth a call at every reload, equal paths or not: a directory
    /// that something was mounted over has changed without an event.
    pub(crate) fn rewatch(&mut self, watched: Watched) {
        self.watched = watched;
        self.arm();
    }

    /// Waits until files changed and then rested for 300 ms. Whatever came into being or was
    /// replaced is watched from then on, before the caller reads it. Cancel safe.
    pub(crate) async fn next(&mut self) -> Changed {
        loop {
            match self.inbox.due() {
                None => self.inbox.arrived.notified().await,
                Some(due) if due > clock::now() => sleep_until(due.into()).await,
                Some(_) => {
                    let seen = self.inbox.seen().take();
                    if let Some(seen) = seen {
                        self.arm();
                        return seen.changed;
                    }
                }
            }
        }
    }

    /// Puts watches where they are wanted now. The old ones stay until the new ones stand, so
    /// nothing is missed in between; a change may be seen twice.
    fn arm(&mut self) {
        match self.armed() {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                self.watcher = None;
                if self.complaints.insert(PathBuf::new()) {
                    tracing::warn!(%error, "files are not watched, reload with SIGHUP");
                }
            }
        }
    }

    fn armed(&mut self) -> notify::Result<RecommendedWatcher> {
        let wires = Arc::new(Wires::new(&self.watched));
        let mut watcher = {
            let (wires, inbox) = (Arc::clone(&wires), Arc::clone(&self.inbox));
            notify::recommended_watcher(move |event| match event {
                Ok(event) => inbox.put(wires.changed(&event), clock::now()),
                // Events were lost, so anything may have changed.
                Err(_) => inbox.put(EVERYTHING, clock::now()),
            })?
        };
        for directory in wires.0.keys() {
            match watcher.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => {}
                Err(error) if is_out_of_watches(&error) => return Err(error),
                // Gone since it was looked for: its parent tells when it comes back.
                Err(error) if is_missing(&error) => {}
                Err(error) => {
                    if self.complaints.insert(directory.clone()) {
                        tracing::warn!(?directory, %error, "directory is not watched");
                    }
                }
            }
        }
        Ok(watcher)
    }
}

impl Inbox {
    fn put(&self, changed: Changed, now: Instant) {
        if changed == Changed::default() {
            return;
        }
        {
            let mut slot = self.seen();
            let seen = slot.get_or_insert(Seen { changed, first: now, last: now });
            seen.changed.configuration |= changed.configuration;
            seen.changed.certificates |= changed.certificates;
            seen.last = now;
        }
        self.arrived.notify_one();
    }

    /// When what was seen is to be reported.
    fn due(&self) -> Option<Instant> {
        self.seen().map(|seen| (seen.last + QUIET).min(seen.first + PATIENCE))
    }

    fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Directories to be armed, by their real path, and what an event in one of them means.
#[derive(Debug, Default)]
struct Wires(BTreeMap<PathBuf, BTreeSet<(Role, Names)>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Certificates,
    Configuration,
}

/// Which names in a directory matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Names {
    /// Those that such files have.
    Any,
    One(OsString),
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

    /// The places where `path` can come into being, vanish or become another.
    fn add_way(&mut self, path: &Path, role: Role, links: usize) {
        let Ok(path) = absolute(path) else { return };
        let mut above = PathBuf::new();
        for component in path.components() {
            let name = component.as_os_str();
            let here = above.join(name);
            let found = fs::symlink_metadata(&here);
            let is_link = found.as_ref().is_ok_and(fs::Metadata::is_symlink);
            if (is_link || found.is_err() || here == path) && !above.as_os_str().is_empty() {
                self.put(&above, role, Names::One(name.to_owned()));
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

    /// The contents of `path`, if it is a directory.
    fn add_directory(&mut self, path: &Path, role: Role, depth: usize) {
        let Ok(entries) = fs::read_dir(path) else { return };
        self.put(path, role, Names::Any);
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_symlink() && role.cares_for(&entry.file_name()) {
                // What the link points at may be replaced where it stands.
                self.add_way(&entry.path(), role, LINKS);
            }
            if depth > 0 && (kind.is_dir() || (kind.is_symlink() && entry.path().is_dir())) {
                self.add_directory(&entry.path(), role, depth - 1);
            }
        }
    }

    fn put(&mut self, directory: &Path, role: Role, names: Names) {
        // By real path, since a directory that is armed under two names tells of only one.
        if let Ok(directory) = directory.canonicalize()
            && (self.0.len() < DIRECTORIES || self.0.contains_key(&directory))
        {
            self.0.entry(directory).or_default().insert((role, names));
        }
    }

    fn changed(&self, event: &Event) -> Changed {
        let mut changed = Changed::default();
        if event.need_rescan() {
            return EVERYTHING;
        }
        if let EventKind::Access(kind) = event.kind
            && kind != AccessKind::Close(AccessMode::Write)
        {
            return changed;
        }
        for path in &event.paths {
            for role in self.roles(path) {
                match role {
                    Role::Certificates => changed.certificates = true,
                    Role::Configuration => changed.configuration = true,
                }
            }
        }
        changed
    }

    /// For whom an event at `path` matters.
    fn roles(&self, path: &Path) -> impl Iterator<Item = Role> {
        let itself = self.0.get(path).into_iter().flatten();
        let within = path.parent().and_then(|parent| self.0.get(parent)).into_iter().flatten();
        let name = path.file_name().unwrap_or_default();
        // An event of the directory itself matters to those who watch all of it.
        itself.filter(|(_, names)| *names == Names::Any).map(|(role, _)| *role).chain(
            within
                .filter(move |(role, names)| match names {
                    Names::Any => role.cares_for(name),
                    Names::One(one) => one == name,
                })
                .map(|(role, _)| *role),
        )
    }
}

impl Role {
    /// True for names that such files have; false for what editors and certbot leave beside them
    /// while they work. `..data` is how Kubernetes mounts are replaced.
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
            Self::Configuration => config::is_configuration(&name.to_string_lossy()),
        }
    }
}

/// `fs.inotify.max_user_watches`, which the kernel reports as ENOSPC.
fn is_out_of_watches(error: &notify::Error) -> bool {
    matches!(error.kind, notify::ErrorKind::MaxFilesWatch)
}

fn is_missing(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);
    /// Longer than an event would take to be reported.
    const SILENCE: Duration = Duration::from_millis(700);
    const CONFIGURATION: Changed = Changed { configuration: true, certificates: false };
    const CERTIFICATES: Changed = Changed { configuration: false, certificates: true };

    /// A directory with `routes/` and `live/shop.test/`, watched.
    fn house() -> (tempfile::TempDir, PathBuf, Watch) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("routes")).unwrap();
        fs::create_dir_all(root.join("live/shop.test")).unwrap();
        fs::write(root.join("routes/a.yaml"), "a").unwrap();
        fs::write(root.join("live/shop.test/cert.pem"), "a").unwrap();
        let watch = Watch::start(Watched {
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

    async fn expect(watch: &mut Watch, want: Changed, what: &str) {
        let got = timeout(LONG, watch.next()).await;
        assert_eq!(got, Ok(want), "{what}");
    }

    /// Nothing must come; a wait is the only way to see that.
    async fn expect_silence(watch: &mut Watch, what: &str) {
        assert!(timeout(SILENCE, watch.next()).await.is_err(), "{what}");
    }

    #[tokio::test]
    async fn changes_close_together_are_one_event() {
        let (_dir, root, mut watch) = house();
        let begin = clock::now();
        for step in 0..3 {
            fs::write(root.join(format!("routes/{step}.yaml")), "x").unwrap();
            // Within the quiet time, so that it begins anew.
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
        let inbox = Inbox::default();
        let begin = clock::now();
        let at = |millis| begin + Duration::from_millis(millis);
        assert_eq!(inbox.due(), None);
        inbox.put(Changed::default(), at(0));
        assert_eq!(inbox.due(), None);
        // (a change after this many ms, due after so many)
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

    #[tokio::test]
    async fn a_release_link_on_the_way_is_watched() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for release in ["1", "2"] {
            fs::create_dir_all(root.join("releases").join(release).join("routes")).unwrap();
        }
        symlink("releases/1", root.join("current")).unwrap();
        let configuration = vec![root.join("current/routes")];
        let mut watch = Watch::start(Watched { configuration, ..Watched::default() });

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
        let mut watch = Watch::start(Watched { configuration, ..Watched::default() });

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
        // Ends within the quiet time, so the change was seen and not reported.
        assert!(timeout(QUIET / 2, watch.next()).await.is_err());
        expect(&mut watch, CONFIGURATION, "the change before").await;
    }

    #[tokio::test]
    async fn other_paths_may_be_watched_from_now_on() {
        let (_dir, root, mut watch) = house();
        fs::create_dir(root.join("other")).unwrap();
        watch.rewatch(Watched { configuration: vec![root.join("other")], ..Watched::default() });
        // The old watch is closed by a thread of its own.
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
        let file = fs::File::options().write(true).open(configuration.join("a")).unwrap();
        file.set_modified(later).unwrap();
        let changed = Changed { configuration: true, certificates: false };
        assert_eq!(watched.changed_since(later), changed);
        file.set_modified(later - Duration::from_secs(1)).unwrap();
        assert_eq!(watched.changed_since(later), Changed::default());
        assert!(watched.changed_since(at(&certificates)).certificates);
    }
}
