//! Settings of connections to backends, from BackendTrafficPolicies.

use std::time::Duration;

use crate::api;
use crate::api::envoy::BackendTrafficPolicySpec;
use crate::api::envoy::Quantity;
use crate::api::envoy::backend_settings::{
    self, CircuitBreaker, ProxyProtocolVersion, RetryBudget,
};
use crate::proxy_protocol;
use crate::stable_hash::hash_32;
use crate::upstream::{
    BalancePolicy, Bounds, ClusterSettings, Http2Settings, LifetimeLimits, Ping, RequestBounds,
    RetryBound,
};

use super::balancing;

/// The settings of a cluster that policies set; `None` for the gateway's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ConnectionSettings {
    connect_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    bounds: Option<Bounds>,
    requests: Option<RequestBounds>,
    lifetime: LifetimeLimits,
    http2: Option<Http2Settings>,
    balance: BalancePolicy,
    proxy_protocol: Option<proxy_protocol::Version>,
}

/// The limit of a circuit breaker that does not set it: the default of the CRD.
const LIMIT: u32 = 1024;

/// The number of retries that a budget always permits: Envoy's default.
const LEAST_RETRIES: usize = 3;

/// The idle timeout of a connection that is never closed for being idle.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

impl ConnectionSettings {
    /// Returns the settings of the policies that reach a route, the most specific first. Each
    /// attribute is that of the first policy that has it.
    pub(super) fn of(specs: &[&BackendTrafficPolicySpec]) -> Self {
        let timeouts = specs.iter().find_map(|spec| spec.timeout.as_ref());
        let breaker = specs.iter().find_map(|spec| spec.circuit_breaker.as_ref());
        let balance = specs.iter().find_map(|spec| spec.load_balancer.as_ref());
        let tcp = timeouts.and_then(|timeouts| timeouts.tcp.as_ref());
        let http = timeouts.and_then(|timeouts| timeouts.http.as_ref());
        let connect = tcp.and_then(|tcp| tcp.connect_timeout).map(api::Duration::get);
        let header = specs.iter().find_map(|spec| spec.proxy_protocol.as_ref());
        let idle = http.and_then(|http| http.connection_idle_timeout).map(api::Duration::get);
        let http2 = specs.iter().find_map(|spec| spec.http2.as_ref());
        let age = http.and_then(|http| http.max_connection_duration).map(api::Duration::get);
        Self {
            // Envoy has no connection without a limit; without one here, the default applies.
            connect_timeout: connect.filter(|limit| !limit.is_zero()),
            idle_timeout: idle.map(|limit| if limit.is_zero() { FOR_EVER } else { limit }),
            bounds: breaker.map(bounds),
            requests: breaker.map(requests),
            http2: http2.map(http2_settings),
            lifetime: LifetimeLimits {
                age: age.filter(|age| !age.is_zero()),
                requests: breaker
                    .and_then(|breaker| breaker.max_requests_per_connection)
                    .filter(|most| *most > 0),
            },
            balance: balance.map(balancing::policy).unwrap_or_default(),
            proxy_protocol: header.map(|header| version(&header.version)),
        }
    }

    /// Returns the name of a cluster with these settings.
    pub(super) fn name(self, name: String) -> String {
        if self == Self::default() {
            return name;
        }
        // Absent headers leave the names of other settings as they were.
        let settings = format!("{self:?}").replace(", proxy_protocol: None", "");
        format!("{name}/policy/{:08x}", hash_32(&settings))
    }

    /// Puts these settings in place of those of a cluster.
    pub(super) fn over(self, cluster: ClusterSettings) -> ClusterSettings {
        ClusterSettings {
            connect_timeout: self.connect_timeout.unwrap_or(cluster.connect_timeout),
            idle_timeout: self.idle_timeout.unwrap_or(cluster.idle_timeout),
            bounds: self.bounds.unwrap_or(cluster.bounds),
            requests: self.requests.or(cluster.requests),
            lifetime: self.lifetime,
            http2: self.http2.unwrap_or(cluster.http2),
            policy: self.balance,
            proxy_protocol: self.proxy_protocol,
            ..cluster
        }
    }
}

fn limit(limit: Option<u32>) -> usize {
    usize::try_from(limit.unwrap_or(LIMIT)).unwrap_or(usize::MAX)
}

/// A cluster without any connection would serve nothing, so that 0 connections are one.
fn bounds(breaker: &CircuitBreaker) -> Bounds {
    Bounds {
        connections: limit(breaker.max_connections).max(1),
        pending: limit(breaker.max_pending_requests),
    }
}

fn requests(breaker: &CircuitBreaker) -> RequestBounds {
    RequestBounds {
        requests: limit(breaker.max_parallel_requests),
        retries: match &breaker.retry_budget {
            Some(budget) => share(budget),
            None => RetryBound::Number(limit(breaker.max_parallel_retries)),
        },
    }
}

fn share(budget: &RetryBudget) -> RetryBound {
    RetryBound::Share {
        numerator: budget.percent.numerator,
        // The rules of the CRD exclude 0.
        denominator: budget.percent.denominator().max(1),
        at_least: budget
            .min_retry_concurrency
            .map_or(LEAST_RETRIES, |least| usize::try_from(least).unwrap_or_default()),
    }
}

/// The time for the acknowledgement of a PING, if it is not written.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The largest window of HTTP/2 (RFC 9113 section 6.9.1).
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

fn http2_settings(raw: &backend_settings::Http2Settings) -> Http2Settings {
    let defaults = Http2Settings::default();
    // A rule of the kind excludes larger sizes.
    let window = |size: &Option<Quantity>, default: u32| {
        let size = size.as_ref().and_then(Quantity::bytes);
        size.map_or(default, |size| u32::try_from(size).unwrap_or(u32::MAX).min(LARGEST_WINDOW))
    };
    let keepalive = raw.connection_keepalive.as_ref();
    let ping = keepalive.and_then(|of| {
        let interval = of.interval.map(api::Duration::get).filter(|time| !time.is_zero())?;
        let jitter = of.interval_jitter.and_then(|percent| u32::try_from(percent).ok());
        let timeout = of.timeout.map_or_else(|| PING_TIMEOUT.min(interval), api::Duration::get);
        Some(Ping { interval, jitter_percent: jitter.unwrap_or(0), timeout })
    });
    let streams = raw.max_concurrent_streams.and_then(|most| usize::try_from(most).ok());
    Http2Settings {
        stream_window: window(&raw.initial_stream_window_size, defaults.stream_window),
        connection_window: window(&raw.initial_connection_window_size, defaults.connection_window),
        max_streams: streams.unwrap_or(defaults.max_streams),
        ping,
    }
}

/// A word that is neither version is a fault of the policy, which is not applied.
fn version(word: &ProxyProtocolVersion) -> proxy_protocol::Version {
    match word {
        ProxyProtocolVersion::V1 => proxy_protocol::Version::V1,
        ProxyProtocolVersion::V2 | ProxyProtocolVersion::Unknown(_) => proxy_protocol::Version::V2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> BackendTrafficPolicySpec {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn each_attribute_is_that_of_the_first_policy_that_has_it() {
        let route = spec("timeout: {http: {connectionIdleTimeout: 0s}}");
        let gateway = spec(
            "{timeout: {tcp: {connectTimeout: 3s}}, circuitBreaker: {maxConnections: 0, \
             maxPendingRequests: 7}}",
        );
        let of = |specs: &[&BackendTrafficPolicySpec]| {
            let settings = ConnectionSettings::of(specs);
            settings.over(ClusterSettings::new("a", Vec::new()))
        };
        let both = of(&[&route, &gateway]);
        assert_eq!(both.connect_timeout, Duration::from_secs(10), "`timeout` is one attribute");
        assert_eq!(both.idle_timeout, FOR_EVER);
        assert_eq!(both.bounds, Bounds { connections: 1, pending: 7 });
        let requests = RequestBounds { requests: 1024, retries: RetryBound::Number(1024) };
        assert_eq!(both.requests, Some(requests));
        assert_eq!(of(&[&gateway]).connect_timeout, Duration::from_secs(3));
        assert_eq!(of(&[]), ClusterSettings::new("a", Vec::new()));
    }

    #[test]
    fn a_budget_takes_the_place_of_the_number_of_retries() {
        let share = |numerator, denominator, at_least| RetryBound::Share {
            numerator,
            denominator,
            at_least,
        };
        // (circuitBreaker, requests, retries)
        let table = [
            ("{}", 1024, RetryBound::Number(1024)),
            ("{maxParallelRequests: 0, maxParallelRetries: 2}", 0, RetryBound::Number(2)),
            (
                "{maxParallelRequests: 7, maxParallelRetries: 2, \
                 retryBudget: {percent: {numerator: 20}}}",
                7,
                share(20, 100, 3),
            ),
            (
                "{retryBudget: {percent: {numerator: 1, denominator: 4}, minRetryConcurrency: 0}}",
                1024,
                share(1, 4, 0),
            ),
        ];
        for (breaker, requests, retries) in table {
            let settings = ConnectionSettings::of(&[&spec(&format!("circuitBreaker: {breaker}"))]);
            assert_eq!(settings.requests, Some(RequestBounds { requests, retries }), "{breaker}");
        }
    }

    #[test]
    fn settings_of_http2_have_defaults_of_their_own() {
        let of = |http2: &str| {
            let settings = ConnectionSettings::of(&[&spec(&format!("http2: {http2}"))]);
            settings.over(ClusterSettings::new("a", Vec::new())).http2
        };
        assert_eq!(of("{}"), Http2Settings::default());
        let written = of("{initialStreamWindowSize: 64Ki, initialConnectionWindowSize: 2Mi, \
                          maxConcurrentStreams: 7, connectionKeepalive: {interval: 9s}}");
        assert_eq!((written.stream_window, written.connection_window), (64 << 10, 2 << 20));
        let nine = Duration::from_secs(9);
        assert_eq!(written.max_streams, 7);
        assert_eq!(written.ping, Some(Ping { interval: nine, jitter_percent: 0, timeout: nine }));
        assert_eq!(of("{connectionKeepalive: {timeout: 1s}}").ping, None);
    }

    #[test]
    fn a_cluster_with_settings_of_a_policy_has_a_name_of_its_own() {
        let none = ConnectionSettings::default();
        assert_eq!(none.name("a".into()), "a");
        let breaker = |yaml: &str| ConnectionSettings::of(&[&spec(yaml)]);
        let (one, other) =
            (breaker("circuitBreaker: {maxConnections: 1}"), breaker("circuitBreaker: {}"));
        assert_ne!(one.name("a".into()), other.name("a".into()));
        assert!(one.name("a".into()).starts_with("a/policy/"));
    }
}
