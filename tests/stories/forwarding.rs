//! A request on its way to the backend and the response on its way back.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Frame;

use crate::support::{
    Answer, Backend, Gateway, Origin, Step, Wire, backend, channel, clock, empty, full, http_route,
    refusing_address, serve_all, soon,
};

#[tokio::test]
async fn a_request_arrives_as_it_was_sent_but_for_what_is_the_gateways() {
    let shop = Origin::scripted(|_| {
        Answer::raw(
            "HTTP/1.1 201 Created\r\nX-Answer: 1\r\nx-answer: 2\r\nSet-Cookie: a=1\r\n\
             Set-Cookie: b=2\r\nContent-Length: 4\r\n\r\ndone",
        )
    })
    .await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let mut client = gateway.wire().await;
    client
        .send(
            "PUT /a%20b/c;d?e=f&g=%2f HTTP/1.1\r\nHost: shop.test:81\r\nCookie: one=1\r\n\
             Accept: text/html\r\nX-Two: 2\r\nX-One: 1\r\nX-Two: 3\r\nAuthorization: Basic eDp5\r\n\
             Content-Length: 5\r\n\r\nhello",
        )
        .await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.text().as_str()), (201, "done"));
    assert_eq!(reply.head.all("x-answer"), ["1", "2"]);
    assert_eq!(reply.head.all("set-cookie"), ["a=1", "b=2"]);

    let seen = shop.last();
    assert_eq!(seen.head.line(), "PUT /a%20b/c;d?e=f&g=%2f HTTP/1.1");
    assert_eq!(seen.header("host").as_deref(), Some("shop.test:81"));
    assert_eq!(seen.head.all("x-two"), ["2", "3"]);
    assert_eq!(seen.header("x-one").as_deref(), Some("1"));
    assert_eq!(seen.header("cookie").as_deref(), Some("one=1"));
    assert_eq!(seen.header("authorization").as_deref(), Some("Basic eDp5"));
    assert_eq!(seen.header("content-length").as_deref(), Some("5"));
    assert_eq!(seen.text(), "hello");
}

#[tokio::test]
async fn connections_to_the_backend_are_used_again() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    for _ in 0..20 {
        assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    }
    // One after the other they fit on one; the gateway may keep one a thread.
    assert!(shop.connections() <= 4, "{} connections", shop.connections());
}

#[tokio::test]
async fn a_client_may_send_the_next_request_before_the_answer() {
    let shop = Origin::scripted(|seen| Answer::ok(&seen.target())).await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let mut client = gateway.wire().await;
    let one = |n| format!("GET /{n} HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    client.send((1..=5).map(one).collect::<String>()).await;
    for number in 1..=5 {
        assert_eq!(client.reply().await.text(), format!("/{number}"));
    }
}

/// RFC 9110 section 10.1.1: who waits for `100 Continue` gets it, whatever the backend does.
#[tokio::test]
async fn nobody_waits_for_ever_for_100_continue() {
    for backend_speaks in [true, false] {
        let backend = Backend::bind().await;
        let gateway = Gateway::in_front_of(backend.address).await;
        let mut client = gateway.wire().await;
        client
            .send(
                "POST / HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\n\
                 Content-Length: 5\r\n\r\n",
            )
            .await;
        let serve = async {
            let mut origin = backend.accept().await;
            let head = soon("a head", origin.head()).await.unwrap();
            if backend_speaks && head.has("expect") {
                origin.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            }
            let (body, _, complete) = soon("a body", origin.body_of(&head)).await;
            assert!(complete);
            origin.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            (origin, body)
        };
        let ask = async {
            let interim = soon("100 Continue", client.head()).await.unwrap();
            assert_eq!(interim.status(), 100);
            client.send("hello").await;
            client.reply().await
        };
        let ((_origin, body), reply) = tokio::join!(serve, ask);
        assert_eq!(body, b"hello");
        assert_eq!(reply.text(), "ok");
    }
}

#[tokio::test]
async fn a_backend_may_refuse_a_body_before_it_comes() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let mut client = gateway.wire().await;
    client.send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1000000\r\n\r\nx").await;
    let mut origin = backend.accept().await;
    soon("a head", origin.head()).await.unwrap();
    origin.send("HTTP/1.1 413 Too Much\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!").await;
    origin.finish().await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.text().as_str()), (413, "no!"));
}

#[tokio::test]
async fn bodies_pass_while_they_come() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let mut client = gateway.wire().await;
    client.send("POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send("4\r\nping\r\n").await;
    let mut origin = backend.accept().await;
    let head = soon("a head", origin.head()).await.unwrap();
    assert!(head.is_chunked() && !head.has("content-length"), "{head:?}");
    assert_eq!(origin.through(b"ping\r\n").await.unwrap(), b"4\r\nping\r\n");

    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npong\r\n").await;
    let answer = soon("a head", client.head()).await.unwrap();
    assert!(answer.is_chunked());
    assert_eq!(soon("a chunk", client.through(b"pong\r\n")).await.unwrap(), b"4\r\npong\r\n");

    client.send("3\r\nend\r\n0\r\n\r\n").await;
    assert_eq!(
        soon("the end", origin.through(b"0\r\n\r\n")).await.unwrap(),
        b"3\r\nend\r\n0\r\n\r\n"
    );
    origin.send("0\r\n\r\n").await;
    assert_eq!(soon("the end", client.through(b"0\r\n\r\n")).await.unwrap(), b"0\r\n\r\n");
}

#[tokio::test]
async fn over_http2_bodies_pass_while_they_come() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let mut http2 = gateway.http2("shop.test").await;
    let (sender, body) = channel();
    let request = Request::post("https://shop.test/").body(body).unwrap();
    let (response, mut origin) = tokio::join!(http2.send(request), async {
        sender.send(Frame::data(Bytes::from_static(b"ping"))).await.unwrap();
        let mut origin = backend.accept().await;
        let head = soon("a head", origin.head()).await.unwrap();
        assert!(head.is_chunked(), "{head:?}");
        assert_eq!(origin.through(b"ping\r\n").await.unwrap(), b"4\r\nping\r\n");
        origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npong\r\n").await;
        origin
    });
    let mut response = response.unwrap();
    let frame = soon("a frame", response.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "pong");
    drop(sender);
    assert_eq!(soon("the end", origin.through(b"\r\n\r\n")).await.unwrap(), b"0\r\n\r\n");
    origin.send("0\r\n\r\n").await;
    // The end may come as a frame of no bytes.
    while let Some(frame) = soon("the end", response.body_mut().frame()).await {
        assert_eq!(frame.unwrap().into_data().unwrap(), "");
    }
}

/// Kernel buffers included, both hops together.
const IN_FLIGHT: usize = 24 << 20;

#[tokio::test]
async fn a_reader_that_stalls_stalls_the_backend() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let mut client = gateway.wire().await;
    client.set_receive_buffer(64 << 10);
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    let mut origin = backend.accept().await;
    origin.request().await.unwrap();
    let before = gateway.process().resident_kib();
    let total = 256 << 20;
    origin.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n")).await;
    assert!(flood(&mut origin, IN_FLIGHT).await, "the backend could send all that it liked");
    let grown = gateway.process().resident_kib().saturating_sub(before);
    assert!(grown < 48 << 10, "{grown} KiB more");

    // And it goes on where it stopped.
    let head = soon("a head", client.head()).await.unwrap();
    assert_eq!(head.length(), Some(total));
    let rest = vec![0; 40 << 20];
    tokio::select! {
        read = client.exactly(rest.len()) => assert_eq!(read.len(), rest.len()),
        sent = async { origin.push(&rest).await.unwrap(); std::future::pending::<()>().await } => sent,
    }
}

#[tokio::test]
async fn a_backend_that_stalls_stalls_the_client() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let mut client = gateway.wire().await;
    client.send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 268435456\r\n\r\n").await;
    let mut origin = backend.accept().await;
    soon("a head", origin.head()).await.unwrap();
    let before = gateway.process().resident_kib();
    assert!(flood(&mut client, IN_FLIGHT).await, "the client could send all that it liked");
    let grown = gateway.process().resident_kib().saturating_sub(before);
    assert!(grown < 48 << 10, "{grown} KiB more");
}

/// Sends zeros until they no longer go out; false if more than `limit` did.
async fn flood(wire: &mut Wire, limit: usize) -> bool {
    let chunk = vec![0; 256 << 10];
    let mut sent = 0;
    while sent <= limit {
        // What does not go out in a second does not go out: nobody reads at the other end.
        match tokio::time::timeout(Duration::from_secs(1), wire.push(&chunk)).await {
            Ok(Ok(())) => sent += chunk.len(),
            Ok(Err(error)) => panic!("the gateway closed: {error}"),
            Err(_) => return true,
        }
    }
    false
}

#[tokio::test]
async fn a_large_body_comes_through_whole() {
    let shop = Origin::scripted(|seen| Answer::ok(&seen.body.len().to_string())).await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let size = 20 << 20;
    let mut http2 = gateway.http2("shop.test").await;
    let request = Request::post("https://shop.test/").body(full(vec![7; size])).unwrap();
    assert_eq!(http2.fetch(request).await.unwrap().text(), size.to_string());
    let mut client = gateway.wire().await;
    client
        .send(format!("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {size}\r\n\r\n"))
        .await;
    client.send(vec![7; size]).await;
    assert_eq!(client.reply().await.text(), size.to_string());
    assert!(shop.last().body.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_connection_that_fails_is_tried_on_another_endpoint() {
    let shop = Origin::replying("shop").await;
    let files = serve_all("shop", "shop.test", &[refusing_address(), shop.address]);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    for method in ["GET", "POST"] {
        for _ in 0..10 {
            let mut client = gateway.wire().await;
            client
                .send(format!(
                    "{method} / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\nhi"
                ))
                .await;
            // Not a byte of it was sent to the first, so any method may go to the second.
            assert_eq!(client.reply().await.text(), "shop", "{method}");
        }
    }
    assert_eq!(shop.requests().len(), 20);
}

#[tokio::test]
async fn a_backend_that_refuses_is_503_and_is_logged_with_its_flag() {
    let files = serve_all("shop", "shop.test", &[refusing_address()]);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    let begin = clock();
    assert_eq!(gateway.get("http://shop.test/").await.status(), 503);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let entry = gateway.logged("the failure", |entry| entry["status"] == 503).await;
    assert!(entry["flags"].to_string().contains("UF"), "{entry}");
}

#[tokio::test]
async fn a_backend_that_does_not_answer_in_time_is_504() {
    let shop = Origin::scripted(|_| Answer::hang()).await;
    let rules = "\
- timeouts: {request: 500ms}
  backendRefs:
    - {group: gateway.envoyproxy.io, kind: Backend, name: shop}
";
    let files = backend("shop", &[shop.address]) + &http_route("shop", &["shop.test"], rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    let begin = clock();
    assert_eq!(gateway.get("http://shop.test/").await.status(), 504);
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(5), "{took:?}");
    let entry = gateway.logged("the timeout", |entry| entry["status"] == 504).await;
    assert!(entry["flags"].to_string().contains("UT"), "{entry}");
    assert_eq!(entry["upstream"], shop.address.to_string(), "{entry}");
    shop.is_left_alone().await;
    assert_eq!(shop.requests().len(), 1, "what was sent is not sent again");
}

/// GEP-1742: `0s` is no limit, and no default takes its place.
#[tokio::test]
async fn a_time_limit_that_is_off_is_off() {
    for timeouts in ["{request: 0s}", "{backendRequest: 0s}"] {
        let slow = Duration::from_millis(1500);
        let shop = Origin::scripted(move |_| Answer::ok("shop").after(slow)).await;
        let rules = format!(
            "\
- timeouts: {timeouts}
  backendRefs:
    - {{group: gateway.envoyproxy.io, kind: Backend, name: shop}}
"
        );
        let files = backend("shop", &[shop.address]) + &http_route("shop", &["shop.test"], &rules);
        let setup = Gateway::setup().flag("--response-timeout 500ms");
        let gateway = setup.file("routes/shop.yaml", &files).start().await;
        assert_eq!(gateway.get("http://shop.test/").await.text(), "shop", "{timeouts}");
    }
}

#[tokio::test]
async fn a_time_limit_ends_a_body_too() {
    let shop = Origin::scripted(|_| {
        Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").then(Step::Hang)
    })
    .await;
    let rules = "\
- timeouts: {request: 500ms}
  backendRefs:
    - {group: gateway.envoyproxy.io, kind: Backend, name: shop}
";
    let files = backend("shop", &[shop.address]) + &http_route("shop", &["shop.test"], rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    let reply = gateway.get("http://shop.test/").await;
    assert_eq!(reply.status(), 200);
    assert!(!reply.complete, "what is missing must be seen to be missing");
}

/// RFC 9110 section 9.2.2: the backend closed the connection while it waited in the pool.
#[tokio::test]
async fn a_stale_connection_fails_no_get_and_sends_no_post_twice() {
    for method in ["GET", "POST"] {
        // Each connection serves one request and is closed a moment later without notice, which
        // races with the gateway's next use of it.
        let shop = Origin::scripted(|_| {
            Answer::ok("shop").then(Step::Wait(Duration::from_millis(2))).then(Step::Close)
        })
        .await;
        let gateway = Gateway::in_front_of(shop.address).await;
        let mut failed = 0;
        for number in 0..60_u64 {
            let mut client = gateway.wire().await;
            client
                .send(format!(
                    "{method} /{number} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 0\r\n\r\n"
                ))
                .await;
            failed += u32::from(client.reply().await.status() != 200);
            // Before, at and after the moment at which the backend closes.
            tokio::time::sleep(Duration::from_micros(500 * (number % 10))).await;
        }
        let targets = shop.targets();
        let mut once = targets.clone();
        once.sort();
        once.dedup();
        if method == "GET" {
            assert_eq!(failed, 0, "GET may be sent again");
        } else {
            assert_eq!(once.len(), targets.len(), "POST twice: {targets:?}");
        }
    }
}

/// A POST whose connection dies after it was sent may have been carried out.
#[tokio::test]
async fn what_may_have_been_carried_out_is_not_sent_again() {
    let shop = Origin::scripted(|seen| match seen.target().as_str() {
        "/first" => Answer::ok("first"),
        _ => Answer::reset(),
    })
    .await;
    let gateway = Gateway::in_front_of(shop.address).await;
    assert_eq!(gateway.get("http://shop.test/first").await.status(), 200);
    let mut client = gateway.wire().await;
    client.send("POST /pay HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\n42").await;
    assert_eq!(client.reply().await.status(), 502);
    assert_eq!(shop.targets(), ["/first", "/pay"]);
}

#[tokio::test]
async fn a_client_that_leaves_is_not_served_on() {
    let shop = Origin::scripted(|_| Answer::hang()).await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let begin = clock();
    let mut client = gateway.wire().await;
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    shop.saw(1).await;
    client.reset();
    shop.is_left_alone().await;

    let mut http2 = gateway.http2("shop.test").await;
    let request = Request::get("https://shop.test/").body(empty()).unwrap();
    tokio::select! {
        _ = http2.send(request) => panic!("the backend does not answer"),
        () = shop.saw(2) => {}
    }
    // Dropping the request resets its stream; the connection stays.
    shop.is_left_alone().await;
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
    let entry = gateway.logged("the one that left", |entry| entry["flags"] != "").await;
    assert!(entry["flags"].to_string().contains("DC"), "{entry}");
}

#[tokio::test]
async fn the_log_has_a_line_for_each_request_and_no_secret() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let lines = "Authorization: Bearer topsecret\r\nCookie: session=topsecret\r\n\
                 User-Agent: a\"b\tred\r\n";
    assert_eq!(gateway.get_with("http://shop.test/a?b=%0a", lines).await.status(), 200);
    assert_eq!(gateway.get("http://nobody.test/").await.status(), 404);
    let entry = gateway.logged("the request", |entry| entry["path"] == "/a?b=%0a").await;
    assert_eq!(entry["method"], "GET");
    assert_eq!(entry["host"], "shop.test");
    assert_eq!(entry["status"], 200);
    assert_eq!(entry["response_bytes"], 4);
    assert_eq!(entry["protocol"], "HTTP/1.1");
    assert!(entry["route"].as_str().unwrap().contains("shop"), "{entry}");
    assert!(entry["upstream"].as_str().unwrap().contains(&shop.address.to_string()), "{entry}");
    assert!(entry["peer"].as_str().unwrap().contains("127.0.0.1"), "{entry}");
    let entry = gateway.logged("the refusal", |entry| entry["status"] == 404).await;
    assert!(entry["flags"].to_string().contains("NR"), "{entry}");

    // One that is refused has its line too, and nothing in it that a terminal obeys.
    gateway.raw("GET /\x1b[31mred HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    gateway.logged("the one refused", |entry| entry["status"] == 400).await;

    let all = gateway.process().stdout().join("\n") + &gateway.process().stderr();
    assert!(!all.contains("topsecret"), "{all}");
    assert!(!all.contains('\x1b'), "{all}");
}

/// For programs that read the log of Envoy Gateway.
#[tokio::test]
async fn the_access_log_can_have_the_keys_of_envoy_gateways() {
    let origin = Origin::replying("yes").await;
    let gateway = Gateway::setup()
        .flag("--access-log-format envoy-json")
        .file("routes/all.yaml", &serve_all("all", "shop.test", &[origin.address]))
        .start()
        .await;
    let reply = gateway.get_with("https://shop.test/a?token=secret", "User-Agent: it\r\n").await;
    assert_eq!(reply.status(), 200);
    let entry = gateway.logged("the request", |entry| entry["response_code"] == 200).await;
    // (key, value)
    let table = [
        (":authority", "shop.test".to_owned()),
        ("downstream_local_address", gateway.https().to_string()),
        ("method", "GET".into()),
        ("requested_server_name", "shop.test".into()),
        ("response_flags", "-".into()),
        ("route_name", "httproute/envoy-gateway-system/all/rule/0".into()),
        ("upstream_cluster", "httproute/envoy-gateway-system/all/rule/0".into()),
        ("upstream_host", origin.address.to_string()),
        ("user-agent", "it".into()),
        ("x-envoy-origin-path", "/a?token=[redacted]".into()),
        ("x-forwarded-for", "127.0.0.1".into()),
    ];
    for (key, want) in table {
        assert_eq!(entry[key], want, "{key} of {entry}");
    }
    assert_eq!(entry["bytes_sent"], 3, "{entry}");
}
