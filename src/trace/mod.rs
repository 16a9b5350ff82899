//! Tracing: a span for each request of a traced Gateway and one for each attempt at a backend,
//! exported to a collector by OTLP.
//!
//! The [`Trace`] of a request begins when its listener is known, and ends when its access log entry
//! is written. Its spans go into the bounded queue of a [`Collector`]; nothing more happens on the
//! data path: a background task ([`Collector::export`]) sends queued spans in batches, and spans
//! without room in the queue are dropped and counted. Names and attributes of spans are Envoy's.
//!
//! Deliberately absent: B3, `x-ot-span-context` and all other formats except W3C's; spans of
//! connections; a choice of sampler: a request either follows the decision of its caller or is
//! sampled at random.
//!
//! Invariant: no client and no collector can make a request wait, or let a queue grow.

mod attempt;
mod collector;
mod context;
mod delivery;
mod exporter;
mod grpc;
mod request;
mod settings;
mod span;
#[cfg(test)]
pub(crate) mod testing;
mod text;

pub(crate) use attempt::Outcome;
pub(crate) use collector::{Collector, CollectorSettings, Spans};
pub(crate) use context::{Context, settle_state};
pub(crate) use grpc::grpc_code;
pub(crate) use request::Trace;
pub(crate) use settings::{Sampling, Tag, TagValue, TracingSettings};
