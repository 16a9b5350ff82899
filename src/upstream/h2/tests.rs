use std::convert::Infallible;
use std::future::Future;

use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::link::{Worker, open_streams};
use super::*;
use crate::body::{Body, BodyError, Response};
use crate::clock;
use crate::upstream::breaker::Bounds;
use crate::upstream::cluster::{ClusterSettings, Protocol};
use crate::upstream::descriptors::Descriptors;
use crate::upstream::endpoint::EndpointSettings;
use crate::upstream::pool;
use crate::upstream::testing::{
    Fields, Origin, Peer, cluster_with, collect, data, dead, frames, get, reports, request, soon,
};
use crate::upstream::upstreams::Upstreams;

fn cluster(address: std::net::SocketAddr) -> Arc<Cluster> {
    cluster_with(&[address], |settings| settings.protocol = Protocol::H2c)
}

fn endless() -> Body {
    Body::boxed(StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>()))
}

/// Serves one connection, with at most `streams` at once, until it ends or `end` resolves.
async fn serve<F, R>(peer: Peer, streams: u32, end: impl Future<Output = ()>, handle: F)
where
    F: Fn(http::Request<Incoming>) -> R + Send,
    R: Future<Output = http::Response<Body>> + Send + 'static,
{
    let connection = hyper::server::conn::http2::Builder::new(Worker)
        .max_concurrent_streams(streams)
        .serve_connection(
            TokioIo::new(peer.0),
            service_fn(|request| {
                let response = handle(request);
                async { Ok::<_, Infallible>(response.await) }
            }),
        );
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = end => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Sends the request's body and trailers back as they arrive.
async fn echo(request: http::Request<Incoming>) -> http::Response<Body> {
    let mut response = Response::default();
    for name in ["host", "content-length", "x-a"] {
        if let Some(value) = request.headers().get(name) {
            let name = http::HeaderName::try_from(format!("echo-{name}")).unwrap();
            response.headers_mut().insert(name, value.clone());
        }
    }
    let uri = request.uri().to_string();
    response.headers_mut().insert("echo-uri", uri.parse().unwrap());
    *response.body_mut() = Body::boxed(request.into_body());
    response
}

async fn echoing() -> Origin {
    Origin::new(|_, peer| serve(peer, 100, std::future::pending(), echo)).await
}

#[tokio::test]
async fn one_connection_carries_many_requests_and_their_trailers() {
    let origin = echoing().await;
    let cluster = cluster(origin.address);
    let call = |n: usize| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", n.into());
        let body = frames([data("hel"), data("lo"), Ok(Frame::trailers(trailers))]);
        let cluster = Arc::clone(&cluster);
        async move {
            let answer = cluster.send(request("POST", &[("x-a", "1")], body)).await.unwrap();
            assert_eq!(answer.endpoint.socket_addr(), Some(origin.address));
            assert_eq!(answer.response.headers()["echo-uri"], "http://a.test/");
            assert!(!answer.response.headers().contains_key("echo-host"));
            assert!(!answer.response.headers().contains_key("echo-content-length"));
            let (body, trailers) = collect(answer.response.into_body()).await.unwrap();
            assert_eq!(body, "hello");
            assert_eq!(trailers["grpc-status"], n.to_string());
        }
    };
    soon(futures_util::future::join_all((0..20).map(call))).await;
    assert_eq!(origin.accepted(), 1);
    assert_eq!(cluster.counts().sum(|of| &of.open), 1);
}

#[tokio::test]
async fn lengths_travel_and_are_canonical() {
    let origin = echoing().await;
    let cluster = cluster(origin.address);
    // (method, content-length, body, at the backend)
    let table = [
        ("POST", Some("005"), frames([data("hello")]), Some("5")),
        ("POST", None, Body::from_bytes("hello"), Some("5")),
        ("POST", None, frames([data("hello")]), None),
        ("GET", None, Body::Empty, None),
    ];
    for (method, length, body, want) in table {
        let fields: Vec<_> = length.map(|length| ("content-length", length)).into_iter().collect();
        let answer = soon(cluster.send(request(method, &fields, body))).await.unwrap();
        let got = answer.response.headers().get("echo-content-length");
        assert_eq!(got.map(|value| value.to_str().unwrap()), want, "{method} {length:?}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_its_promise_is_never_completed() {
    let gone = || Err("client gone".into());
    // (content-length, body)
    let table = [
        ("10", frames([data("hello")])),
        ("4", frames([data("hello")])),
        ("8", frames([data("hello"), data("world")])),
        ("10", frames([data("hello"), gone()])),
        ("", frames([data("hello"), gone()])),
    ];
    for (length, body) in table {
        let (tell, mut told) = reports();
        let origin = Origin::new(move |_, peer| {
            let tell = tell.clone();
            serve(peer, 100, std::future::pending(), move |request| {
                let tell = tell.clone();
                async move {
                    tell.send(request.into_body().collect().await.is_ok()).unwrap();
                    Response::default()
                }
            })
        })
        .await;
        let fields: &[(&str, &str)] =
            if length.is_empty() { &[] } else { &[("content-length", length)] };
        let failure =
            soon(cluster(origin.address).send(request("POST", fields, body))).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::RequestBody, "{length}");
        // The backend has either received nothing of the request or seen it break.
        tokio::task::yield_now().await;
        if !told.is_empty() {
            assert!(!told.next().await, "{length}");
        }
    }
}

#[tokio::test]
async fn a_full_connection_gets_a_second_one() {
    let origin = Origin::new(|_, peer| {
        serve(peer, 1, std::future::pending(), |_| async {
            let mut response = Response::default();
            *response.body_mut() = endless();
            response
        })
    })
    .await;
    let cluster = cluster(origin.address);
    // The first answer brings the peer's limit; all streams stay open.
    let mut open = Vec::new();
    for wanted in 1..=3 {
        open.push(soon(cluster.send(get())).await.unwrap());
        // The driver reads the limit when it is polled next.
        tokio::task::yield_now().await;
        assert_eq!(origin.accepted(), wanted);
    }
    // A stream that ends frees its place.
    open.pop();
    soon(cluster.send(get())).await.unwrap();
    assert_eq!(origin.accepted(), 3);
}

#[tokio::test]
async fn a_hundred_first_requests_open_one_connection() {
    let origin = echoing().await;
    let cluster = cluster(origin.address);
    let answers = soon(futures_util::future::join_all((0..100).map(|_| cluster.send(get())))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test]
async fn a_backend_that_says_goodbye_is_met_on_a_new_connection() {
    let origin = Origin::new(|_, peer| async move {
        let (end, ended) = tokio::sync::oneshot::channel();
        let end = std::sync::Mutex::new(Some(end));
        let ended = async { ended.await.unwrap_or_default() };
        serve(peer, 100, ended, move |request| {
            if let Some(end) = end.lock().unwrap().take() {
                end.send(()).unwrap();
            }
            echo(request)
        })
        .await;
    })
    .await;
    let cluster = cluster(origin.address);
    for _ in 0..20 {
        let body = frames([data("hello")]);
        let answer = soon(cluster.send(request("PUT", &[], body))).await.unwrap();
        assert_eq!(collect(answer.response.into_body()).await.unwrap().0, "hello");
        // The GOAWAY is on its way; let it arrive.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    assert!(origin.accepted() > 1, "{}", origin.accepted());
}

/// RFC 9113 section 8.7: the request was not processed, so its method does not matter.
#[tokio::test]
async fn a_refused_stream_is_sent_again_whatever_the_method() {
    let kib = || Ok(Frame::data(Bytes::from(vec![b'x'; 1024])));
    let long = frames((0..80).map(move |_| kib()));
    // (method, body, streams refused, answered, resends)
    let table = [
        ("GET", Body::Empty, 1, true, 1),
        ("POST", Body::Empty, 1, true, 1),
        ("POST", frames([data("hel"), data("lo")]), 1, true, 1),
        ("POST", frames([data("hel"), data("lo")]), 4, true, 4),
        ("POST", frames([data("hel"), data("lo")]), 5, false, 4),
        ("POST", long, 1, false, 0),
    ];
    for (method, body, refused, answered, resends) in table {
        let (tell, mut told) = reports();
        let origin = Origin::new(move |_, peer| {
            let tell = tell.clone();
            async move {
                let mut connection = h2::server::handshake(peer.0).await.unwrap();
                let mut begun = 0;
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    begun += 1;
                    let tell = tell.clone();
                    hyper::rt::Executor::execute(&Worker, async move {
                        let mut body = request.into_body();
                        let mut length = 0;
                        // Refused in the middle of the body, if there is one.
                        while let Some(Ok(data)) = body.data().await {
                            length += data.len();
                            let _ = body.flow_control().release_capacity(data.len());
                            if length > 70 * 1024 {
                                break;
                            }
                        }
                        if begun > 1 && begun <= 1 + refused {
                            return respond.send_reset(h2::Reason::REFUSED_STREAM);
                        }
                        tell.send(length).unwrap();
                        respond.send_response(http::Response::new(()), true).unwrap();
                    });
                }
            }
        })
        .await;
        let cluster = cluster(origin.address);
        soon(cluster.send(get())).await.unwrap();
        told.next().await;
        let what = format!("{method} {body:?}, {refused} refused");
        let outcome = soon(cluster.send(request(method, &[], body))).await;
        assert_eq!(outcome.is_ok(), answered, "{what}: {outcome:?}");
        assert_eq!(cluster.counts().sum(|of| &of.resends), resends, "{what}");
        if what.contains("Boxed") && answered {
            assert_eq!(told.next().await, 5, "{what}: all of it again");
        }
    }
}

#[tokio::test]
async fn a_reset_stream_is_a_failure_and_its_connection_serves_on() {
    let origin = Origin::new(|_, peer| async move {
        let mut connection = h2::server::handshake(peer.0).await.unwrap();
        let mut served = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            served += 1;
            if served == 2 {
                respond.send_reset(h2::Reason::INTERNAL_ERROR);
            } else {
                respond.send_response(http::Response::new(()), true).unwrap();
            }
        }
    })
    .await;
    let cluster = cluster(origin.address);
    soon(cluster.send(get())).await.unwrap();
    let failure = soon(cluster.send(get())).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::ResetBeforeHead);
    soon(cluster.send(get())).await.unwrap();
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test]
async fn giving_up_resets_the_stream_and_makes_room() {
    let (tell, mut told) = reports();
    let origin = Origin::new(move |_, peer| {
        let tell = tell.clone();
        serve(peer, 100, std::future::pending(), move |_| {
            let tell = tell.clone();
            async move {
                /// Reports when hyper drops the call.
                struct Call(tokio::sync::mpsc::UnboundedSender<&'static str>);
                impl Drop for Call {
                    fn drop(&mut self) {
                        let _ = self.0.send("dropped");
                    }
                }
                tell.send("begun").unwrap();
                let _call = Call(tell);
                std::future::pending().await
            }
        })
    })
    .await;
    let cluster = cluster(origin.address);
    tokio::select! {
        outcome = cluster.send(get()) => panic!("{outcome:?}"),
        begun = told.next() => assert_eq!(begun, "begun"),
    }
    assert_eq!(told.next().await, "dropped");
    assert_eq!(open_streams(&cluster), 0);
}

#[tokio::test]
async fn letting_go_of_the_response_ends_the_upload_too() {
    let (tell, mut told) = reports();
    let origin = Origin::new(move |_, peer| {
        let tell = tell.clone();
        serve(peer, 100, std::future::pending(), move |request| {
            let tell = tell.clone();
            hyper::rt::Executor::execute(&Worker, async move {
                tell.send(request.into_body().collect().await.is_err()).unwrap();
            });
            let mut response = Response::default();
            *response.body_mut() = endless();
            async { response }
        })
    })
    .await;
    let cluster = cluster(origin.address);
    let answer = soon(cluster.send(request("POST", &[], endless()))).await.unwrap();
    assert!(told.is_empty());
    drop(answer);
    assert!(told.next().await, "the backend sees the upload break off");
}

#[tokio::test]
async fn a_quiet_connection_is_closed_after_its_time_and_a_busy_one_is_not() {
    let origin = Origin::new(|_, peer| {
        serve(peer, 100, std::future::pending(), |request| async move {
            let mut response = Response::default();
            if request.method() == "PUT" {
                *response.body_mut() = Body::boxed(request.into_body());
            }
            response
        })
    })
    .await;
    let cluster = cluster(origin.address);
    let idle = u64::try_from(cluster.settings().idle_timeout.as_millis()).unwrap();
    let now = clock::coarse_now();
    let open = soon(cluster.send(request("PUT", &[], endless()))).await.unwrap();
    pool::sweep(now);
    pool::sweep(now + idle * 2);
    assert_eq!(cluster.counts().sum(|of| &of.open), 1, "a stream is open");
    drop(open);

    pool::sweep(now + idle * 5 / 2);
    soon(cluster.send(get())).await.unwrap();
    assert_eq!(origin.accepted(), 1, "its time was not up");
    pool::sweep(now + idle * 3);
    pool::sweep(now + idle * 4);
    soon(async {
        while cluster.counts().sum(|of| &of.open) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_sent_says_why() {
    // (method, fields, host, kind)
    let table: [(&str, &Fields, FailureKind); 4] = [
        ("GET", &[("upgrade", "websocket")], FailureKind::NoUpgrade),
        ("CONNECT", &[], FailureKind::NoUpgrade),
        ("POST", &[("content-length", "5")], FailureKind::RequestBody),
        ("GET", &[], FailureKind::ConnectRefused),
    ];
    let cluster = cluster(dead().await);
    for (method, fields, want) in table {
        let failure = soon(cluster.send(request(method, fields, Body::Empty))).await.unwrap_err();
        assert_eq!(failure.kind, want, "{method} {fields:?}");
    }
    let failure = soon(cluster.send(Request::default())).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::InvalidRequest("host is no authority"));
}

#[tokio::test]
async fn a_backend_that_does_not_speak_http2_is_found_out() {
    // (bytes of the peer, possible kinds)
    let table = ["HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", ""];
    for bytes in table {
        let origin = Origin::new(move |_, mut peer| async move {
            peer.exactly(24).await;
            peer.write(bytes).await;
        })
        .await;
        let failure = soon(cluster(origin.address).send(get())).await.unwrap_err();
        assert!(
            matches!(
                failure.kind,
                FailureKind::ResetBeforeHead | FailureKind::InvalidResponse("not valid HTTP/2")
            ),
            "{bytes:?}: {failure}"
        );
        assert_eq!(origin.accepted(), 1);
    }
}

#[tokio::test]
async fn large_bodies_go_both_ways() {
    const PIECES: usize = 256;
    let origin = echoing().await;
    let piece = Bytes::from(vec![b'x'; 64 * 1024]);
    let pieces =
        stream::iter((0..PIECES).map(move |_| Ok::<_, BodyError>(Frame::data(piece.clone()))));
    let post = request("POST", &[], Body::boxed(StreamBody::new(pieces)));
    let answer = soon(cluster(origin.address).send(post)).await.unwrap();
    let received = soon(answer.response.into_body().collect()).await.unwrap().to_bytes().len();
    assert_eq!(received, PIECES * 64 * 1024);
}

/// Returns a cluster with a limit of one connection.
fn narrow(addresses: &[std::net::SocketAddr]) -> Arc<Cluster> {
    let endpoints = addresses.iter().copied().map(EndpointSettings::Address).collect();
    let mut settings = ClusterSettings::new("narrow", endpoints);
    settings.protocol = Protocol::H2c;
    settings.bounds = Bounds { connections: 1, pending: 9 };
    Cluster::new(settings, &Upstreams::new([]))
}

#[tokio::test]
async fn requests_wait_for_a_stream_where_no_connection_may_be_opened() {
    let origin = Origin::new(|_, peer| serve(peer, 1, std::future::pending(), echo)).await;
    let cluster = narrow(&[origin.address]);
    soon(cluster.send(get())).await.unwrap();
    let again = (0..5).map(|_| cluster.send(get()));
    for answer in soon(futures_util::future::join_all(again)).await {
        answer.unwrap();
    }
    assert_eq!(origin.accepted(), 1);
    assert_eq!(cluster.counts().sum(|of| &of.pending), 0);
}

#[tokio::test]
async fn a_connection_that_carries_nothing_makes_room_for_another_endpoint() {
    let (one, two) = (echoing().await, echoing().await);
    let cluster = narrow(&[one.address, two.address]);
    for _ in 0..4 {
        soon(cluster.send(get())).await.unwrap();
    }
    assert_eq!((one.accepted(), two.accepted()), (2, 2));
}

#[tokio::test]
async fn a_stream_that_is_alone_holds_its_connection_for_its_client() {
    let origin = Origin::new(|_, peer| serve(peer, 2, std::future::pending(), echo)).await;
    let descriptors = Descriptors::new(usize::MAX, 1);
    let upstreams = Upstreams::new([]).bounded(Bounds::default(), descriptors);
    let mut settings =
        ClusterSettings::new("test", vec![EndpointSettings::Address(origin.address)]);
    settings.protocol = Protocol::H2c;
    let cluster = Cluster::new(settings, &upstreams);
    let client = Some(descriptors.client("client"));
    soon(cluster.send(get())).await.unwrap();
    let open = |_| cluster.send_of(client, None, request("POST", &[], endless()));
    // Two on the existing connection; the third would need another one.
    let first = soon(open(1)).await.unwrap();
    let second = soon(open(2)).await.unwrap();
    let third = soon(open(3)).await.unwrap_err();
    assert_eq!(third.kind, FailureKind::ClientShare);
    let other = Some(descriptors.client("another"));
    soon(cluster.send_of(other, None, request("POST", &[], endless()))).await.unwrap();
    drop((first, second));
    soon(open(4)).await.unwrap();
}
