//! The slot of one certificate: its source, what it serves now, and how that is selected.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;

use crate::secret::Secret;

use super::certificate::{CertFacts, Certificate, Pair};
use super::chain::Chain;
use super::fault::{Cause, CertFault};
use super::lineage::{Found, Library};

/// The source of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CertSource {
    /// A Secret of type kubernetes.io/tls with the pair inline, both in PEM.
    Inline {
        /// `Secret namespace/name`, for messages. A changed pair inherits the last good pair of the
        /// same object.
        object: String,
        chain: Vec<u8>,
        key: Secret<Vec<u8>>,
        shown_to: Peer,
    },
    /// A certbot lineage under `live`: the newest valid one whose certificate covers `host`. If
    /// there are several key types, one of each; a client gets one that it can check.
    ///
    /// The directory name breaks ties, and selects a lineage if no certificate covers `host`:
    /// `names`, in their order, each with its variants `NAME-ecdsa`, `NAME-rsa` or `NAME-0001`. See
    /// [`best`] for the complete order.
    Lineage {
        object: String,
        /// Never empty. The first is the name that a person gave the lineage; it is preferred to a
        /// newer lineage of another name.
        names: Vec<String>,
        /// The listener's hostname. A listener without a hostname serves every host, so each
        /// lineage of `names` whose certificate adds a name is served, to the clients that ask for
        /// that name.
        host: Option<String>,
        /// True if a Secret names the lineage: only that lineage and its variants are considered.
        chosen: bool,
        shown_to: Peer,
    },
}

/// The kind of peer to which a certificate is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// Backends, which validate it against authorities of their own, not known here.
    Backends,
    /// Clients such as browsers, which have the roots that this host has.
    Clients,
}

impl CertSource {
    pub(crate) fn object(&self) -> &str {
        match self {
            Self::Inline { object, .. } | Self::Lineage { object, .. } => object,
        }
    }

    fn shown_to(&self) -> Peer {
        match self {
            Self::Inline { shown_to, .. } | Self::Lineage { shown_to, .. } => *shown_to,
        }
    }

    /// True if `other` became this source when a file was edited.
    ///
    /// The object alone does not decide it: if no Secret is written, listeners that name the same
    /// Secret each have their own lineage, and none may serve the certificate of another.
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

/// One certificate of a listener: its RSA and ECDSA versions, or none yet.
///
/// Readers load the current content without a lock; only [`CertStore`](super::CertStore) replaces
/// it.
#[derive(Debug)]
pub(crate) struct CertSlot {
    source: CertSource,
    current: ArcSwap<Served>,
}

impl CertSlot {
    pub(super) fn new(source: CertSource, served: Served) -> Self {
        Self { source, current: ArcSwap::from_pointee(served) }
    }

    /// Returns the Secret of the certificate, for messages.
    pub(crate) fn object(&self) -> &str {
        self.source.object()
    }

    /// Returns the served certificates, most preferred first. Empty if there is no certificate yet.
    pub(crate) fn facts(&self) -> Vec<CertFacts> {
        let served = self.current.load();
        served.certificates.iter().map(|certificate| certificate.facts().clone()).collect()
    }

    /// Returns the served certificates, each with the judgement of its chain.
    pub(crate) fn judged(&self) -> Vec<JudgedCertificate> {
        let served = self.current.load();
        let facts = served.certificates.iter().map(|certificate| certificate.facts().clone());
        facts
            .zip(&served.chains)
            .map(|(facts, chain)| JudgedCertificate { facts, chain: chain.clone() })
            .collect()
    }

    /// Returns the faults of the files, even if an older certificate is still served.
    pub(crate) fn problem(&self) -> Option<String> {
        let lines: Vec<_> = self.faults().into_iter().map(|(_, fault)| fault).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// Returns the same faults one by one: the file or directory, and the message.
    pub(crate) fn faults(&self) -> Vec<(String, String)> {
        let served = self.current.load();
        served.faults.iter().map(|fault| (fault.file.clone(), fault.to_string())).collect()
    }

    /// True if there is a certificate to serve.
    pub(crate) fn is_ready(&self) -> bool {
        !self.current.load().certificates.is_empty()
    }

    /// Returns the certificate for a client that can check `schemes`, if there is one; with a
    /// `name`, only one that covers it.
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

    /// Returns any certificate, even one that the client cannot check.
    pub(super) fn any(&self) -> Option<Arc<CertifiedKey>> {
        self.current.load().certificates.first().map(|one| Arc::clone(one.key()))
    }

    /// Returns the addresses of each certificate that covers any.
    pub(super) fn addresses(&self) -> Vec<Vec<IpAddr>> {
        let served = self.current.load();
        let addresses = served.certificates.iter().map(|one| one.facts().addresses().collect());
        addresses.filter(|of: &Vec<_>| !of.is_empty()).collect()
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

/// A served certificate, and the judgement of its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JudgedCertificate {
    pub facts: CertFacts,
    pub chain: Chain,
}

/// The certificates that a slot serves, and the faults found when they were selected.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// Most preferred first: valid before expired, with a name before with an address alone, then
    /// by [`KeyType`], then the newest.
    ///
    /// [`KeyType`]: super::certificate::KeyType
    pub certificates: Vec<Arc<Certificate>>,
    /// The judgement of each chain, in the same order.
    pub chains: Vec<Chain>,
    pub faults: Vec<CertFault>,
}

impl Served {
    /// Reads a source again and selects the best certificates: of those found now, and of those
    /// served so far (`old`) in place of broken ones.
    pub(super) fn next(
        source: &CertSource,
        library: &Library,
        old: &[Arc<Certificate>],
        now: SystemTime,
    ) -> Self {
        let mut served = Self::of(source, library, old, now);
        for one in &served.certificates {
            let chain = match source.shown_to() {
                Peer::Backends => Chain::Trusted,
                Peer::Clients => one.chain(|| library.roots(), now),
            };
            if let Chain::Broken(why) = &chain {
                served.faults.push(CertFault::new(&one.facts().file, Cause::Chain(why.clone())));
            }
            served.chains.push(chain);
        }
        served
    }

    fn of(
        source: &CertSource,
        library: &Library,
        old: &[Arc<Certificate>],
        now: SystemTime,
    ) -> Self {
        match source {
            CertSource::Inline { chain, key, .. } => {
                let read = Certificate::read(Pair {
                    chain,
                    chain_file: "tls.crt".into(),
                    key: key.reveal(),
                    key_file: "tls.key".into(),
                    lineage: None,
                });
                choose(vec![read.map(Arc::new)], &Wanted::default(), old, now)
            }
            CertSource::Lineage { names, host, chosen, .. } => {
                let wanted = match library.groups(names) {
                    Ok(groups) => Wanted { names, host: host.as_deref(), groups },
                    Err(fault) => return choose(vec![Err(fault)], &Wanted::default(), old, now),
                };
                let found = if *chosen {
                    wanted.groups[0].iter().map(|name| (&**name, library.read(name))).collect()
                } else {
                    wanted.all(library)
                };
                let mut found = wanted.relevant(found, old);
                if wanted.misses_its_host(&found) {
                    let (looked_for, host) = (wanted.looked_for(), host.clone());
                    let chosen = names.first().filter(|_| *chosen).cloned();
                    let cause = Cause::NoLineage { looked_for, host, chosen };
                    found.push(Err(library.fault(cause)));
                }
                choose(found, &wanted, old, now)
            }
        }
    }
}

/// A listener's requirements on certbot lineages.
#[derive(Debug, Default)]
struct Wanted<'a> {
    names: &'a [String],
    host: Option<&'a str>,
    /// The lineages of each name.
    groups: Vec<Vec<String>>,
}

impl Wanted<'_> {
    /// Returns every lineage, those with a name that is looked for first.
    fn all<'l>(&'l self, library: &'l Library) -> Vec<(&'l str, Found)> {
        let others = library.lineages().unwrap_or_default().iter();
        let mut order: Vec<&str> = Vec::new();
        for name in self.groups.iter().flatten().chain(others) {
            if !order.contains(&&**name) {
                order.push(name);
            }
        }
        order.into_iter().map(|name| (name, library.read(name))).collect()
    }

    /// Keeps the certificates that may be served and the faults that matter: faults of the lineage
    /// that a person named, of one that is served now, and, if no certificate covers the host, of
    /// the one that would be served by its name. The gateway may lack the permission to read the
    /// others.
    fn relevant(&self, found: Vec<(&str, Found)>, old: &[Arc<Certificate>]) -> Vec<Found> {
        let covered = found.iter().any(|(_, one)| one.as_ref().is_ok_and(|one| self.covers(one)));
        let in_place = |name: &str| !covered && self.by_name().iter().any(|of| of == name);
        let served =
            |name: &str| old.iter().any(|old| old.facts().lineage.as_deref() == Some(name));
        let matters = |(name, one): &(&str, Found)| match one {
            Ok(one) => self.covers(one) || self.is_by_address(one) || in_place(name),
            Err(_) => self.is_own(name) || served(name) || in_place(name),
        };
        found.into_iter().filter(matters).map(|(_, one)| one).collect()
    }

    /// True if the certificate covers the host. For a listener without one: if it covers a name
    /// that it was looked for by, or is of the lineage that a person named.
    fn covers(&self, one: &Certificate) -> bool {
        let facts = one.facts();
        match self.host {
            Some(host) => facts.covers(host),
            None => {
                facts.lineage.as_ref().is_some_and(|lineage| self.is_own(lineage))
                    || self.names.iter().any(|name| facts.covers(name))
            }
        }
    }

    /// True for a certificate that a listener without a hostname serves to clients that connect by
    /// address, and so send no server name.
    fn is_by_address(&self, one: &Certificate) -> bool {
        self.host.is_none() && one.facts().addresses().next().is_some() && !self.covers(one)
    }

    /// True if `found` is empty, or if it has only certificates for addresses and a hostname was
    /// looked for.
    fn misses_its_host(&self, found: &[Found]) -> bool {
        let is_host = |name: &String| name.contains('.') && name.parse::<IpAddr>().is_err();
        found.iter().all(|one| one.as_ref().is_ok_and(|one| self.is_by_address(one)))
            && (found.is_empty() || self.names.iter().any(is_host))
    }

    fn names_exactly(&self, one: &Certificate) -> bool {
        self.host.is_some_and(|host| one.facts().names.iter().any(|name| name == host))
    }

    /// Returns the lineages of the first name that has any.
    fn by_name(&self) -> &[String] {
        self.groups.iter().find(|group| !group.is_empty()).map_or(&[], Vec::as_slice)
    }

    /// True for a lineage that a person called by its name.
    fn is_own(&self, name: &str) -> bool {
        self.groups.first().is_some_and(|own| own.iter().any(|of| of == name))
    }

    /// Returns the names as certbot would write them.
    fn looked_for(&self) -> Vec<String> {
        self.names.iter().map(|name| name.strip_prefix("*.").unwrap_or(name).to_owned()).collect()
    }
}

fn choose(
    found: Vec<Found>,
    wanted: &Wanted<'_>,
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
                None => new,
            }),
            Err(fault) => {
                broken = true;
                faults.push(fault);
            }
        }
    }
    // An older certificate replaces one whose file is broken or expired now. It does not compete
    // with a sound one, which may have replaced it because it was revoked.
    let is_sound = |lineage: &Option<String>| {
        let of_lineage = |one: &&Arc<Certificate>| one.facts().lineage == *lineage;
        match fresh.iter().find(of_lineage) {
            Some(one) => one.facts().is_valid_at(now),
            // Gone from disk. If nothing is broken, it was removed on purpose.
            None => !broken,
        }
    };
    let kept: Vec<_> =
        old.iter().filter(|one| !is_sound(&one.facts().lineage)).map(Arc::clone).collect();
    let certificates = best(fresh.iter().chain(&kept), wanted, now);

    // An expired certificate is not reported if another lineage took its place.
    for one in fresh {
        let facts = one.facts();
        let matters = certificates.iter().any(|served| served.facts().lineage == facts.lineage);
        if matters && facts.not_after <= now {
            faults.push(CertFault::new(&facts.file, Cause::Expired(facts.not_after)));
        } else if matters && now < facts.not_before {
            faults.push(CertFault::new(&facts.file, Cause::NotYetValid(facts.not_before)));
        }
    }
    Served { certificates, chains: Vec::new(), faults }
}

/// Selects the certificates to serve from the candidates, in order of preference.
///
/// 1. Those that cover the host; all of them only if none does. If the listener has no hostname,
///    also those for an address, which no client asks for by name.
/// 2. Of these, those of the lineage that a person called by its name, while one of them is valid.
/// 3. Valid before expired or not yet valid.
/// 4. With the hostname itself before with a wildcard.
/// 5. The newest by the day of issue, then by the last day: a shorter lifetime (45 days now, 90
///    before) does not make a certificate older.
/// 6. The order in which they were found, which is that of the names.
///
/// A certificate is left out if a better one of its key type serves all that it serves, or if it is
/// not valid and another of its key type is.
fn best<'a>(
    candidates: impl Iterator<Item = &'a Arc<Certificate>>,
    wanted: &Wanted<'_>,
    now: SystemTime,
) -> Vec<Arc<Certificate>> {
    let mut fit: Vec<_> = candidates.map(Arc::clone).collect();
    let is_valid = |one: &Arc<Certificate>| one.facts().is_valid_at(now);
    let is_own = |one: &Arc<Certificate>| {
        one.facts().lineage.as_ref().is_some_and(|lineage| wanted.is_own(lineage))
    };
    let covered = fit.iter().any(|one| wanted.covers(one));
    if covered {
        fit.retain(|one| wanted.covers(one) || wanted.is_by_address(one));
    }
    if fit.iter().any(|one| is_own(one) && is_valid(one)) {
        fit.retain(|one| is_own(one) || wanted.is_by_address(one));
    }
    fit.sort_by_key(|one| {
        let facts = one.facts();
        Reverse((is_valid(one), wanted.names_exactly(one), facts.not_before, facts.not_after))
    });
    let for_one_host = covered && wanted.host.is_some();
    let mut best: Vec<Arc<Certificate>> = Vec::new();
    for one in fit {
        let is_needless = |better: &Arc<Certificate>| {
            better.facts().key_type == one.facts().key_type
                && (for_one_host
                    || (is_valid(better) && !is_valid(&one) && !wanted.is_by_address(&one))
                    || better.serves_names_of(&one))
        };
        if !best.iter().any(is_needless) {
            best.push(one);
        }
    }
    best.sort_by_key(|one| (!is_valid(one), wanted.is_by_address(one), one.facts().key_type));
    best
}
