//! Envoy Gateway's cluster settings: the fields about connections to backends that several kinds
//! embed.

use serde::Deserialize;

use crate::api::duration::Duration;
use crate::api::open_enum::open_enum;
use crate::api::shared::Fraction;

use super::quantity::Quantity;

/// `circuitBreaker`: limits of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CircuitBreaker {
    /// Default: 1024.
    pub max_connections: Option<u32>,
    /// Default: 1024.
    pub max_pending_requests: Option<u32>,
    /// Default: 1024.
    pub max_parallel_requests: Option<u32>,
    /// Default: 1024.
    pub max_parallel_retries: Option<u32>,
    pub max_requests_per_connection: Option<u32>,
    pub per_endpoint: Option<EndpointCircuitBreaker>,
    pub retry_budget: Option<RetryBudget>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointCircuitBreaker {
    /// Default: 1024.
    pub max_connections: Option<u32>,
}

/// The share of a cluster's requests that may be retries.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RetryBudget {
    pub percent: Fraction,
    /// Default: 3.
    pub min_retry_concurrency: Option<i32>,
}

/// `timeout`: time limits towards a backend. `0s` turns a limit off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct BackendTimeouts {
    pub tcp: Option<TcpTimeouts>,
    pub http: Option<HttpTimeouts>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TcpTimeouts {
    pub connect_timeout: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpTimeouts {
    pub connection_idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    pub request_timeout: Option<Duration>,
    pub max_stream_duration: Option<Duration>,
    pub stream_idle_timeout: Option<Duration>,
}

/// `retry`: the conditions for another attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackendRetry {
    /// Default: 2.
    pub num_retries: Option<i32>,
    pub num_attempts_per_priority: Option<i32>,
    pub retry_on: Option<RetryOn>,
    pub per_retry: Option<PerRetry>,
}

impl BackendRetry {
    /// Returns the maximum number of attempts after the first; default: 2.
    pub(crate) fn num_retries(&self) -> u32 {
        self.num_retries.map_or(2, |number| u32::try_from(number).unwrap_or_default())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RetryOn {
    #[serde(default)]
    pub triggers: Vec<RetryTrigger>,
    #[serde(default)]
    pub http_status_codes: Vec<u16>,
}

open_enum! {
    RetryTrigger {
        Error5xx = "5xx",
        GatewayError = "gateway-error",
        Reset = "reset",
        ResetBeforeRequest = "reset-before-request",
        ConnectFailure = "connect-failure",
        Retriable4xx = "retriable-4xx",
        RefusedStream = "refused-stream",
        RetriableStatusCodes = "retriable-status-codes",
        Cancelled = "cancelled",
        DeadlineExceeded = "deadline-exceeded",
        Internal = "internal",
        ResourceExhausted = "resource-exhausted",
        Unavailable = "unavailable",
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PerRetry {
    /// The limit of each attempt, the first one included.
    pub timeout: Option<Duration>,
    pub back_off: Option<BackOff>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackOff {
    /// Default: 25 ms.
    pub base_interval: Option<Duration>,
    /// Default: 10 times `baseInterval`.
    pub max_interval: Option<Duration>,
}

/// `tcpKeepalive`; absent fields have the kernel's values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TcpKeepalive {
    pub probes: Option<i32>,
    pub idle_time: Option<Duration>,
    pub interval: Option<Duration>,
}

/// `proxyProtocol`: the header of each connection.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct BackendProxyProtocol {
    pub version: ProxyProtocolVersion,
}

open_enum! {
    ProxyProtocolVersion {
        V1 = "V1",
        V2 = "V2",
    }
}

/// `connection`: buffers, and connections opened ahead of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackendConnection {
    pub buffer_limit: Option<Quantity>,
    pub socket_buffer_limit: Option<Quantity>,
    pub preconnect: Option<Preconnect>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Preconnect {
    pub per_endpoint_percent: Option<i32>,
    pub predictive_percent: Option<i32>,
}

/// `dns`: the lookup of a backend's name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Dns {
    /// Default: 30 s.
    pub dns_refresh_rate: Option<Duration>,
    /// Default: true.
    pub respect_dns_ttl: Option<bool>,
    pub lookup_family: Option<DnsLookupFamily>,
}

open_enum! {
    DnsLookupFamily {
        Ipv4 = "IPv4",
        Ipv6 = "IPv6",
        Ipv4Preferred = "IPv4Preferred",
        Ipv6Preferred = "IPv6Preferred",
        Ipv4AndIpv6 = "IPv4AndIPv6",
    }
}

/// `http2`: settings of HTTP/2 connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Http2Settings {
    pub initial_stream_window_size: Option<Quantity>,
    pub initial_connection_window_size: Option<Quantity>,
    /// Default: 100.
    pub max_concurrent_streams: Option<i32>,
    pub on_invalid_message: Option<String>,
    pub connection_keepalive: Option<Http2Keepalive>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Http2Keepalive {
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub interval_jitter: Option<i32>,
    pub idle_interval: Option<Duration>,
}
