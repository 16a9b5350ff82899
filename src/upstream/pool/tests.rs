use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::*;
use crate::upstream::testing::{Origin, cluster, cluster_with, collect, get, reports, soon};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Sends `count` requests at once, so that as many connections are idle afterwards.
async fn warm(cluster: &Arc<Cluster>, count: usize) {
    let answers = (0..count).map(|_| cluster.send(get()));
    for answer in soon(futures_util::future::join_all(answers)).await {
        answer.unwrap();
    }
    assert_eq!(resting(cluster), count.min(cluster.settings().max_idle_per_endpoint));
}

#[tokio::test]
async fn one_connection_serves_one_request_after_the_other() {
    let origin = Origin::answering(OK).await;
    let cluster = cluster(&[origin.address]);
    for _ in 0..5 {
        soon(cluster.send(get())).await.unwrap();
        assert_eq!(resting(&cluster), 1);
    }
    assert_eq!(origin.accepted(), 1);
    assert_eq!(cluster.counts().sum(|of| &of.open), 1);
}

#[tokio::test]
async fn the_connection_that_rested_last_goes_first() {
    let origin = Origin::new(|number, mut peer| async move {
        while peer.head().await.is_some() {
            let body = number.to_string();
            peer.write(format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{body}")).await;
        }
    })
    .await;
    let cluster = cluster(&[origin.address]);
    warm(&cluster, 3).await;

    let mut names = Vec::new();
    for _ in 0..4 {
        let answer = soon(cluster.send(get())).await.unwrap();
        names.push(collect(answer.response.into_body()).await.unwrap().0);
    }
    names.dedup();
    assert_eq!(names.len(), 1, "the same one each time: {names:?}");
    assert_eq!(origin.accepted(), 3);
}

#[tokio::test]
async fn no_more_rest_than_the_settings_allow() {
    let origin = Origin::answering(OK).await;
    let cluster = cluster_with(&[origin.address], |settings| settings.max_idle_per_endpoint = 2);
    warm(&cluster, 5).await;
    assert_eq!(resting(&cluster), 2);
}

#[tokio::test]
async fn a_sweep_closes_what_rested_too_long() {
    let (tell, mut told) = reports();
    let origin = Origin::new(move |_, mut peer| {
        let tell = tell.clone();
        async move {
            peer.head().await;
            peer.write(OK).await;
            peer.0.read_u8().await.unwrap_err();
            tell.send("closed").unwrap();
        }
    })
    .await;
    let cluster = cluster_with(&[origin.address], |settings| {
        settings.idle_timeout = Duration::from_secs(30);
    });
    warm(&cluster, 1).await;

    let now = clock::now();
    sweep(now + Duration::from_secs(29));
    assert_eq!(resting(&cluster), 1);
    sweep(now + Duration::from_secs(31));
    assert_eq!(resting(&cluster), 0);
    assert_eq!(told.next().await, "closed");
}

#[tokio::test]
async fn a_connection_that_rested_too_long_is_not_taken_even_without_a_sweep() {
    let origin = Origin::answering(OK).await;
    let cluster =
        cluster_with(&[origin.address], |settings| settings.idle_timeout = Duration::ZERO);
    warm(&cluster, 1).await;
    soon(cluster.send(get())).await.unwrap();
    assert_eq!(origin.accepted(), 2);
}

#[tokio::test]
async fn a_sweep_closes_what_belongs_to_no_cluster() {
    let origin = Origin::answering(OK).await;
    let cluster = cluster(&[origin.address]);
    warm(&cluster, 1).await;
    let (counts, id) = (Arc::clone(cluster.counts()), cluster.id());
    let open = || counts.sum(|of| &of.open);
    drop(cluster);
    assert_eq!(open(), 1);
    sweep(clock::now());
    assert_eq!(open(), 0);
    POOL.with_borrow(|pool| assert!(pool.shelves.keys().all(|(other, _)| *other != id)));
}

#[tokio::test]
async fn a_sweep_closes_what_the_backend_closed() {
    let (tell, mut told) = reports();
    let origin = Origin::new(move |_, mut peer| {
        let tell = tell.clone();
        async move {
            peer.head().await;
            peer.write(OK).await;
            drop(peer);
            tell.send(()).unwrap();
        }
    })
    .await;
    let cluster = cluster(&[origin.address]);
    soon(cluster.send(get())).await.unwrap();
    told.next().await;
    // The close is in the kernel; the event loop sees it when it polls next.
    soon(async {
        while resting(&cluster) > 0 {
            tokio::task::yield_now().await;
            sweep(clock::now());
        }
    })
    .await;
}

#[test]
fn a_drained_worker_keeps_nothing() {
    // On a separate thread, since a drain is permanent.
    let worker = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let origin = Origin::answering(OK).await;
            let cluster = cluster(&[origin.address]);
            warm(&cluster, 2).await;
            drain();
            assert_eq!(resting(&cluster), 0);
            soon(cluster.send(get())).await.unwrap();
            assert_eq!(resting(&cluster), 0);
        });
    });
    worker.join().unwrap();
}
