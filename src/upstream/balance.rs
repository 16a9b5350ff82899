//! Load balancing: the order in which a request tries the endpoints of a cluster.
//!
//! Round robin over the endpoints, and over the addresses of a name. An address that recently
//! failed to accept a connection comes last, so that one dead address does not slow every other
//! request.
//!
//! This is the only loop over the endpoints of a cluster: [`Candidates::next`] returns a candidate,
//! [`Candidates::missed`] reports that it could not be reached, and [`Candidates::failure`] returns
//! the failure of the last host if none could be reached.
//!
//! Deliberately absent: several connection attempts at once ("happy eyeballs"). A name whose first
//! address silently drops packets costs one request the connect timeout; that address is then
//! avoided for 30 s.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::upstream::address::{Address, EndpointName};
use crate::upstream::cluster::{BalancePolicy, Cluster};
use crate::upstream::endpoint::{Endpoint, Found};
use crate::upstream::failure::{FailureKind, SendFailure};
use crate::upstream::host::Host;
use crate::upstream::member::Member;

/// Preferences of a caller among the endpoints of the cluster. By default, there are none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aim {
    /// Comes first, if it is an address of the cluster and is available.
    pub prefer: Option<EndpointName>,
    /// These come last: they failed to serve an earlier attempt of the same request.
    pub avoid: Vec<EndpointName>,
}

/// A member of the cluster that a request may try next.
#[derive(Clone, Debug)]
pub(super) enum Candidate<'a> {
    /// Borrowed: a request changes no count that other workers use.
    Fixed(&'a Member),
    /// The addresses of the name may change while the request is sent.
    Named(Arc<Member>),
}

impl Deref for Candidate<'_> {
    type Target = Member;

    fn deref(&self) -> &Member {
        match self {
            Self::Fixed(member) => member,
            Self::Named(member) => member,
        }
    }
}

/// The hosts of a cluster in the order in which one request should try them, each at most once.
#[derive(Debug)]
pub(super) struct Candidates<'a> {
    cluster: &'a Cluster,
    aim: &'a Aim,
    /// The preferred endpoint has been considered.
    begun: bool,
    /// Start of the round robin for this request.
    turn: usize,
    /// Number of endpoints considered in this round.
    visited: usize,
    /// The remaining hosts of a name.
    within: Option<Within>,
    /// The candidate that was returned last.
    last: Option<Candidate<'a>>,
    /// The candidates returned before `last`. Allocates only if a host could not be reached.
    before: Vec<Candidate<'a>>,
    /// The first round skipped some hosts, which the second round tries.
    left_out: bool,
    second_round: bool,
    /// The failure of the last endpoint that could not be used.
    failure: SendFailure,
}

#[derive(Debug)]
struct Within {
    found: Arc<Found>,
    turn: usize,
    visited: usize,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(cluster: &'a Cluster, aim: &'a Aim) -> Self {
        Self {
            cluster,
            aim,
            begun: false,
            // A retry does not advance the round robin: otherwise, with two endpoints, each would
            // always get the same requests.
            turn: if aim.avoid.is_empty() { cluster.next_turn() } else { cluster.turn() },
            visited: 0,
            within: None,
            last: None,
            before: Vec::new(),
            left_out: false,
            second_round: false,
            failure: SendFailure::new(FailureKind::NoEndpoint, "the cluster has no endpoint"),
        }
    }

    /// Returns the next host and stores its name in `tried`; `None` if all hosts were tried.
    pub(super) async fn next(&mut self, tried: &mut Option<EndpointName>) -> Option<Candidate<'a>> {
        self.before.extend(self.last.take());
        let candidate = self.find().await?;
        *tried = Some(candidate.address().clone().into());
        self.last = Some(candidate.clone());
        Some(candidate)
    }

    /// Reports that the host returned last could not be reached. It comes last for a while, for all
    /// requests.
    pub(super) fn missed(&mut self, failure: SendFailure) {
        if let Some(last) = &self.last {
            last.host().missed(failure.kind, clock::now());
        }
        self.failure = failure;
    }

    /// Reports that the host returned last is unsuitable for this request.
    pub(super) fn unfit(&mut self, failure: SendFailure) {
        self.failure = failure;
    }

    /// Returns the failure of the last host, after all failed.
    pub(super) fn failure(self) -> SendFailure {
        self.failure
    }

    async fn find(&mut self) -> Option<Candidate<'a>> {
        let patience = self.cluster.settings().connect_timeout;
        let policy = self.cluster.settings().policy;
        let endpoints = self.cluster.endpoints();
        if !self.begun {
            self.begun = true;
            if let Some(candidate) = self.preferred(patience).await {
                return Some(candidate);
            }
        }
        loop {
            if let Some(within) = &mut self.within {
                match within.next(policy) {
                    Some(member) if self.is_next(member.host()) => {
                        return Some(Candidate::Named(member));
                    }
                    Some(_) => continue,
                    None => self.within = None,
                }
            }
            if self.visited == endpoints.len() {
                if self.second_round || !self.left_out {
                    return None;
                }
                self.second_round = true;
                self.visited = 0;
            }
            let endpoint =
                endpoints.get(choice(policy, self.turn, self.visited, endpoints.len()))?;
            self.visited += 1;
            match endpoint {
                Endpoint::Fixed(member) => {
                    if self.is_next(member.host()) {
                        return Some(Candidate::Fixed(member));
                    }
                }
                Endpoint::Named(named) => match named.members(patience).await {
                    Ok(found) => {
                        let turn = self.turn / endpoints.len();
                        self.within = Some(Within { found, turn, visited: 0 });
                    }
                    // The first round has recorded this failure already.
                    Err(_) if self.second_round => {}
                    Err(failure) => {
                        let failure = String::from(&*failure);
                        self.failure = SendFailure::new(FailureKind::Unresolved, failure)
                            .at(named.endpoint_name());
                    }
                },
            }
        }
    }

    /// Returns the preferred host if it is an available host of this cluster, as far as its names
    /// resolve.
    async fn preferred(&self, patience: Duration) -> Option<Candidate<'a>> {
        let address = self.aim.prefer.as_ref().and_then(EndpointName::address)?;
        for endpoint in self.cluster.endpoints() {
            let candidate = match endpoint {
                Endpoint::Fixed(member) => {
                    Some(Candidate::Fixed(member)).filter(|_| member.address() == address)
                }
                Endpoint::Named(named) => {
                    let Ok(found) = named.members(patience).await else { continue };
                    let member = found.members.iter().find(|member| member.address() == address);
                    member.cloned().map(Candidate::Named)
                }
            };
            if let Some(candidate) = candidate {
                return Some(candidate).filter(|candidate| !self.comes_last(candidate.host()));
            }
        }
        None
    }

    /// Returns true if this host belongs to this round and has not been tried.
    fn is_next(&mut self, host: &Arc<Host>) -> bool {
        if !self.second_round && self.comes_last(host) {
            self.left_out = true;
            return false;
        }
        !self.before.iter().any(|tried| Arc::ptr_eq(tried.host(), host))
    }

    fn comes_last(&self, host: &Host) -> bool {
        let is = |avoided: &Address| avoided == host.address();
        !host.is_available() || self.aim.avoid.iter().filter_map(EndpointName::address).any(is)
    }
}

/// Returns the index of a request's choice number `number` (from 0) among `count` endpoints or
/// addresses of a name; `turn` grows with each request. This alone implements the load-balancing
/// policy; the callers only skip unavailable hosts.
fn choice(policy: BalancePolicy, turn: usize, number: usize, count: usize) -> usize {
    match policy {
        BalancePolicy::RoundRobin => turn.wrapping_add(number) % count.max(1),
    }
}

impl Within {
    fn next(&mut self, policy: BalancePolicy) -> Option<Arc<Member>> {
        let members = &self.found.members;
        if self.visited == members.len() {
            return None;
        }
        let at = choice(policy, self.turn, self.visited, members.len());
        self.visited += 1;
        Some(Arc::clone(&members[at]))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::upstream::cluster::ClusterSettings;
    use crate::upstream::endpoint::EndpointSettings;
    use crate::upstream::upstreams::Upstreams;

    fn address(last: u8) -> Address {
        Address::Ip(SocketAddr::from(([10, 0, 0, last], 80)))
    }

    fn cluster(endpoints: Vec<EndpointSettings>) -> Arc<Cluster> {
        let fixed = [
            ("two.test".to_owned(), vec![[10, 0, 0, 8].into(), [10, 0, 0, 9].into()]),
            ("none.test".to_owned(), vec![]),
        ];
        Cluster::new(ClusterSettings::new("test", endpoints), &Upstreams::new(fixed))
    }

    fn at(last: u8) -> EndpointSettings {
        EndpointSettings::Address(SocketAddr::from(([10, 0, 0, last], 80)))
    }

    fn named(host: &str) -> EndpointSettings {
        EndpointSettings::Name { host: host.into(), port: 80 }
    }

    /// Returns the last bytes of all candidates of one request.
    async fn order(cluster: &Cluster) -> Vec<u8> {
        order_of(cluster, &Aim::default()).await
    }

    async fn order_of(cluster: &Cluster, aim: &Aim) -> Vec<u8> {
        let mut candidates = Candidates::new(cluster, aim);
        let mut order = Vec::new();
        let mut tried = None;
        while let Some(host) = candidates.next(&mut tried).await {
            assert_eq!(tried.as_ref().and_then(EndpointName::address), Some(host.address()));
            order.push(match host.address() {
                Address::Ip(SocketAddr::V4(address)) => address.ip().octets()[3],
                other => panic!("{other}"),
            });
        }
        order
    }

    /// Records that an address of the cluster could not be reached.
    fn miss(cluster: &Cluster, last: u8, kind: FailureKind) {
        let hosts = cluster.hosts();
        let host = hosts.iter().find(|host| *host.address() == address(last)).unwrap();
        host.missed(kind, clock::now());
    }

    #[tokio::test]
    async fn turns_go_round_and_every_address_comes_once() {
        // (endpoints, the order of consecutive requests)
        let table: [(Vec<EndpointSettings>, &[&[u8]]); 5] = [
            (vec![], &[&[], &[]]),
            (vec![at(1)], &[&[1], &[1]]),
            (vec![at(1), at(2), at(3)], &[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2], &[1, 2, 3]]),
            (vec![named("two.test")], &[&[8, 9], &[9, 8], &[8, 9]]),
            (vec![named("none.test"), at(1)], &[&[1], &[1]]),
        ];
        for (endpoints, want) in table {
            let cluster = cluster(endpoints);
            for want in want {
                assert_eq!(order(&cluster).await, *want, "{:?}", cluster.settings().endpoints);
            }
        }
    }

    #[tokio::test]
    async fn what_became_of_the_last_one_is_said() {
        // (endpoints, reason)
        let table = [
            (vec![], FailureKind::NoEndpoint, None),
            (vec![named("none.test")], FailureKind::Unresolved, Some("none.test:80")),
            (
                vec![named("none.test"), named("none.test")],
                FailureKind::Unresolved,
                Some("none.test:80"),
            ),
        ];
        for (endpoints, kind, endpoint) in table {
            let cluster = cluster(endpoints);
            let aim = Aim::default();
            let mut candidates = Candidates::new(&cluster, &aim);
            assert!(candidates.next(&mut None).await.is_none());
            let failure = candidates.failure();
            assert_eq!(failure.kind, kind);
            assert_eq!(failure.endpoint.map(|name| name.to_string()).as_deref(), endpoint);
        }
        let cluster = cluster(vec![at(1), named("none.test")]);
        let aim = Aim::default();
        let mut candidates = Candidates::new(&cluster, &aim);
        assert!(candidates.next(&mut None).await.is_some());
        candidates.missed(SendFailure::new(FailureKind::ConnectTimeout, "no answer"));
        assert!(candidates.next(&mut None).await.is_none());
        assert_eq!(candidates.failure().kind, FailureKind::Unresolved);
        assert!(!cluster.hosts()[0].is_available());
    }

    #[tokio::test]
    async fn what_could_not_be_reached_comes_last() {
        let cluster = cluster(vec![at(1), named("two.test")]);
        assert_eq!(order(&cluster).await, [1, 8, 9]);
        miss(&cluster, 1, FailureKind::ConnectRefused);
        miss(&cluster, 8, FailureKind::ConnectTimeout);
        assert_eq!(order(&cluster).await, [9, 8, 1]);
        assert_eq!(order(&cluster).await, [9, 1, 8]);
        assert_eq!(order(&cluster).await.len(), 3);
    }

    #[tokio::test]
    async fn a_host_that_is_missed_meanwhile_still_has_one_try() {
        let cluster = cluster(vec![at(1), at(2), at(3)]);
        let aim = Aim::default();
        let mut candidates = Candidates::new(&cluster, &aim);
        let mut order = Vec::new();
        while let Some(host) = candidates.next(&mut None).await {
            // Another request reports the next host as unreachable; this request then reports the
            // present one.
            miss(&cluster, 2, FailureKind::ConnectRefused);
            candidates.missed(SendFailure::new(FailureKind::ConnectRefused, "refused"));
            order.push(host.address().to_string());
        }
        assert_eq!(order, ["10.0.0.1:80", "10.0.0.3:80", "10.0.0.2:80"]);
    }

    #[tokio::test]
    async fn the_next_configuration_knows_what_the_last_one_found_out() {
        let upstreams = Upstreams::new([("two.test".to_owned(), vec![[10, 0, 0, 8].into()])]);
        let endpoints = vec![at(1), at(2), named("two.test")];
        let before = Cluster::new(ClusterSettings::new("before", endpoints), &upstreams);
        miss(&before, 1, FailureKind::ConnectTimeout);
        miss(&before, 8, FailureKind::ConnectTimeout);
        let endpoints = vec![at(1), named("two.test"), at(3)];
        let after = Cluster::new(ClusterSettings::new("after", endpoints), &upstreams);
        drop(before);
        assert_eq!(order(&after).await, [3, 1, 8]);
        assert_eq!(after.members(), (3, 2));
    }

    #[tokio::test]
    async fn an_aim_moves_addresses_of_the_cluster_and_adds_none() {
        let endpoints = vec![at(1), at(2), named("two.test")];
        // (preferred, avoided, order)
        let table: [(Option<u8>, &[u8], &[u8]); 7] = [
            (None, &[], &[1, 2, 8, 9]),
            (Some(2), &[], &[2, 1, 8, 9]),
            (Some(9), &[], &[9, 1, 2, 8]),
            (Some(7), &[], &[1, 2, 8, 9]),
            (None, &[1, 8], &[2, 9, 1, 8]),
            (Some(1), &[1], &[2, 8, 9, 1]),
            (Some(8), &[2], &[8, 1, 9, 2]),
        ];
        for (prefer, avoid, want) in table {
            let cluster = cluster(endpoints.clone());
            let name = |last: u8| EndpointName::from(address(last));
            let avoid = avoid.iter().copied().map(name).collect();
            let aim = Aim { prefer: prefer.map(name), avoid };
            assert_eq!(order_of(&cluster, &aim).await, want, "{aim:?}");
        }

        let lately = cluster(endpoints);
        miss(&lately, 2, FailureKind::ConnectRefused);
        let aim = Aim { prefer: Some(address(2).into()), avoid: Vec::new() };
        assert_eq!(order_of(&lately, &aim).await, [1, 8, 9, 2]);
    }
}
