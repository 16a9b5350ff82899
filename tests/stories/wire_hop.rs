//! What is for one hop alone (RFC 9110 sections 7.6.1, 7.8, 10.1.1): it goes no further, and it
//! takes nothing with it that must go further.

use crate::support::{Answer, Gateway, Origin, Target, empty};

fn get(lines: &str) -> Vec<u8> {
    format!("GET /attack HTTP/1.1\r\nHost: shop.test\r\n{lines}\r\n").into_bytes()
}

#[tokio::test]
async fn fields_of_one_hop_stay_here() {
    let target = Target::start().await;

    // (header lines, names that the backend must not see)
    let table: [(&str, &[&str]); 9] = [
        ("Connection: X-Hop\r\nX-Hop: 1\r\n", &["x-hop"]),
        ("Connection: x-hop, keep-alive\r\nX-HOP: 1\r\n", &["x-hop", "keep-alive"]),
        ("Connection: A\r\nConnection: B , C\r\nA: 1\r\nB: 2\r\nC: 3\r\n", &["a", "b", "c"]),
        ("Keep-Alive: timeout=5\r\n", &["keep-alive"]),
        ("Proxy-Connection: keep-alive\r\n", &["proxy-connection"]),
        ("Proxy-Authorization: Basic eDp5\r\n", &["proxy-authorization"]),
        // CGI makes HTTP_PROXY of it (httpoxy).
        ("Proxy: http://evil.test/\r\n", &["proxy"]),
        ("Trailer: X-Sum\r\n", &["trailer"]),
        ("TE: gzip, trailers;q=0.5\r\n", &[]),
    ];
    for (lines, names) in table {
        let seen = target.passes(lines, &get(lines)).await;
        for name in names {
            assert!(!seen.head.has(name), "{lines}: {seen:?}");
        }
        // `trailers` may pass, and is then the only member.
        assert!(seen.header("te").is_none_or(|te| te.eq_ignore_ascii_case("trailers")), "{lines}");
    }
}

/// RFC 9110 section 10.1.4: `TE` is a list, and is named in `Connection` where there is one.
#[tokio::test]
async fn trailers_are_asked_for_on_this_connection() {
    let target = Target::start().await;
    for lines in [
        "TE: trailers\r\n",
        "TE: Trailers\r\nConnection: TE\r\n",
        "TE: gzip, trailers\r\n",
        "TE: gzip;q=0.5\r\nTE: trailers\r\nConnection: te, close\r\n",
    ] {
        let seen = target.passes(lines, &get(lines)).await;
        assert_eq!(seen.header("te").as_deref(), Some("trailers"), "{lines}: {seen:?}");
        assert_eq!(seen.header("connection").as_deref(), Some("te"), "{lines}: {seen:?}");
    }
    for lines in ["TE: gzip\r\nConnection: TE\r\n", "TE: xtrailers\r\n", "Connection: TE\r\n", ""] {
        let seen = target.passes(lines, &get(lines)).await;
        assert!(!seen.head.has("te") && !seen.head.has("connection"), "{lines}: {seen:?}");
    }
    let mut http2 = target.gateway.http2("shop.test").await;
    let request = http::Request::get("https://shop.test/").header("te", "trailers");
    http2.fetch(request.body(empty()).unwrap()).await.unwrap();
    let seen = target.origin.last();
    assert_eq!(seen.header("te").as_deref(), Some("trailers"));
    assert_eq!(seen.header("connection").as_deref(), Some("te"));
}

/// RFC 9113 section 8.2.3: a cookie in crumbs is one field, and counts as one.
#[tokio::test]
async fn as_many_cookies_pass_over_http2_as_over_http1() {
    let target = Target::start().await;
    let crumbs: Vec<_> = (0..180).map(|number| format!("c{number}=v")).collect();
    let whole = crumbs.join("; ");
    let seen = target.passes("one line", &get(&format!("Cookie: {whole}\r\n"))).await;
    assert_eq!(seen.head.all("cookie"), std::slice::from_ref(&whole));
    let few = "Cookie: a=1\r\nX-A: b\r\nCookie: b=2\r\n";
    assert_eq!(target.passes(few, &get(few)).await.head.all("cookie"), ["a=1; b=2"]);

    let mut http2 = target.gateway.http2("shop.test").await;
    let with = |name: &str| {
        let request = http::Request::get("https://shop.test/");
        let request = crumbs.iter().fold(request, |request, crumb| request.header(name, crumb));
        request.body(empty()).unwrap()
    };
    assert_eq!(http2.fetch(with("cookie")).await.unwrap().status, 200);
    assert_eq!(target.origin.last().head.all("cookie"), [whole]);
    assert_eq!(http2.fetch(with("x-other")).await.unwrap().status, 431);
}

/// "ABusing hop-by-hop headers": what the backend relies on cannot be named away.
#[tokio::test]
async fn connection_does_not_take_away_what_the_backend_relies_on() {
    let target = Target::start().await;
    let names = "Host, Content-Length, Authorization, Cookie, X-Forwarded-For, X-Forwarded-Proto, \
                 X-Forwarded-Host, X-Forwarded-Port, X-Request-Id, Content-Type, Transfer-Encoding";
    let lines =
        format!("Connection: close, {names}\r\nAuthorization: Basic eDp5\r\nContent-Length: 5\r\n");
    let bytes = [get(&lines), b"hello".to_vec()].concat();
    let Some(seen) = target.passes_or_refuses(&lines, &bytes).await else { return };
    assert_eq!(seen.header("host").as_deref(), Some("shop.test"));
    assert_eq!(seen.header("content-length").as_deref(), Some("5"));
    assert_eq!(seen.text(), "hello");
    assert_eq!(seen.header("authorization").as_deref(), Some("Basic eDp5"));
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"] {
        assert!(seen.head.has(name), "{name} in {seen:?}");
    }

    let chunks = "Connection: close, Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n";
    let bytes = [get(chunks), b"5\r\nhello\r\n0\r\n\r\n".to_vec()].concat();
    let Some(seen) = target.passes_or_refuses(chunks, &bytes).await else { return };
    assert_eq!(seen.text(), "hello");
}

#[tokio::test]
async fn fields_of_the_backends_hop_stay_there() {
    let shop = Origin::scripted(|_| {
        Answer::raw(
            "HTTP/1.1 200 OK\r\nConnection: X-Secret, keep-alive\r\nX-Secret: 1\r\n\
             Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
             Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nX-Kept: 1\r\n\
             Content-Length: 2\r\n\r\nok",
        )
    })
    .await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let reply = gateway.get("http://shop.test/").await;
    let mut http2 = gateway.http2("shop.test").await;
    let by_http2 = http2.get("https://shop.test/").await;
    for name in ["x-secret", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(!reply.head.has(name), "{name} in {reply:?}");
        assert!(!by_http2.headers.contains_key(name), "{name} in {by_http2:?}");
    }
    assert!(!by_http2.headers.contains_key("connection"), "{by_http2:?}");
    assert_eq!(reply.header("x-kept").as_deref(), Some("1"));
    assert_eq!(by_http2.headers["x-kept"], "1");
}

/// RFC 9110 section 10.1.1: there is one expectation.
#[tokio::test]
async fn an_expectation_that_nobody_knows_is_refused() {
    let target = Target::start().await;
    for value in ["y 100-continue", "200-ok", "100-continue, 200-ok", "100-continued"] {
        let lines = format!("Expect: {value}\r\nContent-Length: 0\r\n");
        target.refuses(&lines, &get(&lines), &[417, 400]).await;
    }
    // On several lines it is one list.
    let lines = "Expect: 100-continue\r\nExpect: 200-ok\r\nContent-Length: 0\r\n";
    target.refuses(lines, &get(lines), &[417]).await;
}

#[tokio::test]
async fn a_close_is_honoured_and_is_not_passed_on() {
    let target = Target::start().await;
    let before = target.origin.connections();
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        for _ in 0..5 {
            let mut wire = target.gateway.wire().await;
            let lines = "Host: shop.test\r\nConnection: close\r\n\r\n";
            wire.send(format!("GET /a {version}\r\n{lines}")).await;
            assert_eq!(wire.reply().await.status(), 200);
            assert_eq!(wire.rest().await, b"", "closed after the answer");
        }
    }
    // The backend's connections are the gateway's, whatever a client does with its own.
    let more = target.origin.connections() - before;
    assert!(more <= 4, "{more} connections for ten requests one after the other");
    assert!(target.origin.requests().iter().all(|seen| seen.head.line().ends_with("HTTP/1.1")));
}

#[tokio::test]
async fn http_10_keeps_the_connection_only_when_asked_to() {
    let target = Target::start().await;
    let mut wire = target.gateway.wire().await;
    wire.send("GET /a HTTP/1.0\r\nHost: shop.test\r\n\r\n").await;
    let reply = wire.reply().await;
    assert!(reply.head.line().starts_with("HTTP/1.0 200") || reply.status() == 200, "{reply:?}");
    assert_eq!(wire.rest().await, b"");
    let mut wire = target.gateway.wire().await;
    wire.send("GET /a HTTP/1.0\r\nHost: shop.test\r\nConnection: keep-alive\r\n\r\n").await;
    let reply = wire.reply().await;
    assert!(!reply.head.is_chunked(), "HTTP/1.0 knows no chunks: {reply:?}");
    wire.send("GET /b HTTP/1.0\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!(wire.reply().await.status(), 200);
    assert_eq!(target.origin.targets(), ["/a", "/a", "/b"]);
}
