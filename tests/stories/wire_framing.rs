//! HTTP/1.1, hostile clients: where one request ends and the next begins (RFC 9112 sections 6, 7).

use std::time::Duration;

use crate::support::{
    Backend, Gateway, Origin, Reply, Target, refusing_address, replies, serve_all, soon,
};

/// Refused before a backend is spoken to.
const REFUSED: &[u16] = &[400];
/// Also 501, for a coding that is known to be one.
const REFUSED_CODING: &[u16] = &[400, 501];
/// The head may have gone to the backend already; then closing says it as well.
const REFUSED_LATE: &[u16] = &[400, 0];

fn post(lines: &[u8], body: &[u8]) -> Vec<u8> {
    [b"POST /attack HTTP/1.1\r\nHost: shop.test\r\n", lines, b"\r\n", body].concat()
}

fn chunked(body: &[u8]) -> Vec<u8> {
    post(b"Transfer-Encoding: chunked\r\n", body)
}

#[tokio::test]
async fn a_length_beside_chunks_is_refused() {
    let target = Target::start().await;
    let table: [&[u8]; 5] = [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
    ];
    for lines in table {
        let what = String::from_utf8_lossy(lines);
        target.refuses(&what, &post(lines, b"0\r\n\r\n"), REFUSED_CODING).await;
    }
}

/// Every request of a connection, and not the first alone: behind another one in the same write, on a
/// connection that was kept open, behind bodies of both kinds, behind an empty line.
#[tokio::test]
async fn a_length_beside_chunks_is_refused_wherever_it_comes() {
    let target = Target::start().await;
    let twofold = post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n");
    let get = b"GET /canary/first HTTP/1.1\r\nHost: shop.test\r\n\r\n".to_vec();
    let sized = b"POST /canary/first HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nhello";
    let chunks =
        b"POST /canary/first HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5;a=b\r\nhello\r\n0\r\n\r\n";
    // (what comes before it, requests)
    let table: [(&[u8], usize); 6] = [
        (b"\r\n", 0),
        (&get, 1),
        (&[get.clone(), b"\r\n".to_vec(), get.clone()].concat(), 2),
        (sized, 1),
        (chunks, 1),
        (&[&sized[..], chunks, sized].concat(), 3),
    ];
    for (before, count) in table {
        let what = before.escape_ascii().to_string();
        // In one write, and after the answers to what is before.
        for at_once in [true, false] {
            let reached = target.origin.targets().len();
            let mut wire = target.gateway.wire().await;
            if at_once {
                wire.send([before, &twofold].concat()).await;
            } else {
                wire.send(before).await;
            }
            for _ in 0..count {
                assert_eq!(wire.reply().await.status(), 200, "{what}");
            }
            if !at_once {
                wire.send(&twofold).await;
            }
            let reply = soon("an answer", wire.try_reply_to("POST")).await;
            let refused = reply.as_ref().is_some_and(|reply| {
                reply.status() == 400 && reply.text() == "the request says its length twice\n"
            });
            target.faults.unless(refused, || format!("{what}, {at_once}: {reply:?}"));
            wire.rest().await;
            let reached = target.origin.targets().split_off(reached);
            target.faults.unless(reached.len() == count, || format!("{what}: {reached:?}"));
        }
    }
    // What looks like such a head within a body is a body.
    let inner = String::from_utf8_lossy(&twofold).into_owned();
    let length = inner.len();
    for body in [
        format!("Content-Length: {length}\r\n\r\n{inner}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{inner}\r\n0\r\n\r\n"),
    ] {
        let mut wire = target.gateway.wire().await;
        let bytes = format!("POST /canary/body HTTP/1.1\r\nHost: shop.test\r\n{body}");
        wire.send(format!("{bytes}GET /canary/next HTTP/1.1\r\nHost: shop.test\r\n\r\n")).await;
        assert_eq!(wire.reply().await.status(), 200, "{body}");
        assert_eq!(target.origin.last().text(), inner);
        assert_eq!(wire.reply().await.status(), 200, "{body}");
    }
}

#[tokio::test]
async fn a_coding_that_is_not_chunked_alone_is_refused() {
    let target = Target::start().await;
    let table: [&[u8]; 24] = [
        b"xchunked",
        b"chunkedx",
        b"\"chunked\"",
        b"'chunked'",
        b"chunked;q=1",
        b"chunked ;x",
        b"identity",
        b"gzip",
        b"deflate",
        b"gzip, chunked",
        b"chunked, gzip",
        b"chunked, identity",
        b"chunked, chunked",
        b",chunked,,x",
        b"chunked\0",
        b"\0chunked",
        b"\x0bchunked",
        b"chunked\x0b",
        b"\x0cchunked",
        b"\xa0chunked",
        b"chunked\xff",
        b"ch\x00unked",
        b"c hunked",
        b"",
    ];
    for coding in table {
        let lines = [b"Transfer-Encoding: ", coding, b"\r\n"].concat();
        let what = format!("`{}`", coding.escape_ascii());
        target.refuses(&what, &post(&lines, b"0\r\n\r\n"), REFUSED_CODING).await;
    }
    for lines in [
        &b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"[..],
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer\xad-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"\x0bTransfer-Encoding: chunked\r\n",
        b"X: y\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n",
    ] {
        let what = lines.escape_ascii().to_string();
        target.refuses(&what, &post(lines, b"0\r\n\r\n"), REFUSED_CODING).await;
    }
}

/// RFC 9112 section 7: names of codings are not case-sensitive; a list may have empty members.
#[tokio::test]
async fn chunked_is_chunked_however_it_is_written() {
    let target = Target::start().await;
    for coding in ["chunked", "CHUNKED", "Chunked", " \tchunked\t ", ",chunked", "chunked,"] {
        let lines = format!("Transfer-Encoding:{coding}\r\n");
        let bytes = post(lines.as_bytes(), b"3\r\nabc\r\n0\r\n\r\n");
        let Some(seen) = target.passes_or_refuses(coding, &bytes).await else { continue };
        assert_eq!(seen.text(), "abc", "`{coding}`");
        assert_eq!(seen.header("transfer-encoding").as_deref(), Some("chunked"), "`{coding}`");
        assert!(!seen.head.has("content-length"), "`{coding}`");
    }
}

/// CVE-2026-2835: HTTP/1.0 has no chunks, so whoever sends some means to confuse.
#[tokio::test]
async fn http_10_with_chunks_never_reaches_the_backend_as_such() {
    let target = Target::start().await;
    let before = target.origin.requests().len();
    let bytes = b"POST /attack HTTP/1.0\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\
                  Connection: keep-alive\r\n\r\n0\r\n\r\n";
    let answers = target.attack(bytes).await.expect("the connection ends");
    assert!(answers.len() < 2, "{answers:?}");
    for seen in target.origin.seen().split_off(before) {
        assert!(!seen.head.has("transfer-encoding") && seen.body.is_empty(), "{seen:?}");
    }
    target.is_unharmed("chunks in HTTP/1.0").await;
}

#[tokio::test]
async fn a_length_that_is_no_number_is_refused() {
    let target = Target::start().await;
    let table: [&[u8]; 24] = [
        b"+5",
        b"-5",
        b"-0",
        b"0x5",
        b"5x",
        b"5,",
        b",5",
        b"5;",
        b"5 5",
        b"5, 6",
        b"5,6",
        b"5.0",
        b"1e1",
        b"5_0",
        b"\"5\"",
        b"",
        b" ",
        b"five",
        b"5\0",
        b"\x0b5",
        b"\xd9\xa5",
        b"9223372036854775808",
        b"18446744073709551616",
        b"99999999999999999999999999999",
    ];
    for value in table {
        let lines = [b"Content-Length: ", value, b"\r\n"].concat();
        let what = format!("`{}`", value.escape_ascii());
        target.refuses(&what, &post(&lines, b"hello"), &[400, 413]).await;
    }
    for lines in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 6\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nX: y\r\ncontent-length: 0\r\n",
        "Content-Length: 5\r\nContent-Length: 5, 6\r\n",
        "Content-Length: 5\r\nContent-Length:\r\n",
        "Content-Length : 5\r\n",
        "Content-Length\r\n",
        "Content-Length: 5\r\n 0\r\n",
    ] {
        target.refuses(lines, &post(lines.as_bytes(), b"hello"), REFUSED).await;
    }
}

/// RFC 9112 section 6.3: equal lengths may be taken as one, and then one travels on.
#[tokio::test]
async fn of_several_equal_lengths_the_backend_sees_one_at_most() {
    let target = Target::start().await;
    for lines in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5,5\r\nContent-Length: 5\r\n",
    ] {
        let bytes = post(lines.as_bytes(), b"hello");
        let Some(seen) = target.passes_or_refuses(lines, &bytes).await else { continue };
        assert_eq!(seen.header("content-length").as_deref(), Some("5"), "{lines}");
        assert_eq!(seen.text(), "hello", "{lines}");
    }
}

#[tokio::test]
async fn a_length_travels_on_in_its_canonical_form() {
    let target = Target::start().await;
    for (written, number, body) in
        [("05", "5", "hello"), ("0005", "5", "hello"), ("00", "0", ""), ("5  ", "5", "hello")]
    {
        let lines = format!("Content-Length:  {written}\r\n");
        let bytes = post(lines.as_bytes(), body.as_bytes());
        let Some(seen) = target.passes_or_refuses(&lines, &bytes).await else { continue };
        assert_eq!(seen.header("content-length").unwrap_or_else(|| "0".into()), number, "{lines}");
        assert_eq!(seen.text(), body, "{lines}");
    }
}

#[tokio::test]
async fn a_chunk_size_that_is_none_is_refused() {
    let target = Target::start().await;
    let table: [&[u8]; 22] = [
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"\t5\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b";x\r\nhello\r\n0\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"5g\r\nhello\r\n0\r\n\r\n",
        b"5.\r\nhello\r\n0\r\n\r\n",
        b"\"5\"\r\nhello\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"5\0\r\nhello\r\n0\r\n\r\n",
        b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n",
        b"10000000000000000\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0x0\r\n\r\n",
        b"5\r\nhello\r\n-1\r\n\r\n",
        b"5\r\nhello\r\n\r\n\r\n",
        b"5\r\nhello\r\nx\r\n\r\n",
    ];
    for body in table {
        let what = body.escape_ascii().to_string();
        target.refuses(&what, &chunked(body), REFUSED_LATE).await;
    }
}

/// Sizes that are numbers, and negative ones to who counts with a sign. Nobody can send so much, so
/// refusing at once and waiting for it come to the same, as long as the size itself stays here.
#[tokio::test]
async fn a_chunk_size_beyond_every_body_is_not_passed_on() {
    for size in ["7fffffffffffffff", "8000000000000000", "ffffffffffffffff"] {
        let backend = Backend::bind().await;
        let gateway = Gateway::in_front_of(backend.address).await;
        let mut client = gateway.wire().await;
        let body = format!("{size}\r\nhello\r\n0\r\n\r\n");
        client.send(chunked(body.as_bytes())).await;
        client.finish().await;
        let reply = soon("an answer or the end", client.try_reply_to("POST")).await;
        assert!(reply.is_none_or(|reply| reply.status() >= 400), "{size}");
        // What reached the backend is no whole request, and has only the sizes of what came.
        let Some(mut origin) = backend.accept_within(Duration::from_millis(100)).await else {
            continue;
        };
        let sent = origin.rest().await.to_ascii_lowercase();
        let holds = |part: &[u8]| sent.windows(part.len()).any(|window| window == part);
        assert!(!holds(size.as_bytes()), "{}", sent.escape_ascii());
        assert!(!sent.ends_with(b"\r\n0\r\n\r\n"), "{}", sent.escape_ascii());
    }
}

#[tokio::test]
async fn a_chunk_that_does_not_end_where_it_says_is_refused() {
    let target = Target::start().await;
    let table: [&[u8]; 12] = [
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello world\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhell\r\n0\r\n\r\n",
        b"5\r\nhello\rX0\r\n\r\n",
        b"5\r\nhello\r\r\n0\r\n\r\n",
        b"5\rXhello\r\n0\r\n\r\n",
        b"5\r\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\rX\r\n",
        b"5\r\nhello\r\n0\r\nXX",
        b"0\r\nX\r\n\r\n",
        b"0\r\n\rX",
    ];
    for body in table {
        let what = body.escape_ascii().to_string();
        target.refuses(&what, &chunked(body), REFUSED_LATE).await;
    }
}

/// RFC 9112 section 2.2 lets a bare LF end a line of the head, not of a chunk ("funky chunks").
#[tokio::test]
async fn a_bare_lf_does_not_end_a_line_of_a_chunk() {
    let target = Target::start().await;
    let table: [&[u8]; 7] = [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r\n0\n\r\n",
        b"5\r\nhello\r\n0\n\n",
        b"5;x\nhello\r\n0\r\n\r\n",
        b"5;\nxx\r\nhello\r\n0\r\n\r\n",
        b"2;\nxx\r\n4a\r\n0\r\n\r\n",
    ];
    for body in table {
        let what = body.escape_ascii().to_string();
        target.refuses(&what, &chunked(body), REFUSED_LATE).await;
    }
}

/// In trailers it does to some, so whatever stands behind trailers is not read at all.
#[tokio::test]
async fn nothing_is_read_behind_trailers() {
    let target = Target::start().await;
    for body in [&b"0\r\nX: y\n\r\n"[..], b"0\r\nX: y\r\n\r\n"] {
        let replies = target.attack(&chunked(body)).await.expect("the connection ends");
        assert!(replies.len() < 2, "{replies:?}");
        target.is_unharmed(&body.escape_ascii().to_string()).await;
    }
}

#[tokio::test]
async fn chunk_extensions_stay_here() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let mut client = gateway.wire().await;
    client.send(chunked(b"5;a=b;c=\"d;e\"\r\nhello\r\n3 ; x\r\n wo\r\n0;last\r\n\r\n")).await;
    let mut origin = backend.accept().await;
    let head = soon("a head", origin.head()).await.unwrap();
    let raw = soon("the end", origin.through(b"0\r\n\r\n")).await;
    // `3 ; x` may be refused; then the end never comes.
    let raw = raw.unwrap_or_else(|| origin.ahead().to_vec());
    assert!(!raw.contains(&b';') && !raw.contains(&b'='), "{}", raw.escape_ascii());
    assert!(head.is_chunked(), "{head:?}");
}

/// CVE-2023-39326: extensions cost the reader and say nothing.
#[tokio::test]
async fn chunk_extensions_without_end_are_refused() {
    let target = Target::start().await;
    let one = [&b"1;"[..], &[b'x'; 64 << 10], b"\r\na\r\n0\r\n\r\n"].concat();
    target.refuses("one of 64 KiB", &chunked(&one), REFUSED_LATE).await;
    let many = b"1;xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\na\r\n".repeat(2_000);
    let many = [&many[..], b"0\r\n\r\n"].concat();
    target.refuses("2,000 of 32 bytes", &chunked(&many), REFUSED_LATE).await;
}

#[tokio::test]
async fn trailers_never_become_headers() {
    let target = Target::start().await;
    let body = b"5\r\nhello\r\n0\r\nX-Checksum: 1\r\nContent-Length: 3\r\nHost: evil.test\r\n\
                 Transfer-Encoding: gzip\r\nX-Forwarded-For: 6.6.6.6\r\nAuthorization: x\r\n\r\n";
    let bytes = post(b"Transfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n", body);
    if let Some(seen) = target.passes_or_refuses("trailers", &bytes).await {
        assert_eq!(seen.text(), "hello");
        let head = seen.head.text().to_lowercase();
        assert!(!head.contains("x-checksum:") && !head.contains("evil"), "{head}");
        assert!(!head.contains("6.6.6.6") && !head.contains("authorization"), "{head}");
        assert!(!seen.head.has("content-length"), "{head}");
        let trailers = String::from_utf8_lossy(&seen.trailers).to_lowercase();
        for name in ["content-length", "host", "transfer-encoding", "x-forwarded-for"] {
            assert!(!trailers.contains(name), "{trailers}");
        }
    }

    let broken = post(b"Transfer-Encoding: chunked\r\n", b"0\r\nno colon here\r\n\r\n");
    target.refuses("a trailer line that is none", &broken, REFUSED_LATE).await;
    let endless = [&b"0\r\n"[..], &b"X-Trailer: 0123456789\r\n".repeat(20_000), b"\r\n"].concat();
    target.refuses("trailers without end", &chunked(&endless), &[400, 431, 0]).await;
}

/// RFC 9112 section 9.3, CVE-2025-4366: the body of a request that the gateway answers itself.
#[tokio::test]
async fn the_body_of_a_request_that_goes_nowhere_is_no_request() {
    let shop = Origin::replying("ok").await;
    let routes = serve_all("shop", "shop.test", &[shop.address])
        + &serve_all("dead", "blog.test", &[refusing_address()]);
    let gateway = Gateway::setup().file("routes/shop.yaml", &routes).start().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    let length = smuggled.len();
    let next = "GET /next HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";

    // (host, status of the answer)
    for (host, status) in [("nobody.test", 404), ("blog.test", 503)] {
        for method in ["POST", "GET", "DELETE"] {
            let head = format!("{method} / HTTP/1.1\r\nHost: {host}\r\n");
            for body in [
                format!("Content-Length: {length}\r\n\r\n{smuggled}"),
                format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{smuggled}\r\n0\r\n\r\n"),
            ] {
                let answer = gateway.raw(format!("{head}{body}{next}")).await;
                let answers = replies(&answer).await;
                let statuses: Vec<_> = answers.iter().map(Reply::status).collect();
                assert!(statuses == [status] || statuses == [status, 200], "{statuses:?}");
                let targets = shop.targets();
                assert!(
                    targets.iter().all(|target| target == "/next"),
                    "{head}{body}: {targets:?}"
                );
            }
        }
    }
}

/// CL.0: a request whose body the backend does not care for has one all the same.
#[tokio::test]
async fn a_body_with_a_method_that_has_none_is_still_a_body() {
    let target = Target::start().await;
    let inner = "GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        let length = inner.len();
        let bytes = format!(
            "{method} /with-body HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{inner}"
        );
        let mut wire = target.gateway.wire().await;
        wire.send(&bytes).await;
        let reply = wire.reply_to(method).await;
        assert!(matches!(reply.status(), 200 | 400), "{method}: {reply:?}");
        if reply.status() == 200 {
            let seen = target.origin.last();
            assert_eq!((seen.target().as_str(), seen.text().as_str()), ("/with-body", inner));
        }
        target.is_unharmed(method).await;
    }
}
