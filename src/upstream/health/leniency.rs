//! Hosts that get requests although they are not healthy.

use crate::upstream::health::host_health::Standing;

/// The hosts of a cluster that get requests beside the healthy ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Leniency {
    None,
    /// No host has passed a check yet. A start or a reload refuses no request for want of a result.
    Unchecked,
    /// Too few hosts are healthy for all requests: the panic threshold is reached.
    All,
}

impl Leniency {
    /// Returns the leniency for a cluster whose hosts have these standings; `threshold` is the
    /// percentage of healthy hosts below which health is ignored.
    pub(in crate::upstream) fn of(
        standings: impl IntoIterator<Item = Standing>,
        threshold: u8,
    ) -> Self {
        let (mut all, mut healthy, mut unchecked) = (0_usize, 0_usize, 0_usize);
        for standing in standings {
            all += 1;
            healthy += usize::from(standing == Standing::Healthy);
            unchecked += usize::from(standing == Standing::Unchecked);
        }
        if healthy * 100 < all * usize::from(threshold) {
            Self::All
        } else if healthy == 0 && unchecked > 0 {
            Self::Unchecked
        } else {
            Self::None
        }
    }

    /// Returns true if a host gets requests.
    pub(in crate::upstream) fn admits(self, standing: Standing) -> bool {
        match standing {
            Standing::Healthy => true,
            Standing::Unchecked => self != Self::None,
            Standing::Ejected | Standing::Unhealthy => self == Self::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_ignored_while_too_few_are_healthy() {
        use Standing::{Ejected, Healthy, Unchecked, Unhealthy};
        let table: [(&[Standing], u8, Leniency); 9] = [
            (&[], 50, Leniency::None),
            (&[Unhealthy], 50, Leniency::All),
            (&[Unhealthy], 0, Leniency::None),
            (&[Healthy, Unhealthy], 50, Leniency::None),
            (&[Healthy, Unhealthy, Ejected], 50, Leniency::All),
            (&[Healthy, Unhealthy, Ejected], 33, Leniency::None),
            (&[Unchecked, Unhealthy], 0, Leniency::Unchecked),
            (&[Unchecked, Healthy], 0, Leniency::None),
            (&[Healthy, Unhealthy], 100, Leniency::All),
        ];
        for (standings, threshold, want) in table {
            let got = Leniency::of(standings.iter().copied(), threshold);
            assert_eq!(got, want, "{standings:?} {threshold}");
        }
        let admitted = |of: Leniency| [Unchecked, Unhealthy].map(|standing| of.admits(standing));
        assert_eq!(admitted(Leniency::None), [false, false]);
        assert_eq!(admitted(Leniency::Unchecked), [true, false]);
        assert_eq!(admitted(Leniency::All), [true, true]);
    }
}
