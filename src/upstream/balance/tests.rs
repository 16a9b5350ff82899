//! Tests of the order of the endpoints.

use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::upstream::address::Address;
use crate::upstream::balance_policy::BalancePolicy;
use crate::upstream::cluster::ClusterSettings;
use crate::upstream::endpoint::EndpointSettings;
use crate::upstream::upstreams::Upstreams;

fn address(last: u8) -> Address {
    Address::Ip(SocketAddr::from(([10, 0, 0, last], 80)))
}

fn cluster(endpoints: Vec<EndpointSettings>) -> Arc<Cluster> {
    cluster_by(BalancePolicy::default(), endpoints)
}

fn cluster_by(policy: BalancePolicy, endpoints: Vec<EndpointSettings>) -> Arc<Cluster> {
    let fixed = [
        ("two.test".to_owned(), vec![[10, 0, 0, 8].into(), [10, 0, 0, 9].into()]),
        ("none.test".to_owned(), vec![]),
    ];
    let settings = ClusterSettings { policy, ..ClusterSettings::new("test", endpoints) };
    Cluster::new(settings, &Upstreams::new(fixed))
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
        let aim = Aim { prefer: prefer.map(name), avoid, ..Aim::default() };
        assert_eq!(order_of(&cluster, &aim).await, want, "{aim:?}");
    }

    let lately = cluster(endpoints);
    miss(&lately, 2, FailureKind::ConnectRefused);
    let aim = Aim { prefer: Some(address(2).into()), ..Aim::default() };
    assert_eq!(order_of(&lately, &aim).await, [1, 8, 9, 2]);
}

const ROUND_ROBIN: BalanceKind = BalanceKind::RoundRobin;
const HASH: BalanceKind = BalanceKind::ConsistentHash { table_size: 1009 };

fn policy(kind: BalanceKind, slow_start: u64) -> BalancePolicy {
    BalancePolicy { kind, slow_start: Duration::from_secs(slow_start) }
}

/// Returns the number of requests of `count` that each of the hosts 1, 2, 8 and 9 gets first.
async fn shares(cluster: &Cluster, count: usize) -> [usize; 4] {
    let mut shares = [0; 4];
    for _ in 0..count {
        let first = order(cluster).await[0];
        shares[[1, 2, 8, 9].iter().position(|host| *host == first).unwrap()] += 1;
    }
    shares
}

#[tokio::test]
async fn every_policy_tries_every_host_once_and_unavailable_ones_last() {
    fastrand::seed(7);
    for kind in [HASH, BalanceKind::LeastRequest, BalanceKind::Random, ROUND_ROBIN] {
        for slow_start in [0, 60] {
            let cluster =
                cluster_by(policy(kind, slow_start), vec![at(1), at(2), named("two.test")]);
            for (host, round) in [(None, 0), (Some(8), 1), (Some(1), 2)] {
                if let Some(host) = host {
                    miss(&cluster, host, FailureKind::ConnectRefused);
                }
                for hash in [None, Some(1), Some(u64::MAX)] {
                    let mut order = order_of(&cluster, &Aim { hash, ..Aim::default() }).await;
                    let mut last = order.split_off(4 - round);
                    order.extend_from_slice(&last);
                    order.sort_unstable();
                    assert_eq!(order, [1, 2, 8, 9], "{kind:?}");
                    last.sort_unstable();
                    assert_eq!(last, [1, 8][2 - round..], "{kind:?}");
                }
            }
            let prefer = Aim { prefer: Some(address(9).into()), ..Aim::default() };
            assert_eq!(order_of(&cluster, &prefer).await[0], 9, "{kind:?}");
            let avoid = Aim { avoid: vec![address(2).into()], hash: Some(5), ..Aim::default() };
            assert_eq!(order_of(&cluster, &avoid).await[0], 9, "{kind:?}");
            let nothing = cluster_by(policy(kind, slow_start), vec![named("none.test")]);
            assert_eq!(order(&nothing).await, [] as [u8; 0]);
        }
    }
}

#[tokio::test]
async fn hosts_have_equal_shares() {
    fastrand::seed(7);
    for kind in [HASH, BalanceKind::LeastRequest, BalanceKind::Random, ROUND_ROBIN] {
        for slow_start in [0, 60] {
            let endpoints = vec![at(1), at(2), named("two.test")];
            // All hosts begin at the same time: slow start makes no difference.
            let shares = shares(&cluster_by(policy(kind, slow_start), endpoints), 4000).await;
            if (kind, slow_start) == (ROUND_ROBIN, 0) {
                // Over the endpoints, of which one has two addresses.
                assert!(
                    shares.iter().zip([1333, 1333, 667, 667]).all(|(one, of)| one.abs_diff(of) < 2)
                );
            } else {
                let is_equal = |share: &usize| share.abs_diff(1000) < 150;
                assert!(shares.iter().all(is_equal), "{kind:?} {shares:?}");
            }
        }
    }
}

#[tokio::test]
async fn of_two_hosts_the_one_with_fewer_requests_is_chosen() {
    fastrand::seed(7);
    let cluster = cluster_by(policy(BalanceKind::LeastRequest, 0), vec![at(1), at(2)]);
    let aim = Aim::default();
    let mut candidates = Candidates::new(&cluster, &aim);
    let busy = candidates.next(&mut None).await.unwrap();
    let request = candidates.begin().unwrap();
    let is_busy = |host: &u8| address(*host) == *busy.address();
    for _ in 0..100 {
        assert!(!is_busy(&order(&cluster).await[0]));
    }
    drop(request);
    let shares = shares(&cluster, 1000).await;
    assert!(shares[0].abs_diff(500) < 100 && shares[0] + shares[1] == 1000, "{shares:?}");

    let counts_none = cluster_by(policy(BalanceKind::Random, 0), vec![at(1)]);
    let mut candidates = Candidates::new(&counts_none, &aim);
    assert!(candidates.next(&mut None).await.is_some());
    assert!(candidates.begin().is_none(), "no count without the policy");
}

#[tokio::test]
async fn a_hash_keeps_to_its_host_until_that_is_unavailable() {
    let cluster = cluster_by(policy(HASH, 0), vec![at(1), at(2), named("two.test")]);
    let first =
        async |hash: u64| order_of(&cluster, &Aim { hash: Some(hash), ..Aim::default() }).await[0];
    let mut before = Vec::new();
    for hash in 0..500 {
        before.push(first(hash).await);
        assert_eq!(first(hash).await, before[before.len() - 1]);
    }
    miss(&cluster, 2, FailureKind::ConnectRefused);
    for (hash, before) in (0..500).zip(before) {
        let after = first(hash).await;
        assert!(after != 2 && (before == 2 || before == after), "{hash}");
    }
}
