//! Rules: the processing of a request that matched.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::filters::{Filter, HttpFilter, Phase};
use crate::snapshot::{Balancing, ResponseOverrides, Session, WeightedClusters};
use crate::stats::{Sharded, Upstream};
use crate::upstream::Cluster;

/// A compiled rule of a route.
#[derive(Debug)]
pub(crate) struct Rule {
    /// `httproute/NAMESPACE/NAME/rule/N`, Envoy Gateway's name of the rule, for logs and metrics.
    pub name: Arc<str>,
    /// True for a rule of a GRPCRoute: gRPC-Web calls are translated for its backends.
    pub grpc: bool,
    /// In the order of their phases, and within a phase in the order of the route.
    pub filters: Box<[Filter]>,
    /// True if one of `filters` sees bodies.
    pub sees_bodies: bool,
    /// True if one of `filters` reads the bodies of requests.
    pub reads_requests: bool,
    pub mirrors: Box<[Mirror]>,
    /// `None` if there is no backend (no `backendRefs`, or all weights are 0). The answer is 500.
    pub backends: Option<WeightedClusters>,
    pub timeouts: Timeouts,
    /// `None` if there is only one try, whatever its result.
    pub retry: Option<Retry>,
    /// Carried over from snapshot to snapshot, by name.
    pub counts: Arc<Sharded<Upstream>>,
    /// `None` if no response is replaced.
    pub overrides: Option<Box<ResponseOverrides>>,
    /// `None` if there is no session persistence.
    pub session: Option<Box<Session>>,
    /// `None` if no policy has a load balancer.
    pub balancing: Option<Box<Balancing>>,
}

impl Rule {
    /// Returns true if its first filter answers in place of the backends, so that nothing reads the
    /// header fields of the request.
    pub(crate) fn answers_at_once(&self) -> bool {
        self.filters.first().is_some_and(|filter| filter.phase() == Phase::Answer)
    }
}

/// Limits on one exchange.
///
/// HTTPRoute `spec.rules[].timeouts` (GEP-1742).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// The time from the end of the request head to the last byte of the response, including all
    /// tries. On expiry the client gets 504.
    pub request: Limit,
    /// The time from the first byte sent to one backend to the head of its response: one try, not
    /// all. Never longer than `request`. On expiry the try fails with 504.
    pub backend_request: Limit,
    /// The time without a byte in either direction, in place of the timeouts of the listener for
    /// bodies, responses and tunnels. On expiry the client gets 408 if its request is still
    /// arriving, else 504, or its stream is reset. `timeout.http.streamIdleTimeout` of a
    /// BackendTrafficPolicy.
    pub stream_idle: Limit,
    /// The time from the end of the request head to the end of the exchange or of its tunnel.
    /// `timeout.http.maxStreamDuration` of a BackendTrafficPolicy.
    pub stream: Option<Duration>,
}

/// A time limit of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Not set: the gateway's own limit may apply.
    #[default]
    Unset,
    /// `0s`: there is no limit, and the gateway's own does not apply either.
    Off,
    After(Duration),
}

impl Limit {
    pub(crate) fn duration(self) -> Option<Duration> {
        match self {
            Self::After(limit) => Some(limit),
            Self::Off | Self::Unset => None,
        }
    }

    /// Returns this limit if it is set, else `other`.
    pub(crate) fn or(self, other: Self) -> Self {
        if self == Self::Unset { other } else { self }
    }
}

impl Timeouts {
    /// Returns the limit on the whole exchange, without a tunnel: the shorter of `request` and
    /// `stream`.
    pub(crate) fn whole(&self) -> Option<Duration> {
        self.request.duration().into_iter().chain(self.stream).min()
    }

    /// Returns true if [`whole`](Self::whole) is `stream`.
    pub(crate) fn stream_comes_first(&self) -> bool {
        self.stream.is_some_and(|stream| self.request.duration().is_none_or(|of| stream < of))
    }

    /// Returns true if the route sets no timeout, so that the gateway's own limits apply.
    pub(crate) fn is_unset(&self) -> bool {
        (self.request, self.backend_request) == (Limit::Unset, Limit::Unset)
    }
}

/// The conditions for retries of a request.
///
/// HTTPRoute `spec.rules[].retry` (GEP-1731), or `retry` of a BackendTrafficPolicy. The method of
/// the request does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    /// The failures that are retried.
    pub failures: RetriedFailures,
    /// Status codes that are not forwarded to the client while tries are left.
    pub codes: Box<[StatusCode]>,
    /// The maximum number of tries after the first.
    pub attempts: u32,
    /// The minimum wait before the second try; it doubles with each further one.
    pub backoff: Duration,
    /// The maximum of the minimum wait.
    pub max_backoff: Duration,
    /// The maximum number of bytes of a request body that are kept for another try. Default: 64 KiB.
    pub buffer: Option<usize>,
    /// The gRPC statuses that are retried if the backend sends them without a message.
    pub grpc: Box<[u8]>,
    /// The number of tries at one priority of the backends before the next ones go to the other.
    pub tries_per_priority: Option<NonZeroU32>,
}

/// The failures of a backend that are retried, each with those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RetriedFailures {
    None,
    /// A failed connection.
    Connecting,
    /// Also a connection that ends before the response, and a backend that does not answer in time.
    /// HTTPRoute has no others.
    All,
}

impl Retry {
    /// Returns the wait before try `number`, which is 2 for the first retry. `chance` is a random
    /// number: it adds up to half of the wait, so that requests that failed together are not
    /// retried together. Never less than `backoff`.
    pub(crate) fn wait(&self, number: u32, chance: u32) -> Duration {
        let growth = 1_u32.checked_shl(number.saturating_sub(2)).unwrap_or(u32::MAX);
        let wait = self.backoff.saturating_mul(growth).min(self.max_backoff);
        let share = f64::from(chance) / f64::from(u32::MAX) / 2.0;
        wait.saturating_add(Duration::try_from_secs_f64(wait.as_secs_f64() * share).unwrap_or(wait))
    }
}

/// A mirror: a copy of the request is sent to another cluster too, and its answer is ignored.
///
/// HTTPRoute `requestMirror`: `numerator` of `denominator` requests are copied.
#[derive(Clone, Debug)]
pub(crate) struct Mirror {
    pub cluster: Arc<Cluster>,
    pub numerator: u32,
    pub denominator: NonZeroU32,
}

impl Mirror {
    /// Returns true if this request is copied; `ticket` is a random number.
    pub(crate) fn takes(&self, ticket: u32) -> bool {
        ticket % self.denominator < self.numerator
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_for_routes_that_set_no_limit() {
        let some = Limit::After(Duration::from_secs(90));
        // (request, backendRequest, whether the default applies)
        let table = [
            (Limit::Unset, Limit::Unset, true),
            (Limit::Unset, Limit::Off, false),
            (Limit::Off, Limit::Unset, false),
            (Limit::Off, some, false),
            (some, Limit::Unset, false),
            (some, Limit::Off, false),
            (Limit::Unset, some, false),
        ];
        for (request, backend_request, want) in table {
            let timeouts = Timeouts { request, backend_request, ..Timeouts::default() };
            let got = timeouts.is_unset();
            assert_eq!(got, want, "{request:?} {backend_request:?}");
        }
    }

    #[test]
    fn each_try_waits_for_longer_and_never_for_less_than_asked() {
        let retry = |millis| Retry {
            failures: RetriedFailures::All,
            codes: Box::default(),
            attempts: 9,
            backoff: Duration::from_millis(millis),
            max_backoff: Duration::from_millis(10 * millis),
            buffer: None,
            grpc: Box::default(),
            tries_per_priority: None,
        };
        // (backoff, number of the try, least, most; all in milliseconds)
        let table = [
            (100, 2, 100, 150),
            (100, 3, 200, 300),
            (100, 4, 400, 600),
            (100, 6, 1000, 1500),
            (100, u32::MAX, 1000, 1500),
            (0, 5, 0, 0),
        ];
        for (backoff, number, least, most) in table {
            let wait = |chance| retry(backoff).wait(number, chance).as_millis();
            assert_eq!((wait(0), wait(u32::MAX)), (least, most), "{backoff} {number}");
        }
        let forever = Retry { backoff: Duration::MAX, max_backoff: Duration::MAX, ..retry(0) };
        assert_eq!(forever.wait(9, u32::MAX), Duration::MAX);
    }
}
