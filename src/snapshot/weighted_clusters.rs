//! The backends of a rule, and the choice between them by priority and weight.

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
    /// The backends that get what these cannot serve.
    fallback: Option<Box<Self>>,
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
        let (drawn, fallback) = (AtomicU32::new(0), None);
        (!entries.is_empty()).then_some(Self { entries, drawn, fallback })
    }

    /// Returns the same with a second priority: backends that get what these cannot serve.
    pub(crate) fn with_fallback(self, fallback: Option<Self>) -> Self {
        Self { fallback: fallback.map(Box::new), ..self }
    }

    /// Returns the choice for the next request. Requests with the same `hash` get the same choice,
    /// as long as the same endpoints are available.
    pub(crate) fn next(&self, hash: Option<u64>) -> &Choice {
        match &self.fallback {
            None => self.draw(hash),
            Some(fallback) if self.has_overflow(fallback, hash) => fallback.draw(hash),
            Some(_) => self.draw(hash),
        }
    }

    /// Returns the choice among the backends of this priority.
    ///
    /// Tickets follow the golden ratio, which distributes them over the weights more evenly than
    /// random numbers: of 100 requests at 70 to 30 the shares are off by one at most.
    fn draw(&self, hash: Option<u64>) -> &Choice {
        if let [(_, only)] = &*self.entries {
            return only;
        }
        if let Some(hash) = hash {
            // Not the bits by which the host is chosen.
            return self.pick(high_bits(mixed(!hash)));
        }
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed);
        self.pick(drawn.wrapping_mul(0x9E37_79B1))
    }

    /// Returns true if a request goes to the fallback: in proportion to what the backends of this
    /// priority cannot serve, as far as the fallback can.
    fn has_overflow(&self, fallback: &Self, hash: Option<u64>) -> bool {
        let own = self.capacity();
        if own == 100 {
            return false;
        }
        let other = fallback.capacity().min(100 - own);
        if other == 0 {
            return false;
        }
        let ticket = hash.map_or_else(|| fastrand::u32(..), |hash| high_bits(mixed(hash)));
        ticket % (own + other) >= own
    }

    /// Returns the share of all requests that the available endpoints of this priority can serve, in
    /// percent: 140 % of their own share, at most 100 (Envoy's overprovisioning factor). So nothing
    /// goes to the fallback while at least 72 % of the endpoints are available.
    fn capacity(&self) -> u32 {
        let (mut all, mut available) = (0, 0);
        for (_, choice) in &self.entries {
            let (of_cluster, of_them_available) = match choice {
                Choice::Cluster { cluster, .. } => cluster.availability(),
                // Its share is answered, by 500.
                Choice::Invalid => (1, 1),
            };
            all += of_cluster;
            available += of_them_available;
        }
        let percent = (available * 140).checked_div(all).unwrap_or_default().min(100);
        u32::try_from(percent).unwrap_or(100)
    }

    /// Returns the choice whose cluster has this endpoint, if it is available.
    pub(crate) fn with_endpoint(&self, endpoint: &EndpointName) -> Option<&Choice> {
        let mut choices = self.weighted().map(|(_, choice)| choice);
        choices.find(|choice| match choice {
            Choice::Cluster { cluster, .. } => cluster.has_available(endpoint),
            Choice::Invalid => false,
        })
    }

    /// Returns the fallback for requests of `cluster`, if that is not in the fallback itself.
    pub(crate) fn fallback_of(&self, cluster: &Arc<Cluster>) -> Option<&Self> {
        self.fallback.as_deref().filter(|_| self.owns(cluster))
    }

    /// Returns the backends of the other priority than that of `cluster`, if there are two.
    pub(crate) fn other_priority(&self, cluster: &Arc<Cluster>) -> Option<&Self> {
        self.fallback.as_deref().map(|fallback| if self.owns(cluster) { fallback } else { self })
    }

    fn owns(&self, cluster: &Arc<Cluster>) -> bool {
        self.entries.iter().any(|(_, choice)| match choice {
            Choice::Cluster { cluster: own, .. } => Arc::ptr_eq(own, cluster),
            Choice::Invalid => false,
        })
    }

    /// Returns the choice among the backends of this priority alone, for the next request.
    pub(crate) fn next_of_priority(&self, hash: Option<u64>) -> &Choice {
        self.draw(hash)
    }

    /// Returns true if there is a second priority.
    pub(crate) fn has_fallback(&self) -> bool {
        self.fallback.is_some()
    }

    /// Returns the choice for `ticket`; the range of `u32` represents the total weight.
    fn pick(&self, ticket: u32) -> &Choice {
        let total = self.entries.last().map_or(0, |(end, _)| *end);
        let ticket = (u64::from(ticket) * u64::from(total)) >> u32::BITS;
        let index = self.entries.partition_point(|(end, _)| u64::from(*end) <= ticket);
        &self.entries[index].1
    }

    /// Returns the backends of each priority.
    pub(crate) fn priorities(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.fallback.as_deref())
    }

    /// Returns every choice with its weight, by priority, in the order in which they are written.
    pub(crate) fn weighted(&self) -> impl Iterator<Item = (u32, &Choice)> {
        self.priorities().flat_map(Self::own)
    }

    /// Returns the choices of this priority with their weights.
    pub(crate) fn own(&self) -> impl Iterator<Item = (u32, &Choice)> {
        let mut before = 0;
        self.entries.iter().map(move |(end, choice)| {
            let weight = end - before;
            before = *end;
            (weight, choice)
        })
    }
}

fn high_bits(hash: u64) -> u32 {
    u32::try_from(hash >> u32::BITS).unwrap_or_default()
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
            let choice = clusters.next(None);
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
