//! BackendTrafficPolicy: all fields of Envoy Gateway 1.9.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::api::duration::Duration;
use crate::api::kinds::Kind;
use crate::api::open_enum::open_enum;
use crate::api::shared::Fraction;

use super::backend_settings::{
    BackendConnection, BackendProxyProtocol, BackendRetry, BackendTimeouts, CircuitBreaker, Dns,
    Http2Settings, TcpKeepalive,
};
use super::envoy_proxy::{CustomTag, SpanName};
use super::health_check::HealthCheck;
use super::load_balancer::LoadBalancer;
use super::policy::{
    EnvoyPolicy, EnvoyPolicySpec, MergeType, PolicySelector, PolicyTarget, deprecated_target,
};
use super::quantity::Quantity;
use super::rate_limit::RateLimit;
use super::response_override::{CustomBodyType, ResponseOverride};

/// Settings of the way from a route to its backends. `config` lists the fields that are not
/// supported yet.
pub(crate) type BackendTrafficPolicy = EnvoyPolicy<BackendTrafficPolicySpec>;

/// The targets of a BackendTrafficPolicy, and the settings that apply to them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackendTrafficPolicySpec {
    pub target_ref: Option<PolicyTarget>,
    pub target_refs: Option<Vec<PolicyTarget>>,
    #[serde(default)]
    pub target_selectors: Vec<PolicySelector>,
    pub merge_type: Option<MergeType>,
    pub load_balancer: Option<LoadBalancer>,
    pub retry: Option<BackendRetry>,
    pub proxy_protocol: Option<BackendProxyProtocol>,
    pub tcp_keepalive: Option<TcpKeepalive>,
    pub health_check: Option<HealthCheck>,
    pub circuit_breaker: Option<CircuitBreaker>,
    pub timeout: Option<BackendTimeouts>,
    pub connection: Option<BackendConnection>,
    pub dns: Option<Dns>,
    pub http2: Option<Http2Settings>,
    pub rate_limit: Option<RateLimit>,
    pub bandwidth_limit: Option<BandwidthLimit>,
    pub fault_injection: Option<FaultInjection>,
    pub admission_control: Option<AdmissionControl>,
    /// Default: false.
    pub use_client_protocol: Option<bool>,
    /// Deprecated form of `compressor`.
    pub compression: Option<Vec<Compression>>,
    pub compressor: Option<Vec<Compression>>,
    #[serde(default)]
    pub response_override: Vec<ResponseOverride>,
    #[serde(default)]
    pub http_upgrade: Vec<HttpUpgrade>,
    pub request_buffer: Option<RequestBuffer>,
    pub telemetry: Option<RouteTelemetry>,
    pub routing_type: Option<String>,
}

impl EnvoyPolicySpec for BackendTrafficPolicySpec {
    const KIND: Kind = Kind::BackendTrafficPolicy;
    const TARGETS: &'static [Kind] = &[
        Kind::Gateway,
        Kind::ListenerSet,
        Kind::HttpRoute,
        Kind::GrpcRoute,
        Kind::TcpRoute,
        Kind::UdpRoute,
        Kind::TlsRoute,
    ];
    const MERGED_LISTS: &'static [(&'static str, Option<&'static str>)] = &[
        ("/compression", Some("type")),
        ("/compressor", Some("type")),
        ("/httpUpgrade", Some("type")),
        // Each policy keeps its own rules.
        ("/rateLimit/global/rules", None),
        ("/rateLimit/local/rules", None),
    ];

    fn target_ref(&self) -> Option<&PolicyTarget> {
        self.target_ref.as_ref()
    }

    fn target_refs(&self) -> Option<&[PolicyTarget]> {
        self.target_refs.as_deref()
    }

    fn target_selectors(&self) -> &[PolicySelector] {
        &self.target_selectors
    }

    fn merge_type(&self) -> Option<&MergeType> {
        self.merge_type.as_ref()
    }

    fn deprecated(&self) -> Vec<(&'static str, &'static str)> {
        let compression = self.compression.is_some().then_some(("compression", "compressor"));
        deprecated_target(self).into_iter().chain(compression).collect()
    }

    fn config_maps(&self) -> Vec<(String, &str)> {
        let overrides = self.response_override.iter().enumerate();
        let found = overrides.filter_map(|(number, of)| {
            let body = of.response.as_ref()?.body.as_ref()?;
            let to =
                body.value_ref.as_ref().filter(|_| body.kind == Some(CustomBodyType::ValueRef))?;
            Some((format!("spec.responseOverride[{number}].response.body.valueRef"), &*to.name))
        });
        found.collect()
    }

    fn idle(&self) -> Vec<(String, String)> {
        let list = self.compressor.iter().flatten().enumerate();
        let idle = list.filter(|(_, of)| !of.has_member());
        let connect = self.http_upgrade.iter().enumerate();
        let connect = connect.filter(|(_, of)| of.kind.eq_ignore_ascii_case("CONNECT"));
        let connect = connect.map(|(number, _)| {
            let problem = "not supported yet; requests with CONNECT are refused".to_owned();
            (format!("spec.httpUpgrade[{number}]"), problem)
        });
        idle.map(|(number, of)| {
            let member = of.kind.as_str().to_ascii_lowercase();
            let problem = format!("has no effect without `{member}`; add `{member}: {{}}`");
            (format!("spec.compressor[{number}]"), problem)
        })
        .chain(connect)
        .collect()
    }
}

/// The maximum number of bytes in a time, for requests and for responses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct BandwidthLimit {
    pub request: Option<RequestBandwidth>,
    pub response: Option<ResponseBandwidth>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct RequestBandwidth {
    pub limit: Bandwidth,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResponseBandwidth {
    pub limit: Bandwidth,
    pub response_trailers: Option<BandwidthTrailers>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Bandwidth {
    pub value: Quantity,
    pub unit: BandwidthUnit,
}

open_enum! {
    BandwidthUnit {
        Second = "Second",
        Minute = "Minute",
        Hour = "Hour",
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct BandwidthTrailers {
    pub prefix: Option<String>,
}

/// Delays and failures on purpose, for tests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct FaultInjection {
    pub delay: Option<FaultDelay>,
    pub abort: Option<FaultAbort>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FaultDelay {
    pub fixed_delay: Duration,
    /// Default: 100.
    pub percentage: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FaultAbort {
    pub http_status: Option<i32>,
    pub grpc_status: Option<i32>,
    /// Default: 100.
    pub percentage: Option<f64>,
}

/// Refusal of requests while backends fail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AdmissionControl {
    /// Default: 30 s.
    pub sampling_window: Option<Duration>,
    /// A percentage. Default: 95.
    pub min_success_rate: Option<i32>,
    /// Default: 1.
    pub rejection_aggression: Option<i32>,
    /// Requests per second. Default: 0.
    pub min_request_rate: Option<i32>,
    /// Default: 80.
    pub max_rejection_percent: Option<i32>,
    pub success_criteria: Option<SuccessCriteria>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct SuccessCriteria {
    pub http: Option<HttpSuccess>,
    pub grpc: Option<GrpcSuccess>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpSuccess {
    #[serde(default)]
    pub status_codes: Vec<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GrpcSuccess {
    #[serde(default)]
    pub status_codes: Vec<GrpcStatus>,
}

open_enum! {
    GrpcStatus {
        Ok = "Ok",
        Cancelled = "Cancelled",
        UnknownError = "Unknown",
        InvalidArgument = "InvalidArgument",
        DeadlineExceeded = "DeadlineExceeded",
        NotFound = "NotFound",
        AlreadyExists = "AlreadyExists",
        PermissionDenied = "PermissionDenied",
        ResourceExhausted = "ResourceExhausted",
        FailedPrecondition = "FailedPrecondition",
        Aborted = "Aborted",
        OutOfRange = "OutOfRange",
        Unimplemented = "Unimplemented",
        Internal = "Internal",
        Unavailable = "Unavailable",
        DataLoss = "DataLoss",
        Unauthenticated = "Unauthenticated",
    }
}

/// A compression of responses. The field named by `type` must be written for it to take effect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Compression {
    #[serde(rename = "type")]
    pub kind: CompressionType,
    pub brotli: Option<NoSettings>,
    pub gzip: Option<NoSettings>,
    pub zstd: Option<NoSettings>,
    /// Default: 30.
    pub min_content_length: Option<Quantity>,
}

impl Compression {
    /// Returns true if the field named by `type` is written.
    pub(crate) fn has_member(&self) -> bool {
        match self.kind {
            CompressionType::Brotli => self.brotli.is_some(),
            CompressionType::Gzip => self.gzip.is_some(),
            CompressionType::Zstd => self.zstd.is_some(),
            CompressionType::Unknown(_) => true,
        }
    }
}

open_enum! {
    CompressionType {
        Gzip = "Gzip",
        Brotli = "Brotli",
        Zstd = "Zstd",
    }
}

/// An object without fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct NoSettings {}

/// A protocol that clients may change to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct HttpUpgrade {
    #[serde(rename = "type")]
    pub kind: String,
    pub connect: Option<ConnectUpgrade>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct ConnectUpgrade {
    /// Default: false.
    pub terminate: Option<bool>,
}

/// The limit of a request that is held as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct RequestBuffer {
    pub limit: Option<Quantity>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct RouteTelemetry {
    pub tracing: Option<RouteTracing>,
    pub metrics: Option<RouteMetrics>,
}

/// Tracing of a route; what is absent is as in the EnvoyProxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteTracing {
    pub sampling_fraction: Option<Fraction>,
    pub client_sampling_fraction: Option<Fraction>,
    pub overall_sampling_fraction: Option<Fraction>,
    #[serde(default)]
    pub custom_tags: BTreeMap<String, CustomTag>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    pub span_name: Option<SpanName>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteMetrics {
    pub route_stat_name: Option<String>,
}
