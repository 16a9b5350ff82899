//! Counters, sharded by worker thread to avoid contention.
//!
//! Counters are kept in [`Sharded`] sets: one set for each worker, on separate cache lines. A
//! request adds to the set of its worker, which no other thread writes; a reader sums all sets. The
//! other threads continue to count during a sum, so related counters may differ by some requests.
//! Every counter except a gauge only grows.
//!
//! Names and meaning are Envoy's where Envoy has the metric; the exporters define the text format.
//! Invariant: no counter is named by a value that a client chose.

mod counter;
mod flags;
mod histogram;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use counter::{Counter, Level, Sharded, SharedCounter, take_shard};
pub(crate) use flags::{ResponseFlag, ResponseFlags};
pub(crate) use histogram::{BUCKETS, Histogram, Times};

/// Responses by status class, `1xx` first.
#[derive(Debug, Default)]
pub(crate) struct Classes([Counter; 5]);

impl Classes {
    /// Counts a response. A status outside 100–599 is not counted.
    pub(crate) fn add(&self, status: u16) {
        let class = usize::from(status / 100).checked_sub(1);
        if let Some(counter) = class.and_then(|class| self.0.get(class)) {
            counter.one_more();
        }
    }

    /// Returns the counter of a class, `1` to `5`.
    pub(crate) fn of(&self, class: usize) -> &Counter {
        &self.0[class - 1]
    }
}

/// Counters of the client side of a bind.
#[derive(Debug, Default)]
pub(crate) struct Downstream {
    pub connections: Counter,
    /// Gauge.
    pub connections_active: Counter,
    pub connections_http1: Counter,
    pub connections_http2: Counter,
    /// Excludes the overhead of TLS.
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    pub requests: Counter,
    /// Gauge.
    pub requests_active: Counter,
    pub responses: Classes,
    /// Times from the end of the request's head to the last byte of its response.
    pub times: Histogram,
    /// Connections without a valid PROXY header in time.
    pub proxy_header_errors: Counter,
    /// Connections beyond the limit of their listener.
    pub limited_connections: Counter,
    pub handshakes: Counter,
    pub handshakes_failed: Counter,
    pub tls_versions: [Counter; TLS_VERSIONS.len()],
    pub ciphers: [Counter; CIPHERS.len()],
    flags: [Counter; ResponseFlag::ALL.len()],
    /// TLS connections with a server name that matches no listener.
    pub unmatched: Counter,
    tunnels: [Tunnels; TUNNELS.len()],
    pub datagrams: Datagrams,
}

/// The kind of a connection whose bytes are forwarded without parsing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tunnel {
    Tcp,
    /// The backend terminates TLS.
    Passthrough,
    /// The gateway terminates TLS.
    Terminate,
}

/// Envoy Gateway's names for the TCP proxies of each [`Tunnel`]; `-` and the port follow.
pub(crate) const TUNNELS: [&str; 3] = ["tcp", "tls-passthrough", "tls-terminate"];

/// Counters of the connections that a bind forwards without parsing.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    pub connections: Counter,
    /// Connections that match no route, or whose route has no usable backend.
    pub without_route: Counter,
    /// Bytes from clients; excludes the overhead of TLS if the gateway terminates it.
    pub received_bytes: Counter,
    /// Bytes to clients.
    pub sent_bytes: Counter,
    /// Connections closed by the idle timeout.
    pub idle_timeouts: Counter,
}

/// Counters of a UDP bind. Envoy calls a flow a session.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    /// Flows begun, failed ones included.
    pub flows: Counter,
    /// Gauge.
    pub flows_active: Counter,
    /// Flows evicted to make room for new ones.
    pub evicted: Counter,
    /// Datagrams from clients.
    pub received: Counter,
    pub received_bytes: Counter,
    /// Datagrams to clients.
    pub sent: Counter,
    pub sent_bytes: Counter,
    /// Datagrams dropped in either direction: no backend, or no room.
    pub dropped: Counter,
}

impl Downstream {
    /// Counts a request that was not completed, once for each of its flags.
    pub(crate) fn failed(&self, flags: ResponseFlags) {
        flags.iter().for_each(|flag| self.flag(flag).one_more());
    }

    /// Counts a completed TLS handshake.
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

    /// Returns the counter of the requests that ended with this flag.
    pub(crate) fn flag(&self, flag: ResponseFlag) -> &Counter {
        &self.flags[flag as usize]
    }
}

/// Envoy's names; the set is complete.
pub(crate) const TLS_VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];

/// The ciphers that can be negotiated, by Envoy's names, which are OpenSSL's.
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

/// Counters of the backend side of a route's rule. Envoy has these for a cluster.
#[derive(Debug, Default)]
pub(crate) struct Upstream {
    /// Connections begun, failed ones included.
    pub connects: Counter,
    pub connect_failures: Counter,
    pub connect_timeouts: Counter,
    /// Connections closed because the backend sent bytes after the end of a response: a fault of
    /// the backend, or an attempt at response smuggling.
    pub leftovers: Counter,
    /// Gauge: open connections, idle ones included.
    pub open: Counter,
    /// Connections closed because of their age, or of the number of requests they served.
    pub connections_aged: Counter,
    pub connections_used_up: Counter,
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    pub received_datagrams: Counter,
    pub sent_datagrams: Counter,
    /// Times that a limit did not allow another connection.
    pub connection_overflows: Counter,
    /// Requests refused because too many were already waiting for a connection, or under way.
    pub pending_overflows: Counter,
    /// Gauge: requests that wait for a connection and do not open one.
    pub pending: Counter,
    /// Requests sent again because the pooled connection was dead or the backend had not processed
    /// them.
    pub resends: Counter,
    /// Requests that matched the rule, failed ones included; for a route that is not HTTP, client
    /// connections or flows of datagrams.
    pub hits: Counter,
    /// Requests with at least one attempt at a backend; retries are not counted.
    pub requests: Counter,
    /// Gauge.
    pub requests_active: Counter,
    pub responses: Classes,
    /// Times from the request's head to the last byte of the backend's response.
    pub times: Histogram,
    /// Requests whose backend did not respond in time.
    pub timeouts: Counter,
    /// Requests that reached the maximum duration of their rule.
    pub too_long: Counter,
    /// Attempts after the first.
    pub retries: Counter,
    /// Requests that waited for a backend that accepts a connection.
    pub held: Counter,
    /// Gauge.
    pub held_active: Counter,
    /// Requests that were not held because too many were, and those whose wait was in vain.
    pub held_overflows: Counter,
    pub held_timeouts: Counter,
    /// Retries that were not made because too many were under way.
    pub retry_overflows: Counter,
}

/// Counters of the limits of requests, with Envoy's meaning.
#[derive(Debug, Default)]
pub(crate) struct RateLimits {
    /// Requests of rules that have limits.
    pub enabled: Counter,
    /// Requests that were refused.
    pub enforced: Counter,
    /// Requests that were within every limit.
    pub ok: Counter,
    /// Times that a limit was exceeded; with `shadowMode`, the request was not refused.
    pub rate_limited: Counter,
    /// Times that a bucket of one value that was full again was used for another value.
    pub buckets_reused: Counter,
    /// Requests with a value for which there was no bucket, so that it shared one.
    pub buckets_shared: Counter,
}

/// Counters of the compression of responses, by content coding, with Envoy's meaning.
#[derive(Debug, Default)]
pub(crate) struct Compression([CodingCounts; CODINGS.len()]);

/// Counters of one content coding.
#[derive(Debug, Default)]
pub(crate) struct CodingCounts {
    /// Responses that were compressed.
    pub responses: Counter,
    /// Their bytes before they were compressed.
    pub input_bytes: Counter,
    /// Their bytes after.
    pub output_bytes: Counter,
}

/// Envoy's names of the codings, in the order of `filters::Coding`.
pub(crate) const CODINGS: [&str; 3] = ["brotli", "gzip", "zstd"];

impl Compression {
    /// Returns the counters of the coding with this place in [`CODINGS`].
    pub(crate) fn of(&self, coding: usize) -> &CodingCounts {
        &self.0[coding]
    }
}

/// Counters of delays and refusals on purpose, with Envoy's meaning.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub aborts: Counter,
    pub delays: Counter,
    /// Gauge: requests that are being delayed.
    pub active: Counter,
}

/// Reloads since the start, and the result of the last.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    pub loaded: SharedCounter,
    pub refused: SharedCounter,
    /// Duration of the last reload in microseconds, gauge.
    pub last_took: Level,
    /// Time of the last successful reload in seconds since 1970, gauge.
    pub last_loaded_at: Level,
    /// 1 if the last reload was successful, gauge.
    pub last_was_loaded: Level,
    /// 1 while the files are refused and the previous configuration is served, gauge.
    pub files_refused: Level,
    /// Number of faults and warnings of the last load, gauge.
    pub diagnostics: Level,
    /// The reason why files cannot be watched, so that changes are found late.
    pub unwatched: Arc<Trouble>,
}

/// The description of a current problem, set while the problem lasts.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<Option<Box<str>>>);

impl Trouble {
    pub(crate) fn begins(&self, why: &str) {
        *self.held() = Some(why.into());
    }

    pub(crate) fn ends(&self) {
        *self.held() = None;
    }

    /// Returns the description; `None` if there is no problem.
    pub(crate) fn told(&self) -> Option<String> {
        self.held().as_deref().map(Into::into)
    }

    fn held(&self) -> MutexGuard<'_, Option<Box<str>>> {
        // A panic while the lock is held cannot leave a partial value, so poisoning is ignored.
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
