//! The choice of a host by the policies that compare all hosts of a cluster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::upstream::balance::aim::Aim;
use crate::upstream::balance::candidate::Candidate;
use crate::upstream::balance::screen::Screen;
use crate::upstream::balance_policy::BalanceKind;
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::failure::SendFailure;
use crate::upstream::host::Host;
use crate::upstream::roster::{CurrentRoster, Roster, Rosters, Seat};

/// The least share of a host in slow start, of that of other hosts: Envoy's default.
const LEAST_WEIGHT: f64 = 0.1;

/// The number of random hosts that are looked at before all are. Each is admitted with a probability
/// that hardly depends on the number of hosts.
const DRAWS: usize = 8;

/// The choices of one request. Each is made anew among the hosts that the screen admits.
#[derive(Debug)]
pub(super) struct Picks<'a> {
    rosters: &'a Rosters,
    roster: Option<CurrentRoster<'a>>,
    /// Start of the round robin for this request.
    turn: usize,
}

impl<'a> Picks<'a> {
    pub(super) fn new(rosters: &'a Rosters, turn: usize) -> Self {
        Self { rosters, roster: None, turn }
    }

    /// Returns the next host of this round, `None` at its end. `failure` becomes that of the names
    /// if none resolves.
    pub(super) async fn next(
        &mut self,
        cluster: &'a Cluster,
        aim: &Aim,
        screen: &mut Screen<'_>,
        failure: &mut SendFailure,
    ) -> Option<Candidate<'a>> {
        let (settings, endpoints) = (cluster.settings(), cluster.endpoints());
        if self.roster.is_none() {
            let patience = settings.connect_timeout;
            match self.rosters.current(settings.policy, endpoints, patience).await {
                Ok(roster) => self.roster = Some(roster),
                Err(unresolved) => *failure = unresolved,
            }
        }
        let roster = self.roster.as_deref()?;
        let pool = Pool { roster, start: SlowStart::new(settings.policy.slow_start, roster) };
        let mut admits = |place: usize| screen.admits(pool.host(place));
        let place = match settings.policy.kind {
            BalanceKind::RoundRobin => pool.in_turn(self.turn, &mut admits),
            BalanceKind::Random => pool.random(&mut admits),
            BalanceKind::LeastRequest => pool.least_loaded(&mut admits),
            BalanceKind::ConsistentHash { .. } => match (roster.table(), aim.hash) {
                (Some(table), Some(hash)) => table.order(hash).find(|place| admits(*place)),
                _ => pool.random(&mut admits),
            },
        };
        let Seat { named, endpoint, .. } = &roster.seats()[place?];
        match (named, &endpoints[*endpoint]) {
            (Some(member), _) => Some(Candidate::Named(Arc::clone(member))),
            (None, Endpoint::Fixed(member)) => Some(Candidate::Fixed(member)),
            (None, Endpoint::Named(_)) => None,
        }
    }
}

/// The hosts of a roster, by their places.
struct Pool<'r> {
    roster: &'r Roster,
    start: Option<SlowStart>,
}

impl Pool<'_> {
    fn host(&self, place: usize) -> &Arc<Host> {
        &self.roster.seats()[place].host
    }

    fn count(&self) -> usize {
        self.roster.seats().len()
    }

    /// Returns the share of a host in slow start, of that of the others; else 1.
    fn weight(&self, place: usize) -> f64 {
        self.start.as_ref().map_or(1.0, |start| start.weight(self.host(place)))
    }

    /// Returns true for all hosts that have their full share, and for others in proportion.
    fn accepts(&self, place: usize) -> bool {
        let Some(start) = &self.start else { return true };
        let weight = start.weight(self.host(place));
        weight >= start.most || fastrand::f64() * start.most < weight
    }

    /// Returns the first admitted host from `turn` on. The requests that a host in slow start does
    /// not accept are divided among all.
    fn in_turn(&self, turn: usize, admits: &mut impl FnMut(usize) -> bool) -> Option<usize> {
        let count = self.count();
        let first = turn % count.max(1);
        let in_order = || (0..count).map(move |number| (first + number) % count);
        if self.start.is_none() {
            return in_order().find(|place| admits(*place));
        }
        let found = in_order().find(|place| admits(*place))?;
        if self.accepts(found) { Some(found) } else { self.random(admits) }
    }

    /// Returns an admitted host, each with a probability in proportion to its weight.
    fn random(&self, admits: &mut impl FnMut(usize) -> bool) -> Option<usize> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        for _ in 0..DRAWS {
            let place = fastrand::usize(..count);
            if self.accepts(place) && admits(place) {
                return Some(place);
            }
        }
        // Most hosts are unavailable or in slow start.
        let weight = |place| self.weight(place);
        let mut all = 0.0;
        let mut chosen = None;
        for place in (0..count).filter(|place| admits(*place)) {
            all += weight(place);
            if fastrand::f64() * all < weight(place) {
                chosen = Some(place);
            }
        }
        chosen
    }

    /// Returns one of two random hosts: the one with fewer requests in progress ("power of two
    /// choices").
    fn least_loaded(&self, admits: &mut impl FnMut(usize) -> bool) -> Option<usize> {
        let one = self.random(admits)?;
        let count = self.count();
        let others = count - 1;
        if others == 0 {
            return Some(one);
        }
        // The second choice does not depend on slow start: compared by load for its weight, a host
        // in slow start wins only as often as it should.
        let start = fastrand::usize(..others);
        let mut second = (0..others).map(|number| (one + 1 + (start + number) % others) % count);
        let Some(other) = second.find(|place| admits(*place)) else { return Some(one) };
        #[expect(clippy::cast_precision_loss, reason = "a comparison of small numbers")]
        let load = |place| self.host(place).active() as f64 / self.weight(place);
        Some(if load(other) < load(one) { other } else { one })
    }
}

/// The slow start of a cluster in which some host has not come to its full share.
struct SlowStart {
    window: Duration,
    now: Instant,
    /// The highest weight of a host. If all begin at the same time, none has less than the others.
    most: f64,
}

impl SlowStart {
    fn new(window: Duration, roster: &Roster) -> Option<Self> {
        if window.is_zero() {
            return None;
        }
        let mut start = Self { window, now: clock::now(), most: 0.0 };
        let mut least = 1.0_f64;
        for seat in roster.seats() {
            let weight = start.weight(&seat.host);
            (least, start.most) = (least.min(weight), start.most.max(weight));
        }
        (least < start.most).then_some(start)
    }

    fn weight(&self, host: &Host) -> f64 {
        let elapsed = host.time_in_service(self.now).as_secs_f64();
        (elapsed / self.window.as_secs_f64()).clamp(LEAST_WEIGHT, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::upstream::balance_policy::BalancePolicy;
    use crate::upstream::cluster::ClusterSettings;
    use crate::upstream::endpoint::EndpointSettings;
    use crate::upstream::failure::FailureKind;
    use crate::upstream::upstreams::Upstreams;

    /// The shares of 10,000 requests of three hosts, of which the last has been in service for
    /// `seconds` of the 100 of its slow start.
    fn shares(seconds: u64, pick: fn(&Pool<'_>, usize) -> Option<usize>) -> [usize; 3] {
        fastrand::seed(7);
        let at = |last| EndpointSettings::Address(SocketAddr::from(([10, 0, 0, last], 80)));
        let endpoints = vec![at(1), at(2), at(3)];
        let window = Duration::from_secs(100);
        let policy = BalancePolicy { kind: BalanceKind::LeastRequest, slow_start: window };
        let settings = ClusterSettings { policy, ..ClusterSettings::new("test", endpoints) };
        let cluster = Cluster::new(settings, &Upstreams::new([]));
        let Some(Rosters::Fixed(roster)) = cluster.rosters() else { panic!("no names") };
        let now = clock::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        // An address that refuses a connection is avoided for 5 s.
        roster.seats()[2].host.missed(FailureKind::ConnectRefused, later(995 - seconds));
        let start = SlowStart { window, now: later(1000), most: 1.0 };
        let pool = Pool { roster, start: Some(start) };
        let mut shares = [0; 3];
        for turn in 0..10_000 {
            shares[pick(&pool, turn).unwrap()] += 1;
        }
        shares
    }

    #[test]
    fn a_host_comes_to_its_full_share_little_by_little() {
        let picks: [fn(&Pool<'_>, usize) -> Option<usize>; 3] = [
            |pool, turn| pool.in_turn(turn, &mut |_| true),
            |pool, _| pool.random(&mut |_| true),
            |pool, _| pool.least_loaded(&mut |_| true),
        ];
        // (seconds of 100, weight in percent)
        for (seconds, weight) in [(0, 10), (10, 10), (25, 25), (50, 50), (100, 100), (500, 100)] {
            for pick in picks {
                let shares = shares(seconds, pick);
                // Round robin gives a request that the host does not accept to any host.
                let fair = 10_000 * weight / (200 + weight);
                let least = fair * 8 / 10;
                assert!((least..=fair * 14 / 10).contains(&shares[2]), "{seconds} {shares:?}");
                assert!(shares[0].abs_diff(shares[1]) < 500, "{seconds} {shares:?}");
            }
        }
    }

    #[test]
    fn hosts_that_begin_together_have_equal_shares() {
        let at = |last| EndpointSettings::Address(SocketAddr::from(([10, 0, 0, last], 80)));
        let settings = ClusterSettings {
            policy: BalancePolicy { kind: BalanceKind::Random, ..BalancePolicy::default() },
            ..ClusterSettings::new("test", vec![at(1), at(2)])
        };
        let cluster = Cluster::new(settings, &Upstreams::new([]));
        let Some(Rosters::Fixed(roster)) = cluster.rosters() else { panic!("no names") };
        assert!(SlowStart::new(Duration::ZERO, roster).is_none());
        assert!(SlowStart::new(Duration::from_secs(3600), roster).is_none());
    }
}
