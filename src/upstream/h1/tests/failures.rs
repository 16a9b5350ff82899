//! Connections that fail: the permitted retries, and the forbidden ones.

use std::time::Duration;

use tokio::net::UnixListener;

use crate::body::Body;
use crate::upstream::cluster::{Cluster, ClusterSettings};
use crate::upstream::endpoint::EndpointSettings;
use crate::upstream::failure::FailureKind;
use crate::upstream::names::Names;
use crate::upstream::testing::{
    Origin, cluster, cluster_with, collect, data, dead, frames, get, reports, request, soon,
};
use crate::upstream::upstreams::Upstreams;

const HI: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

/// Returns a backend whose first connection answers once and fails on the second request; the
/// others continue to answer.
async fn dying_once() -> (Origin, crate::upstream::testing::Reports<String>) {
    let (tell, told) = reports();
    let origin = Origin::new(move |number, mut peer| {
        let tell = tell.clone();
        async move {
            while let Some(head) = peer.head().await {
                let method = head.split(' ').next().unwrap().to_owned();
                let first = method == "OPTIONS";
                tell.send(method).unwrap();
                if number == 0 && !first {
                    return;
                }
                peer.write(HI).await;
            }
        }
    })
    .await;
    (origin, told)
}

#[tokio::test]
async fn only_what_may_be_seen_twice_is_sent_twice_over_a_dead_connection() {
    let body = || Body::from_bytes("hello");
    // (method, body, answered, requests at the backend)
    let table = [
        ("GET", Body::Empty, true, 2),
        ("HEAD", Body::Empty, true, 2),
        ("PUT", Body::Empty, true, 2),
        ("DELETE", Body::Empty, true, 2),
        ("POST", Body::Empty, false, 1),
        ("PATCH", Body::Empty, false, 1),
        ("PUT", body(), false, 1),
        ("POST", body(), false, 1),
        ("GET", body(), false, 1),
    ];
    for (method, body, answered, times) in table {
        let row = format!("{method} {body:?}");
        let (origin, mut told) = dying_once().await;
        let cluster = cluster(&[origin.address]);
        soon(cluster.send(request("OPTIONS", &[], Body::Empty))).await.unwrap();
        assert_eq!(told.next().await, "OPTIONS");

        let outcome = soon(cluster.send(request(method, &[], body))).await;
        for _ in 0..times {
            assert_eq!(told.next().await, method, "{row}");
        }
        assert!(told.is_empty(), "{row}");
        match outcome {
            Ok(answer) => assert!(answered && answer.response.status() == 200, "{row}"),
            Err(failure) => {
                assert!(!answered, "{row}: {failure}");
                assert_eq!(failure.kind, FailureKind::ResetBeforeHead, "{row}");
            }
        }
        let resends = cluster.counts().sum(|of| &of.resends);
        assert_eq!(resends, u64::from(answered), "{row}");
    }
}

#[tokio::test]
async fn a_connection_that_the_backend_closed_is_noticed_before_a_post() {
    let (tell, mut told) = reports();
    let origin = Origin::new(move |_, mut peer| {
        let tell = tell.clone();
        async move {
            peer.head().await;
            peer.write(HI).await;
            drop(peer);
            tell.send("closed").unwrap();
        }
    })
    .await;
    let cluster = cluster(&[origin.address]);
    for _ in 0..20 {
        let post = request("POST", &[], Body::from_bytes("hello"));
        let answer = soon(cluster.send(post)).await.unwrap();
        assert_eq!(collect(answer.response.into_body()).await.unwrap().0, "hi");
        assert_eq!(told.next().await, "closed");
    }
    assert_eq!(origin.accepted(), 20);
}

#[tokio::test]
async fn a_fresh_connection_that_dies_is_not_replaced() {
    // (bytes that the backend sends before it closes, details)
    let table = [("", "closed without"), ("HTTP/1.1 200 OK\r\ncontent-", "closed within")];
    for (bytes, want) in table {
        let origin = Origin::new(move |_, mut peer| async move {
            peer.head().await;
            peer.write(bytes).await;
        })
        .await;
        let cluster = cluster(&[origin.address]);
        let failure = soon(cluster.send(get())).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::ResetBeforeHead);
        assert!(failure.details.contains(want), "{failure}");
        assert_eq!(origin.accepted(), 1);
    }
}

#[tokio::test]
async fn half_a_response_on_a_pooled_connection_is_not_asked_for_again() {
    for half in ["H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let origin = Origin::new(move |_, mut peer| async move {
            peer.head().await;
            peer.write(HI).await;
            peer.head().await;
            peer.write(half).await;
        })
        .await;
        let cluster = cluster(&[origin.address]);
        soon(cluster.send(get())).await.unwrap();
        let failure = soon(cluster.send(get())).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::ResetBeforeHead, "{half:?}");
        assert_eq!(origin.accepted(), 1, "{half:?}");
    }
}

#[tokio::test]
async fn the_next_endpoint_takes_what_the_first_refuses() {
    let origin = Origin::answering(HI).await;
    let (gone, gone_too) = (dead().await, dead().await);
    let cluster = cluster(&[gone, gone_too, origin.address]);
    // This includes a POST with a body: none of it was sent.
    for _ in 0..3 {
        let post = request("POST", &[], frames([data("hello")]));
        let answer = soon(cluster.send(post)).await.unwrap();
        assert_eq!(answer.endpoint.socket_addr(), Some(origin.address));
    }
    let failures = cluster.counts().sum(|of| &of.connect_failures);
    assert_eq!(failures, 2, "an endpoint that refused is not tried first again");
}

#[tokio::test]
async fn a_cluster_where_nobody_listens_says_who_was_tried() {
    let (gone, gone_too) = (dead().await, dead().await);
    let cluster = cluster(&[gone, gone_too]);
    for _ in 0..2 {
        let failure = soon(cluster.send(get())).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::ConnectRefused);
        assert!(failure.details.contains("refused"), "{failure}");
        let tried = failure.endpoint.unwrap().socket_addr().unwrap();
        assert!([gone, gone_too].contains(&tried));
    }
    assert_eq!(cluster.counts().sum(|of| &of.connect_failures), 4, "each once a request");
}

#[tokio::test]
async fn a_cluster_without_endpoints_says_so() {
    let failure = soon(cluster(&[]).send(get())).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NoEndpoint);
    assert!(failure.endpoint.is_none());
}

#[tokio::test]
async fn a_backend_that_does_not_answer_a_connect_costs_the_timeout_and_no_more() {
    // A socket with a full queue drops further SYNs, like an unreachable host.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _filler = std::net::TcpStream::connect(address).unwrap();

    let cluster = cluster_with(&[address], |settings| {
        settings.connect_timeout = Duration::from_millis(50);
    });
    let failure = soon(cluster.send(get())).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::ConnectTimeout);
    assert_eq!(failure.endpoint.unwrap().socket_addr(), Some(address));
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    let origin = Origin::answering(HI).await;
    let port = origin.address.port();
    // The first two have no listener.
    let fixed = [(
        "app.test".to_owned(),
        vec![[127, 0, 0, 2].into(), [127, 0, 0, 3].into(), [127, 0, 0, 1].into()],
    )];
    let endpoint = EndpointSettings::Name { host: "app.test".into(), port };
    let cluster =
        Cluster::new(ClusterSettings::new("test", vec![endpoint]), &Upstreams::new(fixed));
    for _ in 0..3 {
        let answer = soon(cluster.send(get())).await.unwrap();
        assert_eq!(answer.endpoint.socket_addr(), Some(origin.address));
    }
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_gives_way_to_the_next_endpoint() {
    let origin = Origin::answering(HI).await;
    let names = Names::with_lookup([], |_: &str| Err(std::io::Error::other("no such host")));
    let upstreams = Upstreams::with_names(names);
    let unknown = EndpointSettings::Name { host: "gone.test".into(), port: 80 };

    let settings = ClusterSettings::new("test", vec![unknown.clone()]);
    let failure = soon(Cluster::new(settings, &upstreams).send(get())).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unresolved);
    assert_eq!(failure.endpoint.unwrap().to_string(), "gone.test:80");
    assert!(failure.details.contains("no such host"));

    let known = EndpointSettings::Address(origin.address);
    let settings = ClusterSettings::new("test", vec![unknown, known]);
    let cluster = Cluster::new(settings, &upstreams);
    for _ in 0..2 {
        soon(cluster.send(get())).await.unwrap();
    }
}

#[tokio::test]
async fn a_unix_socket_is_an_endpoint_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let endpoint = EndpointSettings::Unix(path.clone());
    let cluster = Cluster::new(ClusterSettings::new("test", vec![endpoint]), &Upstreams::new([]));
    let failure = soon(cluster.send(get())).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::ConnectRefused);

    let listener = UnixListener::bind(&path).unwrap();
    let backend = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..2 {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tokio::io::AsyncReadExt::read_u8(&mut stream).await.unwrap());
            }
            tokio::io::AsyncWriteExt::write_all(&mut stream, HI.as_bytes()).await.unwrap();
        }
    };
    let client = async {
        for method in ["GET", "POST"] {
            let answer = soon(cluster.send(request(method, &[], Body::Empty))).await.unwrap();
            assert_eq!(answer.endpoint.to_string(), format!("unix:{}", path.display()));
            assert_eq!(collect(answer.response.into_body()).await.unwrap().0, "hi");
        }
    };
    tokio::join!(backend, client);
}
