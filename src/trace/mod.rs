//! Traces: a span for each request that a Gateway traces and one for each try at a backend, told to
//! a collector by OTLP.
//!
//! A request begins its [`Trace`] when its listener is known, and ends it where its line of the log
//! is written. What came of it goes into the bounded queue of a [`Collector`], by which the data
//! path is done with it: an [`Exporter`], one thread with a runtime of its own, sends what is there
//! as one message, and what has no room is dropped and counted. Names and attributes of spans are
//! those that Envoy gives them.
//!
//! Deliberately absent: B3, `x-ot-span-context` and every other format but W3C's; spans of
//! connections; a choice of sampler, for a request is either continued as its caller decided or
//! drawn by lot.
//!
//! Invariant: nothing that a client or a collector does makes a request wait, or lets a queue grow.

mod collector;
mod context;
mod delivery;
mod exporter;
mod grpc;
mod request;
mod span;

use std::num::NonZeroU32;
use std::sync::Arc;

use http::HeaderName;

pub(crate) use collector::{Collector, CollectorSettings, Spans};
pub(crate) use context::{Context, settle_state};
pub(crate) use exporter::Exporter;
pub(crate) use request::{Outcome, Trace};

/// How the requests of a Gateway are traced.
///
/// EnvoyProxy `spec.telemetry.tracing`.
#[derive(Clone, Debug)]
pub(crate) struct Tracing {
    pub collector: Arc<Collector>,
    pub sampling: Sampling,
    pub tags: Box<[Tag]>,
}

/// Which requests are traced of those about which nobody has decided before: `numerator` of
/// `denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sampling {
    pub numerator: u32,
    pub denominator: NonZeroU32,
}

impl Sampling {
    /// True if this request is traced; `ticket` is a number drawn at random.
    fn takes(self, ticket: u64) -> bool {
        ticket % u64::from(self.denominator.get()) < u64::from(self.numerator)
    }
}

/// An attribute that the configuration adds to spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub name: Arc<str>,
    pub value: TagValue,
}

/// Where the value of a [`Tag`] comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TagValue {
    /// As it is written, or as it was in the environment when it was loaded.
    Fixed(Arc<str>),
    /// Of the request; `default` where it has none. Without both there is no attribute.
    Header { name: HeaderName, default: Option<Arc<str>> },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_as_large_as_it_is_written() {
        // (of, out of, how many of the first thousand tickets)
        for (numerator, denominator, want) in
            [(0, 100, 0), (1, 100, 10), (100, 100, 1000), (1, 3, 334), (7, 7, 1000)]
        {
            let denominator = NonZeroU32::new(denominator).unwrap();
            let sampling = Sampling { numerator, denominator };
            let taken = (0..1000).filter(|ticket| sampling.takes(*ticket)).count();
            assert_eq!(taken, want, "{sampling:?}");
        }
    }
}
