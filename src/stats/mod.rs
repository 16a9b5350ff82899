//! Counts of what happened, kept so that counting meets nobody.
//!
//! Every count is a [`Sharded`] set of plain counters, one set for each worker on cache lines of its
//! own: a request adds to its worker's, and whoever asks adds them up. A sum is taken while others
//! count on, so its parts may be some requests apart; each by itself only grows, but for gauges.
//!
//! Names and meaning are Envoy's where Envoy has the metric; how they are written is the business of
//! whoever exposes them. Invariant: nothing that a client chose names a counter.

mod counter;
mod flags;
mod histogram;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use counter::{Counter, Level, Sharded};
pub(crate) use flags::{ResponseFlag, ResponseFlags};
pub(crate) use histogram::{BUCKETS, Histogram, Times};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_counts_in_its_class() {
        let classes = Classes::default();
        for status in [0, 99, 101, 200, 204, 404, 503, 599, 600, 999] {
            classes.add(status);
        }
        let counts: Vec<_> = (1..=5).map(|n| classes.of(n).value()).collect();
        assert_eq!(counts, [1, 2, 0, 1, 2]);
    }
}
