//! Backends that are broken (RFC 9112 sections 4, 6, 7, 9): the client is told, and nobody gets the
//! answer to another's request.

use std::time::Duration;

use http::Request;

use crate::support::{
    Answer, Backend, Faults, Frame, Gateway, H2, Origin, Outcome, Step, clock, empty, serve_all,
    soon, until,
};

const GET: &str = "GET /attack HTTP/1.1\r\nHost: shop.test\r\n\r\n";

/// A gateway whose backend answers `/attack` with `answer` and anything else in good order.
async fn in_front_of(answer: Answer) -> (Origin, Gateway) {
    let origin = Origin::scripted(move |seen| match seen.target().as_str() {
        "/attack" => answer.clone(),
        path => Answer::ok(path),
    })
    .await;
    let gateway = Gateway::in_front_of(origin.address).await;
    (origin, gateway)
}

/// The next requests get their own answers.
async fn others_are_served(what: &str, gateway: &Gateway) {
    for number in 0..3 {
        let reply = gateway.get(&format!("http://shop.test/next/{number}")).await;
        assert_eq!(
            (reply.status(), reply.text()),
            (200, format!("/next/{number}")),
            "after {what}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_a_bad_gateway() {
    let table: [&[u8]; 39] = [
        // RFC 9112 section 4: the status line.
        b"garbage\r\n\r\n",
        b"<html>hello</html>\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP 200 OK\r\n\r\n",
        b"200 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 -200 OK\r\n\r\n",
        b"HTTP/1.1 000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        // Section 6.3: the length.
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok!",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        // Section 5: field lines.
        b"HTTP/1.1 200 OK\r\nX-A: b\0c\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\0\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\rX\r\nContent-Length: 2\r\n\r\nok",
    ];
    let faults = Faults::default();
    for bytes in table {
        let what = bytes.escape_ascii().to_string();
        let (origin, gateway) = in_front_of(Answer::raw(bytes).then(Step::Close)).await;
        let mut client = gateway.wire().await;
        client.send(GET).await;
        let reply = client.reply().await;
        faults.unless(reply.status() == 502, || format!("{what}: {reply:?}"));
        assert_eq!(origin.targets(), ["/attack"], "{what}: sent once");
        others_are_served(&what, &gateway).await;
    }
}

/// RFC 9112 section 5.2 leaves a proxy the choice of 502 or a space.
#[tokio::test]
async fn a_folded_line_of_a_backend_is_unfolded_or_refused() {
    let answer = Answer::raw("HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok");
    let (_origin, gateway) = in_front_of(answer).await;
    let mut client = gateway.wire().await;
    client.send(GET).await;
    let reply = client.reply().await;
    assert!(reply.status() == 502 || reply.header("x-a").is_some_and(|v| v.starts_with("b")));
    assert!(!reply.head.text().contains("\r\n "), "{reply:?}");
    others_are_served("a folded line", &gateway).await;
}

#[tokio::test]
async fn a_backend_that_leaves_before_it_answers_is_a_bad_gateway() {
    for (what, answer) in [
        ("closed", Answer::close()),
        ("reset", Answer::reset()),
        ("closed in the status line", Answer::raw("HTTP/1.1 2").then(Step::Close)),
        ("closed in the head", Answer::raw("HTTP/1.1 200 OK\r\nX-A: b").then(Step::Close)),
        ("reset in the head", Answer::raw("HTTP/1.1 200 OK\r\n").then(Step::Reset)),
    ] {
        let (origin, gateway) = in_front_of(answer).await;
        for method in ["GET", "POST"] {
            let before = origin.requests().len();
            let mut client = gateway.wire().await;
            let lines = "Host: shop.test\r\nContent-Length: 0\r\n\r\n";
            client.send(format!("{method} /attack HTTP/1.1\r\n{lines}")).await;
            assert_eq!(client.reply().await.status(), 502, "{what}, {method}");
            let tries = origin.requests().len() - before;
            // A fresh connection that fails is no stale one; one retry of a GET would be allowed.
            assert!(tries == 1 || tries == 2 && method == "GET", "{what}, {method}: {tries} tries");
        }
        others_are_served(what, &gateway).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_is_seen_to_be_cut() {
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let table = [
        ("length", "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf".to_owned()),
        ("between chunks", chunk.to_owned()),
        ("in a chunk", format!("{chunk}5\r\nab")),
        ("in a size", format!("{chunk}5")),
        ("before the last line", format!("{chunk}0\r\n")),
        ("a broken chunk", format!("{chunk}xyz\r\n")),
    ];
    let faults = Faults::default();
    for (what, bytes) in table {
        for last in [Step::Close, Step::Reset] {
            let ending = format!("{what}, {last:?}");
            // A moment for the bytes to arrive: a reset overtakes what was not read yet.
            let pause = Step::Wait(Duration::from_millis(50));
            let answer = Answer::raw(bytes.clone()).then(pause).then(last);
            let (_origin, gateway) = in_front_of(answer).await;
            let mut client = gateway.wire().await;
            client.send(GET).await;
            let reply = soon("an answer or the end", client.try_reply_to("GET")).await;
            // Who is quick to see it may not have begun to answer.
            let cut = reply.as_ref().is_none_or(|reply| !reply.complete || reply.status() == 502);
            faults.unless(cut, || format!("{ending}: {reply:?}"));

            let mut h2 = H2::connect(&gateway).await;
            h2.frame(&Frame::get(1, "/attack")).await;
            let outcome = h2.outcome(1).await;
            let cut = matches!(outcome, Outcome::Cut { .. } | Outcome::Reset(_))
                || outcome.status() == Some(502);
            faults.unless(cut, || format!("{ending} by HTTP/2: {outcome:?}"));
            h2.frame(&Frame::get(3, "/next")).await;
            assert_eq!(h2.outcome(3).await.status(), Some(200), "{ending}: the connection lives");
            others_are_served(&ending, &gateway).await;
        }
    }
}

/// RFC 9112 section 9.2: what was not asked for is nobody's answer.
#[tokio::test]
async fn what_stands_behind_an_answer_is_given_to_nobody() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let good = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let table = [
        ("bytes behind the body", format!("{good}xxxx")),
        ("two answers", format!("{good}{evil}")),
        (
            "an answer behind chunks",
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{evil}"
            ),
        ),
        ("a body of 204", format!("HTTP/1.1 204 No\r\nContent-Length: 42\r\n\r\n{evil}")),
        (
            "chunks of 204",
            "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n".into(),
        ),
        ("a body of 304", format!("HTTP/1.1 304 No\r\nContent-Length: 42\r\n\r\n{evil}")),
        (
            "chunks of 304",
            "HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n".into(),
        ),
    ];
    for (what, bytes) in table {
        let (_origin, gateway) = in_front_of(Answer::raw(bytes)).await;
        for _ in 0..3 {
            let reply = gateway.get("http://shop.test/attack").await;
            assert!(matches!(reply.status(), 200 | 204 | 304 | 502), "{what}: {reply:?}");
            assert!(!reply.text().contains("evil"), "{what}: {reply:?}");
            others_are_served(what, &gateway).await;
        }
    }
}

#[tokio::test]
async fn the_body_of_an_answer_to_head_is_given_to_nobody() {
    let bytes = "HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let (_origin, gateway) = in_front_of(Answer::raw(bytes)).await;
    for _ in 0..3 {
        let mut client = gateway.wire().await;
        let lines = "Host: shop.test\r\nConnection: close\r\n\r\n";
        client.send(format!("HEAD /attack HTTP/1.1\r\n{lines}")).await;
        let reply = client.reply_to("HEAD").await;
        assert_eq!(reply.head.length(), Some(42));
        assert_eq!(client.rest().await, b"");
        others_are_served("a body of HEAD", &gateway).await;
    }
}

#[tokio::test]
async fn what_an_idle_connection_says_is_given_to_nobody() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let ask = async |path: &str| {
        let mut client = gateway.wire().await;
        client
            .send(format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n"))
            .await;
        client.reply().await
    };
    let serve = async {
        let mut first = backend.accept().await;
        first.request().await.unwrap();
        first.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none").await;
        first
    };
    let (reply, mut first) = tokio::join!(ask("/one"), serve);
    assert_eq!(reply.text(), "one");
    first.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await;
    // The gateway reads it, and has no use for this connection any more.
    assert_eq!(first.rest().await, b"");
    let serve = async {
        let mut second = backend.accept().await;
        second.request().await.unwrap();
        second.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo").await;
        second
    };
    let (reply, _second) = tokio::join!(ask("/two"), serve);
    assert_eq!(reply.text(), "two");
}

/// RFC 9110 section 15.2: interim answers are passed over or on, and are few.
#[tokio::test]
async fn interim_answers_are_few_and_none_is_the_answer() {
    let good = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n";
    for (what, bytes) in [
        ("100 that nobody waits for", format!("HTTP/1.1 100 Continue\r\n\r\n{good}")),
        ("102", format!("HTTP/1.1 102 Processing\r\n\r\n{good}")),
        ("103", format!("{hints}{good}")),
        ("8 of them", format!("{}{good}", hints.repeat(8))),
    ] {
        let (_origin, gateway) = in_front_of(Answer::raw(bytes)).await;
        let mut client = gateway.wire().await;
        client.send(GET).await;
        assert_eq!(client.reply().await.text(), "ok", "{what}");
        let mut http2 = gateway.http2("shop.test").await;
        assert_eq!(http2.get("https://shop.test/attack").await.text(), "ok", "{what}");
        others_are_served(what, &gateway).await;
    }
    let (origin, gateway) = in_front_of(Answer::raw(hints.repeat(10_000) + good)).await;
    let mut client = gateway.wire().await;
    client.send(GET).await;
    assert_eq!(client.reply().await.status(), 502, "a flood of them");
    origin.is_left_alone().await;
    others_are_served("a flood of 103", &gateway).await;
}

#[tokio::test]
async fn a_head_without_end_is_a_bad_gateway() {
    let field = "X-Field: 0123456789012345678901234567890123456789\r\n";
    for (what, bytes) in [
        ("one of 4 MiB", format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "a".repeat(4 << 20))),
        ("20,000 fields", format!("HTTP/1.1 200 OK\r\n{}\r\n", field.repeat(20_000))),
        ("a reason of 1 MiB", format!("HTTP/1.1 200 {}\r\n\r\n", "a".repeat(1 << 20))),
        ("no end", format!("HTTP/1.1 200 OK\r\n{}", field.repeat(40_000))),
    ] {
        let backend = Backend::bind().await;
        let gateway = Gateway::in_front_of(backend.address).await;
        let before = gateway.process().resident_kib();
        let mut client = gateway.wire().await;
        client.send(GET).await;
        let mut origin = backend.accept().await;
        origin.request().await.unwrap();
        for part in bytes.as_bytes().chunks(16 << 10) {
            if soon("the gateway reads or closes", origin.push(part)).await.is_err() {
                break;
            }
        }
        assert_eq!(client.reply().await.status(), 502, "{what}");
        let grown = gateway.process().resident_kib().saturating_sub(before);
        assert!(grown < 16 << 10, "{what}: {grown} KiB more");
    }
}

#[tokio::test]
async fn a_backend_that_connects_and_says_nothing_times_out() {
    let (origin, gateway) = {
        let origin = Origin::scripted(|seen| match seen.target().as_str() {
            "/attack" => Answer::raw("HTTP/1.1 200 OK\r\nX-A").then(Step::Hang),
            path => Answer::ok(path),
        })
        .await;
        let routes = serve_all("shop", "shop.test", &[origin.address])
            .replace("    - matches:", "    - timeouts: {request: 500ms}\n      matches:");
        let gateway = Gateway::setup().file("routes/shop.yaml", &routes).start().await;
        (origin, gateway)
    };
    let begin = clock();
    let mut http2 = gateway.http2("shop.test").await;
    let request = Request::get("https://shop.test/attack").body(empty()).unwrap();
    assert_eq!(http2.fetch(request).await.unwrap().status, 504);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    until("its connection is closed", || origin.open() == 0).await;
    others_are_served("half a head", &gateway).await;
}
