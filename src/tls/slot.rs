//! The place of one certificate: what is served there now, and how that follows from what is found.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;

use crate::secret::Secret;

use super::certificate::{CertFacts, Certificate, Pair};
use super::fault::{Cause, CertFault};
use super::lineage;

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CertSource {
    /// A Secret of type kubernetes.io/tls with the pair inline, both in PEM.
    Inline {
        /// `Secret namespace/name`, for messages; and whose last good pair it inherits.
        object: String,
        chain: Vec<u8>,
        key: Secret<Vec<u8>>,
    },
    /// A certbot lineage: the first of `names` that is under `live` and covers `host`, the
    /// listener's hostname; the first that is there where none does, or where `host` is `None`.
    ///
    /// What stands beside it as `NAME-ecdsa`, `NAME-rsa` or `NAME-0001` and serves the same names
    /// belongs to it. Of several of one key type the newest valid one is served; of several key
    /// types each, to the clients that can check it.
    Lineage { object: String, names: Vec<String>, host: Option<String> },
}

impl CertSource {
    pub(crate) fn object(&self) -> &str {
        match self {
            Self::Inline { object, .. } | Self::Lineage { object, .. } => object,
        }
    }

    /// True if this is what became of `other` when a file was edited.
    ///
    /// The object alone does not say so: where no Secret is written, listeners that name the same
    /// one each have a lineage of their own, and none may show the certificate of another.
    pub(super) fn succeeds(&self, other: &Self) -> bool {
        self.object() == other.object()
            && match (self, other) {
                (Self::Inline { .. }, Self::Inline { .. }) => true,
                (Self::Lineage { host, .. }, Self::Lineage { host: of_other, .. }) => {
                    host == of_other
                }
                _ => false,
            }
    }
}

/// One certificate of a listener: RSA and ECDSA side by side, or nothing yet.
///
/// Readers take what is current without a lock; only [`CertStore`](super::CertStore) replaces it.
#[derive(Debug)]
pub(crate) struct CertSlot {
    source: CertSource,
    current: ArcSwap<Served>,
}

impl CertSlot {
    pub(super) fn new(source: CertSource, served: Served) -> Self {
        Self { source, current: ArcSwap::from_pointee(served) }
    }

    /// The Secret that it stands for, for messages.
    pub(crate) fn object(&self) -> &str {
        self.source.object()
    }

    /// What is served, most preferred first. Empty where there is no certificate yet.
    pub(crate) fn facts(&self) -> Vec<CertFacts> {
        let served = self.current.load();
        served.certificates.iter().map(|certificate| certificate.facts().clone()).collect()
    }

    /// What is wrong with the files behind it, even if an older certificate is served on.
    pub(crate) fn problem(&self) -> Option<String> {
        let lines: Vec<_> = self.faults().into_iter().map(|(_, fault)| fault).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// The same one by one: the file or directory that it is about, and what is wrong with it.
    pub(crate) fn faults(&self) -> Vec<(String, String)> {
        let served = self.current.load();
        served.faults.iter().map(|fault| (fault.file.clone(), fault.to_string())).collect()
    }

    /// True if there is something to serve.
    pub(crate) fn is_ready(&self) -> bool {
        !self.current.load().certificates.is_empty()
    }

    /// The certificate for a client that can check `schemes`, if there is one; with a `name`, only
    /// if it is for that name.
    pub(super) fn pick(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let served = self.current.load();
        let mut named = served
            .certificates
            .iter()
            .filter(|certificate| name.is_none_or(|name| certificate.facts().covers(name)));
        named.find(|certificate| certificate.suits(schemes)).map(|one| Arc::clone(one.key()))
    }

    /// Any certificate, even one the client cannot check.
    pub(super) fn any(&self) -> Option<Arc<CertifiedKey>> {
        self.current.load().certificates.first().map(|one| Arc::clone(one.key()))
    }

    pub(super) fn source(&self) -> &CertSource {
        &self.source
    }

    pub(super) fn served(&self) -> Arc<Served> {
        self.current.load_full()
    }

    pub(super) fn replace(&self, served: Arc<Served>) {
        self.current.store(served);
    }
}

/// What a slot serves, and what was wrong when that was last decided.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// At most one of a key type, most preferred first: valid before expired, then by [`KeyType`].
    ///
    /// [`KeyType`]: super::certificate::KeyType
    pub certificates: Vec<Arc<Certificate>>,
    pub faults: Vec<CertFault>,
}

impl Served {
    /// Reads a source again and decides what is best: of what is found now, and of what was served
    /// (`old`) in the place of what is broken now.
    pub(super) fn next(
        source: &CertSource,
        live: &Path,
        old: &[Arc<Certificate>],
        now: SystemTime,
    ) -> Self {
        let found = match source {
            CertSource::Inline { chain, key, .. } => vec![Certificate::read(Pair {
                chain,
                chain_file: "tls.crt".into(),
                key: key.reveal(),
                key_file: "tls.key".into(),
                lineage: None,
            })],
            CertSource::Lineage { names, host, .. } => match lineage::find(live, names) {
                Ok(groups) => read_best(live, &groups, host.as_deref()),
                Err(fault) => vec![Err(fault)],
            },
        };
        choose(found, old, now)
    }
}

/// The lineages of the first group that has a certificate for `host`; of the first group if there
/// is none, or nobody asks.
fn read_best(
    live: &Path,
    groups: &[Vec<String>],
    host: Option<&str>,
) -> Vec<Result<Certificate, CertFault>> {
    let read = |group: &Vec<String>| -> Vec<_> {
        group.iter().map(|name| lineage::read(live, name)).collect()
    };
    let covers = |found: &Vec<Result<Certificate, CertFault>>| {
        let host = host.unwrap_or_default();
        found.iter().flatten().any(|one| one.facts().covers(host))
    };
    let mut found = groups.iter().map(read);
    let first = found.next().unwrap_or_default();
    if host.is_none() || covers(&first) {
        return first;
    }
    found.find(covers).unwrap_or(first)
}

fn choose(
    found: Vec<Result<Certificate, CertFault>>,
    old: &[Arc<Certificate>],
    now: SystemTime,
) -> Served {
    let mut faults = Vec::new();
    let mut fresh = Vec::new();
    let mut broken = false;
    for one in found {
        match one {
            Ok(new) => fresh.push(match old.iter().find(|old| old.is_same(&new)) {
                Some(same) => Arc::clone(same),
                None => Arc::new(new),
            }),
            Err(fault) => {
                broken = true;
                faults.push(fault);
            }
        }
    }
    // Yesterday's certificate stands in for a file that is broken today, or out of date. It does
    // not compete with a sound one: that may have replaced it because it was revoked.
    let is_sound = |lineage: &Option<String>| {
        let of_lineage = |one: &&Arc<Certificate>| one.facts().lineage == *lineage;
        match fresh.iter().find(of_lineage) {
            Some(one) => one.facts().is_valid_at(now),
            // Gone from disk. If nothing is broken, that was somebody's wish.
            None => !broken,
        }
    };
    let kept: Vec<_> =
        old.iter().filter(|one| !is_sound(&one.facts().lineage)).map(Arc::clone).collect();
    let certificates = best(fresh.iter().chain(&kept), now);

    // A certificate that is out of date is nobody's concern if another lineage took its place.
    for one in fresh {
        let facts = one.facts();
        let matters = certificates.iter().any(|served| served.facts().lineage == facts.lineage);
        if matters && facts.not_after <= now {
            faults.push(CertFault::new(&facts.file, Cause::Expired(facts.not_after)));
        } else if matters && now < facts.not_before {
            faults.push(CertFault::new(&facts.file, Cause::NotYetValid(facts.not_before)));
        }
    }
    Served { certificates, faults }
}

/// The best of each key type, in order of preference.
fn best<'a>(
    candidates: impl Iterator<Item = &'a Arc<Certificate>>,
    now: SystemTime,
) -> Vec<Arc<Certificate>> {
    let candidates: Vec<_> = candidates.map(Arc::clone).collect();
    let is_valid = |one: &Arc<Certificate>| one.facts().is_valid_at(now);
    // The shortest lineage name is the one that was asked for, so its names are the ones that
    // clients come for. A variant must have them all: `NAME-0001` may be for anything.
    let length = |one: &&Arc<Certificate>| one.facts().lineage.as_ref().map_or(0, String::len);
    let Some(named) = candidates.iter().min_by_key(length).map(Arc::clone) else {
        return Vec::new();
    };
    let (mut fit, others): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|one| one.serves_names_of(&named));
    if !fit.iter().any(is_valid) {
        fit.extend(others.into_iter().filter(is_valid));
    }

    // Newest by the day of issue: a shorter lifetime (45 days now, 90 before) is no older.
    fit.sort_by_key(|one| {
        let facts = one.facts();
        (is_valid(one), facts.not_before, facts.not_after)
    });
    let mut best: Vec<Arc<Certificate>> = Vec::new();
    for one in fit.into_iter().rev() {
        if best.iter().all(|better| better.facts().key_type != one.facts().key_type) {
            best.push(one);
        }
    }
    best.sort_by_key(|one| (!is_valid(one), one.facts().key_type));
    best
}
