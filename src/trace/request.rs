//! The trace of one request, from its head to the end of its response.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use opentelemetry::KeyValue;

use crate::observe::AccessRecord;
use crate::trace::attempt::{Outcome, Try};
use crate::trace::context::{Context, SpanId, TRACESTATE, TraceId, settle_state};
use crate::trace::grpc::GrpcStatus;
use crate::trace::settings::{TagValue, TracingSettings};
use crate::trace::span::{self, Family};
use crate::trace::text::{WORD_BYTES, text};
use crate::upstream::EndpointName;

/// Maximum number of attempts of one request that have spans; later ones are propagated, but not
/// exported.
const TRIES: usize = 16;
/// Maximum length in bytes of a header's value in a tag.
const TAG_BYTES: usize = 256;

/// The trace of a request. It has ids even if it is not sampled, since they are propagated to the
/// backend.
#[derive(Debug)]
pub(crate) struct Trace {
    tracing: Arc<TracingSettings>,
    /// Context of the request's own span.
    context: Context,
    /// Value of `traceparent`, which contains the trace id.
    field: [u8; 55],
    parent: Option<SpanId>,
    state: Option<HeaderValue>,
    scheme: &'static str,
    started: Instant,
    tags: Vec<KeyValue>,
    tries: Vec<Try>,
    grpc: Option<GrpcStatus>,
}

impl Trace {
    /// Continues the trace in the request's head, or begins one, and updates the head for all
    /// copies of the request.
    ///
    /// As in Envoy, any client's `traceparent` is trusted, and its `sampled` flag decides. An
    /// invalid one is replaced, and its `tracestate` removed (Trace Context section 4.3). `started`
    /// is the time at which the head was complete.
    pub(crate) fn begin(
        tracing: &Arc<TracingSettings>,
        headers: &mut HeaderMap,
        scheme: &'static str,
        started: Instant,
    ) -> Box<Self> {
        let parent = Context::of(headers);
        let state = match parent {
            Some(_) => settle_state(headers),
            None => {
                headers.remove(TRACESTATE);
                None
            }
        };
        let context = Context {
            trace: parent.map_or_else(TraceId::random, |parent| parent.trace),
            span: SpanId::random(),
            sampled: parent
                .map_or_else(|| tracing.sampling.takes(fastrand::u64(..)), |parent| parent.sampled),
        };
        context.put(headers);
        let tags = if context.sampled { tags(tracing, headers) } else { Vec::new() };
        Box::new(Self {
            tracing: Arc::clone(tracing),
            field: context.field(),
            context,
            parent: parent.map(|parent| parent.span),
            state,
            scheme,
            started,
            tags,
            tries: Vec::new(),
            grpc: None,
        })
    }

    /// Returns the trace id, 32 hexadecimal digits.
    pub(crate) fn id(&self) -> &str {
        std::str::from_utf8(&self.field[3..35]).unwrap_or_default()
    }

    /// Begins an attempt at a backend: its head gets a span id of its own, a child of the request's
    /// span.
    pub(crate) fn begin_try(&mut self, headers: &mut HeaderMap, now: Instant) {
        let began = now.saturating_duration_since(self.started);
        // A response that was not forwarded ends when the next attempt begins.
        if let Some(before) = self.tries.last_mut() {
            before.ended.get_or_insert(began);
        }
        let span = SpanId::random();
        Context { span, ..self.context }.put(headers);
        if self.context.sampled && self.tries.len() < TRIES {
            self.tries.push(Try { span, began, ended: None, outcome: None, endpoint: None });
        }
    }

    /// Records the outcome of the last attempt.
    pub(crate) fn end_try(
        &mut self,
        outcome: Outcome,
        endpoint: Option<&EndpointName>,
        now: Instant,
    ) {
        let Some(last) = self.tries.last_mut().filter(|last| last.outcome.is_none()) else {
            return;
        };
        last.outcome = Some(outcome);
        last.endpoint = endpoint.cloned();
        if matches!(outcome, Outcome::Failed(_)) {
            last.ended = Some(now.saturating_duration_since(self.started));
        }
    }

    /// Records the gRPC status, if the head or the trailers of a response have one.
    pub(crate) fn answered(&mut self, headers: &HeaderMap) {
        if self.context.sampled
            && let Some(status) = GrpcStatus::of(headers, WORD_BYTES)
        {
            self.grpc = Some(status);
        }
    }

    /// Ends the trace: queues its spans if it is sampled.
    pub(crate) fn finish(&self, record: &AccessRecord<'_>) {
        if !self.context.sampled {
            return;
        }
        let began = record.began();
        let at = |since: Duration| began.checked_add(since).unwrap_or(record.time);
        let family = Family {
            trace: self.context.trace,
            state: span::state(self.state.as_ref()),
            tags: &self.tags,
            grpc: self.grpc.as_ref(),
            record,
        };
        let collector = &self.tracing.collector;
        for (number, tried) in self.tries.iter().enumerate() {
            let ended = at(tried.ended.unwrap_or(record.duration));
            let parent = self.context.span;
            let began = at(tried.began);
            collector.push(span::client(&family, parent, tried, number, began, ended));
        }
        let request =
            span::Request { span: self.context.span, parent: self.parent, scheme: self.scheme };
        collector.push(span::server(&family, &request, began));
    }
}

fn tags(tracing: &TracingSettings, headers: &HeaderMap) -> Vec<KeyValue> {
    let mut tags = Vec::with_capacity(tracing.tags.len());
    for tag in &tracing.tags {
        let value = match &tag.value {
            TagValue::Fixed(value) => Arc::clone(value),
            TagValue::Header { name, default } => {
                let written = headers.get(name).map(|value| text(value.as_bytes(), TAG_BYTES));
                match written.map(Arc::from).or_else(|| default.clone()) {
                    Some(value) => value,
                    None => continue,
                }
            }
        };
        tags.push(KeyValue::new(Arc::clone(&tag.name), value));
    }
    tags
}
