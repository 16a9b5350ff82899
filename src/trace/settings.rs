//! Tracing settings of a Gateway: collector, sampling, and tags.

use std::num::NonZeroU32;
use std::sync::Arc;

use http::HeaderName;

use crate::trace::collector::Collector;

/// Tracing of the requests of a Gateway.
///
/// EnvoyProxy `spec.telemetry.tracing`.
#[derive(Clone, Debug)]
pub(crate) struct TracingSettings {
    pub collector: Arc<Collector>,
    pub sampling: Sampling,
    pub tags: Box<[Tag]>,
}

/// The fraction of requests that is sampled if the caller made no decision: `numerator` /
/// `denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sampling {
    pub numerator: u32,
    pub denominator: NonZeroU32,
}

impl Sampling {
    /// Returns true if a request is sampled; `ticket` is a random number.
    pub(super) fn takes(self, ticket: u64) -> bool {
        ticket % u64::from(self.denominator.get()) < u64::from(self.numerator)
    }
}

/// An attribute that the configuration adds to spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub name: Arc<str>,
    pub value: TagValue,
}

/// Source of the value of a [`Tag`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TagValue {
    /// A literal, or the value of an environment variable when the configuration was loaded.
    Fixed(Arc<str>),
    /// A header of the request, or `default` if it is missing. Without both, the attribute is
    /// omitted.
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
