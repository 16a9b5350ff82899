//! HTTP/1.1, hostile clients: request lines, field lines, targets and Host (RFC 9112 sections 2, 3,
//! 5; RFC 9110 sections 5, 7, 9).

use crate::support::{END_STREAM, Frame, Gateway, H2, Origin, Target, request_fields, serve_all};

const REFUSED: &[u16] = &[400];

fn get(lines: &[u8]) -> Vec<u8> {
    [b"GET /attack HTTP/1.1\r\nHost: shop.test\r\n", lines, b"\r\n"].concat()
}

fn with_target(target: &[u8]) -> Vec<u8> {
    [b"GET ", target, b" HTTP/1.1\r\nHost: shop.test\r\n\r\n"].concat()
}

#[tokio::test]
async fn a_field_line_that_is_none_is_refused() {
    let target = Target::start().await;
    let table: [&[u8]; 27] = [
        // RFC 9112 section 5.1: no space before the colon.
        b"X-A : b\r\n",
        b"X-A\t: b\r\n",
        b"Host : shop.test\r\n",
        b"Content-Length : 0\r\n",
        // Section 5.2: no folding.
        b"X-A: b\r\n c\r\n",
        b"X-A: b\r\n\tc\r\n",
        b"X-A:\r\n b\r\n",
        b" X-A: b\r\n",
        b"X-A: b\r\n \r\n",
        // Section 2.2 and RFC 9110 section 5.5: no CR and no NUL in a value.
        b"X-A: b\rc\r\n",
        b"X-A: b\rX-B: c\r\n",
        b"X-A: b\r\r\n",
        b"X-A: b\0c\r\n",
        b"X-A: \0\r\n",
        b"X-A: b\x01c\r\n",
        b"X-A: b\x7fc\r\n",
        // RFC 9110 section 5.1: a name is a token, and it is followed by a colon.
        b"X A: b\r\n",
        b"X(A): b\r\n",
        b"X\"A: b\r\n",
        b"X/A: b\r\n",
        b"X{A}: b\r\n",
        b"X\xc3\xa9: b\r\n",
        b"X\0: b\r\n",
        b": b\r\n",
        b"X-A\r\n",
        b"GET /smuggled HTTP/1.1\r\n",
        b"X-A: b\r\nX-B\r\n",
    ];
    for lines in table {
        target.refuses(&lines.escape_ascii().to_string(), &get(lines), REFUSED).await;
    }
}

/// RFC 9112 section 2.2: a bare LF may end a line of the head; it must not travel on.
#[tokio::test]
async fn a_bare_lf_never_reaches_the_backend() {
    let target = Target::start().await;
    let table: [&[u8]; 5] = [
        b"GET /attack HTTP/1.1\nHost: shop.test\n\n",
        b"GET /attack HTTP/1.1\r\nHost: shop.test\nX-A: b\r\n\r\n",
        b"GET /attack HTTP/1.1\r\nHost: shop.test\r\nX-A: b\n\r\n",
        b"GET /attack HTTP/1.1\nHost: shop.test\r\n\r\n",
        b"GET /attack HTTP/1.1\r\nHost: shop.test\r\n\n",
    ];
    for bytes in table {
        let what = bytes.escape_ascii().to_string();
        let Some(seen) = target.passes_or_refuses(&what, bytes).await else { continue };
        let text = seen.head.text().replace("\r\n", "");
        assert!(!text.contains(['\r', '\n']), "{what}: {text:?}");
    }
}

#[tokio::test]
async fn a_request_line_that_is_none_is_refused() {
    let target = Target::start().await;
    let host = b"\r\nHost: shop.test\r\n\r\n";
    let table: [&[u8]; 26] = [
        b"GET /attack",
        b"GET /attack ",
        b"GET",
        b"",
        b"/attack HTTP/1.1",
        b"GET HTTP/1.1",
        b"GET  HTTP/1.1",
        b"GET /attack HTTP/0.9",
        b"GET /attack HTTP/1.10",
        b"GET /attack HTTP/1.",
        b"GET /attack HTTP/11",
        b"GET /attack HTTP/1.1x",
        b"GET /attack HTTP/1.1 x",
        b"GET /attack http/1.1",
        b"GET /attack HTTPS/1.1",
        b"GET /attack HTTP/-1.1",
        b"GET /attack ICAP/1.0",
        b"GET /a b HTTP/1.1",
        b"GET /attack\tHTTP/1.1",
        b"GET\t/attack HTTP/1.1",
        b"GET\0 /attack HTTP/1.1",
        b"G(T /attack HTTP/1.1",
        b"\xff\xfe /attack HTTP/1.1",
        b"GET /attack HTTP/1.1\0",
        b"GET /attack\x0bHTTP/1.1",
        b"GET /attack HTTP/1.1\rX",
    ];
    for line in table {
        let what = line.escape_ascii().to_string();
        // An empty line in front is allowed (RFC 9112 section 2.2); then `Host:` is no request line.
        target.refuses(&what, &[line, host].concat(), &[400, 505, 0]).await;
    }
    for version in ["HTTP/2.0", "HTTP/2", "HTTP/3.0", "HTTP/9.9"] {
        let bytes = format!("GET /attack {version}\r\nHost: shop.test\r\n\r\n");
        target.refuses(version, bytes.as_bytes(), &[400, 505]).await;
    }
}

#[tokio::test]
async fn a_target_that_is_none_is_refused() {
    let target = Target::start().await;
    let table: [&[u8]; 18] = [
        b"attack",
        b"*",
        b"shop.test",
        b"shop.test:80",
        b"?q",
        b"http:///attack",
        b"http://",
        b"http:/attack",
        b"ftp://shop.test/attack",
        b"javascript:alert(1)",
        b"http://user@shop.test/attack",
        b"/a\0b",
        b"/a\x01b",
        b"/a\x7fb",
        b"/a\x1bb",
        b"/a\rb",
        b"http://shop.test:x/attack",
        b"http://shop.test:99999/attack",
    ];
    for bytes in table {
        let what = bytes.escape_ascii().to_string();
        target.refuses(&what, &with_target(bytes), &[400, 404, 421]).await;
    }
}

/// RFC 9112 section 3.2: a fragment is for the client alone.
#[tokio::test]
async fn a_fragment_is_stripped_or_refused() {
    let target = Target::start().await;
    for bytes in [&b"/a#b"[..], b"/a?b#c", b"/#/../admin", b"/a#"] {
        let what = bytes.escape_ascii().to_string();
        let seen = target.passes_or_refuses(&what, &with_target(bytes)).await;
        assert!(seen.is_none_or(|seen| !seen.target().contains('#')), "{what}");
    }
}

/// RFC 9112 section 3.2.2: the target wins, and Host is made to agree.
#[tokio::test]
async fn of_an_absolute_target_and_a_host_the_target_counts() {
    let (shop, blog) = (Origin::replying("shop").await, Origin::replying("blog").await);
    let routes = serve_all("shop", "shop.test", &[shop.address])
        + &serve_all("blog", "blog.test", &[blog.address]);
    let gateway = Gateway::setup().file("routes/shop.yaml", &routes).start().await;
    for host in ["shop.test", "evil.test"] {
        let mut wire = gateway.wire().await;
        wire.send(format!(
            "GET http://blog.test/a?b HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ))
        .await;
        let reply = wire.reply().await;
        assert_eq!(reply.text(), "blog", "{host}");
        let seen = blog.last();
        assert_eq!(seen.header("host").as_deref(), Some("blog.test"), "{host}");
        assert_eq!(seen.target(), "/a?b", "{host}");
        assert_eq!(seen.header("x-forwarded-host").as_deref(), Some("blog.test"), "{host}");
    }
    assert!(!blog.requests().is_empty(), "an absolute target is allowed");
    // Section 3.2: 400 for what lacks Host, has two, or none that is one, whatever the target has.
    let asked = blog.requests().len();
    let table = [
        "",
        "Host: \r\n",
        "Host: a b\r\n",
        "Host: u@blog.test\r\n",
        "Host: blog.test\r\nHost: blog.test\r\n",
    ];
    for lines in table {
        for target in ["http://blog.test/a", "http://blog.test", "HTTP://BLOG.TEST/a", "/a"] {
            let mut wire = gateway.wire().await;
            wire.send(format!("GET {target} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n")).await;
            let reply = wire.reply().await;
            assert_eq!(reply.status(), 400, "{target} {lines}: {reply:?}");
        }
    }
    assert_eq!(blog.requests().len(), asked);
    // HTTP/1.0 knows no Host.
    let mut wire = gateway.wire().await;
    wire.send("GET http://blog.test/a HTTP/1.0\r\n\r\n").await;
    assert_eq!(wire.reply().await.text(), "blog");
    // A URL may be a host and a query.
    let reply = {
        let mut wire = gateway.wire().await;
        wire.send("GET http://blog.test?q HTTP/1.1\r\nHost: blog.test\r\n\r\n").await;
        wire.reply().await
    };
    assert_eq!((reply.text().as_str(), blog.last().target().as_str()), ("blog", "/?q"));
    assert!(shop.requests().is_empty(), "{:?}", shop.seen());
}

#[tokio::test]
async fn a_host_that_is_none_or_several_is_refused() {
    let target = Target::start().await;
    let table: [&[u8]; 24] = [
        b"",
        b"Host: shop.test\r\nHost: shop.test\r\n",
        b"Host: shop.test\r\nHost: evil.test\r\n",
        b"Host: shop.test\r\nhost: evil.test\r\n",
        b"Host: shop.test, evil.test\r\n",
        b"Host: shop.test,shop.test\r\n",
        b"Host: shop.test evil.test\r\n",
        b"Host: user@shop.test\r\n",
        b"Host: user:pass@shop.test\r\n",
        b"Host: shop.test/attack\r\n",
        b"Host: shop.test?a\r\n",
        b"Host: shop.test#a\r\n",
        b"Host: http://shop.test\r\n",
        b"Host: shop.test\\evil.test\r\n",
        b"Host: shop.test:x\r\n",
        b"Host: shop.test:-1\r\n",
        b"Host: shop.test:80:80\r\n",
        b"Host: shop.test:99999\r\n",
        b"Host: [::1\r\n",
        b"Host: ::1\r\n",
        b"Host: shop\xc3\xa9.test\r\n",
        b"Host: shop.test\0\r\n",
        b"Host: \"shop.test\"\r\n",
        b"Host: %73hop.test\r\n",
    ];
    for lines in table {
        let what = format!("`{}`", lines.escape_ascii());
        let bytes = [b"GET /attack HTTP/1.1\r\n", lines, b"\r\n"].concat();
        target.refuses(&what, &bytes, REFUSED).await;
    }
}

/// RFC 9110 section 7.4: who asks for nobody we know gets nobody.
#[tokio::test]
async fn an_unknown_host_has_no_backend() {
    let target = Target::start().await;
    let hosts = [
        "evil.test",
        "127.0.0.1",
        "[::1]",
        "[::1]:80",
        "localhost",
        "shop.test.evil.test",
        "xshop.test",
        "test",
        "*.test",
        "",
    ];
    for host in hosts {
        let mut wire = target.gateway.wire().await;
        let lines = "Connection: close\r\n\r\n";
        wire.send(format!("GET /attack HTTP/1.1\r\nHost: {host}\r\n{lines}")).await;
        let status = wire.reply().await.status();
        assert!(matches!(status, 404 | 400), "{host}: {status}");
    }
    let mut wire = target.gateway.wire().await;
    wire.send("GET /attack HTTP/1.0\r\n\r\n").await;
    let status = wire.reply().await.status();
    assert!(matches!(status, 404 | 400), "HTTP/1.0 without a Host: {status}");
    assert!(target.origin.requests().is_empty(), "{:?}", target.origin.seen());
}

#[tokio::test]
async fn methods_that_are_for_proxies_and_probes_are_not_passed_on() {
    let target = Target::start().await;
    // What stands behind a CONNECT is no request of ours, whatever it looks like.
    for bytes in [
        "CONNECT shop.test:443 HTTP/1.1\r\nHost: shop.test:443\r\n\r\n",
        "CONNECT shop.test:443 HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n",
        "CONNECT /attack HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        "CONNECT * HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    ] {
        target.refuses(bytes, bytes.as_bytes(), &[405, 400]).await;
    }
    for method in ["TRACE", "TRACK"] {
        let before = target.origin.requests().len();
        let mut wire = target.gateway.wire().await;
        let lines = "Host: shop.test\r\nX-Secret: hidden\r\nConnection: close\r\n\r\n";
        wire.send(format!("{method} /attack HTTP/1.1\r\n{lines}")).await;
        let reply = wire.reply().await;
        if method == "TRACE" {
            assert_eq!(reply.status(), 405);
            assert_eq!(target.origin.requests().len(), before);
        }
        assert!(!reply.text().contains("hidden"), "{reply:?}");
    }
}

/// RFC 9112 section 3.2.4, RFC 9110 section 9.3.7: `*` is the gateway itself.
#[tokio::test]
async fn an_asterisk_is_for_options_and_is_answered_here() {
    let target = Target::start().await;
    target.refuses("GET *", b"GET * HTTP/1.1\r\nHost: shop.test\r\n\r\n", REFUSED).await;
    let mut wire = target.gateway.wire().await;
    wire.send("OPTIONS * HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n").await;
    let reply = wire.reply().await;
    assert!(matches!(reply.status(), 200 | 204), "{reply:?}");
    assert!(target.origin.targets().iter().all(|path| path.starts_with("/canary")));
    let options = b"OPTIONS /attack HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    assert_eq!(target.passes("OPTIONS of a path", options).await.method(), "OPTIONS");
}

/// RFC 9112 section 3: 501 for a method that is longer than any.
#[tokio::test]
async fn a_method_has_a_limit() {
    let target = Target::start().await;
    let bytes = |method: &str, line: &str| format!("{method} {line}\r\n\r\n").into_bytes();
    let longest = "M".repeat(32);
    let seen = target.passes("32", &bytes(&longest, "/a HTTP/1.1\r\nHost: shop.test")).await;
    assert_eq!(seen.method(), longest);
    for length in [33, 4_000, 20_000] {
        let method = "M".repeat(length);
        for line in
            ["/a HTTP/1.1\r\nHost: shop.test", "http://shop.test/a HTTP/1.1\r\nHost: shop.test"]
        {
            target.refuses(&format!("{length}"), &bytes(&method, line), &[501]).await;
        }
        // More would not fit into a frame.
        let method = &method[..length.min(10_000)];
        let mut h2 = H2::connect(&target.gateway).await;
        h2.frame(&Frame::head(1, END_STREAM, &request_fields(method, "/a"))).await;
        let outcome = h2.outcome(1).await;
        target.faults.unless(outcome.status() == Some(501), || format!("{length}: {outcome:?}"));
    }
}

/// Methods are not a closed set; case counts (RFC 9110 section 9.1).
#[tokio::test]
async fn a_method_that_we_do_not_know_is_the_backends_to_know() {
    let target = Target::start().await;
    for method in ["PATCH", "PROPFIND", "get", "M-SEARCH", "X_Y"] {
        let bytes = format!("{method} /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(target.passes(method, bytes.as_bytes()).await.method(), method);
    }
}
