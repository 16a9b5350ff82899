//! Counts of what happened, kept so that counting meets nobody.
//!
//! Every count is a [`Sharded`] set of plain counters, one set for each worker on cache lines of its
//! own: a request adds to its worker's, and whoever asks adds them up. A sum is taken while others
//! count on, so its parts may be some requests apart; each by itself only grows, but for gauges.
//!
//! Names and meaning are Envoy's where Envoy has the metric; how they are written is the business of
//! whoever exposes them. Invariant: nothing that a client chose names a counter.

mod flags;
mod histogram;

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

pub(crate) use flags::{ResponseFlag, ResponseFlags};
pub(crate) use histogram::{BUCKETS, Histogram, Times};

/// One set of counters for each thread that counts much.
///
/// A set is made when its thread first counts: most rules of ten thousand are never asked for.
pub(crate) struct Sharded<T>(Box<[OnceLock<Box<Shard<T>>>]>);

/// On cache lines of its own: two, since processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Shard<T>(T);

impl<T> Default for Sharded<T> {
    fn default() -> Self {
        Self((0..shards()).map(|_| OnceLock::new()).collect())
    }
}

impl<T: Default> Sharded<T> {
    /// The set of this thread.
    pub(crate) fn here(&self) -> &T {
        &self.0[shard_of_this_thread() % self.0.len()].get_or_init(Box::default).0
    }
}

impl<T> Sharded<T> {
    /// True once anything was counted.
    pub(crate) fn is_used(&self) -> bool {
        self.all().next().is_some()
    }

    /// Every set in which anything was counted.
    fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(OnceLock::get).map(|shard| &shard.0)
    }

    /// What one counter comes to.
    pub(crate) fn sum(&self, counter: impl Fn(&T) -> &Counter) -> u64 {
        // A gauge may be raised by one thread and lowered by another: only the sum is not below 0.
        self.all().fold(0, |sum, set| sum.wrapping_add(counter(set).value()))
    }
}

impl<T> fmt::Debug for Sharded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sharded({})", self.0.len())
    }
}

fn shards() -> usize {
    static SHARDS: OnceLock<usize> = OnceLock::new();
    *SHARDS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from).min(64))
}

/// Threads are numbered as they first count, so workers that start one after another get shards of
/// their own.
fn shard_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }
    NUMBER.get().unwrap_or_else(|| {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        NUMBER.set(Some(number));
        number
    })
}

/// A number that grows, or, as a gauge, goes up and down.
///
/// A build with `--cfg uncounted` counts nothing: `bench/counting` measures against it.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        if cfg!(not(uncounted)) {
            self.0.fetch_add(more, Ordering::Relaxed);
        }
    }

    pub(crate) fn one_more(&self) {
        self.add(1);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// For gauges.
    pub(crate) fn one_less(&self) {
        if cfg!(not(uncounted)) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Responses by the first digit of their status, `1xx` first.
#[derive(Debug, Default)]
pub(crate) struct Classes([Counter; 5]);

impl Classes {
    /// Counts a response. What is no status is no response.
    pub(crate) fn add(&self, status: u16) {
        let class = usize::from(status / 100).checked_sub(1);
        if let Some(counter) = class.and_then(|class| self.0.get(class)) {
            counter.one_more();
        }
    }

    /// The counter of `1` to `5`.
    pub(crate) fn of(&self, class: usize) -> &Counter {
        &self.0[class - 1]
    }
}

/// What a bind saw of its clients.
#[derive(Debug, Default)]
pub(crate) struct Downstream {
    pub connections: Counter,
    /// Gauge.
    pub connections_active: Counter,
    pub connections_http1: Counter,
    pub connections_http2: Counter,
    /// Without what TLS adds.
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    pub requests: Counter,
    /// Gauge.
    pub requests_active: Counter,
    pub responses: Classes,
    /// From the end of the request's head to the last byte of its response.
    pub times: Histogram,
    pub handshakes: Counter,
    pub handshakes_failed: Counter,
    pub tls_versions: [Counter; TLS_VERSIONS.len()],
    pub ciphers: [Counter; CIPHERS.len()],
    flags: [Counter; ResponseFlag::ALL.len()],
    /// Connections of TLS for a name that no listener has.
    pub unmatched: Counter,
    tunnels: [Tunnels; TUNNELS.len()],
    pub datagrams: Datagrams,
}

/// How a connection comes in that is not looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tunnel {
    Tcp,
    /// The backend ends TLS.
    Passthrough,
    /// TLS ends here.
    Terminate,
}

/// As Envoy Gateway calls the proxies of each, before a `-` and the port.
pub(crate) const TUNNELS: [&str; 3] = ["tcp", "tls-passthrough", "tls-terminate"];

/// What a bind saw of the connections that it does not look into.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    pub connections: Counter,
    /// Those that no route takes, or whose route leads nowhere.
    pub without_route: Counter,
    /// From clients; without what TLS adds, where it ends here.
    pub received_bytes: Counter,
    /// To clients.
    pub sent_bytes: Counter,
    /// Those in which nothing moved for too long.
    pub idle_timeouts: Counter,
}

/// What a bind of UDP saw. Envoy's word for a flow is session.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    /// Flows begun, whatever came of them.
    pub flows: Counter,
    /// Gauge.
    pub flows_active: Counter,
    /// Flows that had to go for others.
    pub evicted: Counter,
    /// From clients.
    pub received: Counter,
    pub received_bytes: Counter,
    /// To clients.
    pub sent: Counter,
    pub sent_bytes: Counter,
    /// Of either way: there was no backend, or no room.
    pub dropped: Counter,
}

impl Downstream {
    /// Counts a request that was not completed, for each of its flags.
    pub(crate) fn failed(&self, flags: ResponseFlags) {
        flags.iter().for_each(|flag| self.flag(flag).one_more());
    }

    /// Counts a TLS session that was made.
    pub(crate) fn negotiated(&self, version: &str, cipher: &str) {
        self.handshakes.one_more();
        let counters = TLS_VERSIONS.iter().zip(&self.tls_versions);
        for (_, counter) in counters.filter(|(name, _)| **name == version) {
            counter.one_more();
        }
        for (_, counter) in CIPHERS.iter().zip(&self.ciphers).filter(|(name, _)| **name == cipher) {
            counter.one_more();
        }
    }

    pub(crate) fn tunnels(&self, tunnel: Tunnel) -> &Tunnels {
        &self.tunnels[tunnel as usize]
    }

    /// The requests that ended with this flag.
    pub(crate) fn flag(&self, flag: ResponseFlag) -> &Counter {
        &self.flags[flag as usize]
    }
}

/// As Envoy calls them, which has no others with us either.
pub(crate) const TLS_VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];

/// As Envoy, which is OpenSSL's, calls those that may be negotiated.
pub(crate) const CIPHERS: [&str; 9] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

/// What the rule of a route saw of its backends. Envoy's word for what it counts for is cluster.
#[derive(Debug, Default)]
pub(crate) struct Upstream {
    /// Connections begun, whatever came of them.
    pub connects: Counter,
    pub connect_failures: Counter,
    pub connect_timeouts: Counter,
    /// Connections closed because the backend sent more than one response has: a fault of the
    /// backend, or someone's attempt to slip a response to the next client.
    pub leftovers: Counter,
    /// Gauge: connections that are open now, resting ones too.
    pub open: Counter,
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    pub received_datagrams: Counter,
    pub sent_datagrams: Counter,
    /// Times that there was no room for another connection.
    pub connection_overflows: Counter,
    /// Requests refused since too many had no connection already.
    pub pending_overflows: Counter,
    /// Gauge: requests that have no connection yet and do not open one.
    pub pending: Counter,
    /// Requests sent again because the pooled connection was dead or the backend had not processed them.
    pub resends: Counter,
    /// Requests that matched the rule, whatever came of them; of what is no HTTP, connections of
    /// clients or flows of datagrams.
    pub hits: Counter,
    /// Requests that were to be forwarded, tries of one counted as one.
    pub requests: Counter,
    /// Gauge.
    pub requests_active: Counter,
    pub responses: Classes,
    /// From the request's head to the last byte of the backend's response.
    pub times: Histogram,
    /// Requests whose backend did not answer in time.
    pub timeouts: Counter,
    /// Tries after the first.
    pub retries: Counter,
}

/// Reloads since the start, and what is known of the last.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    pub loaded: Counter,
    pub refused: Counter,
    /// Microseconds, gauge.
    pub last_took: Level,
    /// Seconds since 1970 of the last one that was loaded, gauge.
    pub last_loaded_at: Level,
    /// 1 if the last one was loaded, gauge.
    pub last_was_loaded: Level,
    /// 1 while the files are refused and what was served before is served, gauge.
    pub files_refused: Level,
    /// Faults and warnings in what was read last, gauge.
    pub diagnostics: Level,
    /// Why changes of files are not seen at once.
    pub unwatched: Arc<Trouble>,
}

/// What is not as it should be, in words, as long as that is so.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<Option<Box<str>>>);

impl Trouble {
    pub(crate) fn begins(&self, why: &str) {
        *self.held() = Some(why.into());
    }

    pub(crate) fn ends(&self) {
        *self.held() = None;
    }

    /// None while all is well.
    pub(crate) fn told(&self) -> Option<String> {
        self.held().as_deref().map(Into::into)
    }

    fn held(&self) -> MutexGuard<'_, Option<Box<str>>> {
        // A panic while it was held leaves a whole value behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number that is set.
#[derive(Debug, Default)]
pub(crate) struct Level(AtomicU64);

impl Level {
    pub(crate) fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_together() {
        let counts = Sharded::<Upstream>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counts.here().requests.one_more();
                        counts.here().open.one_more();
                    }
                });
            }
        });
        assert_eq!(counts.sum(|of| &of.requests), 4000);
        // Lowered by a thread that may not have raised it.
        for _ in 0..3999 {
            counts.here().open.one_less();
        }
        assert_eq!(counts.sum(|of| &of.open), 1);
    }

    #[test]
    fn a_response_counts_in_its_class() {
        let classes = Classes::default();
        for status in [0, 99, 101, 200, 204, 404, 503, 599, 600, 999] {
            classes.add(status);
        }
        let counts: Vec<_> = (1..=5).map(|n| classes.of(n).0.load(Ordering::Relaxed)).collect();
        assert_eq!(counts, [1, 2, 0, 1, 2]);
    }
}
