//! Responses that a backend may send, and their results.

use http::StatusCode;

use crate::body::Body;
use crate::upstream::failure::{BodyFault, FailureKind};
use crate::upstream::pool;
use crate::upstream::testing::{Origin, cluster, collect, get, reports, request, soon};

/// Returns a backend that answers one request with these bytes and then closes, or stays open.
async fn playing(response: impl Into<Vec<u8>>, close: bool) -> Origin {
    let response = response.into();
    Origin::new(move |_, mut peer| {
        let response = response.clone();
        async move {
            peer.head().await;
            peer.write(response).await;
            if !close {
                peer.rest().await;
            }
        }
    })
    .await
}

const CLOSE: bool = true;
const HOLD: bool = false;

#[tokio::test]
async fn a_whole_response_arrives_and_its_connection_rests_if_it_may() {
    // (method, bytes, backend closes, status, body, idle connections afterwards)
    let table = [
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", HOLD, 200, "hi", 1),
        ("GET", "HTTP/1.1 404\r\ncontent-length: 0\r\n\r\n", HOLD, 404, "", 1),
        ("GET", "HTTP/1.1 204 No\r\n\r\n", HOLD, 204, "", 1),
        ("GET", "HTTP/1.1 304 No\r\ncontent-length: 9\r\n\r\n", HOLD, 304, "", 1),
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", HOLD, 200, "", 1),
        ("HEAD", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", HOLD, 200, "", 1),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n1;x\r\n!\r\n0\r\n\r\n",
            HOLD,
            200,
            "hi!",
            1,
        ),
        // The backend announces the end of the connection.
        (
            "GET",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi",
            HOLD,
            200,
            "hi",
            0,
        ),
        ("GET", "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi", HOLD, 200, "hi", 0),
        // The body ends with the connection.
        ("GET", "HTTP/1.1 200 OK\r\n\r\nto the end", CLOSE, 200, "to the end", 0),
        ("GET", "HTTP/1.0 200 OK\r\n\r\nto the end", CLOSE, 200, "to the end", 0),
        // Interim responses are skipped.
        (
            "GET",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\n\
             HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            HOLD,
            200,
            "hi",
            1,
        ),
    ];
    for (method, bytes, close, status, body, rest) in table {
        let origin = playing(bytes, close).await;
        let cluster = cluster(&[origin.address]);
        let answer = soon(cluster.send(request(method, &[], Body::Empty))).await.expect(bytes);
        assert_eq!(answer.response.status(), status, "{bytes:?}");
        assert!(!answer.response.headers().contains_key("transfer-encoding"), "{bytes:?}");
        assert!(!answer.response.headers().contains_key("link"), "{bytes:?}");
        assert_eq!(answer.endpoint.to_string(), origin.address.to_string());
        assert!(answer.tunnel.is_none());
        assert_eq!(collect(answer.response.into_body()).await.expect(bytes).0, body, "{bytes:?}");
        assert_eq!(pool::resting(&cluster), rest, "{bytes:?}");
        assert_eq!(cluster.counts().sum(|of| &of.leftovers), 0, "{bytes:?}");
    }
}

#[tokio::test]
async fn bytes_behind_a_response_end_the_connection_and_reach_nobody() {
    // (method, bytes, body)
    let table = [
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi!", "hi"),
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ""),
        ("GET", "HTTP/1.1 204 No\r\n\r\nbody", ""),
        ("GET", "HTTP/1.1 304 No\r\n\r\nbody", ""),
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody", ""),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nmore",
            "hi",
        ),
    ];
    for (method, bytes, body) in table {
        let origin = playing(bytes, HOLD).await;
        let cluster = cluster(&[origin.address]);
        let answer = soon(cluster.send(request(method, &[], Body::Empty))).await.expect(bytes);
        assert_eq!(collect(answer.response.into_body()).await.expect(bytes).0, body, "{bytes:?}");
        assert_eq!(pool::resting(&cluster), 0, "{bytes:?}");
        assert_eq!(cluster.counts().sum(|of| &of.leftovers), 1, "{bytes:?}");
        assert_eq!(cluster.counts().sum(|of| &of.open), 0, "{bytes:?}");
    }
}

#[tokio::test]
async fn bytes_on_a_resting_connection_end_it_and_reach_nobody() {
    // A GET could be sent again; a POST must not meet the bytes at all.
    for method in ["GET", "POST"] {
        let (tell, mut told) = reports();
        let origin = Origin::new(move |number, mut peer| {
            let tell = tell.clone();
            async move {
                peer.head().await;
                peer.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
                if number == 0 {
                    tell.send("answered").unwrap();
                    peer.0.writable().await.unwrap();
                    peer.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await;
                    tell.send("spoilt").unwrap();
                }
                peer.rest().await;
            }
        })
        .await;
        let cluster = cluster(&[origin.address]);
        soon(cluster.send(get())).await.unwrap();
        assert_eq!(told.next().await, "answered");
        assert_eq!(told.next().await, "spoilt");
        let answer = soon(cluster.send(request(method, &[], Body::Empty))).await.unwrap();
        assert_eq!(collect(answer.response.into_body()).await.unwrap().0, "hi", "{method}");
        assert_eq!(origin.accepted(), 2, "{method}");
    }
}

#[tokio::test]
async fn what_is_no_response_is_a_failure_and_ends_the_connection() {
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nbody!");
    // (bytes, part of the reason)
    let table = [
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "not HTTP"),
        ("<html>".to_owned(), "not HTTP"),
        ("HTTP/2.0 200 OK\r\n\r\n".to_owned(), "1.0 or 1.1"),
        ("HTTP/1.1 2000 OK\r\n\r\n".to_owned(), "three digits"),
        ("HTTP/1.1 600 OK\r\n\r\n".to_owned(), "100..=599"),
        (head("content-length: 5\r\ncontent-length: 5"), "twice"),
        (head("content-length: 5, 5"), "not a number"),
        (head("content-length: +5"), "not a number"),
        (head("content-length: 5\r\ntransfer-encoding: chunked"), "content-length and"),
        (head("transfer-encoding: gzip, chunked"), "not `chunked`"),
        (head("transfer-encoding: chunked\r\ntransfer-encoding: chunked"), "not `chunked`"),
        (head("a: b\r\n c"), "no token"),
        (head("a: b\0"), "control byte"),
        (head("a: b\rc"), "control byte"),
        (head("a : b"), "no token"),
        (head(&"a: b\r\n".repeat(300)), "more than 256"),
        (head(&format!("a: {}", "b".repeat(70_000))), "64 KiB"),
        (format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(70_000)), "64 KiB"),
        ("HTTP/1.1 101 Switch\r\nupgrade: websocket\r\n\r\n".to_owned(), "nobody asked"),
        ("HTTP/1.1 100 Continue\r\n\r\n".repeat(9), "too many interim"),
    ];
    for (bytes, want) in table {
        let short = bytes[..bytes.len().min(60)].to_owned();
        let origin = playing(bytes, HOLD).await;
        let cluster = cluster(&[origin.address]);
        let failure = soon(cluster.send(get())).await.expect_err(&short);
        match failure.kind {
            FailureKind::InvalidResponse(why) => assert!(why.contains(want), "{short:?}: {why}"),
            other => panic!("{short:?}: {other}"),
        }
        assert_eq!(failure.endpoint.unwrap().socket_addr(), Some(origin.address));
        assert_eq!(cluster.counts().sum(|of| &of.open), 0, "{short:?}");
        assert_eq!(origin.accepted(), 1, "{short:?}: not tried again");
    }
}

#[tokio::test]
async fn eight_interim_responses_are_borne() {
    let bytes =
        "HTTP/1.1 102 Wait\r\n\r\n".repeat(8) + "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let origin = playing(bytes, HOLD).await;
    let answer = soon(cluster(&[origin.address]).send(get())).await.unwrap();
    assert_eq!(answer.response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_is_cut_or_broken_is_seen_to_be() {
    let chunked =
        |body: &str| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
    // (bytes, fault)
    let table = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello".to_owned(), "ended before"),
        (chunked("5\r\nhel"), "ended before"),
        (chunked("5\r\nhello\r\n"), "ended before"),
        (chunked("5\r\nhello\r\n0\r\n"), "ended before"),
        (chunked("5\r\nhello\r\n0x5\r\n"), "hexadecimal"),
        (chunked("5\r\nhello!\r\n0\r\n\r\n"), "longer than"),
        (chunked("5\nhello\r\n0\r\n\r\n"), "lone LF"),
        (chunked("zz\r\n"), "digits"),
        (chunked(&("5;".to_owned() + &"e".repeat(5000))), "too long"),
    ];
    for (bytes, want) in table {
        let origin = playing(bytes.clone(), CLOSE).await;
        let cluster = cluster(&[origin.address]);
        let answer = soon(cluster.send(get())).await.unwrap();
        let fault = collect(answer.response.into_body()).await.expect_err(&bytes);
        let fault = fault.downcast_ref::<BodyFault>().expect("the room's own fault").to_string();
        assert!(fault.contains(want), "{bytes:?}: {fault}");
        assert_eq!(pool::resting(&cluster), 0);
    }
}

#[tokio::test]
async fn trailers_come_after_the_body() {
    let origin = playing(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\
         x-sum: 7\r\nhost: evil\r\n\r\n",
        HOLD,
    )
    .await;
    let cluster = cluster(&[origin.address]);
    let answer = soon(cluster.send(get())).await.unwrap();
    let (body, trailers) = collect(answer.response.into_body()).await.unwrap();
    assert_eq!(body, "hi");
    assert_eq!(trailers.len(), 1);
    assert_eq!(trailers["x-sum"], "7");
    assert_eq!(pool::resting(&cluster), 1);
}

#[tokio::test]
async fn a_response_in_many_pieces_is_the_same_response() {
    let origin = Origin::new(|_, mut peer| async move {
        peer.head().await;
        let bytes = "HTTP/1.1 200 OK\r\nx-a: b\r\ntransfer-encoding: chunked\r\n\r\n\
                     5\r\nhello\r\n6\r\n world\r\n0\r\nx-sum: 11\r\n\r\n";
        for byte in bytes.as_bytes() {
            peer.write([*byte]).await;
            tokio::task::yield_now().await;
        }
        peer.rest().await;
    })
    .await;
    let cluster = cluster(&[origin.address]);
    let answer = soon(cluster.send(get())).await.unwrap();
    assert_eq!(answer.response.headers()["x-a"], "b");
    let (body, trailers) = collect(answer.response.into_body()).await.unwrap();
    assert_eq!(body, "hello world");
    assert_eq!(trailers["x-sum"], "11");
    assert_eq!(pool::resting(&cluster), 1);
}

#[tokio::test]
async fn fields_come_as_they_were_sent() {
    let origin = playing(
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX-Odd: \u{e9}\r\nset-cookie: b=2\r\n\
         Keep-Alive: timeout=5\r\nContent-Length: 002\r\n\r\nhi",
        HOLD,
    )
    .await;
    let answer = soon(cluster(&[origin.address]).send(get())).await.unwrap();
    let headers = answer.response.headers();
    let cookies: Vec<_> = headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(headers["x-odd"].as_bytes(), "\u{e9}".as_bytes());
    assert_eq!(headers["keep-alive"], "timeout=5", "hop-by-hop fields are the proxy's to remove");
    assert_eq!(headers["content-length"], "2", "the canonical number");
    assert!(!headers.contains_key("host"), "nothing of the request is left");
}
