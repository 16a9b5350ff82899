//! Tests of the echo from a client's socket.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use http::{Method, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::body::Body;

/// An echo on a free port, and the other tasks of a test.
struct Running {
    address: SocketAddr,
    tasks: JoinSet<()>,
}

impl Running {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async { serve(listener).await.unwrap() });
        Self { address, tasks }
    }

    /// Sends `bytes` on one connection and reads until the echo closes it.
    async fn raw(&self, bytes: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        String::from_utf8(all).unwrap()
    }

    async fn http2(&mut self) -> SendRequest<Body> {
        let stream = TokioIo::new(TcpStream::connect(self.address).await.unwrap());
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        self.tasks.spawn(async { connection.await.unwrap() });
        sender
    }
}

/// The headers that `edge-gateway dev` adds are shown apart from those that a service would
/// receive; without the route, headers of these names are shown like any other.
#[tokio::test]
async fn what_the_gateway_says_stands_by_itself() {
    let echo = Running::start().await;
    let get =
        |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
    let told = "X-Edge-Gateway-Route: httproute/a/b/rule/0\r\nX-Edge-Gateway-Listener: a/eg/https\r\n\
                X-Edge-Gateway-Tls: version=TLSv1.3; cipher=TLS_A; sni=a.test\r\n";
    let image: Value = serde_json::from_str(body(&echo.raw(&get(told)).await)).unwrap();
    let want = serde_json::json!({
        "route": "httproute/a/b/rule/0",
        "listener": "a/eg/https",
        "tls": { "version": "TLSv1.3", "cipher": "TLS_A", "sni": "a.test" },
    });
    assert_eq!(image["gateway"], want, "{image}");
    assert_eq!(image["headers"].as_object().unwrap().len(), 2, "{image}");

    let alone = get("X-Edge-Gateway-Listener: mine\r\n");
    let image: Value = serde_json::from_str(body(&echo.raw(&alone).await)).unwrap();
    assert!(image.get("gateway").is_none(), "{image}");
    assert_eq!(image["headers"]["x-edge-gateway-listener"], serde_json::json!(["mine"]));
}

fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn a_request_comes_back_as_it_went_out() {
    let echo = Running::start().await;
    let response = echo
        .raw(
            "POST /a/../b%20c?x=1&x=2 HTTP/1.1\r\n\
             Host: shop.test:8080\r\n\
             X-Second: b\r\n\
             x-first: a\r\n\
             X-Second: c\r\n\
             Connection: close\r\n\
             Transfer-Encoding: chunked\r\n\
             \r\n\
             3\r\none\r\n4\r\n two\r\n0\r\n\
             Checked: yes\r\n\
             \r\n",
        )
        .await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    let image: Value = serde_json::from_str(body(&response)).unwrap();

    assert_eq!(image["method"], "POST");
    assert_eq!(image["path"], "/a/../b%20c");
    assert_eq!(image["query"], "x=1&x=2");
    assert_eq!(image["host"], "shop.test:8080");
    assert_eq!(image["proto"], "HTTP/1.1");
    assert!(image["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{image}");
    assert_eq!(image["body_bytes"], 7);
    assert_eq!(image["body"], "one two");
    assert_eq!(image["trailers"]["checked"], serde_json::json!(["yes"]));
    let headers = image["headers"].as_object().unwrap();
    let names: Vec<_> = headers.keys().collect();
    assert_eq!(names, ["host", "x-second", "x-first", "connection", "transfer-encoding"]);
    assert_eq!(headers["x-second"], serde_json::json!(["b", "c"]));
}

#[tokio::test]
async fn the_answer_is_the_one_that_was_asked_for() {
    let echo = Running::start().await;
    let get = |target: &'static str| {
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    };

    // (request, start of the response, bytes of the body)
    let table = [
        (get("/?status=503&size=10"), "HTTP/1.1 503 ", 10),
        (get("/?size=70000"), "HTTP/1.1 200 ", 70_000),
        (get("/?status=204"), "HTTP/1.1 204 ", 0),
        (get("/?status=304&size=10"), "HTTP/1.1 304 ", 0),
        (get("/?size=10").replace("GET", "HEAD"), "HTTP/1.1 200 ", 0),
        (get("/?size=0"), "HTTP/1.1 200 ", 0),
    ];
    for (request, start, size) in table {
        let response = echo.raw(&request).await;
        assert!(response.starts_with(start), "{request}: {response}");
        assert_eq!(body(&response).len(), size, "{request}");
    }
    let head = echo.raw(&get("/?size=10").replace("GET", "HEAD")).await;
    assert!(head.contains("content-length: 10\r\n"), "{head}");
    let wrong = echo.raw(&get("/?delay=1h")).await;
    assert!(wrong.starts_with("HTTP/1.1 400 ") && wrong.contains("use `500ms`"), "{wrong}");
}

#[tokio::test]
async fn a_delay_holds_the_answer_back() {
    let echo = Running::start().await;
    let before = crate::clock::now();
    echo.raw("GET /?delay=50ms HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(before.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn only_small_texts_are_mirrored() {
    let echo = Running::start().await;
    let limit = 64 << 10;

    // (body, true if it is in the response)
    let table = [
        (vec![b'a'; limit], true),
        (vec![b'a'; limit + 1], false),
        (vec![0xff; 3], false),
        (Vec::new(), false),
    ];
    for (sent, mirrored) in table {
        let mut stream = TcpStream::connect(echo.address).await.unwrap();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            sent.len()
        );
        stream.write_all(&[head.into_bytes(), sent.clone()].concat()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let image: Value = serde_json::from_str(body(&response)).unwrap();
        assert_eq!(image["body_bytes"], sent.len());
        assert_eq!(image.get("body").is_some(), mirrored, "{} bytes", sent.len());
    }
}

#[tokio::test]
async fn http2_is_understood_on_the_same_port() {
    let mut echo = Running::start().await;
    let mut sender = echo.http2().await;
    let request = Request::get("http://shop.test/a?b=c").header("X-One", "1");
    let response = sender.send_request(request.body(Body::Empty).unwrap()).await.unwrap();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let image: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(image["proto"], "HTTP/2.0");
    assert_eq!(image["host"], "shop.test");
    assert_eq!(image["path"], "/a");
    assert_eq!(image["headers"]["x-one"], serde_json::json!(["1"]));
}

#[tokio::test]
async fn grpc_messages_come_back_one_by_one_with_a_status_behind_them() {
    let mut echo = Running::start().await;
    let mut sender = echo.http2().await;
    let (messages, received) = mpsc::channel::<hyper::body::Bytes>(1);
    let frames = futures_util::stream::unfold(received, |mut received| async {
        let data = received.recv().await?;
        Some((Ok::<_, Infallible>(hyper::body::Frame::data(data)), received))
    });
    let request = Request::post("http://shop.test/echo.Echo/Chat")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::boxed(StreamBody::new(Box::pin(frames))))
        .unwrap();
    let mut response = sender.send_request(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/grpc");

    // Each message is returned before the next one is sent: the echo does not wait for the end.
    for text in ["\0\0\0\0\x05first", "\0\0\0\0\x06second"] {
        messages.send(text.into()).await.unwrap();
        let frame = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), text);
    }
    drop(messages);
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_websocket_echoes_over_both_versions_of_http() {
    let mut echo = Running::start().await;

    let stream = TcpStream::connect(echo.address).await.unwrap();
    let (mut over_http1, response) =
        tokio_tungstenite::client_async("ws://shop.test/any/path", stream).await.unwrap();
    assert_eq!(response.status(), 101);
    over_http1.send(Message::text("one")).await.unwrap();
    assert_eq!(over_http1.next().await.unwrap().unwrap(), Message::text("one"));
    over_http1.close(None).await.unwrap();

    let mut sender = echo.http2().await;
    // The response to any request follows the SETTINGS that allow extended CONNECT.
    let first = Request::get("http://shop.test/").body(Body::Empty).unwrap();
    sender.send_request(first).await.unwrap().into_body().collect().await.unwrap();
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri("http://shop.test/any/path")
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(Body::Empty)
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let upgraded = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
    let mut over_http2 =
        tokio_tungstenite::WebSocketStream::from_raw_socket(upgraded, role, None).await;
    over_http2.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(over_http2.next().await.unwrap().unwrap(), Message::binary(vec![1, 2, 3]));
}

#[tokio::test]
async fn a_handshake_that_is_none_is_refused() {
    let echo = Running::start().await;

    // (header lines of the handshake, start of the response)
    let table = [
        ("Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: eA==\r\n", "HTTP/1.1 426 "),
        ("Sec-WebSocket-Version: 13\r\n", "HTTP/1.1 400 "),
    ];
    for (lines, start) in table {
        let response = echo
            .raw(&format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\
                 {lines}\r\n"
            ))
            .await;
        assert!(response.starts_with(start), "{lines}: {response}");
    }
}

#[tokio::test]
async fn connections_end_with_the_echo() {
    let mut echo = Running::start().await;
    let mut stream = TcpStream::connect(echo.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_ne!(stream.read(&mut [0; 64]).await.unwrap(), 0);

    echo.tasks.shutdown().await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(TcpStream::connect(echo.address).await.is_err(), "nobody listens");
}
