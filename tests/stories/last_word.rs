//! Answers to those who are still sending: what is said last must reach them.

use std::time::Duration;

use bytes::Bytes;
use http::Request;

use crate::support::{
    Backend, DATA, END_HEADERS, END_STREAM, Frame, Gateway, H2, HEADERS, Origin, Outcome,
    RST_STREAM, SETTINGS, Wire, backend, clock, full, h2c_backend, http_route, refusing_address,
    request_fields, rule_to, serve_all, soon,
};

/// More than all buffers between a client and a backend hold.
const LARGE: usize = 16 << 20;

const TOO_LARGE: &str =
    "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large";

/// What a backend does once it has refused an upload that it has not read.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// It leaves its connection open.
    Stays,
    /// It says that it will send no more.
    Ends,
    /// It closes, which resets what it has not read.
    Closes,
    /// It reads on and throws away.
    Reads,
}

async fn refuse(mut origin: Wire, then: Then) {
    origin.head().await.unwrap();
    origin.send(TOO_LARGE).await;
    match then {
        Then::Stays => std::future::pending().await,
        Then::Ends => {
            origin.finish().await;
            std::future::pending::<()>().await;
        }
        // All of the answer has left by then; what comes of it is the gateway's.
        Then::Closes => drop(origin),
        Then::Reads => while origin.more().await {},
    }
}

/// A client that sends all it has and reads then.
async fn send_all(wire: &mut Wire, head: &str) -> u16 {
    wire.send(head).await;
    // If it is cut off it reads what there is all the same.
    let _ = wire.push(&vec![b'x'; LARGE]).await;
    soon("an answer", wire.try_reply_to("POST")).await.map_or(0, |reply| reply.status())
}

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {LARGE}\r\n\r\n")
}

#[tokio::test]
async fn a_backend_that_refuses_an_upload_early_is_heard() {
    for then in [Then::Stays, Then::Ends, Then::Closes, Then::Reads] {
        for how in ["HTTP/1.1", "HTTP/1.1 over TLS", "HTTP/2"] {
            let shop = Backend::bind().await;
            let gateway = Gateway::setup()
                .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
                .start()
                .await;
            let client = async {
                match how {
                    "HTTP/2" => {
                        let mut http2 = gateway.http2("shop.test").await;
                        let body = full(Bytes::from(vec![b'x'; LARGE]));
                        let request = Request::post("https://shop.test/").body(body).unwrap();
                        http2.fetch(request).await.map_or(0, |answer| answer.status)
                    }
                    "HTTP/1.1" => send_all(&mut gateway.wire().await, &post("/")).await,
                    _ => send_all(&mut gateway.tls_wire("shop.test").await, &post("/")).await,
                }
            };
            let origin = async {
                refuse(shop.accept().await, then).await;
                std::future::pending::<()>().await;
            };
            let status = tokio::select! {
                status = client => status,
                () = origin => unreachable!(),
            };
            assert_eq!(status, 413, "{how}, and the backend {then:?}");
            let entry = gateway.logged("the upload", |entry| entry["status"] == 413).await;
            assert_eq!(entry["details"], "via_upstream", "{how} {then:?}: {entry}");
        }
    }
}

/// RFC 9113 section 8.1: the answer ends its stream, and only then, and not at once, is the rest of the
/// request refused. The curl and git of Debian 12 drop an answer that RST_STREAM follows at once.
#[tokio::test]
async fn a_stream_that_has_its_answer_is_not_reset_while_its_client_sends() {
    // (how the client goes on, the stream's last word from the gateway)
    for (goes_on, want) in [(true, None), (false, Some(0))] {
        let gateway = Gateway::start().await;
        let mut h2 = H2::connect(&gateway).await;
        h2.frame(&Frame::head(1, 0, &request_fields("POST", "/upload"))).await;
        h2.frame(&Frame::new(DATA, 0, 1, [b'x'; 1000])).await;
        let outcome = h2.outcome(1).await;
        assert!(matches!(outcome, Outcome::Answer { status: 404, .. }), "{outcome:?}");
        let begin = clock();
        if goes_on {
            // For longer than a client may be silent, and then to its end.
            for _ in 0..14 {
                h2.frame(&Frame::new(DATA, 0, 1, [b'x'; 1000])).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            h2.frame(&Frame::new(DATA, END_STREAM, 1, *b"end")).await;
        }
        // A later request on the connection is served; what is said of the first is seen until then.
        let mut last_word = None;
        if !goes_on {
            let reset = soon("a reset", async {
                loop {
                    let frame = h2.next().await.expect("the connection goes on");
                    if frame.kind == RST_STREAM && frame.stream == 1 {
                        return frame;
                    }
                }
            });
            last_word = Some(u32::from_be_bytes(reset.await.payload.try_into().unwrap()));
            assert!(begin.elapsed() > Duration::from_secs(3), "{:?}", begin.elapsed());
        }
        h2.frame(&Frame::get(3, "/")).await;
        loop {
            let frame = soon("the next answer", h2.next()).await.expect("the connection goes on");
            if frame.stream == 1 && frame.kind == RST_STREAM {
                last_word = Some(u32::from_be_bytes(frame.payload.try_into().unwrap()));
            } else if frame.stream == 3 && frame.kind == HEADERS {
                break;
            }
        }
        assert_eq!(last_word, want);
    }
}

/// Everything that the gateway says itself to a request whose body it does not want.
#[tokio::test]
async fn what_the_gateway_says_itself_is_heard_by_those_who_upload() {
    let shop = Origin::replying("ok").await;
    let redirect = "\
- matches:
    - path: {type: PathPrefix, value: /moved}
  filters:
    - type: RequestRedirect
      requestRedirect: {hostname: blog.test, statusCode: 302}
- matches:
    - path: {type: PathPrefix, value: /broken}
  backendRefs:
    - {group: gateway.envoyproxy.io, kind: Backend, name: nowhere}
";
    let rules = redirect.to_owned() + &rule_to("/dead", "dead") + &rule_to("/shop", "shop");
    let files = backend("shop", &[shop.address])
        + &backend("dead", &[refusing_address()])
        + &http_route("shop", &["shop.test"], &rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;

    let long = format!("/{}", "a".repeat(9000));
    let large = format!("X-Large: {}\r\n", "a".repeat(40 << 10));
    // (what, target, lines, status)
    let table = [
        ("no route", "/nowhere", "", 404),
        ("a redirect", "/moved", "", 302),
        ("a backend that is not there", "/dead", "", 503),
        ("a reference that leads nowhere", "/broken", "", 500),
        ("a target that is too long", &*long, "", 414),
        ("a head that is too large", "/shop", &*large, 431),
        ("no field", "/shop", "no colon\r\n", 400),
        ("an expectation", "/shop", "Expect: the unexpected\r\n", 417),
        ("an ambiguous path", "/shop/%00", "", 400),
        ("a coding", "/shop", "Transfer-Encoding: gzip, chunked\r\n", 501),
    ];
    for (what, target, lines, status) in table {
        let length = match lines.contains("Transfer-Encoding") {
            true => String::new(),
            false => format!("Content-Length: {LARGE}\r\n"),
        };
        let head = format!("POST {target} HTTP/1.1\r\nHost: shop.test\r\n{lines}{length}\r\n");
        let plain = send_all(&mut gateway.wire().await, &head).await;
        let tls = send_all(&mut gateway.tls_wire("shop.test").await, &head).await;
        assert_eq!((plain, tls), (status, status), "{what}");
    }
    for (target, status) in
        [("/nowhere", 404), ("/moved", 302), ("/dead", 503), ("/broken", 500), (&*long, 414)]
    {
        let mut http2 = gateway.http2("shop.test").await;
        let body = full(Bytes::from(vec![b'x'; LARGE]));
        let request = Request::post(format!("https://shop.test{target}")).body(body).unwrap();
        let answer = http2.fetch(request).await.map_or(0, |answer| answer.status);
        assert_eq!(answer, status, "{target} over HTTP/2");
    }
    assert!(shop.requests().is_empty(), "{:?}", shop.targets());
}

/// What comes of a request that has its answer is thrown away, and the next one is served.
#[tokio::test]
async fn a_connection_outlives_an_upload_that_nobody_wanted() {
    let shop = Origin::replying("ok").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let mut wire = gateway.wire().await;
    let head =
        |host: &str, framing: &str| format!("POST / HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n\r\n");
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        wire.send(head("nobody.test", framing)).await;
        let reply = wire.reply_to("POST").await;
        assert_eq!((reply.status(), reply.header("connection")), (404, None), "{framing}");
        let body = vec![b'\n'; 1_000_000];
        match framing.contains("chunked") {
            true => wire.send([b"f4240\r\n", &body[..], b"\r\n0\r\n\r\n"].concat()).await,
            false => wire.send(body).await,
        }
        wire.send("GET /next HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
        assert_eq!(wire.reply().await.text(), "ok", "{framing}");
    }
    assert_eq!(shop.targets(), ["/next", "/next"]);
}

/// RFC 9110 section 10.1.1: who asks before it sends is told not to, and its connection ends, for it
/// may send or not.
#[tokio::test]
async fn a_client_that_asks_first_is_refused_without_its_body() {
    let shop = Origin::replying("ok").await;
    let files = backend("shop", &[shop.address])
        + &backend("dead", &[refusing_address()])
        + &http_route(
            "shop",
            &["shop.test"],
            &(rule_to("/dead", "dead") + &rule_to("/shop", "shop")),
        );
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    let ask = |target: &str| {
        let lines = "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n";
        format!("POST {target} HTTP/1.1\r\nHost: shop.test\r\n{lines}")
    };
    for (target, status) in [("/nowhere", 404), ("/dead", 503)] {
        let mut wire = gateway.wire().await;
        wire.send(ask(target)).await;
        let head = soon("an answer", wire.head()).await.unwrap();
        assert_eq!((head.status(), head.one("connection").as_deref()), (status, Some("close")));
    }
    let mut wire = gateway.wire().await;
    wire.send(ask("/shop")).await;
    assert_eq!(soon("an answer", wire.head()).await.unwrap().status(), 100);
    wire.send("body").await;
    assert_eq!(wire.reply_to("POST").await.text(), "ok");
}

/// Nobody is read for ever that has its answer.
#[tokio::test]
async fn a_client_that_has_its_answer_and_says_no_more_is_let_go() {
    let gateway = Gateway::start().await;
    for head in [
        post("/nowhere"),
        post("/nowhere").replace("Host:", "Connection: close\r\nHost:"),
        "POST / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(),
    ] {
        let mut wire = gateway.wire().await;
        wire.send(&head).await;
        let status = soon("an answer", wire.head()).await.unwrap().status();
        assert!(status == 404 || status == 400, "{status}");
        let begin = clock();
        wire.rest().await;
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    }
}

/// An HTTP/2 backend may end its stream, or its connection, as soon as it has refused an upload.
#[tokio::test]
async fn an_http2_backend_that_refuses_an_upload_early_is_heard() {
    let answer = [
        // HEADERS with `:status: 413`, DATA with END_STREAM, RST_STREAM(NO_ERROR).
        Frame::new(SETTINGS, 0, 0, []).bytes(),
        Frame::new(HEADERS, END_HEADERS, 1, *b"\x08\x03413").bytes(),
        Frame::new(DATA, END_STREAM, 1, *b"too large").bytes(),
        Frame::reset(1, 0).bytes(),
    ]
    .concat();
    for (closes, how) in
        [(false, "HTTP/1.1"), (false, "HTTP/2"), (true, "HTTP/1.1"), (true, "HTTP/2")]
    {
        let shop = Backend::bind().await;
        let files = h2c_backend("shop", &[shop.address])
            + &http_route("shop", &["shop.test"], &rule_to("/", "shop"));
        let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
        let origin = async {
            let mut origin = shop.accept().await;
            // The preface, settings, and the head of the request with some of its body.
            origin.exactly(4096).await;
            origin.send(&answer).await;
            if !closes {
                while origin.more().await {}
            }
            drop(origin);
            std::future::pending::<()>().await;
        };
        let client = async {
            if how == "HTTP/1.1" {
                return send_all(&mut gateway.wire().await, &post("/")).await;
            }
            let mut http2 = gateway.http2("shop.test").await;
            let body = full(Bytes::from(vec![b'x'; LARGE]));
            let request = Request::post("https://shop.test/").body(body).unwrap();
            http2.fetch(request).await.map_or(0, |answer| answer.status)
        };
        let status = tokio::select! {
            status = client => status,
            () = origin => unreachable!(),
        };
        assert_eq!(status, 413, "{how}, and the backend closes: {closes}");
    }
}
