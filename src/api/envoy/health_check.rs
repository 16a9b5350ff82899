//! `healthCheck` of Envoy Gateway's cluster settings.

use serde::Deserialize;

use crate::api::duration::Duration;
use crate::api::open_enum::open_enum;

use super::envoy_proxy::FileSink;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HealthCheck {
    pub active: Option<ActiveHealthCheck>,
    pub passive: Option<PassiveHealthCheck>,
    /// The percentage of healthy endpoints below which health is ignored. Default: 50.
    pub panic_threshold: Option<i32>,
}

/// Checks that the gateway sends; `type` selects the settings that apply.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ActiveHealthCheck {
    #[serde(rename = "type")]
    pub kind: ActiveHealthCheckType,
    /// Default: 1 s.
    pub timeout: Option<Duration>,
    /// Default: 3 s.
    pub interval: Option<Duration>,
    pub initial_jitter: Option<Duration>,
    /// Default: 3.
    pub unhealthy_threshold: Option<i32>,
    /// Default: 1.
    pub healthy_threshold: Option<i32>,
    pub http: Option<HttpHealthCheck>,
    pub tcp: Option<TcpHealthCheck>,
    pub grpc: Option<GrpcHealthCheck>,
    pub overrides: Option<HealthCheckOverrides>,
    pub health_check_log: Option<HealthCheckLog>,
}

open_enum! {
    ActiveHealthCheckType {
        Http = "HTTP",
        Tcp = "TCP",
        Grpc = "GRPC",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpHealthCheck {
    pub hostname: Option<String>,
    pub path: String,
    /// Default: GET.
    pub method: Option<String>,
    /// Default: 200.
    #[serde(default)]
    pub expected_statuses: Vec<u16>,
    #[serde(default)]
    pub retriable_statuses: Vec<u16>,
    pub expected_response: Option<HealthCheckPayload>,
    pub request_body: Option<HealthCheckPayload>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct TcpHealthCheck {
    pub send: Option<HealthCheckPayload>,
    pub receive: Option<HealthCheckPayload>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct GrpcHealthCheck {
    pub service: Option<String>,
}

/// Bytes: `text`, or `binary` in base64, selected by `type`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct HealthCheckPayload {
    #[serde(rename = "type")]
    pub kind: PayloadType,
    pub text: Option<String>,
    pub binary: Option<String>,
}

open_enum! {
    PayloadType {
        Text = "Text",
        Binary = "Binary",
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct HealthCheckOverrides {
    pub port: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HealthCheckLog {
    #[serde(default)]
    pub sinks: Vec<HealthCheckLogSink>,
    pub matches: Option<Vec<HealthCheckEvent>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct HealthCheckLogSink {
    #[serde(rename = "type")]
    pub kind: HealthCheckLogSinkType,
    pub file: Option<FileSink>,
}

open_enum! {
    HealthCheckLogSinkType {
        File = "File",
    }
}

open_enum! {
    HealthCheckEvent {
        Failure = "Failure",
        FailureSeriesStart = "FailureSeriesStart",
        Success = "Success",
        HealthyTransition = "HealthyTransition",
    }
}

/// Ejection of endpoints by their answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PassiveHealthCheck {
    /// Default: false.
    pub split_external_local_origin_errors: Option<bool>,
    /// Default: 3 s.
    pub interval: Option<Duration>,
    /// Default: 5.
    pub consecutive_local_origin_failures: Option<i32>,
    pub consecutive_gateway_errors: Option<i32>,
    /// Default: 5.
    #[serde(rename = "consecutive5XxErrors")]
    pub consecutive_5xx_errors: Option<i32>,
    /// Default: 30 s.
    pub base_ejection_time: Option<Duration>,
    /// Default: 10.
    pub max_ejection_percent: Option<i32>,
    pub failure_percentage_threshold: Option<i32>,
    /// Default: false.
    pub always_eject_one_endpoint: Option<bool>,
}
