//! gRPC: HTTP/2 on both sides, messages as they come, trailers at the end.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Frame;

use crate::support::{
    Answer, Echo, Gateway, Origin, backend, channel, clock, full, h2c_backend, http_route,
    refusing_address, rule_to, soon,
};

pub(crate) fn grpc_route(name: &str, method: &str) -> String {
    format!(
        "---\n\
         apiVersion: gateway.networking.k8s.io/v1\n\
         kind: GRPCRoute\n\
         metadata:\n  name: {name}\n  namespace: envoy-gateway-system\n\
         spec:\n  parentRefs:\n    - name: eg\n  hostnames: [shop.test]\n  rules:\n    \
         - matches:\n        - method: {method}\n      backendRefs:\n        \
         - {{group: gateway.envoyproxy.io, kind: Backend, name: {name}}}\n"
    )
}

fn call(path: &str) -> http::request::Builder {
    Request::post(format!("https://shop.test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// A message with its prefix: not compressed, so long.
pub(crate) fn message(text: &str) -> Bytes {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[0][..], &length, text.as_bytes()].concat().into()
}

#[tokio::test]
async fn messages_stream_both_ways_and_a_status_ends_them() {
    let echo = Echo::start().await;
    let files =
        h2c_backend("echo", &[echo.address]) + &grpc_route("echo", "{service: shop.Orders}");
    let gateway = Gateway::setup().file("routes/echo.yaml", &files).start().await;
    let mut http2 = gateway.http2("shop.test").await;

    let (messages, body) = channel();
    let request = call("/shop.Orders/Watch").body(body).unwrap();
    // The head goes ahead of any message, and the answer's head comes back for it.
    let mut response = http2.send(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/grpc");
    for text in ["first", "second", ""] {
        messages.send(Frame::data(message(text))).await.unwrap();
        let mut back = Bytes::new();
        while back.len() < message(text).len() {
            let frame = soon("a message", response.body_mut().frame()).await.unwrap().unwrap();
            back = [back, frame.into_data().unwrap()].concat().into();
        }
        assert_eq!(back, message(text));
    }
    drop(messages);
    let last = soon("the end", response.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(last.into_trailers().unwrap()["grpc-status"], "0");
    assert!(response.body_mut().frame().await.is_none());
}

#[tokio::test]
async fn calls_are_routed_by_service_and_method() {
    let (orders, watch) = (Echo::start().await, Echo::start().await);
    let files = h2c_backend("orders", &[orders.address])
        + &h2c_backend("watch", &[watch.address])
        + &grpc_route("orders", "{service: shop.Orders}")
        + &grpc_route("watch", "{service: shop.Orders, method: Watch}");
    let gateway = Gateway::setup().file("routes/echo.yaml", &files).start().await;
    let mut http2 = gateway.http2("shop.test").await;

    // (path, backend)
    let table = [
        ("/shop.Orders/Place", Some(orders.address)),
        ("/shop.Orders/Watch", Some(watch.address)),
        ("/shop.Other/Watch", None),
    ];
    for (path, backend) in table {
        let answer = http2.fetch(call(path).body(full(message("x"))).unwrap()).await.unwrap();
        match backend {
            Some(address) => {
                assert_eq!(answer.body, message("x"), "{path}");
                assert_eq!(answer.trailers.unwrap()["grpc-status"], "0", "{path}");
                let is_it = |entry: &serde_json::Value| entry["path"] == *path;
                let entry = gateway.logged("the call", is_it).await;
                assert!(entry["upstream"].as_str().unwrap().contains(&address.to_string()));
            }
            // Either is UNIMPLEMENTED (12) to a client of gRPC.
            None => assert!(
                answer.status == 404 || answer.headers["grpc-status"] == "12",
                "{path}: {answer:?}"
            ),
        }
    }
}

/// GRPCRoute: a backend that cannot be reached is UNAVAILABLE, which HTTP 503 is to a client.
#[tokio::test]
async fn a_backend_that_is_not_there_is_unavailable() {
    let files =
        h2c_backend("dead", &[refusing_address()]) + &grpc_route("dead", "{service: shop.Orders}");
    let gateway = Gateway::setup().file("routes/dead.yaml", &files).start().await;
    let mut http2 = gateway.http2("shop.test").await;
    let request = call("/shop.Orders/Place").body(full(message("x"))).unwrap();
    let answer = http2.fetch(request).await.unwrap();
    let code = answer
        .headers
        .get("grpc-status")
        .or_else(|| answer.trailers.as_ref().and_then(|t| t.get("grpc-status")));
    assert!(answer.status == 503 || code.is_some_and(|code| code == "14"), "{answer:?}");
}

#[tokio::test]
async fn http2_is_spoken_to_the_backend_that_asks_for_it() {
    let echo = Echo::start().await;
    let files = h2c_backend("echo", &[echo.address])
        + &http_route("echo", &["shop.test"], &rule_to("/", "echo"));
    let gateway = Gateway::setup().file("routes/echo.yaml", &files).start().await;

    let over_http1 = gateway.get("https://shop.test/a?b=c").await;
    let image: serde_json::Value = serde_json::from_slice(&over_http1.body).unwrap();
    assert_eq!(image["proto"], "HTTP/2.0");
    assert_eq!((&image["path"], &image["query"]), (&"/a".into(), &"b=c".into()));
    assert_eq!(image["host"], "shop.test");
    assert_eq!(image["headers"]["x-forwarded-proto"], serde_json::json!(["https"]));

    let mut http2 = gateway.http2("shop.test").await;
    let request = Request::post("https://shop.test/").body(full("over two hops")).unwrap();
    let image = http2.fetch(request).await.unwrap().json();
    assert_eq!(image["proto"], "HTTP/2.0");
    assert_eq!(image["body"], "over two hops");
}

#[tokio::test]
async fn trailers_come_through_from_either_kind_of_backend() {
    let shop = Origin::scripted(|_| {
        Answer::raw(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n\r\n\
             4\r\nbody\r\n0\r\nX-Checksum: 1234\r\n\r\n",
        )
    })
    .await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let mut http2 = gateway.http2("shop.test").await;
    let request = Request::get("https://shop.test/").header("te", "trailers");
    let answer = http2.fetch(request.body(full("")).unwrap()).await.unwrap();
    assert_eq!(answer.text(), "body");
    assert_eq!(answer.trailers.unwrap()["x-checksum"], "1234");
    assert!(!answer.headers.contains_key("transfer-encoding"));
}

/// GEP-1619 knows no difference between kinds of routes: a client of gRPC keeps metadata, or a cookie.
#[tokio::test]
async fn a_client_goes_back_to_the_endpoint_of_its_session() {
    let (one, two) = (Echo::start().await, Echo::start().await);
    // (session, header of the answer, of the next call)
    let table = [
        ("{type: Header, sessionName: X-Session}", "x-session", "x-session"),
        ("{sessionName: sticky}", "set-cookie", "cookie"),
    ];
    for (session, told, sent) in table {
        let route = grpc_route("echo", "{service: shop.Orders}");
        let files = h2c_backend("echo", &[one.address, two.address])
            + &route
            + &format!("      sessionPersistence: {session}\n");
        let gateway = Gateway::setup().file("routes/echo.yaml", &files).start().await;
        let mut http2 = gateway.http2("shop.test").await;
        // By the method a call's line is told from the others.
        let mut call_of = async |number: usize, token: Option<&str>| {
            let path = format!("/shop.Orders/Call{number}");
            let mut request = call(&path);
            if let Some(token) = token {
                request = request.header(sent, token);
            }
            let answer = http2.fetch(request.body(full(message("x"))).unwrap()).await.unwrap();
            assert_eq!(answer.trailers.unwrap()["grpc-status"], "0", "{session} {number}");
            let entry = gateway.logged("the call", |entry| entry["path"] == *path).await;
            let token = answer.headers.get(told).map(|value| value.to_str().unwrap().to_owned());
            (entry["upstream"].as_str().unwrap().to_owned(), token)
        };
        let mut seen = std::collections::HashSet::new();
        for client in 0..5 {
            let (first, token) = call_of(client * 10, None).await;
            let token = token.unwrap_or_else(|| panic!("{session}: no {told}"));
            let token = token.split(';').next().unwrap();
            // Three calls in all: whether or not these take a turn, new clients go to both.
            for next in 1..3 {
                let (again, another) = call_of(client * 10 + next, Some(token)).await;
                assert_eq!((&again, another), (&first, None), "{session}");
            }
            seen.insert(first);
        }
        assert_eq!(seen.len(), 2, "{session}: new clients go to every endpoint");
    }
}

/// A content type is the client's word. Alone it lifts no limit, and an error is told as to any other
/// client: a 200 in its place could be cached.
#[tokio::test]
async fn a_content_type_alone_makes_no_call() {
    let slow = Origin::scripted(|_| Answer::hang()).await;
    let rules = rule_to("/slow", "slow") + &rule_to("/dead", "dead");
    let files = backend("slow", &[slow.address])
        + &backend("dead", &[refusing_address()])
        + &http_route("shop", &["shop.test"], &rules)
        + &h2c_backend("calls", &[refusing_address()])
        + &http_route("calls", &["api.example.test"], &rule_to("/", "calls"));
    let gateway = Gateway::setup()
        .flag("--response-timeout 1s")
        .file("routes/shop.yaml", &files)
        .start()
        .await;
    // (host, target, status)
    let table = [
        ("shop.test", "/slow", 504),
        ("shop.test", "/dead", 503),
        ("shop.test", "/nowhere", 404),
        ("api.example.test", "/", 503),
    ];
    for (host, target, status) in table {
        for method in ["GET", "POST"] {
            let what = format!("{method} {host}{target} over HTTP/1.1");
            let mut wire = gateway.wire().await;
            let head = format!(
                "{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/grpc\r\n"
            );
            wire.send(head + "Content-Length: 0\r\n\r\n").await;
            let reply = wire.reply().await;
            assert_eq!(reply.status(), status, "{what}");
            assert_eq!(reply.header("grpc-status"), None, "{what}");
        }
    }
    let mut http2 = gateway.http2("shop.test").await;
    // A method that no call has; and one that calls have, to what serves none.
    for (method, target, status) in [
        ("GET", "/slow", 504),
        ("POST", "/slow", 504),
        ("GET", "/dead", 503),
        ("POST", "/dead", 503),
    ] {
        let request = Request::builder().method(method).uri(format!("https://shop.test{target}"));
        let request = request.header("content-type", "application/grpc");
        let answer = http2.fetch(request.body(full(message("x"))).unwrap()).await.unwrap();
        assert_eq!(answer.status, status, "{method} {target} over HTTP/2");
        assert!(!answer.headers.contains_key("grpc-status"), "{method} {target}: {answer:?}");
    }
    // A backend that speaks HTTP/2 may serve calls behind an HTTPRoute as well.
    let request = Request::post("https://api.example.test/shop.Orders/Place")
        .header("content-type", "application/grpc");
    let mut http2 = gateway.http2("api.example.test").await;
    let answer = http2.fetch(request.body(full(message("x"))).unwrap()).await.unwrap();
    assert_eq!(answer.headers["grpc-status"], "14", "{answer:?}");
}

/// A call is silent for as long as its ends like, within reason: nobody holds a backend for ever.
#[tokio::test]
async fn a_call_rests_longer_than_other_requests_but_not_for_ever() {
    let echo = Echo::start().await;
    let files =
        h2c_backend("echo", &[echo.address]) + &grpc_route("echo", "{service: shop.Orders}");
    let gateway = Gateway::setup()
        .flag("--body-timeout 1s --response-timeout 1s --tunnel-idle-timeout 4s")
        .file("routes/echo.yaml", &files)
        .start()
        .await;
    let mut http2 = gateway.http2("shop.test").await;
    let (messages, body) = channel();
    let request = call("/shop.Orders/Watch").body(body).unwrap();
    let mut response = http2.send(request).await.unwrap();
    for text in ["first", "second"] {
        // Longer than the limits of other requests, shorter than that of a call.
        tokio::time::sleep(Duration::from_millis(2000)).await;
        messages.send(Frame::data(message(text))).await.unwrap();
        let frame = soon("a message", response.body_mut().frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), message(text));
    }
    let silent = clock();
    let end = soon("the end of a call at rest", response.body_mut().frame()).await;
    assert!(end.unwrap().is_err(), "what is cut off is not complete");
    assert!(silent.elapsed() > Duration::from_secs(3), "{:?}", silent.elapsed());
    let entry = gateway.logged("the call", |entry| entry["path"] == "/shop.Orders/Watch").await;
    assert_eq!((&entry["flags"], &entry["details"]), (&"SI".into(), &"stream_idle_timeout".into()));
}
