//! Traces: a span for each request that a Gateway traces and one for each try at a backend, told to
//! a collector by OTLP.
//!
//! A request begins its [`Trace`] when its listener is known, and ends it where its line of the log
//! is written. Its spans go into the bounded queue of a [`Collector`], and the data path is done with
//! them: a background task ([`Collector::export`]) sends what is queued in batches, and what has no
//! room is dropped and counted. Names and attributes of spans are those that Envoy gives them.
//!
//! Deliberately absent: B3, `x-ot-span-context` and every other format but W3C's; spans of
//! connections; a choice of sampler, for a request is either continued as its caller decided or
//! drawn by lot.
//!
//! Invariant: nothing that a client or a collector does makes a request wait, or lets a queue grow.

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
pub(crate) use request::Trace;
pub(crate) use settings::{Sampling, Tag, TagValue, Tracing};
