//! Streaming bodies: both directions at once, stalled, cut, abandoned; and tunnels.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::body::{Body, BodyError};
use crate::upstream::failure::{BodyFault, FailureKind};
use crate::upstream::pool;
use crate::upstream::testing::{
    Fields, Origin, cluster, collect, data, frames, get, reports, request, soon,
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Maximum number of bytes in flight when one side stalls: buffers of two sockets and of the
/// gateway.
const IN_FLIGHT: usize = 12 * 1024 * 1024;

/// Returns a body of `count` pieces of 64 KiB, and a counter of the pieces that were polled.
fn large(count: usize) -> (Body, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let piece = Bytes::from(vec![b'x'; 64 * 1024]);
    let pieces = stream::iter((0..count).map(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok::<_, BodyError>(Frame::data(piece.clone()))
    }));
    (Body::boxed(StreamBody::new(pieces)), asked)
}

/// Returns the count once it has stopped growing.
async fn settled(count: &AtomicUsize) -> usize {
    let mut before = usize::MAX;
    loop {
        let now = count.load(Ordering::SeqCst);
        if now == before {
            return now;
        }
        before = now;
        // The absence of progress can only be detected by waiting. Too short a wait does not fail
        // correct code: it reads a smaller count.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn large_bodies_go_both_ways_at_once() {
    const TOTAL: usize = 64 * 1024 * 1024;
    let origin = Origin::new(|_, mut peer| async move {
        peer.head().await;
        peer.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {TOTAL}\r\n\r\n")).await;
        let (mut read, mut write) = peer.0.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    })
    .await;
    let cluster = cluster(&[origin.address]);
    let (body, _) = large(TOTAL / (64 * 1024));
    let length = TOTAL.to_string();
    let post = request("POST", &[("content-length", &length)], body);
    let mut body = soon(cluster.send(post)).await.unwrap().response.into_body();
    let mut received = 0;
    while let Some(frame) = soon(body.frame()).await {
        received += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(received, TOTAL);
    assert_eq!(pool::resting(&cluster), 1);
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_backend() {
    const TOTAL: usize = 256 * 1024 * 1024;
    let written = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&written);
    let origin = Origin::new(move |_, mut peer| {
        let counted = Arc::clone(&counted);
        async move {
            peer.head().await;
            peer.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {TOTAL}\r\n\r\n")).await;
            let piece = [b'x'; 64 * 1024];
            while let Ok(count @ 1..) = peer.0.write(&piece).await {
                counted.fetch_add(count, Ordering::SeqCst);
            }
        }
    })
    .await;
    let answer = soon(cluster(&[origin.address]).send(get())).await.unwrap();
    let mut body = answer.response.into_body();
    soon(body.frame()).await.unwrap().unwrap();
    let stalled = settled(&written).await;
    assert!(stalled < IN_FLIGHT, "{stalled} bytes under way");
    // The transfer continues when the client reads again.
    let mut received = 0;
    while received < 2 * IN_FLIGHT {
        received += soon(body.frame()).await.unwrap().unwrap().into_data().unwrap().len();
    }
}

#[tokio::test]
async fn a_backend_that_does_not_read_stops_the_client() {
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let gone = std::sync::Mutex::new(Some(gone));
    let origin = Origin::new(move |_, mut peer| {
        let gone = gone.lock().unwrap().take().unwrap();
        async move {
            peer.head().await;
            gone.await.unwrap();
            let mut buffer = vec![0; 64 * 1024];
            let mut left: usize = 4096 * 64 * 1024;
            while left > 0 {
                left -= peer.0.read(&mut buffer).await.unwrap();
            }
            peer.write(OK).await;
        }
    })
    .await;
    let cluster = cluster(&[origin.address]);
    let (body, asked) = large(4096);
    let length = (4096 * 64 * 1024).to_string();
    let send = cluster.send(request("POST", &[("content-length", &length)], body));
    let watch = async {
        let pieces = settled(&asked).await;
        assert!(pieces * 64 * 1024 < IN_FLIGHT, "{pieces} pieces under way");
        go.send(()).unwrap();
    };
    let (answer, ()) = tokio::join!(send, watch);
    assert_eq!(answer.unwrap().response.status(), 200);
}

#[tokio::test]
async fn a_response_may_come_before_the_request_has_ended() {
    // (early bytes of the backend, status)
    let table = [
        ("HTTP/1.1 413 Large\r\ncontent-length: 3\r\n\r\nbig", 413),
        ("HTTP/1.1 413 Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig", 413),
    ];
    for (bytes, status) in table {
        let (tell, mut told) = reports();
        let origin = Origin::new(move |_, mut peer| {
            let tell = tell.clone();
            async move {
                peer.head().await;
                peer.write(bytes).await;
                peer.rest().await;
                tell.send("closed").unwrap();
            }
        })
        .await;
        let cluster = cluster(&[origin.address]);
        let endless =
            Body::boxed(StreamBody::new(stream::pending::<Result<Frame<Bytes>, BodyError>>()));
        let answer = soon(cluster.send(request("POST", &[], endless))).await.unwrap();
        assert_eq!(answer.response.status(), status);
        assert_eq!(collect(answer.response.into_body()).await.unwrap().0, "big");
        assert_eq!(told.next().await, "closed");
        assert_eq!(pool::resting(&cluster), 0);
    }
}

#[tokio::test]
async fn a_backend_that_answers_and_closes_without_reading_is_heard() {
    let origin = Origin::new(|_, mut peer| async move {
        peer.head().await;
        peer.write("HTTP/1.1 413 Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig").await;
    })
    .await;
    let (body, _) = large(4096);
    let answer = soon(cluster(&[origin.address]).send(request("POST", &[], body))).await.unwrap();
    assert_eq!(answer.response.status(), 413);
    assert_eq!(collect(answer.response.into_body()).await.unwrap().0, "big");
}

#[tokio::test]
async fn the_request_goes_on_while_the_response_does() {
    let origin = Origin::new(|_, mut peer| async move {
        peer.head().await;
        peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        // Answers each chunk when it has arrived, so neither side can run ahead.
        for _ in 0..3 {
            let chunk = peer.exactly("1\r\nx\r\n".len()).await;
            peer.write(chunk).await;
        }
        let last = peer.exactly("0\r\n\r\n".len()).await;
        peer.write(last).await;
        peer.rest().await;
    })
    .await;
    let cluster = cluster(&[origin.address]);
    let (feed, fed) = tokio::sync::mpsc::unbounded_channel::<()>();
    let pieces =
        stream::unfold(fed, |mut fed| async move { fed.recv().await.map(|()| (data("x"), fed)) });
    let body = Body::boxed(StreamBody::new(pieces));
    let answer = soon(cluster.send(request("POST", &[], body))).await.unwrap();
    let mut body = answer.response.into_body();
    for _ in 0..3 {
        feed.send(()).unwrap();
        let frame = soon(body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "x");
    }
    drop(feed);
    assert!(soon(body.frame()).await.is_none());
    assert_eq!(pool::resting(&cluster), 1);
}

#[tokio::test]
async fn a_client_that_breaks_off_late_breaks_the_response_too() {
    let origin = Origin::new(|_, mut peer| async move {
        peer.head().await;
        peer.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
        peer.rest().await;
    })
    .await;
    let (fail, failed) = tokio::sync::oneshot::channel::<()>();
    let pieces = stream::once(async move {
        failed.await.unwrap();
        Err::<Frame<Bytes>, BodyError>("client gone".into())
    });
    let post = request("POST", &[], Body::boxed(StreamBody::new(pieces)));
    let answer = soon(cluster(&[origin.address]).send(post)).await.unwrap();
    fail.send(()).unwrap();
    let fault = collect(answer.response.into_body()).await.unwrap_err();
    assert!(matches!(fault.downcast_ref(), Some(BodyFault::Request(_))), "{fault}");
}

#[tokio::test]
async fn the_connection_rests_with_the_last_byte_not_with_the_poll_after_it() {
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let gone = std::sync::Mutex::new(Some(gone));
    let origin = Origin::new(move |_, mut peer| {
        let gone = gone.lock().unwrap().take().unwrap();
        async move {
            peer.head().await;
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
            gone.await.unwrap();
            peer.write("world").await;
            peer.rest().await;
        }
    })
    .await;
    let cluster = cluster(&[origin.address]);
    let mut body = soon(cluster.send(get())).await.unwrap().response.into_body();
    assert_eq!(body.size_hint().exact(), Some(10));
    soon(body.frame()).await.unwrap().unwrap();
    assert_eq!(pool::resting(&cluster), 0);
    assert!(!body.is_end_stream());
    go.send(()).unwrap();
    soon(body.frame()).await.unwrap().unwrap();
    assert!(body.is_end_stream());
    assert_eq!(pool::resting(&cluster), 1);
}

#[tokio::test]
async fn giving_up_closes_the_connection_at_once() {
    // The stage of the exchange at which the client disconnects.
    for stage in ["awaiting the head", "within the head", "within the body"] {
        let (tell, mut told) = reports();
        let origin = Origin::new(move |_, mut peer| {
            let tell = tell.clone();
            async move {
                peer.head().await;
                match stage {
                    "awaiting the head" => {}
                    "within the head" => peer.write("HTTP/1.1 200 OK\r\n").await,
                    _ => peer.write("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello").await,
                }
                tell.send("begun").unwrap();
                peer.rest().await;
                tell.send("closed").unwrap();
            }
        })
        .await;
        let cluster = cluster(&[origin.address]);
        let exchange = async {
            let answer = cluster.send(get()).await.unwrap();
            collect(answer.response.into_body()).await.unwrap();
        };
        tokio::select! {
            () = exchange => panic!("{stage}: it cannot have ended"),
            begun = told.next() => assert_eq!(begun, "begun"),
        }
        assert_eq!(told.next().await, "closed", "{stage}");
        assert_eq!(cluster.counts().sum(|of| &of.open), 0, "{stage}");
    }
}

const UPGRADE: &Fields = &[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];

#[tokio::test]
async fn a_tunnel_carries_every_byte_after_the_101() {
    let (tell, mut told) = reports();
    let origin = Origin::new(move |_, mut peer| {
        let tell = tell.clone();
        async move {
            let head = peer.head().await.unwrap();
            assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
            assert!(head.contains("\r\nconnection: keep-alive, Upgrade\r\n"), "{head}");
            peer.write(
                "HTTP/1.1 101 Switch\r\nconnection: upgrade\r\nupgrade: WebSocket\r\n\
                 sec-websocket-accept: x\r\n\r\nearly",
            )
            .await;
            let got = peer.exactly(5).await;
            peer.write(got).await;
            peer.rest().await;
            tell.send("closed").unwrap();
        }
    })
    .await;
    let cluster = cluster(&[origin.address]);
    let answer = soon(cluster.send(request("GET", UPGRADE, Body::Empty))).await.unwrap();
    assert_eq!(answer.response.status(), 101);
    assert_eq!(answer.response.headers()["sec-websocket-accept"], "x");
    let mut tunnel = answer.tunnel.unwrap();
    let mut bytes = [0; 5];
    soon(tunnel.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"early");
    tunnel.write_all(b"hello").await.unwrap();
    soon(tunnel.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"hello");
    drop(tunnel);
    assert_eq!(told.next().await, "closed");
    assert_eq!(pool::resting(&cluster), 0);
}

#[tokio::test]
async fn only_what_was_asked_for_is_switched_to() {
    let switch = "HTTP/1.1 101 Switch\r\nupgrade: h2c\r\n\r\n";
    // (request fields, response, outcome)
    let table: [(&Fields, &str, Result<u16, &str>); 5] = [
        (UPGRADE, switch, Err("another protocol")),
        (UPGRADE, "HTTP/1.1 101 Switch\r\n\r\n", Err("another protocol")),
        (&[("upgrade", "h2c")], switch, Err("nobody asked")),
        (&[], switch, Err("nobody asked")),
        (UPGRADE, "HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno", Ok(403)),
    ];
    for (fields, response, want) in table {
        let origin = Origin::answering(response).await;
        let cluster = cluster(&[origin.address]);
        match (soon(cluster.send(request("GET", fields, Body::Empty))).await, want) {
            (Ok(answer), Ok(status)) => {
                assert_eq!(answer.response.status(), status);
                assert!(answer.tunnel.is_none());
                assert_eq!(pool::resting(&cluster), 1, "an ordinary exchange");
            }
            (Err(failure), Err(want)) => match failure.kind {
                FailureKind::InvalidResponse(why) => assert!(why.contains(want), "{why}"),
                other => panic!("{response:?}: {other}"),
            },
            (got, _) => panic!("{response:?}: {got:?}"),
        }
    }
}

#[tokio::test]
async fn a_client_that_waits_for_100_is_served_by_a_backend_that_never_says_it() {
    let origin = Origin::new(|_, mut peer| async move {
        peer.head().await;
        assert_eq!(peer.exactly(5).await, "hello");
        peer.write(OK).await;
    })
    .await;
    let fields = [("expect", "100-continue"), ("content-length", "5")];
    let post = request("POST", &fields, frames([data("hello")]));
    let answer = soon(cluster(&[origin.address]).send(post)).await.unwrap();
    assert_eq!(answer.response.status(), 200);
}
