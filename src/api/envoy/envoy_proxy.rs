//! EnvoyProxy: settings of the proxy of a Gateway. Its access log and tracing are supported.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::api::ObjectMeta;
use crate::api::http_route::Header;
use crate::api::open_enum::open_enum;
use crate::api::shared::{Fraction, PlainBackendRef};

/// Settings that a GatewayClass or a Gateway refers to by `parametersRef`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct EnvoyProxy {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: EnvoyProxySpec,
}

impl EnvoyProxy {
    /// Returns `spec.telemetry.accessLog`.
    pub(crate) fn access_log(&self) -> Option<&AccessLog> {
        self.spec.telemetry.as_ref()?.access_log.as_ref()
    }

    /// Returns `spec.telemetry.tracing`.
    pub(crate) fn tracing(&self) -> Option<&Tracing> {
        self.spec.telemetry.as_ref()?.tracing.as_ref()
    }
}

/// The spec; only `telemetry` is supported. The other known fields are declared, so that a report
/// can name the equivalent setting of this gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EnvoyProxySpec {
    pub provider: Option<IgnoredAny>,
    pub logging: Option<IgnoredAny>,
    pub telemetry: Option<Telemetry>,
    pub bootstrap: Option<IgnoredAny>,
    pub concurrency: Option<IgnoredAny>,
    pub routing_type: Option<IgnoredAny>,
    pub extra_args: Option<IgnoredAny>,
    pub merge_gateways: Option<IgnoredAny>,
    pub shutdown: Option<IgnoredAny>,
    pub filter_order: Option<IgnoredAny>,
    #[serde(rename = "backendTLS")]
    pub backend_tls: Option<IgnoredAny>,
    pub ip_family: Option<IgnoredAny>,
    pub preserve_route_order: Option<IgnoredAny>,
    pub lua_validation: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Telemetry {
    pub access_log: Option<AccessLog>,
    pub tracing: Option<Tracing>,
    pub metrics: Option<IgnoredAny>,
    #[serde(rename = "requestID")]
    pub request_id: Option<IgnoredAny>,
}

/// Settings of the access log.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccessLog {
    /// Default: false.
    pub disable: Option<bool>,
    /// Each setting writes its own lines.
    #[serde(default)]
    pub settings: Vec<AccessLogSetting>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccessLogSetting {
    /// Default: Envoy Gateway's default JSON.
    pub format: Option<AccessLogFormat>,
    /// CEL expressions, all of which must hold.
    #[serde(default)]
    pub matches: Vec<String>,
    #[serde(default)]
    pub sinks: Vec<AccessLogSink>,
    #[serde(rename = "type")]
    pub kind: Option<AccessLogType>,
}

open_enum! {
    AccessLogType {
        /// One line per connection.
        Listener = "Listener",
        /// One line per request, or per connection that a route forwards.
        Route = "Route",
    }
}

/// The format: `text` or `json`, selected by `type`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccessLogFormat {
    #[serde(rename = "type")]
    pub kind: Option<AccessLogFormatType>,
    /// One line with Envoy's command operators, including its newline.
    pub text: Option<String>,
    /// Keys, with Envoy's command operators as values.
    pub json: Option<BTreeMap<String, String>>,
}

open_enum! {
    AccessLogFormatType {
        Text = "Text",
        Json = "JSON",
    }
}

/// A sink; `type` selects exactly one of the other fields.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccessLogSink {
    #[serde(rename = "type")]
    pub kind: AccessLogSinkType,
    pub als: Option<IgnoredAny>,
    pub file: Option<FileSink>,
    pub open_telemetry: Option<IgnoredAny>,
}

open_enum! {
    AccessLogSinkType {
        Als = "ALS",
        File = "File",
        OpenTelemetry = "OpenTelemetry",
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FileSink {
    /// An absolute path, such as `/dev/stdout`.
    #[serde(default)]
    pub path: String,
}

/// The sampling of requests, and the collector of their spans.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tracing {
    /// Percentage of the requests without a sampling decision that are traced.
    pub sampling_rate: Option<u32>,
    pub sampling_fraction: Option<Fraction>,
    #[serde(default)]
    pub custom_tags: BTreeMap<String, CustomTag>,
    /// Values with Envoy's command operators, by name.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    pub span_name: Option<SpanName>,
    pub provider: TracingProvider,
}

impl Tracing {
    /// Returns the sampled fraction; default: every request.
    pub(crate) fn sampling(&self) -> Fraction {
        let rate = |numerator| Fraction { numerator, denominator: Some(100) };
        match (self.sampling_rate, self.sampling_fraction) {
            (Some(percent), _) => rate(percent),
            (None, Some(fraction)) => fraction,
            (None, None) => rate(100),
        }
    }
}

/// The names of spans, with Envoy's command operators.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SpanName {
    pub server: Option<String>,
    pub client: Option<String>,
}

/// The collector: `backendRefs`, or `host` if there are none.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TracingProvider {
    #[serde(rename = "type")]
    pub kind: Option<TracingProviderType>,
    pub host: Option<String>,
    /// Default: 4317.
    pub port: Option<u16>,
    #[serde(default)]
    pub backend_refs: Vec<PlainBackendRef>,
    pub backend_settings: Option<IgnoredAny>,
    /// The name of the service in traces. Default: `name.namespace` of the Gateway.
    pub service_name: Option<String>,
    pub open_telemetry: Option<OpenTelemetryTracing>,
    pub zipkin: Option<IgnoredAny>,
}

impl TracingProvider {
    /// Returns the kind; default: `OpenTelemetry`.
    pub(crate) fn kind(&self) -> &TracingProviderType {
        self.kind.as_ref().unwrap_or(&TracingProviderType::OpenTelemetry)
    }

    /// Returns the port of `host`; default: 4317, the port of OTLP over gRPC.
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or(4317)
    }
}

open_enum! {
    TracingProviderType {
        OpenTelemetry = "OpenTelemetry",
        Zipkin = "Zipkin",
        Datadog = "Datadog",
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OpenTelemetryTracing {
    /// Headers of each export.
    #[serde(default)]
    pub headers: Vec<Header>,
    #[serde(default)]
    pub resource_attributes: BTreeMap<String, String>,
}

/// A tag; `type` selects one of the other fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CustomTag {
    #[serde(rename = "type")]
    pub kind: Option<CustomTagType>,
    pub literal: Option<LiteralTag>,
    pub environment: Option<NamedTag>,
    pub request_header: Option<NamedTag>,
}

impl CustomTag {
    /// Returns the kind; default: `Literal`.
    pub(crate) fn kind(&self) -> &CustomTagType {
        self.kind.as_ref().unwrap_or(&CustomTagType::Literal)
    }
}

open_enum! {
    CustomTagType {
        Literal = "Literal",
        Environment = "Environment",
        RequestHeader = "RequestHeader",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct LiteralTag {
    pub value: String,
}

/// An environment variable, or a header of the request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NamedTag {
    pub name: String,
    /// The value if the variable or header is missing.
    pub default_value: Option<String>,
}
