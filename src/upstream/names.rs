//! Host names of backends and their addresses, looked up periodically while in use.
//!
//! Lookups use the system's resolver (`getaddrinfo`), so that nsswitch, /etc/hosts and `.local`
//! names apply as for every other program on the host. It blocks, so it runs in the blocking pool
//! of the runtime; a lookup stores its result even if no request waits for it.
//!
//! Addresses stay in use until a later lookup finds others: an outage of the name server does not
//! affect known backends.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::carry_over::CarryOver;
use crate::clock;

/// Age at which addresses are looked up again at their next use.
const REFRESH: Duration = Duration::from_secs(5);

/// Minimum interval between lookups of a name that has never resolved.
const RETRY: Duration = Duration::from_secs(1);

type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// All names that clusters use.
pub(super) struct Names {
    fixed: BTreeMap<String, Vec<IpAddr>>,
    lookup: Arc<Lookup>,
    /// Clusters with the same host share one name.
    known: CarryOver<Arc<str>, Name>,
}

impl Names {
    /// Creates names that the system's resolver looks up. Names in `fixed` (`--resolve`) are never
    /// looked up; hosts are compared case-insensitively.
    pub(super) fn new(fixed: impl IntoIterator<Item = (String, Vec<IpAddr>)>) -> Arc<Self> {
        Self::with_lookup(fixed, system)
    }

    /// Creates names with a custom lookup function, which may block.
    pub(super) fn with_lookup(
        fixed: impl IntoIterator<Item = (String, Vec<IpAddr>)>,
        lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            fixed: fixed
                .into_iter()
                .map(|(host, addresses)| (host.to_ascii_lowercase(), addresses))
                .collect(),
            lookup: Arc::new(lookup),
            known: CarryOver::default(),
        })
    }

    /// Returns the name of `host`. Does not look it up.
    pub(super) fn name(&self, host: &Arc<str>) -> Arc<Name> {
        self.known.get_or_make(Arc::clone(host), |host| self.new_name(host))
    }

    fn new_name(&self, host: &Arc<str>) -> Arc<Name> {
        let fixed = match host.trim_matches(['[', ']']).parse() {
            Ok(address) => Some(vec![address]),
            Err(_) => self.fixed.get(&host.to_ascii_lowercase()).cloned(),
        };
        Arc::new(Name {
            host: Arc::clone(host),
            lookup: fixed.is_none().then(|| Arc::clone(&self.lookup)),
            state: ArcSwap::from_pointee(State {
                addresses: fixed.unwrap_or_default().into(),
                ..State::default()
            }),
            looking: AtomicBool::new(false),
            looked: Notify::new(),
        })
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("fixed", &self.fixed).finish_non_exhaustive()
    }
}

fn system(host: &str) -> io::Result<Vec<IpAddr>> {
    Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

/// A host name and its known addresses.
pub(super) struct Name {
    host: Arc<str>,
    /// `None` if the addresses are fixed.
    lookup: Option<Arc<Lookup>>,
    state: ArcSwap<State>,
    /// A lookup is in progress; there is at most one.
    looking: AtomicBool,
    /// Notified when a lookup has ended, successful or not.
    looked: Notify,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// Result of the last successful lookup; empty before the first.
    addresses: Arc<[IpAddr]>,
    /// Time at which the last lookup ended.
    looked_up: Option<Instant>,
    /// Error of the last lookup, if it found no address.
    failure: Option<Arc<str>>,
}

impl Name {
    pub(super) fn host(&self) -> &Arc<str> {
        &self.host
    }

    /// Returns the addresses that were found last. Does not start a lookup.
    pub(super) fn known(&self) -> Arc<[IpAddr]> {
        Arc::clone(&self.state.load().addresses)
    }

    /// Returns the addresses that were found last, for a use of them: starts a lookup if they are
    /// outdated, and does not wait for it.
    pub(super) fn in_use(self: &Arc<Self>) -> Arc<[IpAddr]> {
        self.at_hand(clock::now());
        self.known()
    }

    /// Returns true if no address is known and the last lookup has failed.
    pub(super) fn is_unresolved(&self) -> bool {
        let state = self.state.load();
        state.addresses.is_empty() && (state.failure.is_some() || self.lookup.is_none())
    }

    /// Starts a lookup if the addresses are unknown or outdated. Does not wait for it.
    pub(super) fn refresh(self: &Arc<Self>) {
        self.at_hand(clock::now());
    }

    /// Returns the addresses in the resolver's order; the list is never empty. Waits only if no
    /// address has ever been found, for at most `patience`.
    ///
    /// # Errors
    ///
    /// The resolver's error message, or a message that it did not answer in time.
    pub(super) async fn addresses(
        self: &Arc<Self>,
        patience: Duration,
    ) -> Result<Arc<[IpAddr]>, Arc<str>> {
        if let Some(known) = self.at_hand(clock::now()) {
            return known;
        }
        let first = async {
            loop {
                // Register before the check, so that a lookup that ends in between is not missed.
                let looked = self.looked.notified();
                tokio::pin!(looked);
                looked.as_mut().enable();
                if let Some(known) = self.at_hand(clock::now()) {
                    return known;
                }
                looked.await;
            }
        };
        tokio::time::timeout(patience, first)
            .await
            .unwrap_or_else(|_| Err("no answer from the resolver in time".into()))
    }

    /// Returns the known result at `now`, if there is one; starts a lookup if that is outdated.
    fn at_hand(self: &Arc<Self>, now: Instant) -> Option<Result<Arc<[IpAddr]>, Arc<str>>> {
        let state = self.state.load();
        let known = !state.addresses.is_empty();
        if self.lookup.is_none() {
            return Some(if known {
                Ok(Arc::clone(&state.addresses))
            } else {
                Err("the name is fixed to no address".into())
            });
        }
        let age = if known { REFRESH } else { RETRY };
        let old = state.looked_up.is_none_or(|at| now.saturating_duration_since(at) >= age);
        if old {
            self.look_up();
        }
        match &state.failure {
            _ if known => Some(Ok(Arc::clone(&state.addresses))),
            Some(failure) if !old => Some(Err(Arc::clone(failure))),
            _ => None,
        }
    }

    fn look_up(self: &Arc<Self>) {
        let Some(lookup) = &self.lookup else { return };
        if self.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let lookup = Arc::clone(lookup);
        let looking = Looking(Arc::clone(self));
        tokio::task::spawn_blocking(move || {
            let found = lookup(&looking.0.host);
            looking.0.learn(found, clock::now());
        });
    }

    fn learn(&self, found: io::Result<Vec<IpAddr>>, now: Instant) {
        let mut state = State::clone(&self.state.load());
        state.looked_up = Some(now);
        let failure = match found {
            Ok(mut addresses) => {
                let mut seen = Vec::with_capacity(addresses.len());
                addresses.retain(|address| {
                    let new = !seen.contains(address);
                    seen.push(*address);
                    new
                });
                if !addresses.is_empty() {
                    // An unchanged list keeps its allocation, so that values derived from it remain
                    // valid.
                    if *state.addresses != *addresses {
                        state.addresses = addresses.into();
                    }
                    state.failure = None;
                    self.state.store(Arc::new(state));
                    return;
                }
                "the resolver knows no address".into()
            }
            Err(error) => error.to_string(),
        };
        if state.failure.is_none() {
            let stale_addresses = state.addresses.len();
            tracing::warn!(host = %self.host, failure, stale_addresses, "name does not resolve");
        }
        state.failure = Some(failure.into());
        self.state.store(Arc::new(state));
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Name").field("host", &self.host).finish_non_exhaustive()
    }
}

/// A lookup in progress. Dropping it, whether it finished, panicked or never began, permits the
/// next lookup.
struct Looking(Arc<Name>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.looking.store(false, Ordering::Release);
        self.0.looked.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use std::sync::Mutex;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Returns names whose resolver waits for answers of the test, and a counter of lookups.
    fn scripted() -> (Arc<Names>, mpsc::Sender<io::Result<Vec<IpAddr>>>, Arc<AtomicUsize>) {
        let (answers, script) = mpsc::channel();
        let script = Mutex::new(script);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let names = Names::with_lookup([], move |_: &str| {
            counted.fetch_add(1, Ordering::SeqCst);
            script.lock().unwrap().recv_timeout(PATIENCE).unwrap()
        });
        (names, answers, count)
    }

    /// Asks at `now`, and waits for the lookup that this starts.
    async fn refreshed(name: &Arc<Name>, now: Instant) -> Option<Result<Arc<[IpAddr]>, Arc<str>>> {
        let looked = name.looked.notified();
        tokio::pin!(looked);
        looked.as_mut().enable();
        let before = name.at_hand(now);
        looked.await;
        before
    }

    #[tokio::test]
    async fn old_addresses_serve_on_while_new_ones_are_looked_up() {
        let (names, answers, count) = scripted();
        let name = names.name(&"app.test".into());
        answers.send(Ok(vec![ip("10.0.0.1"), ip("10.0.0.1")])).unwrap();
        assert_eq!(*name.addresses(PATIENCE).await.unwrap(), [ip("10.0.0.1")]);

        let now = clock::now();
        assert!(name.at_hand(now + Duration::from_secs(4)).unwrap().is_ok());
        assert_eq!(count.load(Ordering::SeqCst), 1, "not old yet");

        answers.send(Ok(vec![ip("10.0.0.2"), ip("10.0.0.3")])).unwrap();
        let before = refreshed(&name, now + Duration::from_secs(6)).await;
        assert_eq!(*before.unwrap().unwrap(), [ip("10.0.0.1")]);
        assert_eq!(*name.addresses(PATIENCE).await.unwrap(), [ip("10.0.0.2"), ip("10.0.0.3")]);
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_failed_lookup_keeps_the_last_good_addresses() {
        let (names, answers, _) = scripted();
        let name = names.name(&"app.test".into());
        answers.send(Ok(vec![ip("10.0.0.1")])).unwrap();
        name.addresses(PATIENCE).await.unwrap();

        let now = clock::now();
        for failure in [Err(io::Error::other("server down")), Ok(vec![])] {
            answers.send(failure).unwrap();
            refreshed(&name, now + Duration::from_secs(60)).await;
            assert_eq!(*name.addresses(PATIENCE).await.unwrap(), [ip("10.0.0.1")]);
        }
    }

    #[tokio::test]
    async fn a_name_that_never_resolved_says_why_and_is_asked_again() {
        let (names, answers, count) = scripted();
        let name = names.name(&"app.test".into());
        answers.send(Err(io::Error::other("no such host"))).unwrap();
        assert_eq!(&*name.addresses(PATIENCE).await.unwrap_err(), "no such host");
        assert_eq!(&*name.addresses(PATIENCE).await.unwrap_err(), "no such host");
        assert_eq!(count.load(Ordering::SeqCst), 1, "not again within a second");

        answers.send(Ok(vec![ip("10.0.0.1")])).unwrap();
        assert!(refreshed(&name, clock::now() + Duration::from_secs(2)).await.is_none());
        assert!(name.addresses(PATIENCE).await.is_ok());
    }

    #[tokio::test]
    async fn one_lookup_at_a_time_serves_all_who_wait() {
        let (names, answers, count) = scripted();
        let name = names.name(&"app.test".into());
        let again = names.name(&"app.test".into());
        assert!(Arc::ptr_eq(&name, &again), "clusters share a name");

        let both = async { tokio::join!(name.addresses(PATIENCE), again.addresses(PATIENCE)) };
        answers.send(Ok(vec![ip("10.0.0.1")])).unwrap();
        let (a, b) = both.await;
        assert_eq!(a.unwrap(), b.unwrap());
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn the_first_use_waits_no_longer_than_its_patience() {
        let (names, answers, _) = scripted();
        let name = names.name(&"app.test".into());
        let failure = name.addresses(Duration::from_millis(10)).await.unwrap_err();
        assert!(failure.contains("in time"), "{failure}");
        // Ends the lookup, which the runtime would otherwise wait for.
        answers.send(Ok(vec![])).unwrap();
    }

    #[tokio::test]
    async fn fixed_names_and_plain_addresses_are_never_looked_up() {
        let fixed = [("Keycloak.local".to_owned(), vec![ip("127.0.0.1"), ip("::1")])];
        let names = Names::with_lookup(fixed, |_: &str| panic!("looked up"));
        // (host, addresses)
        let table: [(&str, &[IpAddr]); 4] = [
            ("keycloak.local", &[ip("127.0.0.1"), ip("::1")]),
            ("KEYCLOAK.local", &[ip("127.0.0.1"), ip("::1")]),
            ("10.1.2.3", &[ip("10.1.2.3")]),
            ("[fd00::1]", &[ip("fd00::1")]),
        ];
        for (host, want) in table {
            let found = names.name(&host.into()).addresses(PATIENCE).await.unwrap();
            assert_eq!(*found, *want, "{host}");
        }
    }

    #[tokio::test]
    async fn the_system_resolver_reads_the_hosts_file() {
        let found = Names::new([]).name(&"localhost".into()).addresses(PATIENCE).await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
    }
}
