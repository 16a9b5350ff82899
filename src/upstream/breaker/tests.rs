use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::*;
use crate::clock;
use crate::upstream::balance::Aim;
use crate::upstream::cluster::{Cluster, ClusterSettings};
use crate::upstream::descriptors::Holder;
use crate::upstream::endpoint::EndpointSettings;
use crate::upstream::errand::Errand;
use crate::upstream::failure::FailureKind;
use crate::upstream::pool;
use crate::upstream::request_limits::RequestBounds;
use crate::upstream::testing::{Origin, get, soon};
use crate::upstream::upstreams::Upstreams;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const OK_AND_CLOSE: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Returns a backend that answers only with permits of the test, and the semaphore for them.
async fn slow(answer: &'static str) -> (Origin, Arc<Semaphore>) {
    let answers = Arc::new(Semaphore::new(0));
    let permits = Arc::clone(&answers);
    let origin = Origin::new(move |_, mut peer| {
        let permits = Arc::clone(&permits);
        async move {
            while peer.head().await.is_some() {
                permits.acquire().await.unwrap().forget();
                peer.write(answer).await;
                if answer == OK_AND_CLOSE {
                    return;
                }
            }
        }
    })
    .await;
    (origin, answers)
}

fn bound(connections: usize, pending: usize, descriptors: &'static Descriptors) -> Arc<Upstreams> {
    Upstreams::new([]).bounded(Bounds { connections, pending }, descriptors)
}

fn cluster(addresses: &[SocketAddr], upstreams: &Upstreams) -> Arc<Cluster> {
    let endpoints = addresses.iter().copied().map(EndpointSettings::Address).collect();
    let bounds = upstreams.bounds();
    Cluster::new(ClusterSettings { bounds, ..ClusterSettings::new("test", endpoints) }, upstreams)
}

/// Sends `count` requests at once.
fn send(cluster: &Arc<Cluster>, count: usize) -> JoinSet<Result<(), FailureKind>> {
    send_of(cluster, count, None)
}

fn send_of(
    cluster: &Arc<Cluster>,
    count: usize,
    client: Option<Holder>,
) -> JoinSet<Result<(), FailureKind>> {
    let mut sent = JoinSet::new();
    for _ in 0..count {
        let cluster = Arc::clone(cluster);
        sent.spawn(async move {
            let answer = cluster.send_of(client, None, get()).await;
            answer.map(|_| ()).map_err(|failure| failure.kind)
        });
    }
    sent
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            // Lets other tasks run, on this thread and on others.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

fn waiting(cluster: &Cluster) -> usize {
    cluster.breaker().waiting.load(Ordering::Relaxed)
}

#[tokio::test]
async fn requests_beyond_the_bound_wait_and_beyond_that_are_refused() {
    let (origin, answers) = slow(OK).await;
    let cluster = cluster(&[origin.address], &bound(2, 3, Descriptors::unlimited()));
    let sent = send(&cluster, 5);
    until("three wait", || waiting(&cluster) == 3).await;
    let refused = soon(cluster.send(get())).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Overflow(BreakerLimit::PendingRequests));
    assert_eq!(refused.endpoint.unwrap().to_string(), origin.address.to_string());
    assert!(cluster.hosts()[0].is_available(), "it is not the backend's fault");
    let counts = cluster.counts();
    assert_eq!(counts.sum(|of| &of.pending), 3);
    until("two are open", || counts.sum(|of| &of.open) == 2).await;

    answers.add_permits(5);
    assert!(soon(sent.join_all()).await.iter().all(Result::is_ok));
    assert_eq!(origin.accepted(), 2, "what becomes free goes to the next");
    assert_eq!(waiting(&cluster), 0);
    assert_eq!(counts.sum(|of| &of.pending), 0);
    assert_eq!(counts.sum(|of| &of.connection_overflows), 4);
    assert_eq!(counts.sum(|of| &of.pending_overflows), 1);
    assert!(LINES.with_borrow(HashMap::is_empty));
}

#[tokio::test]
async fn the_room_of_a_closed_connection_goes_to_the_next() {
    let (origin, answers) = slow(OK_AND_CLOSE).await;
    let cluster = cluster(&[origin.address], &bound(1, 9, Descriptors::unlimited()));
    let sent = send(&cluster, 5);
    until("four wait", || waiting(&cluster) == 4).await;
    answers.add_permits(5);
    assert!(soon(sent.join_all()).await.iter().all(Result::is_ok));
    assert_eq!(origin.accepted(), 5);
    assert_eq!(cluster.breaker().open.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn who_gives_up_leaves_the_line_and_who_is_behind_goes_on() {
    let (origin, answers) = slow(OK_AND_CLOSE).await;
    let cluster = cluster(&[origin.address], &bound(1, 9, Descriptors::unlimited()));
    let first = send(&cluster, 1);
    until("one is there", || origin.accepted() == 1).await;
    let mut hasty = send(&cluster, 3);
    until("three wait", || waiting(&cluster) == 3).await;
    let patient = send(&cluster, 2);
    until("five wait", || waiting(&cluster) == 5).await;
    hasty.shutdown().await;
    assert_eq!(waiting(&cluster), 2);
    answers.add_permits(3);
    assert!(soon(first.join_all()).await.iter().all(Result::is_ok));
    assert!(soon(patient.join_all()).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn what_rests_for_another_endpoint_makes_room() {
    let (one, two) = (Origin::answering(OK).await, Origin::answering(OK).await);
    let addresses = [one.address, two.address];
    let cluster = cluster(&addresses, &bound(1, 0, Descriptors::unlimited()));
    for _ in 0..4 {
        soon(cluster.send(get())).await.unwrap();
    }
    assert_eq!((one.accepted(), two.accepted()), (2, 2));
    assert_eq!(cluster.counts().sum(|of| &of.open), 1);
}

#[test]
fn workers_share_the_bound_and_give_up_what_rests() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outer = runtime();
    let (origin, answers) = outer.block_on(slow(OK));
    let upstreams = bound(1, 9, Descriptors::unlimited());
    let cluster = cluster(&[origin.address], &upstreams);
    // A connection that one worker uses, or that is idle there, makes room for another worker's
    // request.
    for rests in [false, true] {
        outer.block_on(async {
            let sent = send(&cluster, 1);
            until("it is there", || cluster.breaker().open.load(Ordering::Relaxed) == 1).await;
            let mut sent = Some(sent);
            if rests {
                answers.add_permits(1);
                sent.take().unwrap().join_all().await;
            }
            let other = {
                let cluster = Arc::clone(&cluster);
                let answers = Arc::clone(&answers);
                std::thread::spawn(move || {
                    runtime().block_on(async {
                        answers.add_permits(1);
                        soon(cluster.send(get())).await.map(|_| ()).map_err(|failure| failure.kind)
                    })
                })
            };
            if let Some(sent) = sent {
                answers.add_permits(1);
                sent.join_all().await;
            }
            until("the other one was served", || {
                pool::sweep(clock::coarse_now());
                other.is_finished()
            })
            .await;
            assert_eq!(other.join().unwrap(), Ok(()));
        });
    }
}

#[tokio::test]
async fn descriptors_are_shared_by_all_backends() {
    let descriptors = Descriptors::new(8, usize::MAX);
    let upstreams = bound(100, 0, descriptors);
    let (origin, answers) = slow(OK).await;
    let quick = Origin::answering(OK).await;
    let busy = cluster(&[origin.address], &upstreams);
    let other = cluster(&[quick.address], &upstreams);
    let sent = send(&busy, 5);
    until("five are there", || origin.accepted() == 5).await;
    soon(other.send(get())).await.unwrap();
    assert_eq!(pool::resting(&other), 0, "nothing rests while they are scarce");
    let more = send(&busy, 3);
    until("eight are there", || origin.accepted() == 8).await;
    let failed = soon(other.send(get())).await.unwrap_err();
    assert_eq!(failed.kind, FailureKind::NoDescriptor);
    assert!(other.hosts()[0].is_available());
    let failed = other.datagrams(&Aim::default(), None, other.counts()).await.unwrap_err();
    assert_eq!(failed.kind, FailureKind::NoDescriptor);
    let failed =
        other.open(&Aim::default(), None, None, other.counts(), &mut None).await.unwrap_err();
    assert_eq!(failed.kind, FailureKind::NoDescriptor);
    answers.add_permits(8);
    for sent in [sent, more] {
        assert!(soon(sent.join_all()).await.iter().all(Result::is_ok));
    }
    soon(other.send(get())).await.unwrap();
}

#[tokio::test]
async fn a_client_has_its_share_of_requests_tunnels_and_flows() {
    let descriptors = Descriptors::new(usize::MAX, 3);
    let (greedy, other) = (descriptors.client("greedy"), descriptors.client("other"));
    let (origin, answers) = slow(OK).await;
    let cluster = cluster(&[origin.address], &bound(100, 0, descriptors));
    let sent = send_of(&cluster, 1, Some(greedy));
    let tunnel =
        soon(cluster.open(&Aim::default(), Some(greedy), None, cluster.counts(), &mut None))
            .await
            .unwrap();
    let flow =
        soon(cluster.datagrams(&Aim::default(), Some(greedy), cluster.counts())).await.unwrap();
    until("two are there", || origin.accepted() == 2).await;
    let refused = soon(cluster.send_of(Some(greedy), None, get())).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::ClientShare);
    let refused = cluster
        .open(&Aim::default(), Some(greedy), None, cluster.counts(), &mut None)
        .await
        .unwrap_err();
    assert_eq!(refused.kind, FailureKind::ClientShare);
    let refused =
        cluster.datagrams(&Aim::default(), Some(greedy), cluster.counts()).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::ClientShare);
    let others = send_of(&cluster, 5, Some(other));
    until("three of them are there", || origin.accepted() == 5).await;

    answers.add_permits(6);
    assert!(soon(sent.join_all()).await.iter().all(Result::is_ok));
    let ended = soon(others.join_all()).await;
    assert_eq!(ended.iter().filter(|ended| ended.is_ok()).count(), 3);
    drop((tunnel, flow));
    // An idle connection counts for no client; when it is reused, it counts for its next client.
    answers.add_permits(6);
    assert!(pool::resting(&cluster) >= 3);
    let again = join_all((0..3).map(|_| cluster.send_of(Some(greedy), None, get())));
    assert!(soon(again).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn an_errand_without_a_client_counts_for_nobody() {
    let descriptors = Descriptors::new(usize::MAX, 0);
    let origin = Origin::answering(OK).await;
    let cluster = cluster(&[origin.address], &bound(100, 0, descriptors));
    let (aim, counts) = (Aim::default(), cluster.counts());
    for (client, served) in [(None, true), (Some(descriptors.client(1)), false)] {
        let errand = Errand {
            aim: &aim,
            client,
            proxied: None,
            counts,
            tried: &mut None,
            moved: &AtomicU64::default(),
        };
        assert_eq!(soon(cluster.send_for(errand, &mut get())).await.is_ok(), served);
    }
}

#[tokio::test]
async fn a_wait_for_a_connection_has_a_limit() {
    let mut breaker = Breaker::new(
        0,
        Bounds { connections: 1, pending: 9 },
        None,
        Descriptors::unlimited(),
        |_| false,
    );
    let counts = Arc::<Sharded<Upstream>>::default();
    Arc::get_mut(&mut breaker).unwrap().longest_wait = Duration::from_millis(50);
    let held = breaker.room(&counts).await.unwrap();
    let refused = soon(breaker.room(&counts)).await.unwrap_err();
    assert_eq!(refused, Denied::Overflow(BreakerLimit::Connections));
    assert_eq!(counts.sum(|of| &of.pending), 0, "it waits no longer");
    drop(held);
    assert!(breaker.room(&counts).await.is_ok());
}

#[tokio::test]
async fn a_request_that_may_not_wait_waits_for_a_connection_that_is_idle_elsewhere() {
    let requests = RequestLimits::new(RequestBounds::UNLIMITED);
    let breaker = Breaker::new(
        0,
        Bounds { connections: 1, pending: 0 },
        Some(Arc::clone(&requests)),
        Descriptors::unlimited(),
        |_| false,
    );
    let counts = Arc::<Sharded<Upstream>>::default();
    // The connection is in use by the first request.
    let first = requests.begin().unwrap();
    let connection = breaker.room(&counts).await.unwrap();
    let second = requests.begin().unwrap();
    let refused = breaker.room(&counts).await.unwrap_err();
    assert_eq!(refused, Denied::Overflow(BreakerLimit::PendingRequests));
    drop(second);
    // It is idle: its request has ended, and another one has begun.
    drop(first);
    let _third = requests.begin().unwrap();
    let mut waits = pin!(breaker.room(&counts));
    assert!(futures_util::poll!(waits.as_mut()).is_pending());
    assert!(breaker.is_contended(), "its worker is told");
    drop(connection);
    assert!(soon(waits).await.is_ok());
    assert_eq!(counts.sum(|of| &of.pending_overflows), 1);
}
