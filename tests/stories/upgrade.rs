//! Tunnels: WebSocket over HTTP/1.1 (RFC 6455) and HTTP/2 (RFC 8441), and what is no tunnel.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{Method, Request};
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::support::{
    Answer, Backend, DATA, END_STREAM, Echo, Faults, Frame, Gateway, H2, HEADERS, Head, Origin,
    RST_STREAM, SendBody, Tls, Wire, backend, clock, empty, h2c_backend, http_route,
    request_fields, rule_to, serve_all, soon,
};

const UPGRADE_OVER_HTTP2: &str = "upgrade_over_http2_upstream";

const HANDSHAKE: &str = "\
GET /chat HTTP/1.1\r\n\
Host: shop.test\r\n\
Connection: Upgrade\r\n\
Upgrade: websocket\r\n\
Sec-WebSocket-Version: 13\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
\r\n";
const SWITCHED: &str = "\
HTTP/1.1 101 Switching Protocols\r\n\
Connection: upgrade\r\n\
Upgrade: websocket\r\n\
Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
\r\n";

/// A client and a backend that have become a tunnel through the gateway.
async fn tunnel(gateway: &Gateway, backend: &Backend) -> (Wire, Wire) {
    let mut client = gateway.wire().await;
    client.send(HANDSHAKE).await;
    let mut origin = backend.accept().await;
    let seen = origin.request().await.unwrap();
    assert_eq!(seen.header("upgrade").as_deref(), Some("websocket"));
    assert!(seen.header("connection").unwrap().eq_ignore_ascii_case("upgrade"));
    assert_eq!(seen.header("sec-websocket-key").as_deref(), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    origin.send(SWITCHED).await;
    let head = soon("the switch", client.head()).await.unwrap();
    assert_eq!(head.status(), 101);
    assert_eq!(head.one("upgrade").as_deref(), Some("websocket"));
    assert_eq!(head.one("sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    (client, origin)
}

fn websocket_over_http2() -> Request<SendBody> {
    Request::builder()
        .method(Method::CONNECT)
        .uri("https://shop.test/chat")
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(empty())
        .unwrap()
}

#[tokio::test]
async fn a_websocket_talks_over_http1() {
    let echo = Echo::start().await;
    let gateway = Gateway::in_front_of(echo.address).await;
    let stream = Tls::of("shop.test").alpn(&["http/1.1"]).connect(gateway.https()).await.unwrap();
    let handshake = tokio_tungstenite::client_async("wss://shop.test/chat", stream);
    let (mut socket, response) = soon("a handshake", handshake).await.unwrap();
    assert_eq!(response.status(), 101);
    converse(&mut socket).await;
}

#[tokio::test]
async fn a_websocket_talks_over_http2() {
    let echo = Echo::start().await;
    let gateway = Gateway::in_front_of(echo.address).await;
    let mut http2 = gateway.http2("shop.test").await;
    // The answer to any request comes behind the settings that allow what follows.
    http2.get("https://shop.test/").await;
    let response = http2.send(websocket_over_http2()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("sec-websocket-accept"), "{response:?}");
    let upgraded = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await;
    converse(&mut socket).await;
    assert_eq!(http2.get("https://shop.test/").await.status, 200, "other streams go on");
}

/// RFC 8441: the CONNECT stands for the GET of a WebSocket, and is routed as that.
#[tokio::test]
async fn a_websocket_over_http2_matches_as_a_get() {
    let echo = Echo::start().await;
    let rules = "\
- matches:
    - method: GET
      headers: [{name: Upgrade, value: websocket}]
  backendRefs:
    - {group: gateway.envoyproxy.io, kind: Backend, name: shop}
- matches:
    - method: GET
  filters:
    - type: RequestRedirect
      requestRedirect: {statusCode: 302}
";
    let files = backend("shop", &[echo.address]) + &http_route("shop", &["shop.test"], rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    let mut http2 = gateway.http2("shop.test").await;
    assert_eq!(http2.get("https://shop.test/").await.status, 302);
    let response = http2.send(websocket_over_http2()).await.unwrap();
    assert_eq!(response.status(), 200);
    drop(response);
    let entry = gateway.logged("the tunnel", |entry| entry["method"] == "CONNECT").await;
    assert_eq!(entry["protocol"], "HTTP/2", "{entry}");
}

/// RFC 8441 towards backends is not spoken: one of HTTP/2 alone has no WebSocket.
#[tokio::test]
async fn a_websocket_needs_a_backend_of_http1() {
    let echo = Echo::start().await;
    let only = h2c_backend("only", &[echo.address]);
    let both = h2c_backend("both", &[echo.address]) + "    - gateway.envoyproxy.io/ws\n";
    let rules = rule_to("/only", "only") + &rule_to("/both", "both");
    let files = only + &both + &http_route("shop", &["shop.test"], &rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;

    let mut client = gateway.wire().await;
    client.send(HANDSHAKE.replace("/chat", "/only")).await;
    assert_eq!(client.reply().await.status(), 501);
    let entry = gateway.logged("the refusal", |entry| entry["status"] == 501).await;
    assert_eq!((&entry["flags"], &entry["details"]), (&"UPE".into(), &UPGRADE_OVER_HTTP2.into()));

    let stream = Tls::of("shop.test").alpn(&["http/1.1"]).connect(gateway.https()).await.unwrap();
    let handshake = tokio_tungstenite::client_async("wss://shop.test/both", stream);
    let (mut socket, _) = soon("a handshake", handshake).await.unwrap();
    converse(&mut socket).await;
    let mirrored = gateway.get("http://shop.test/both").await.text();
    assert!(mirrored.contains("HTTP/2"), "{mirrored}");
}

async fn converse<S>(socket: &mut WebSocketStream<S>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let messages = [
        Message::text("hello"),
        Message::binary(vec![0, 255, 13, 10]),
        Message::binary(vec![7; 300_000]),
        Message::text(""),
    ];
    for message in messages {
        socket.send(message.clone()).await.unwrap();
        let back = soon("an echo", socket.next()).await.unwrap().unwrap();
        assert!(back == message, "{} bytes back for {}", back.len(), message.len());
    }
    socket.send(Message::Ping("are you there".into())).await.unwrap();
    let back = soon("a pong", socket.next()).await.unwrap().unwrap();
    assert_eq!(back, Message::Pong("are you there".into()));
    socket.close(None).await.unwrap();
    soon("the end", async { while let Some(Ok(_)) = socket.next().await {} }).await;
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_as_they_are() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let (mut client, mut origin) = tunnel(&gateway, &backend).await;
    // Bytes that are neither WebSocket nor HTTP, and some that look like HTTP.
    for bytes in [&b"\0\r\n\r\n\xff"[..], b"GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n"] {
        client.send(bytes).await;
        assert_eq!(origin.exactly(bytes.len()).await, bytes);
        origin.send(bytes).await;
        assert_eq!(client.exactly(bytes.len()).await, bytes);
    }
    // Half-closed from one side, the other may still speak.
    client.finish().await;
    assert_eq!(origin.rest().await, b"");
    origin.send("last words").await;
    drop(origin);
    assert_eq!(client.rest().await, b"last words");
    let entry = gateway.logged("the tunnel", |entry| entry["status"] == 101).await;
    let bytes = 6 + 43_u64;
    assert_eq!(entry["request_bytes"], bytes, "{entry}");
    assert_eq!(entry["response_bytes"], bytes + 10, "{entry}");
}

#[tokio::test]
async fn the_end_of_one_side_reaches_the_other() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let limit = Duration::from_secs(3);

    let (client, mut origin) = tunnel(&gateway, &backend).await;
    let begin = clock();
    client.reset();
    origin.rest().await;
    assert!(begin.elapsed() < limit, "the client's abort took {:?}", begin.elapsed());
    assert!(origin.broken, "an abort is no end in order");

    let (mut client, origin) = tunnel(&gateway, &backend).await;
    let begin = clock();
    origin.reset();
    client.rest().await;
    assert!(begin.elapsed() < limit, "the backend's abort took {:?}", begin.elapsed());
    assert!(client.broken, "an abort is no end in order");
}

/// The CONNECT of a WebSocket, by the frame, and its request at the backend.
async fn connect_by_http2(gateway: &Gateway, backend: &Backend) -> (H2, Wire, Head) {
    let mut client = H2::connect(gateway).await;
    let mut fields = request_fields("CONNECT", "/chat").to_vec();
    fields.insert(1, (b":protocol", b"websocket"));
    fields.push((b"sec-websocket-version", b"13"));
    fields.push((b"sec-websocket-protocol", b"chat, superchat"));
    client.frame(&Frame::head(1, 0, &fields)).await;
    let mut origin = backend.accept().await;
    let head = origin.request().await.unwrap().head;
    (client, origin, head)
}

/// What the backend has to answer, and `more` lines.
fn switched(head: &Head, more: &str) -> String {
    let accept = derive_accept_key(head.one("sec-websocket-key").unwrap().as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

/// RFC 8441 section 5: END_STREAM is a FIN, RST_STREAM with CANCEL an RST; RFC 9113 section 8.5 makes an
/// RST of every error.
#[tokio::test]
async fn an_end_over_http2_is_an_end_and_a_reset_a_reset() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let begun = async || {
        let (mut client, mut origin, head) = connect_by_http2(&gateway, &backend).await;
        origin.send(switched(&head, "")).await;
        let answer = soon("the switch", client.next()).await.unwrap();
        assert_eq!(answer.kind, HEADERS, "{answer:?}");
        client.frame(&Frame::new(DATA, 0, 1, "up")).await;
        assert_eq!(origin.exactly(2).await, b"up");
        (client, origin)
    };
    let faults = Faults::default();
    // (the client's last frame, seen as a reset)
    let table = [
        (Frame::new(DATA, END_STREAM, 1, ""), false),
        (Frame::reset(1, 0), true),
        (Frame::reset(1, 2), true),
        (Frame::reset(1, 8), true),
    ];
    for (last, reset) in table {
        let (mut client, mut origin) = begun().await;
        client.frame(&last).await;
        origin.rest().await;
        faults.unless(origin.broken == reset, || format!("{last:?}: {}", origin.broken));
    }
    for reset in [false, true] {
        let (mut client, mut origin) = begun().await;
        origin.send("down").await;
        let mut down = Vec::new();
        while down.len() < 4 {
            let frame = soon("the backend's word", client.next()).await.unwrap();
            if frame.kind == DATA {
                down.extend(frame.payload);
            }
        }
        match reset {
            true => origin.reset(),
            false => drop(origin),
        }
        let end = loop {
            let frame = soon("the end", client.next()).await.unwrap();
            match frame.kind {
                DATA if frame.is(END_STREAM) => break None,
                RST_STREAM => break Some(frame.number(0)),
                _ => {}
            }
        };
        faults.unless(end == reset.then_some(8), || format!("reset {reset}: {end:?}"));
    }
}

/// RFC 6455 section 4.1: the gateway is the client of the backend here, and has to look.
#[tokio::test]
async fn a_websocket_over_http2_begins_only_with_the_right_answer() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let faults = Faults::default();
    // (what, the backend's answer, status)
    type Answers = fn(&Head) -> String;
    let table: [(&str, Answers, u16); 12] = [
        ("as it has to be", |head| switched(head, ""), 200),
        ("a protocol", |head| switched(head, "Sec-WebSocket-Protocol: superchat\r\n"), 200),
        ("a length", |head| switched(head, "Content-Length: 5\r\n"), 200),
        ("another protocol", |head| switched(head, "Sec-WebSocket-Protocol: other\r\n"), 502),
        ("an extension", |head| switched(head, "Sec-WebSocket-Extensions: x-odd\r\n"), 502),
        ("accepted twice", |head| switched(head, "Sec-WebSocket-Accept: x\r\n"), 502),
        ("another key accepted", |_| SWITCHED.to_owned(), 502),
        (
            "nothing accepted",
            |_| SWITCHED.replace("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", ""),
            502,
        ),
        (
            "no word of an upgrade",
            |head| switched(head, "").replace("Connection: upgrade\r\n", ""),
            502,
        ),
        (
            "another upgrade",
            |head| switched(head, "").replace("Upgrade: websocket", "Upgrade: other"),
            502,
        ),
        // A 2xx would begin the tunnel for the client.
        ("an answer", |_| "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into(), 502),
        ("a refusal", |_| "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno".into(), 403),
    ];
    for (what, answer, status) in table {
        let (mut client, mut origin, head) = connect_by_http2(&gateway, &backend).await;
        origin.send(answer(&head)).await;
        if status == 200 {
            let answer = soon("the switch", client.next()).await.unwrap();
            faults.unless(answer.kind == HEADERS && !answer.is(END_STREAM), || {
                format!("{what}: {answer:?}")
            });
            continue;
        }
        let outcome = client.outcome(1).await;
        faults.unless(outcome.status() == Some(status), || format!("{what}: {outcome:?}"));
        if status == 502 {
            origin.rest().await;
        }
    }
}

#[tokio::test]
async fn a_silent_tunnel_ends_by_its_own_limit_and_no_other() {
    let backend = Backend::bind().await;
    let gateway = Gateway::setup()
        .flag("--tunnel-idle-timeout 2s --idle-timeout 500ms --head-timeout 500ms")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[backend.address]))
        .start()
        .await;
    let (mut client, mut origin) = tunnel(&gateway, &backend).await;
    // Longer than any limit on what is not a tunnel.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(gateway.process().stdout().is_empty(), "the line is written at the end");
    client.send("still here").await;
    assert_eq!(origin.exactly(10).await, b"still here");
    let begin = clock();
    client.rest().await;
    origin.rest().await;
    let took = begin.elapsed();
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(8), "{took:?}");
    let entry = gateway.logged("the tunnel", |entry| entry["status"] == 101).await;
    assert!(entry["duration_ms"].as_f64().unwrap() > 2000.0, "{entry}");
}

/// RFC 9110 section 7.8: an upgrade that the backend declines is an ordinary exchange.
#[tokio::test]
async fn a_declined_upgrade_is_an_answer_like_others() {
    let shop = Origin::scripted(|_| Answer::status(403, "no")).await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let mut client = gateway.wire().await;
    client.send(HANDSHAKE).await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.text().as_str()), (403, "no"));
    // And the connection is one of HTTP still, or it is closed.
    client.send("GET /next HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    if let Some(next) = soon("an end", client.try_reply_to("GET")).await {
        assert_eq!(next.status(), 403);
        assert_eq!(shop.targets(), ["/chat", "/next"]);
    }
}

/// CVE-2026-2833: what stands behind an upgrade that has not happened is no tunnel's content.
#[tokio::test]
async fn bytes_before_the_switch_do_not_reach_the_backend_as_they_are() {
    let shop = Origin::scripted(|_| Answer::status(403, "no")).await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: inner.test\r\n\r\n";
    gateway
        .raw(
            HANDSHAKE.to_owned()
                + smuggled
                + "GET / HTTP/1.1\r\nHost: shop.test\r\n\
        Connection: close\r\n\r\n",
        )
        .await;
    for seen in shop.seen() {
        let host = seen.header("host").unwrap();
        assert_eq!(host, "shop.test", "a request that no route was asked for: {seen:?}");
    }
}

/// RFC 9112 section 6.3: a length of 0 is no body; RFC 9110 section 7.8: `Upgrade` is a list.
#[tokio::test]
async fn a_handshake_is_known_by_what_it_means() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    // (in place of, lines)
    let table = [
        ("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"),
        ("\r\n\r\n", "\r\nContent-Length: 00\r\n\r\n"),
        ("Upgrade: websocket\r\n", "Upgrade: h2c, websocket\r\n"),
        ("Upgrade: websocket\r\n", "Upgrade: h2c\r\nUpgrade: websocket\r\n"),
        ("Connection: Upgrade\r\n", "Connection: keep-alive\r\nConnection: x, Upgrade\r\n"),
        ("\r\n\r\n", "\r\nTE: trailers\r\n\r\n"),
    ];
    for (from, to) in table {
        let mut client = gateway.wire().await;
        client.send(HANDSHAKE.replace(from, to)).await;
        let mut origin = backend.accept().await;
        let seen = origin.request().await.unwrap();
        assert_eq!(seen.header("upgrade").as_deref(), Some("websocket"), "{to}: {seen:?}");
        assert_eq!(seen.header("connection").as_deref(), Some("upgrade"), "{to}: {seen:?}");
        assert!(!seen.head.has("content-length"), "{to}: {seen:?}");
        origin.send(SWITCHED).await;
        let head = soon("the switch", client.head()).await.unwrap();
        assert_eq!(head.status(), 101, "{to}");
    }
    // A body it must not have.
    for lines in ["Content-Length: 1\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] {
        let mut client = gateway.wire().await;
        client.send(HANDSHAKE.replace("\r\n\r\n", &format!("\r\n{lines}"))).await;
        let mut origin = backend.accept().await;
        let seen = origin.request().await.unwrap();
        assert!(!seen.head.has("upgrade"), "{lines}: {seen:?}");
    }
}

#[tokio::test]
async fn only_websocket_is_passed_on() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;

    // (lines of the request)
    let table = [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: h2\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
        "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n",
        "Connection: Upgrade\r\nUpgrade: tcp\r\n",
        "Upgrade: websocket\r\n",
        "HTTP2-Settings: AAMAAABk\r\n",
    ];
    for lines in table {
        let reply = gateway.get_with("http://shop.test/", lines).await;
        assert!(matches!(reply.status(), 200 | 400 | 426 | 501), "{lines}: {reply:?}");
        for seen in shop.seen() {
            for name in ["upgrade", "http2-settings"] {
                assert!(!seen.head.has(name), "{lines}: {seen:?}");
            }
        }
    }
}

/// RFC 9110 section 15.2.2: a switch that nobody asked for is a broken answer.
#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_a_bad_gateway() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let other = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n";
    for (request, answer) in [
        ("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", SWITCHED),
        (HANDSHAKE, other),
        (HANDSHAKE, "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    ] {
        let mut client = gateway.wire().await;
        client.send(request).await;
        let mut origin = backend.accept().await;
        origin.request().await.unwrap();
        origin.send(answer).await;
        let reply = client.reply().await;
        assert_eq!(reply.status(), 502, "{request}{answer}: {reply:?}");
        origin.rest().await;
    }
}
