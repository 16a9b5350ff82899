//! One request under trace, from its head to the end of its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use opentelemetry::KeyValue;

use crate::observe::AccessRecord;
use crate::trace::attempt::{Outcome, Try};
use crate::trace::context::{Context, SpanId, TRACESTATE, TraceId, settle_state};
use crate::trace::grpc::GrpcStatus;
use crate::trace::settings::{TagValue, Tracing};
use crate::trace::span::{self, Family};
use crate::trace::text::{WORD_BYTES, text};
use crate::upstream::EndpointName;

/// Tries of one request that have spans; what comes after them is propagated, and not told of.
const TRIES: usize = 16;
/// A header's value is cut here, in bytes.
const TAG_BYTES: usize = 256;

/// What is known so far. One that is not sampled has its ids all the same, since they are what the
/// backend is told.
#[derive(Debug)]
pub(crate) struct Trace {
    tracing: Arc<Tracing>,
    /// Of the span of the request itself.
    context: Context,
    /// `traceparent`, which begins with the name of the trace.
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
    /// Continues the trace of which the request's head tells, or begins one, and has the head tell
    /// of it, for whoever gets a copy.
    ///
    /// As Envoy does, whoever sends a `traceparent` is believed, and its `sampled` decides. One
    /// that is broken is replaced, and its `tracestate` goes with it (Trace Context section 4.3).
    /// `started` is when the head was complete.
    pub(crate) fn begin(
        tracing: &Arc<Tracing>,
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

    /// The name of the trace, 32 digits.
    pub(crate) fn id(&self) -> &str {
        std::str::from_utf8(&self.field[3..35]).unwrap_or_default()
    }

    /// A backend is asked: it is told of a span of its own, the child of the request's.
    pub(crate) fn begin_try(&mut self, headers: &mut HeaderMap, now: Instant) {
        let began = now.saturating_duration_since(self.started);
        // A response that was not passed on is over when the next backend is asked.
        if let Some(before) = self.tries.last_mut() {
            before.ended.get_or_insert(began);
        }
        let span = SpanId::random();
        Context { span, ..self.context }.put(headers);
        if self.context.sampled && self.tries.len() < TRIES {
            self.tries.push(Try { span, began, ended: None, outcome: None, endpoint: None });
        }
    }

    /// What came of the try that was begun last.
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

    /// The head or the trailers of an answer to a call of gRPC, which may say how it ended.
    pub(crate) fn answered(&mut self, headers: &HeaderMap) {
        if self.context.sampled
            && let Some(status) = GrpcStatus::of(headers, WORD_BYTES)
        {
            self.grpc = Some(status);
        }
    }

    /// The exchange is over: its spans are queued, if it is sampled.
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

fn tags(tracing: &Tracing, headers: &HeaderMap) -> Vec<KeyValue> {
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
