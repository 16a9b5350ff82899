//! Time limits and those who are still at work: none passes while bytes move in either direction, but
//! those that an operator has set on the whole.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::Frame as BodyFrame;

use crate::support::{
    Answer, Backend, DATA, Echo, Frame, Gateway, H2, Origin, Step, backend, channel, clock,
    h2c_backend, http_route, request_fields, rule_to, serve_all, soon,
};

/// The pace of a client or backend that is slow and steady.
const PACE: Duration = Duration::from_millis(200);

/// A rule for everything with these `timeouts`, to the Backend `shop`.
fn rule_with(timeouts: &str) -> String {
    rule_to("/", "shop") + &format!("  timeouts: {timeouts}\n")
}

/// The status for an upload of `pieces`, one each [`PACE`]; 0 if there is none.
async fn upload(gateway: &Gateway, how: &str, pieces: usize) -> u16 {
    let piece = [b'x'; 10_000];
    if how == "HTTP/2" {
        let mut http2 = gateway.http2("shop.test").await;
        let (sender, body) = channel();
        let request = Request::post("https://shop.test/").body(body).unwrap();
        let sending = async {
            for _ in 0..pieces {
                if sender.send(BodyFrame::data(Bytes::from_static(&[b'x'; 10_000]))).await.is_err()
                {
                    return;
                }
                tokio::time::sleep(PACE).await;
            }
            drop(sender);
        };
        let (answer, ()) = tokio::join!(http2.fetch(request), sending);
        return answer.map_or(0, |answer| answer.status);
    }
    let mut wire = gateway.wire().await;
    let chunked = how == "chunks";
    let length = pieces * piece.len();
    let framing = match chunked {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {length}"),
    };
    wire.send(format!("POST / HTTP/1.1\r\nHost: shop.test\r\n{framing}\r\n\r\n")).await;
    for _ in 0..pieces {
        let sent = match chunked {
            true => wire.push(&[b"2710\r\n", &piece[..], b"\r\n"].concat()).await,
            false => wire.push(&piece).await,
        };
        if sent.is_err() {
            break;
        }
        tokio::time::sleep(PACE).await;
    }
    if chunked {
        wire.send("0\r\n\r\n").await;
    }
    soon("an answer", wire.try_reply_to("POST")).await.map_or(0, |reply| reply.status())
}

#[tokio::test]
async fn an_upload_that_flows_is_never_late() {
    let shop = Origin::replying("ok").await;
    let echo = Echo::start().await;
    for (files, what) in [
        (serve_all("shop", "shop.test", &[shop.address]), "HTTP/1.1"),
        (
            h2c_backend("shop", &[echo.address])
                + &http_route("shop", &["shop.test"], &rule_to("/", "shop")),
            "h2c",
        ),
    ] {
        let gateway = Gateway::setup()
            .flag("--response-timeout 1s --send-timeout 1s")
            .file("routes/shop.yaml", &files)
            .start()
            .await;
        let (length, chunks, http2) = tokio::join!(
            upload(&gateway, "length", 15),
            upload(&gateway, "chunks", 15),
            upload(&gateway, "HTTP/2", 15)
        );
        assert_eq!((length, chunks, http2), (200, 200, 200), "to a backend of {what}");
    }
}

/// GEP-1742: what the route says of time holds for the whole, however much flows.
#[tokio::test]
async fn a_limit_of_the_route_bounds_an_upload_too() {
    let shop = Origin::replying("ok").await;
    for timeouts in ["{request: 1s}", "{backendRequest: 1s}"] {
        let files = backend("shop", &[shop.address])
            + &http_route("shop", &["shop.test"], &rule_with(timeouts));
        let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
        let (length, http2) =
            tokio::join!(upload(&gateway, "length", 15), upload(&gateway, "HTTP/2", 15));
        // What is said last arrives, though the client is still sending.
        assert_eq!((length, http2), (504, 504), "{timeouts}");
    }
    assert!(shop.requests().is_empty(), "no request was whole");
}

/// The worker's sweep keeps limits of a second and more, the runtime's timers the shorter ones. Both
/// answer alike, and never early.
#[tokio::test]
async fn a_limit_is_told_alike_whoever_keeps_it() {
    let shop = Origin::scripted(|_| Answer::hang()).await;
    for milliseconds in [300, 1000, 1200] {
        for (kind, details) in [
            ("request", "request_overall_timeout"),
            ("backendRequest", "upstream_response_timeout"),
        ] {
            let timeouts = format!("{{{kind}: {milliseconds}ms}}");
            let files = backend("shop", &[shop.address])
                + &http_route("shop", &["shop.test"], &rule_with(&timeouts));
            let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
            let begin = clock();
            let reply = gateway.get("https://shop.test/").await;
            let took = begin.elapsed();
            assert_eq!(reply.status(), 504, "{timeouts}");
            let limit = Duration::from_millis(milliseconds);
            assert!(
                took >= limit && took < limit + Duration::from_secs(10),
                "{timeouts}: {took:?}"
            );
            let line = gateway.logged("the late one", |line| line["status"] == 504).await;
            assert!(line["flags"].to_string().contains("UT"), "{timeouts}: {line}");
            assert_eq!(line["details"], details, "{timeouts}: {line}");
            assert_eq!(line["upstream"], shop.address.to_string(), "{timeouts}");
        }
    }
}

#[tokio::test]
async fn the_limit_of_an_answer_begins_when_all_is_sent() {
    let shop = Origin::scripted(|_| Answer::hang()).await;
    let gateway = Gateway::setup()
        .flag("--response-timeout 2s")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    for how in ["length", "HTTP/2"] {
        let begin = clock();
        assert_eq!(upload(&gateway, how, 8).await, 504, "{how}");
        // The upload took 1.4 s at least.
        let took = begin.elapsed();
        assert!(took > Duration::from_millis(3200) && took < Duration::from_secs(12), "{took:?}");
    }
}

/// While the client is waited for it is the client's limit that counts: the backend has nothing to
/// answer yet.
#[tokio::test]
async fn a_client_that_pauses_does_not_make_the_backend_late() {
    let shop = Origin::replying("ok").await;
    let gateway = Gateway::setup()
        .flag("--response-timeout 500ms --body-timeout 20s")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let mut wire = gateway.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 8\r\n\r\nhalf").await;
    let mut h2 = H2::connect(&gateway).await;
    h2.frame(&Frame::head(1, 0, &request_fields("POST", "/"))).await;
    h2.frame(&Frame::new(DATA, 0, 1, *b"half")).await;
    // Longer than the backend would be waited for.
    tokio::time::sleep(Duration::from_secs(2)).await;
    wire.send("half").await;
    h2.frame(&Frame::new(DATA, 1, 1, *b"half")).await;
    assert_eq!(wire.reply_to("POST").await.status(), 200);
    assert_eq!(h2.outcome(1).await.status(), Some(200));
}

#[tokio::test]
async fn a_backend_that_reads_slowly_is_at_work() {
    let shop = Backend::bind().await;
    let gateway = Gateway::setup()
        .flag("--response-timeout 2s --send-timeout 2s")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let length = 24 << 20;
    let client = async {
        let mut wire = gateway.wire().await;
        let head =
            format!("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n\r\n");
        wire.send(head).await;
        wire.push(&vec![0; length]).await.unwrap();
        wire.reply_to("POST").await.status()
    };
    let slow = async {
        let mut origin = shop.accept().await;
        let mut read = 0;
        while read < length {
            // About 5 MB in a second.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let more = origin.exactly((512 << 10).min(length - read + 1)).await.len();
            read += more;
            if read + 65_536 > length {
                break;
            }
        }
        origin.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        while origin.more().await {}
    };
    let status = tokio::select! {
        status = client => status,
        () = slow => panic!("the gateway left the backend"),
    };
    assert_eq!(status, 200);
}

/// RFC 2518 section 10.1: 102 is there to keep the other side from giving up.
#[tokio::test]
async fn a_backend_that_says_that_it_is_at_work_is_waited_for() {
    let shop = Origin::scripted(|_| {
        let mut answer = Answer(Vec::new());
        for _ in 0..6 {
            answer = answer
                .then(Step::Wait(Duration::from_millis(500)))
                .then(Step::Send(b"HTTP/1.1 102 Processing\r\n\r\n".to_vec()));
        }
        answer.then(Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone".to_vec()))
    })
    .await;
    let gateway = Gateway::setup()
        .flag("--response-timeout 1500ms")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "done");
}

/// A conversation in which it is the backend that speaks.
#[tokio::test]
async fn a_request_may_rest_while_its_response_flows() {
    for how in ["HTTP/1.1", "HTTP/2"] {
        let shop = Backend::bind().await;
        let gateway = Gateway::setup()
            .flag("--body-timeout 1s --response-timeout 1s")
            .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
            .start()
            .await;
        let backend = async {
            let mut origin = shop.accept().await;
            origin.through(b"half").await.unwrap();
            origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            for _ in 0..15 {
                tokio::time::sleep(PACE).await;
                origin.send("5\r\nevent\r\n").await;
            }
            // The request was whole meanwhile as far as anybody can know.
            origin.send("0\r\n\r\n").await;
            std::future::pending::<()>().await;
        };
        let client = async {
            if how == "HTTP/2" {
                let mut h2 = H2::connect(&gateway).await;
                h2.frame(&Frame::head(1, 0, &request_fields("POST", "/"))).await;
                h2.frame(&Frame::new(DATA, 0, 1, *b"half")).await;
                let outcome = h2.outcome(1).await;
                return format!("{outcome:?}").contains("Answer { status: 200");
            }
            let mut wire = gateway.wire().await;
            let head = "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n";
            wire.send(format!("{head}4\r\nhalf\r\n")).await;
            let reply = wire.reply_to("POST").await;
            reply.complete && reply.body == b"event".repeat(15)
        };
        let whole = tokio::select! {
            whole = client => whole,
            () = backend => unreachable!(),
        };
        assert!(whole, "{how}");
    }
}

/// A client that is there answers PINGs, and one that does not is gone.
#[tokio::test]
async fn an_http2_client_that_is_gone_is_noticed_and_one_that_waits_is_not() {
    let shop = Origin::scripted(|_| Answer::hang()).await;
    let gateway = Gateway::setup()
        .flag("--idle-timeout 1s --send-timeout 1s")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let mut gone = H2::connect(&gateway).await;
    gone.frame(&Frame::get(1, "/")).await;
    let mut there = H2::connect(&gateway).await;
    there.frame(&Frame::get(1, "/")).await;
    shop.saw(2).await;
    let begin = clock();
    let waiting = tokio::time::timeout(Duration::from_secs(5), there.next());
    let (ended, waited) = tokio::join!(gone.ends_unanswered(), waiting);
    assert!(ended && begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    assert!(waited.is_err(), "{waited:?}");
}
