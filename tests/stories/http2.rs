//! HTTP/2 as honest clients use it.

use std::time::Duration;

use http::Request;
use tokio::task::JoinSet;

use crate::support::{
    Answer, Backend, DATA, END_STREAM, Frame, Gateway, H2, HEADERS, Http2, Origin, Outcome,
    WINDOW_UPDATE, empty, full, request_fields, serve_all, soon,
};

#[tokio::test]
async fn streams_stand_side_by_side() {
    let shop = Origin::scripted(|seen| match seen.target().as_str() {
        "/slow" => Answer::hang(),
        path => Answer::ok(path),
    })
    .await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let mut http2 = gateway.http2("shop.test").await;
    let mut slow = JoinSet::new();
    let mut sender = http2.sender();
    slow.spawn(async move {
        let request = Request::get("https://shop.test/slow").body(empty()).unwrap();
        drop(sender.send_request(request).await);
    });
    shop.saw(1).await;
    for number in 0..50 {
        let path = format!("/{number}");
        assert_eq!(http2.get(&format!("https://shop.test{path}")).await.text(), path);
    }
}

/// RFC 9110 section 9.3.2. An answer of the gateway's own is one like others.
#[tokio::test]
async fn an_answer_to_head_has_no_body() {
    let gateway = Gateway::start().await;
    let mut h2 = H2::connect(&gateway).await;
    h2.frame(&Frame::head(1, END_STREAM, &request_fields("HEAD", "/nowhere"))).await;
    loop {
        let frame = soon("a frame", h2.next()).await.unwrap();
        assert_ne!(frame.kind, DATA, "{frame:?}");
        if frame.kind == HEADERS {
            assert_ne!(frame.flags & END_STREAM, 0, "{frame:?}");
            break;
        }
    }
    let entry = gateway.logged("the HEAD", |entry| entry["method"] == "HEAD").await;
    assert_eq!(entry["status"], 404, "{entry}");
}

#[tokio::test]
async fn a_request_and_its_answer_come_through_whole() {
    let shop = Origin::scripted(|seen| {
        let length = seen.body.len();
        Answer::raw(format!(
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Length: {length}\r\n\
             Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        ))
    })
    .await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let mut http2 = gateway.http2("shop.test").await;
    let request = Request::post("https://shop.test/a?b=c")
        .header("x-two", "1")
        .header("x-two", "2")
        .body(full(vec![b'x'; 300_000]))
        .unwrap();
    let fetched = http2.fetch(request).await.unwrap();
    assert_eq!(fetched.text(), "abcde");
    assert_eq!(fetched.headers["x-length"], "300000");
    assert_eq!(fetched.headers.get_all("set-cookie").iter().count(), 2);
    let seen = shop.last();
    assert_eq!(seen.head.line(), "POST /a?b=c HTTP/1.1");
    assert_eq!(seen.header("host").as_deref(), Some("shop.test"));
    assert_eq!(seen.head.all("x-two"), ["1", "2"]);
    assert_eq!(seen.header("content-length").as_deref(), Some("300000"));
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
}

#[tokio::test]
async fn head_and_204_and_304_have_no_body() {
    let shop = Origin::scripted(|seen| match seen.target().as_str() {
        "/204" => Answer::raw("HTTP/1.1 204 No Content\r\n\r\n"),
        "/304" => Answer::raw("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"),
        _ => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"),
    })
    .await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let mut http2 = gateway.http2("shop.test").await;
    let request = Request::head("https://shop.test/").body(empty()).unwrap();
    let fetched = http2.fetch(request).await.unwrap();
    assert_eq!(fetched.headers["content-length"], "4");
    assert!(fetched.body.is_empty());
    for status in [204, 304] {
        let fetched = http2.get(&format!("https://shop.test/{status}")).await;
        assert_eq!(fetched.status, status);
        assert!(fetched.body.is_empty());
    }
}

/// The setting is announced, and whoever does not keep to it is refused (RFC 9113 section 5.1.2).
#[tokio::test]
async fn there_are_as_many_streams_at_once_as_the_setting_says() {
    let shop = Origin::scripted(|seen| match seen.target().as_str() {
        "/slow" => Answer::ok("slow").after(Duration::from_secs(2)),
        _ => Answer::ok("ok"),
    })
    .await;
    let gateway = Gateway::setup()
        .flag("--h2-max-streams 10")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let mut h2 = H2::connect(&gateway).await;
    for number in 0..10 {
        h2.frame(&Frame::get(2 * number + 1, "/slow")).await;
    }
    h2.frame(&Frame::get(21, "/attack")).await;
    let outcome = h2.outcome(21).await;
    assert!(matches!(outcome, Outcome::Reset(_) | Outcome::GoAway(_)), "{outcome:?}");
    assert!(!shop.targets().contains(&"/attack".to_owned()));
}

/// RFC 9113 section 3.3: a client that knows may begin with the preface, without TLS.
#[tokio::test]
async fn prior_knowledge_is_enough_on_the_plain_port() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let stream = tokio::net::TcpStream::connect(gateway.http()).await.unwrap();
    let mut http2 = Http2::over(stream).await;
    assert_eq!(http2.get("http://shop.test/a").await.text(), "shop");
    assert_eq!(shop.last().header("x-forwarded-proto").as_deref(), Some("http"));
    gateway.logged("the request", |entry| entry["protocol"].to_string().contains("HTTP/2")).await;
}

#[tokio::test]
async fn one_stream_that_is_not_read_does_not_stop_the_others() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let mut http2 = gateway.http2("shop.test").await;
    let request = Request::get("https://shop.test/unread").body(empty()).unwrap();
    let (unread, mut origin) = tokio::join!(http2.send(request), async {
        let mut origin = backend.accept().await;
        origin.request().await.unwrap();
        origin.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await;
        origin
    });
    let unread = unread.unwrap();
    // As much as goes out while nobody reads.
    let chunk = vec![0; 1 << 20];
    while tokio::time::timeout(Duration::from_millis(500), origin.push(&chunk)).await.is_ok() {}

    let request = Request::get("https://shop.test/other").body(empty()).unwrap();
    let (fetched, ()) = tokio::join!(http2.fetch(request), async {
        let mut origin = backend.accept().await;
        origin.request().await.unwrap();
        origin.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        soon("the client has it", origin.exactly(0)).await;
    });
    assert_eq!(fetched.unwrap().text(), "ok");
    drop(unread);
}

/// A chunk of 1 KiB, with its framing.
fn chunk() -> String {
    format!("400\r\n{}\r\n", "x".repeat(0x400))
}

/// One turn of the event loop is one TLS record, and so one system call, however many streams it
/// answers.
#[tokio::test]
async fn streams_that_are_answered_together_leave_in_one_record() {
    const STREAMS: u32 = 8;
    let backend = Backend::bind().await;
    let gateway = Gateway::setup()
        .flag("--workers 1")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[backend.address]))
        .start()
        .await;
    let (mut h2, records) = H2::counted(&gateway).await;
    let mut origins = Vec::new();
    for number in 0..STREAMS {
        h2.frame(&Frame::get(1 + 2 * number, "/")).await;
        let mut origin = backend.accept().await;
        origin.request().await.unwrap();
        origins.push(origin);
    }
    h2.ping().await;

    for (what, answer) in [
        ("heads", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()),
        ("chunks", chunk()),
        ("ends", chunk() + "0\r\n\r\n"),
    ] {
        records.take();
        // All answers are there when the gateway looks.
        gateway.process().stop().await;
        for origin in &mut origins {
            origin.send(&answer).await;
        }
        gateway.process().go_on();
        let mut waiting: Vec<u32> = (0..STREAMS).map(|number| 1 + 2 * number).collect();
        while !waiting.is_empty() {
            let frame = soon("a frame", h2.next()).await.expect("a frame before the end");
            let is_last = what != "ends" || frame.is(END_STREAM);
            waiting.retain(|stream| !is_last || *stream != frame.stream);
        }
        let records = records.take();
        assert_eq!(records.len(), 1, "{what}: records of {records:?} bytes");
    }
}

/// What is ready leaves at once, also where nothing else will be for a while.
#[tokio::test]
async fn no_frame_waits_for_another_one() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let mut h2 = H2::connect(&gateway).await;
    h2.ping().await;

    h2.frame(&Frame::head(1, 0, &request_fields("POST", "/"))).await;
    let mut origin = backend.accept().await;
    soon("a head", origin.head()).await.unwrap();
    h2.ping().await;
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let head = soon("the head", h2.next()).await.unwrap();
    assert_eq!((head.kind, head.stream), (HEADERS, 1));
    for piece in ["1\r\nx\r\n".to_owned(), chunk()] {
        origin.send(&piece).await;
        let frame = soon("a piece", h2.next()).await.unwrap();
        assert_eq!((frame.kind, frame.is(END_STREAM)), (DATA, false));
        h2.ping().await;
    }

    // As much as the window of a stream lets through: it opens again while nothing else is sent.
    h2.send(Frame::new(DATA, 0, 1, vec![b'x'; 16 << 10]).bytes().repeat(16)).await;
    soon("the body", origin.exactly(256 << 10)).await;
    let frame = soon("room for more", h2.next()).await.unwrap();
    assert_eq!((frame.kind, frame.stream), (WINDOW_UPDATE, 1));
}
