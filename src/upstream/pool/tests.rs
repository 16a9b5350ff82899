use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::*;
use crate::upstream::cluster::ClusterSettings;
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
    let cluster = cluster(&[origin.address]);
    assert_eq!(cluster.settings().idle_timeout, Duration::from_secs(1000));
    warm(&cluster, 1).await;

    let now = coarse_now();
    sweep(now + 900_000);
    assert_eq!(resting(&cluster), 1);
    sweep(now + 1_100_000);
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
    sweep(coarse_now());
    assert_eq!(open(), 0);
    POOL.with_borrow(|pool| assert!(pool.shelves.values().all(|shelf| shelf.cluster_id != id)));
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
        let mut now = coarse_now();
        while resting(&cluster) > 0 {
            tokio::task::yield_now().await;
            now += CHECK_INTERVAL;
            sweep(now.min(coarse_now() + 900_000));
        }
    })
    .await;
}

#[tokio::test]
async fn five_hundred_requests_at_once_open_no_connection_after_the_first_round() {
    const STREAMS: usize = 512;
    let origin = Origin::answering(OK).await;
    let cluster = cluster(&[origin.address]);
    warm(&cluster, STREAMS).await;
    for _ in 0..10 {
        warm(&cluster, STREAMS).await;
        sweep(coarse_now());
    }
    assert_eq!(origin.accepted(), STREAMS, "10 rounds, no further connection");
}

#[tokio::test]
async fn one_worker_keeps_no_more_than_the_sum_allows() {
    let origins = [Origin::answering(OK).await, Origin::answering(OK).await];
    let (old, young) = (cluster(&[origins[0].address]), cluster(&[origins[1].address]));
    POOL.with_borrow_mut(|pool| pool.most_idle = 5);
    warm(&old, 4).await;
    // The last time that another test may set is long before.
    let later = coarse_now() + 100_000;
    let answers = (0..3).map(|_| young.send(get()));
    let answers = soon(futures_util::future::join_all(answers)).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((resting(&old), resting(&young)), (2, 3), "the oldest made room");
    sweep(later);
    assert_eq!(POOL.with_borrow(|pool| pool.idle), 5);
}

#[tokio::test]
async fn a_reload_closes_many_connections_little_by_little() {
    let origin = Origin::answering(OK).await;
    let cluster = cluster(&[origin.address]);
    let count = CLOSES + 100;
    warm(&cluster, count).await;
    let counts = Arc::clone(cluster.counts());
    let open = || counts.sum(|of| &of.open);
    drop(cluster);
    sweep(coarse_now());
    assert_eq!(open(), 100);
    assert_eq!(POOL.with_borrow(|pool| pool.idle), 0);
    sweep(coarse_now());
    assert_eq!(open(), 0);
}

#[tokio::test]
async fn room_for_a_connection_comes_from_those_that_are_about_to_close() {
    let origin = Origin::answering(OK).await;
    let bounded = |settings: &mut ClusterSettings| settings.bounds.connections = 2;
    let cluster = cluster_with(&[origin.address], bounded);
    warm(&cluster, 2).await;
    // As when the backend has closed them and a request has found out.
    POOL.with_borrow_mut(|pool| {
        let Pool { shelves, idle, leaving, .. } = pool;
        shelves.values_mut().for_each(|shelf| shelf.clear(leaving));
        *idle = 0;
    });
    soon(cluster.send(get())).await.unwrap();
    assert_eq!(origin.accepted(), 3);
    assert_eq!(cluster.counts().sum(|of| &of.open), 2);
}

/// Reloads replace clusters while requests are sent: a request is answered by an endpoint of its
/// own cluster, whatever connections the endpoints before it have left.
#[tokio::test]
async fn hosts_that_come_and_go_never_mix_connections() {
    let named = |name: usize| {
        Origin::new(move |_, mut peer| async move {
            while peer.head().await.is_some() {
                peer.write(format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{name}")).await;
            }
        })
    };
    let origins = futures_util::future::join_all((0..6).map(named)).await;
    let mut random = fastrand::Rng::with_seed(5);
    let mut clusters: Vec<(Vec<usize>, Arc<Cluster>)> = Vec::new();
    let mut reused = 0;
    for step in 0..600 {
        match random.u8(..10) {
            0 if clusters.len() < 4 => {
                let members = random.choose_multiple(0..origins.len(), random.clone().usize(1..4));
                let addresses: Vec<_> =
                    members.iter().map(|member| origins[*member].address).collect();
                clusters.push((members, cluster(&addresses)));
            }
            1 if !clusters.is_empty() => {
                clusters.swap_remove(random.usize(..clusters.len()));
            }
            2 => sweep(coarse_now()),
            _ if !clusters.is_empty() => {
                let (members, cluster) = &clusters[random.usize(..clusters.len())];
                let before = resting(cluster);
                let answer = soon(cluster.send(get())).await.unwrap();
                reused += usize::from(resting(cluster) == before);
                let endpoint = answer.endpoint.to_string();
                let (name, _) = collect(answer.response.into_body()).await.unwrap();
                let name: usize = name.parse().unwrap();
                assert!(members.contains(&name), "step {step}: {name} is not one of {members:?}");
                assert_eq!(endpoint, origins[name].address.to_string(), "step {step}");
            }
            _ => {}
        }
    }
    assert!(reused > 100, "connections were reused: {reused}");
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

/// Each connection with a PROXY header is for one connection of a client, or for none.
#[tokio::test]
async fn a_connection_with_a_header_is_used_for_its_client_only() {
    let (saw, mut headers) = reports();
    let origin = Origin::new(move |_, mut peer| {
        let saw = saw.clone();
        async move {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.push(peer.0.read_u8().await.unwrap());
            }
            saw.send(String::from_utf8(line).unwrap()).unwrap();
            while peer.head().await.is_some() {
                peer.write(OK).await;
            }
        }
    })
    .await;
    let cluster = cluster_with(&[origin.address], |settings| {
        settings.proxy_protocol = Some(crate::proxy_protocol::Version::V1);
    });
    let client = |port| Addresses {
        source: ([192, 0, 2, 1], port).into(),
        destination: ([192, 0, 2, 2], 80).into(),
    };
    let (one, other) = (client(1), client(2));
    for proxied in [Some(&one), Some(&other), None, Some(&one), None, Some(&other), Some(&one)] {
        soon(cluster.send_of(None, proxied, get())).await.unwrap();
    }
    assert_eq!((origin.accepted(), resting(&cluster)), (3, 3));
    assert_eq!(headers.next().await, "PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\n");
    assert_eq!(headers.next().await, "PROXY TCP4 192.0.2.1 192.0.2.2 2 80\r\n");
    assert_eq!(headers.next().await, "PROXY UNKNOWN\r\n");
    assert!(headers.is_empty());
}

/// The room of a connection that is idle for another client is given to the request that waits.
#[tokio::test]
async fn connections_of_other_clients_make_room() {
    let origin = Origin::answering(OK).await;
    let cluster = cluster_with(&[origin.address], |settings| {
        settings.proxy_protocol = Some(crate::proxy_protocol::Version::V2);
        settings.bounds.connections = 2;
    });
    // The backend takes the header for a request line; it answers all the same.
    for port in 1..9 {
        let source = ([192, 0, 2, 1], port).into();
        let proxied = Addresses { source, destination: ([192, 0, 2, 2], 80).into() };
        soon(cluster.send_of(None, Some(&proxied), get())).await.unwrap();
    }
    assert_eq!((origin.accepted(), resting(&cluster)), (8, 2));
}
