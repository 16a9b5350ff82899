//! Bytes that a backend receives.

use http::Version;

use crate::body::{Body, Request};
use crate::upstream::failure::FailureKind;
use crate::upstream::pool;
use crate::upstream::testing::{
    Fields, Origin, cluster, collect, data, frames, get, reports, request, soon,
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Returns the bytes of a request that the backend received, and the result of the exchange.
async fn received(request: Request, length: usize) -> (String, Result<u16, FailureKind>) {
    let (tell, mut told) = reports();
    let origin = Origin::new(move |_, mut peer| {
        let tell = tell.clone();
        async move {
            // An exchange that breaks off sends less than `length`, and closes.
            let mut bytes = vec![0; length];
            let mut filled = 0;
            while filled < length {
                match tokio::io::AsyncReadExt::read(&mut peer.0, &mut bytes[filled..]).await {
                    Ok(count @ 1..) => filled += count,
                    _ => break,
                }
            }
            if filled == length {
                peer.write(OK).await;
            }
            bytes.truncate(filled);
            let rest = peer.rest().await;
            tell.send(String::from_utf8(bytes).unwrap() + &rest).unwrap();
        }
    })
    .await;
    let cluster = cluster(&[origin.address]);
    let outcome = match soon(cluster.send(request)).await {
        Ok(answer) => Ok(answer.response.status().as_u16()),
        Err(failure) => Err(failure.kind),
    };
    // Closes an idle connection, so that the backend sees its end.
    let idle_timeout = u64::try_from(cluster.settings().idle_timeout.as_millis()).unwrap();
    pool::sweep(crate::clock::coarse_now() + idle_timeout);
    (told.next().await, outcome)
}

#[tokio::test]
async fn a_request_is_framed_once_and_sent_whole() {
    let known = || Body::from_bytes("hello");
    let unknown = || frames([data("hel"), data(""), data("lo")]);
    let trailed = || {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("5"));
        frames([data("hello"), Ok(http_body::Frame::trailers(trailers))])
    };
    // (method, fields, body, the backend's bytes)
    let table: [(&str, &Fields, Body, &str); 12] = [
        ("GET", &[], Body::Empty, "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n"),
        (
            "GET",
            &[("content-length", "0")],
            Body::Empty,
            "GET / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 0\r\n\r\n",
        ),
        ("POST", &[], Body::Empty, "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 0\r\n\r\n"),
        ("DELETE", &[], Body::Empty, "DELETE / HTTP/1.1\r\nhost: a.test\r\n\r\n"),
        ("POST", &[], known(), "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\n\r\nhello"),
        (
            "POST",
            &[("content-length", "05")],
            unknown(),
            "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\n\r\nhello",
        ),
        (
            "POST",
            &[],
            unknown(),
            "POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n\
             3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        ),
        (
            "GET",
            &[],
            unknown(),
            "GET / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n\
             3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        ),
        // A body that turns out to be empty.
        (
            "POST",
            &[],
            frames([]),
            "POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        // Trailers are not permitted after a body with a length, and are dropped after chunks.
        (
            "POST",
            &[("content-length", "5")],
            trailed(),
            "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\n\r\nhello",
        ),
        (
            "POST",
            &[],
            trailed(),
            "POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "GET",
            &[("x-b", "1"), ("cookie", "a=\u{e9}"), ("x-b", "2"), ("transfer-encoding", "gzip")],
            Body::Empty,
            "GET / HTTP/1.1\r\nhost: a.test\r\nx-b: 1\r\nx-b: 2\r\ncookie: a=\u{e9}\r\n\r\n",
        ),
    ];
    for (method, fields, body, want) in table {
        let (bytes, outcome) = received(request(method, fields, body), want.len()).await;
        assert_eq!(bytes, want);
        assert_eq!(outcome, Ok(200), "{want:?}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_its_promise_is_never_completed() {
    let gone = || Err("client gone".into());
    // (content-length, body, bytes of the body that the backend may receive)
    let table = [
        ("10", frames([data("hello")]), "hello"),
        ("4", frames([data("hello")]), ""),
        ("5", frames([data("hello"), data("!")]), ""),
        ("8", frames([data("hello"), data("wor"), data("ld")]), "hello"),
        ("10", frames([data("hello"), gone()]), "hello"),
        ("5", frames([data("hello"), gone()]), ""),
        ("0", frames([data("hello")]), ""),
        // Chunked: no last chunk.
        ("", frames([data("hello"), gone()]), "5\r\nhello\r\n"),
    ];
    for (length, body, most) in table {
        let fields: &[(&str, &str)] =
            if length.is_empty() { &[] } else { &[("content-length", length)] };
        let (bytes, outcome) = received(request("POST", fields, body), 1000).await;
        assert_eq!(outcome, Err(FailureKind::RequestBody), "{length} {bytes:?}");
        let seen = bytes.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(most.starts_with(seen), "{length}: {seen:?}");
    }
}

#[tokio::test]
async fn a_length_without_a_body_does_not_even_connect() {
    let origin = Origin::answering(OK).await;
    let cluster = cluster(&[origin.address]);
    // (request, kind)
    let table = [
        (request("POST", &[("content-length", "5")], Body::Empty), FailureKind::RequestBody),
        (
            request("POST", &[("content-length", "5"), ("content-length", "5")], frames([])),
            FailureKind::InvalidRequest("content-length twice"),
        ),
        (
            request("CONNECT", &[], Body::Empty),
            FailureKind::InvalidRequest("CONNECT has no place at a backend"),
        ),
    ];
    for (request, want) in table {
        assert_eq!(soon(cluster.send(request)).await.unwrap_err().kind, want);
    }
    assert_eq!(origin.accepted(), 0);
}

#[tokio::test]
async fn a_request_from_http2_is_an_ordinary_one() {
    let mut request = Request::new(Body::Empty);
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = "https://a.test:8443/x?y".parse().unwrap();
    let want = "GET /x?y HTTP/1.1\r\nhost: a.test:8443\r\n\r\n";
    let (bytes, outcome) = received(request, want.len()).await;
    assert_eq!(bytes, want);
    assert_eq!(outcome, Ok(200));
}

#[tokio::test]
async fn the_buffers_of_a_connection_hold_nothing_of_the_last_request() {
    let (tell, mut told) = reports();
    let origin = Origin::new(move |_, mut peer| {
        let tell = tell.clone();
        async move {
            while let Some(head) = peer.head().await {
                tell.send(head).unwrap();
                peer.write("HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 2\r\n\r\nhi").await;
            }
        }
    })
    .await;
    let cluster = cluster(&[origin.address]);
    for fields in [&[("x-long", "0123456789")][..], &[], &[("x-b", "1")]] {
        let answer = soon(cluster.send(request("GET", fields, Body::Empty))).await.unwrap();
        assert_eq!(answer.response.headers().len(), 2);
        collect(answer.response.into_body()).await.unwrap();
    }
    assert_eq!(told.next().await, "GET / HTTP/1.1\r\nhost: a.test\r\nx-long: 0123456789\r\n\r\n");
    assert_eq!(told.next().await, "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert_eq!(told.next().await, "GET / HTTP/1.1\r\nhost: a.test\r\nx-b: 1\r\n\r\n");
    assert_eq!(origin.accepted(), 1);
    soon(cluster.send(get())).await.unwrap();
}
