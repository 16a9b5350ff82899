//! The certificate store of the process, which alone reads the files of certificates.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use crate::clock;
use crate::observe::counted;

use super::certificate::{CertFacts, Certificate};
use super::fault::day;
use super::lineage::{self, Library};
use super::slot::{CertSlot, CertSource, Served};

/// The delays after a [`News::Fault`] with `retry`, attempt by attempt. certbot replaces its links
/// within milliseconds; a person who copies files takes seconds. A fault that outlives the last
/// attempt is logged.
pub(crate) const RETRY_DELAYS: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// All certificates in use, one slot for each source.
///
/// Lives as long as the process, across configurations. It holds its slots weakly: a slot that no
/// configuration uses is dropped, and its key with it.
///
/// Reads files with blocking calls, so it is for the control thread; a reload holds a lock that no
/// connection ever waits for.
#[derive(Debug)]
pub(crate) struct CertStore {
    letsencrypt_dir: PathBuf,
    slots: Mutex<HashMap<Arc<CertSource>, Weak<CertSlot>>>,
}

impl CertStore {
    /// Creates an empty store, and reads nothing. `letsencrypt_dir` is the directory that contains
    /// `live`, like certbot's `--config-dir`; it need not exist.
    pub(crate) fn new(letsencrypt_dir: PathBuf) -> Self {
        Self { letsencrypt_dir, slots: Mutex::default() }
    }

    /// Lists the certificates on disk, for the slots of one configuration.
    pub(crate) fn reading(&self) -> Reading<'_> {
        Reading { store: self, library: Library::open(self.live()) }
    }

    /// Returns the slot of a source; see [`Reading::slot`].
    #[cfg(test)]
    pub(super) fn slot(&self, source: CertSource) -> Arc<CertSlot> {
        self.reading().slot(source)
    }

    /// Reads every slot in use again. A slot whose files are broken keeps serving its last
    /// certificate, and a fault of one slot does not affect another.
    ///
    /// Returns the newly served certificates and the faults, sorted by object name: one log line
    /// each. A fault that persists is reported each time.
    pub(crate) fn reload(&self) -> Vec<CertReport> {
        let now = clock::wall();
        let library = Library::open(self.live());
        let mut slots = self.lock();
        slots.retain(|_, slot| slot.strong_count() > 0);
        let mut reports: Vec<_> = slots
            .values()
            .filter_map(Weak::upgrade)
            .flat_map(|slot| reload(&slot, &library, now))
            .collect();
        reports.sort_by(|one, other| one.object.cmp(&other.object));
        reports
    }

    /// Returns the directories whose changes require a [`reload`](Self::reload): certbot's own,
    /// `live`, and for each lineage that counts its own and those that its links lead to. All of
    /// them exist; empty if no slot in use is a lineage. Call it again after each reload and each
    /// new configuration.
    pub(crate) fn watched(&self) -> Vec<PathBuf> {
        let live = self.live();
        let library = Library::open(live.clone());
        let mut directories = BTreeSet::new();
        for slot in self.lock().values().filter_map(Weak::upgrade) {
            let CertSource::Lineage { names, chosen, .. } = slot.source() else { continue };
            // Before certbot's first run, its directory appears in the nearest ancestor that
            // exists.
            directories.extend(
                self.letsencrypt_dir.ancestors().find(|dir| dir.is_dir()).map(Path::to_owned),
            );
            directories.insert(live.clone());
            let lineages = match chosen {
                true => library.groups(names).unwrap_or_default().concat(),
                false => library.lineages().unwrap_or_default().to_vec(),
            };
            for name in lineages {
                directories.extend(lineage::directories_of(&live, &name));
            }
        }
        directories.into_iter().filter(|directory| directory.is_dir()).collect()
    }

    /// Returns the problems of the certificates in use, one line each: faults and overdue renewals.
    pub(crate) fn problems(&self) -> Vec<String> {
        let slots: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        let now = clock::wall();
        let overdue = slots
            .iter()
            .flat_map(|slot| slot.facts())
            .filter(|facts| facts.is_renewal_overdue(now));
        let overdue: Vec<_> = overdue
            .map(|facts| {
                let left = facts.not_after.duration_since(now).unwrap_or_default();
                let days = left.as_secs() / 86_400;
                format!("renewal of {} is overdue, {} left", facts.file, counted(days, "day"))
            })
            .collect();
        slots.iter().filter_map(|slot| slot.problem()).chain(overdue).collect()
    }

    pub(crate) fn letsencrypt_dir(&self) -> &Path {
        &self.letsencrypt_dir
    }

    fn live(&self) -> PathBuf {
        self.letsencrypt_dir.join("live")
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<CertSource>, Weak<CertSlot>>> {
        // The slots are consistent at any moment, so a poisoned lock can still be used.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The certificates on disk for one configuration; each lineage is read once, for any number of
/// listeners.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    store: &'a CertStore,
    library: Library,
}

impl Reading<'_> {
    /// Returns the slot of a source: the existing one, or a new one, read now.
    ///
    /// Never fails: a slot without a certificate refuses handshakes until a
    /// [`reload`](CertStore::reload) finds one. [`CertSlot::problem`] returns its faults.
    ///
    /// A source that [succeeds](CertSource::succeeds) one which another slot still serves inherits
    /// its certificate if its own is broken: a Secret edited in place keeps its last good version.
    pub(crate) fn slot(&self, source: CertSource) -> Arc<CertSlot> {
        let mut slots = self.store.lock();
        if let Some(slot) = slots.get(&source).and_then(Weak::upgrade) {
            return slot;
        }
        let inherited = slots
            .values()
            .filter_map(Weak::upgrade)
            .filter(|slot| source.succeeds(slot.source()))
            .map(|slot| slot.served())
            .find(|served| !served.certificates.is_empty());
        let old = inherited.as_ref().map_or(&[][..], |served| &served.certificates);
        let served = Served::next(&source, &self.library, old, clock::wall());
        let slot = Arc::new(CertSlot::new(source.clone(), served));
        slots.insert(Arc::new(source), Arc::downgrade(&slot));
        slot
    }
}

fn reload(slot: &CertSlot, library: &Library, now: SystemTime) -> Vec<CertReport> {
    let old = slot.served();
    let new = Arc::new(Served::next(slot.source(), library, &old.certificates, now));
    slot.replace(Arc::clone(&new));

    let report = |news, message| CertReport { object: slot.object().to_owned(), news, message };
    let is_new =
        |one: &&Arc<Certificate>| !old.certificates.iter().any(|old| Arc::ptr_eq(old, one));
    let changed = new
        .certificates
        .iter()
        .filter(is_new)
        .map(|one| report(News::Changed, format!("serving {}", described(one.facts()))));
    let faults = new.faults.iter().map(|fault| {
        let news = News::Fault { retry: fault.retry };
        report(news, format!("{fault}; {}", meanwhile(&new.certificates)))
    });
    changed.chain(faults).collect()
}

/// Describes what clients get despite the fault.
fn meanwhile(served: &[Arc<Certificate>]) -> String {
    let now_served: Vec<_> = served.iter().map(|one| described(one.facts())).collect();
    if now_served.is_empty() {
        return "nothing to serve in its place, so handshakes are refused".into();
    }
    format!("still serving {}", now_served.join(" and "))
}

fn described(facts: &CertFacts) -> String {
    let CertFacts { file, key_type, serial, not_after, .. } = facts;
    let names = facts.names.join(", ");
    format!("`{file}` ({names}; {key_type}, serial {serial}, until {})", day(*not_after))
}

/// A log line about one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertReport {
    /// `Secret namespace/name`.
    pub object: String,
    pub news: News,
    /// The file, what is wrong with it, how to fix it, and what is served meanwhile.
    pub message: String,
}

impl fmt::Display for CertReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.message)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A different certificate is served than before.
    Changed,
    /// A file is faulty. With `retry` it may recover in a moment, see [`RETRY_DELAYS`]; without, a
    /// person must act.
    Fault { retry: bool },
}

#[cfg(test)]
mod tests;
