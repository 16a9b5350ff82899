//! The backends of a rule, and the choice between them by weight.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::filters::Filter;
use crate::stable_hash::mixed;
use crate::upstream::{Cluster, EndpointName};

/// The backends of a rule with their weights. Never empty, and no weight is 0.
///
/// A rule whose weights are all 0 has no `WeightedClusters`: its `Option` is `None` and the proxy
/// answers 500. So [`next`](Self::next) always returns a choice.
#[derive(Debug)]
pub(crate) struct WeightedClusters {
    /// `(first ticket after this entry, choice)`, ascending.
    entries: Box<[(u32, Choice)]>,
    drawn: AtomicU32,
}

/// One `backendRef` after its reference was resolved.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// Forward to this cluster, after the filters of the `backendRef`.
    Cluster { cluster: Arc<Cluster>, filters: Box<[Filter]> },
    /// The reference is invalid. It keeps its share of the traffic and answers 500 (HTTPRoute
    /// `backendRefs`: "if two backends are specified with equal weights, and one is invalid, 50
    /// percent of traffic must receive a 500").
    Invalid,
}

impl WeightedClusters {
    pub(crate) fn new(refs: impl IntoIterator<Item = (NonZeroU32, Choice)>) -> Option<Self> {
        let mut end = 0_u32;
        let entries: Box<[_]> = refs
            .into_iter()
            .map(|(weight, choice)| {
                // `compile` passes at most 16 refs of at most 1,000,000 each, so the sum does not
                // overflow.
                end = end.saturating_add(weight.get());
                (end, choice)
            })
            .collect();
        (!entries.is_empty()).then_some(Self { entries, drawn: AtomicU32::new(0) })
    }

    /// Returns the choice for the next request.
    ///
    /// Tickets follow the golden ratio, which distributes them over the weights more evenly than
    /// random numbers: of 100 requests at 70 to 30 the shares are off by one at most.
    pub(crate) fn next(&self) -> &Choice {
        if let [(_, only)] = &*self.entries {
            return only;
        }
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed);
        self.pick(drawn.wrapping_mul(0x9E37_79B1))
    }

    /// Returns the choice for requests with this hash: always the same.
    pub(crate) fn with_hash(&self, hash: u64) -> &Choice {
        // Not the bits by which the host is chosen.
        self.pick(u32::try_from(mixed(!hash) >> u32::BITS).unwrap_or_default())
    }

    /// Returns the choice whose cluster has this endpoint, if it is available.
    pub(crate) fn with_endpoint(&self, endpoint: &EndpointName) -> Option<&Choice> {
        let choices = self.entries.iter().map(|(_, choice)| choice);
        choices.into_iter().find(|choice| match choice {
            Choice::Cluster { cluster, .. } => cluster.has_available(endpoint),
            Choice::Invalid => false,
        })
    }

    /// Returns the choice for `ticket`; the range of `u32` represents the total weight.
    fn pick(&self, ticket: u32) -> &Choice {
        let total = self.entries.last().map_or(0, |(end, _)| *end);
        let ticket = (u64::from(ticket) * u64::from(total)) >> u32::BITS;
        let index = self.entries.partition_point(|(end, _)| u64::from(*end) <= ticket);
        &self.entries[index].1
    }

    /// Returns every choice with its weight, in the order in which they are written.
    pub(crate) fn weighted(&self) -> impl Iterator<Item = (u32, &Choice)> {
        let mut before = 0;
        self.entries.iter().map(move |(end, choice)| {
            let weight = end - before;
            before = *end;
            (weight, choice)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_weights() {
        let weight = |n| NonZeroU32::new(n).unwrap();
        let mut shares = [0, 0];
        // Two broken refs of different weight are distinguished by their place.
        let clusters =
            WeightedClusters::new([(weight(70), Choice::Invalid), (weight(30), Choice::Invalid)])
                .unwrap();
        for _ in 0..1000 {
            let choice = clusters.next();
            let index =
                clusters.weighted().position(|(_, other)| std::ptr::eq(other, choice)).unwrap();
            shares[index] += 1;
        }
        assert!((690..=710).contains(&shares[0]), "{shares:?}");
        assert_eq!(shares[0] + shares[1], 1000);
    }

    #[test]
    fn every_ticket_has_a_choice() {
        let weight = NonZeroU32::new(1_000_000).unwrap();
        let clusters = WeightedClusters::new((0..16).map(|_| (weight, Choice::Invalid))).unwrap();
        for ticket in [0, 1, u32::MAX / 2, u32::MAX] {
            assert!(matches!(clusters.pick(ticket), Choice::Invalid));
        }
        assert!(WeightedClusters::new([]).is_none());
    }
}
