//! Spans for the export, with Envoy's names and attributes.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::SystemTime;

use http::HeaderValue;
use opentelemetry::trace::{SpanContext, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::observe::{AccessRecord, Upstream, redacted_target};
use crate::trace::attempt::{Outcome, Try};
use crate::trace::context::{SpanId, TraceId};
use crate::trace::grpc::GrpcStatus;
use crate::trace::text::{WORD_BYTES, text};

/// Limit on the path in `http.url` in bytes, as in Envoy (`max_path_tag_length`).
const PATH_BYTES: usize = 256;

/// Data common to all spans of one request.
pub(super) struct Family<'r> {
    pub trace: TraceId,
    pub state: TraceState,
    pub tags: &'r [KeyValue],
    /// Final status of a gRPC call.
    pub grpc: Option<&'r GrpcStatus>,
    pub record: &'r AccessRecord<'r>,
}

/// Converts a `tracestate` for the exporter.
pub(super) fn state(field: Option<&HeaderValue>) -> TraceState {
    field.and_then(|field| TraceState::from_str(field.to_str().ok()?).ok()).unwrap_or_default()
}

impl Family<'_> {
    fn context(&self, span: SpanId) -> SpanContext {
        let (trace, span) = (self.trace.number().into(), span.number().into());
        SpanContext::new(trace, span, TraceFlags::SAMPLED, false, self.state.clone())
    }
}

/// Data of a request's span that the access log record does not have.
pub(super) struct Request {
    pub span: SpanId,
    pub parent: Option<SpanId>,
    pub scheme: &'static str,
}

/// Returns the span of a request: Envoy's `ingress`.
pub(super) fn server(family: &Family<'_>, request: &Request, began: SystemTime) -> SpanData {
    let Family { record, grpc, tags, .. } = family;
    let failed =
        record.status == 0 || record.status >= 500 || grpc.is_some_and(GrpcStatus::is_fault);
    let host = text(record.host.as_bytes(), WORD_BYTES);
    let target = redacted_target(record.path, PATH_BYTES);
    let mut attributes = Vec::with_capacity(18 + tags.len());
    attributes.extend([
        KeyValue::new("component", "proxy"),
        KeyValue::new("guid:x-request-id", text(record.request_id.as_bytes(), WORD_BYTES)),
        KeyValue::new("http.url", format!("{}://{host}{target}", request.scheme)),
        KeyValue::new("http.method", text(record.method.as_bytes(), WORD_BYTES)),
        KeyValue::new("http.protocol", record.protocol),
        KeyValue::new("http.status_code", record.status.to_string()),
        KeyValue::new("peer.address", record.peer.ip().to_canonical().to_string()),
        KeyValue::new("request_size", record.request_bytes.to_string()),
        KeyValue::new("response_size", record.response_bytes.to_string()),
        KeyValue::new("response_flags", record.flags.short()),
    ]);
    if let Some(agent) = record.user_agent {
        attributes.push(KeyValue::new("user_agent", text(agent, WORD_BYTES)));
    }
    if let Some(route) = record.route {
        attributes.push(KeyValue::new("route_name", route.to_owned()));
        if record.attempts > 0 {
            attributes.push(KeyValue::new("upstream_cluster", route.to_owned()));
            attributes.push(KeyValue::new("upstream_cluster.name", route.to_owned()));
        }
    }
    if let Some(upstream) = record.upstream {
        let address = match upstream {
            Upstream::Address(address) => address.to_string(),
            Upstream::Name(name) => name.to_owned(),
        };
        attributes.push(KeyValue::new("upstream_address", address));
    }
    if failed {
        attributes.push(KeyValue::new("error", "true"));
    }
    if let Some(grpc) = grpc {
        grpc.tell(&mut attributes);
    }
    attributes.extend_from_slice(tags);
    SpanData {
        span_context: family.context(request.span),
        parent_span_id: parent(request.parent),
        parent_span_is_remote: request.parent.is_some(),
        span_kind: SpanKind::Server,
        name: Cow::Borrowed("ingress"),
        start_time: began,
        end_time: record.time,
        attributes,
        status: status(failed),
        ..blank()
    }
}

/// Returns the span of an attempt at a backend: Envoy's `router CLUSTER egress`.
///
/// A 4xx response marks the span as failed, since it is an error of a client span by
/// OpenTelemetry's HTTP conventions.
pub(super) fn client(
    family: &Family<'_>,
    of: SpanId,
    tried: &Try,
    number: usize,
    began: SystemTime,
    ended: SystemTime,
) -> SpanData {
    let Family { record, tags, .. } = family;
    let cluster = record.route.unwrap_or("-");
    let (code, flags) = match tried.outcome {
        Some(Outcome::Status(code)) => (code, "-"),
        Some(Outcome::Failed(flags)) => (0, flags.short()),
        None => (0, record.flags.short()),
    };
    // The gRPC status belongs to the last attempt, if that has a response.
    let grpc = family.grpc.filter(|_| tried.ended.is_none() && code != 0);
    let is_fault = code == 0 || code >= 500 || grpc.is_some_and(GrpcStatus::is_fault);
    let mut attributes = Vec::with_capacity(12 + tags.len());
    attributes.extend([
        KeyValue::new("component", "proxy"),
        KeyValue::new("upstream_cluster", cluster.to_owned()),
        KeyValue::new("upstream_cluster.name", cluster.to_owned()),
        KeyValue::new("http.status_code", code.to_string()),
        KeyValue::new("response_flags", flags),
    ]);
    if let Some(endpoint) = &tried.endpoint {
        let address = endpoint.to_string();
        attributes.push(KeyValue::new("upstream_address", address.clone()));
        attributes.push(KeyValue::new("peer.address", address));
    }
    if number > 0 {
        attributes.push(KeyValue::new("retry.count", number.to_string()));
    }
    if is_fault {
        attributes.push(KeyValue::new("error", "true"));
    }
    if let Some(grpc) = grpc {
        grpc.tell(&mut attributes);
    }
    attributes.extend_from_slice(tags);
    SpanData {
        span_context: family.context(tried.span),
        parent_span_id: parent(Some(of)),
        span_kind: SpanKind::Client,
        name: Cow::Owned(format!("router {cluster} egress")),
        start_time: began,
        end_time: ended.max(began),
        attributes,
        status: status(is_fault || code >= 400),
        ..blank()
    }
}

fn parent(span: Option<SpanId>) -> opentelemetry::trace::SpanId {
    span.map_or(0, SpanId::number).into()
}

fn status(failed: bool) -> Status {
    if failed { Status::error("") } else { Status::Unset }
}

/// Returns an empty span.
pub(super) fn blank() -> SpanData {
    SpanData {
        span_context: SpanContext::NONE,
        parent_span_id: opentelemetry::trace::SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: Cow::Borrowed(""),
        start_time: SystemTime::UNIX_EPOCH,
        end_time: SystemTime::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::default(),
    }
}
