//! Redirects: to https above all, and never to where a client wants others sent.

use crate::support::{Gateway, Origin, backend, http_route};

const TO_HTTPS: &str = "\
- filters:
    - type: RequestRedirect
      requestRedirect:
        scheme: https
        statusCode: 301
";

#[tokio::test]
async fn http_goes_to_https_with_path_and_query() {
    let gateway = Gateway::setup()
        .file("routes/redirect.yaml", &http_route("https", &["shop.test"], TO_HTTPS))
        .start()
        .await;

    // (request line, host, Location)
    let table = [
        ("GET /", "shop.test", "https://shop.test/"),
        ("GET /a/b?c=d&e=%20f", "shop.test", "https://shop.test/a/b?c=d&e=%20f"),
        ("GET /a", "shop.test:8080", "https://shop.test/a"),
        ("POST /form", "shop.test", "https://shop.test/form"),
        ("HEAD /a", "shop.test", "https://shop.test/a"),
        ("GET /%C3%A9", "shop.test", "https://shop.test/%C3%A9"),
    ];
    for (line, host, location) in table {
        let mut wire = gateway.wire().await;
        wire.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n")).await;
        let reply = wire.reply_to(line.split(' ').next().unwrap()).await;
        assert_eq!(reply.status(), 301, "{line}");
        assert_eq!(reply.header("location").as_deref(), Some(location), "{line}");
    }
}

/// Behind a proxy the client's scheme and port are the proxy's, not those of the socket.
#[tokio::test]
async fn a_redirect_stays_on_the_scheme_that_a_trusted_proxy_names() {
    let rules = "\
- filters:
    - type: RequestRedirect
      requestRedirect:
        path: {type: ReplaceFullPath, replaceFullPath: /new}
        statusCode: 302
";
    let gateway = Gateway::setup()
        .flag("--trusted-proxies 127.0.0.0/8")
        .file("routes/moved.yaml", &http_route("moved", &["shop.test"], rules))
        .start()
        .await;
    // (lines of the proxy, Location)
    let table = [
        ("X-Forwarded-Proto: https\r\n", "https://shop.test/new"),
        ("X-Forwarded-Proto: https\r\nX-Forwarded-Port: 8443\r\n", "https://shop.test:8443/new"),
        ("X-Forwarded-Proto: http\r\n", "http://shop.test/new"),
    ];
    for (lines, location) in table {
        let reply = gateway.get_with("http://shop.test/old", lines).await;
        assert_eq!(reply.header("location").as_deref(), Some(location), "{lines}");
    }
}

#[tokio::test]
async fn a_body_that_comes_with_a_redirected_request_is_not_a_request() {
    let shop = Origin::replying("shop").await;
    let files = backend("shop", &[shop.address])
        + &http_route("https", &["shop.test"], TO_HTTPS)
        + &http_route(
            "shop",
            &["blog.test"],
            "- backendRefs:\n    - {group: gateway.envoyproxy.io, kind: Backend, name: shop}\n",
        );
    let gateway = Gateway::setup().file("routes/redirect.yaml", &files).start().await;

    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: blog.test\r\n\r\n";
    let length = smuggled.len();
    let mut wire = gateway.wire().await;
    wire.send(format!(
        "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n\r\n{smuggled}"
    ))
    .await;
    assert_eq!(wire.reply().await.status(), 301);
    // The connection may go on or end; what it must not do is read the body as a request.
    wire.send("GET /next HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\n\r\n").await;
    wire.rest().await;
    assert!(shop.targets().iter().all(|target| target == "/next"), "{:?}", shop.targets());
}

#[tokio::test]
async fn each_part_of_the_location_can_be_set() {
    let rule = |path: &str, settings: &str| {
        format!(
            "- matches:\n    - path: {{type: PathPrefix, value: {path}}}\n  filters:\n    \
             - type: RequestRedirect\n      requestRedirect: {settings}\n"
        )
    };
    let rules = [
        rule("/host", "{hostname: new.test, statusCode: 308}"),
        rule("/port", "{port: 8443, scheme: https}"),
        rule("/full", "{path: {type: ReplaceFullPath, replaceFullPath: /all}}"),
        rule(
            "/part",
            "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /p}, statusCode: 307}",
        ),
        rule("/drop", "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /}, statusCode: 303}"),
    ]
    .concat();
    let gateway = Gateway::setup()
        .file("routes/redirect.yaml", &http_route("redirect", &["shop.test"], &rules))
        .start()
        .await;
    let port = gateway.http().port();

    // (target, status, Location); the client names the port that it connected to
    let table = [
        ("/host/a?q=1", 308, format!("http://new.test:{port}/host/a?q=1")),
        ("/port", 302, "https://shop.test:8443/port".into()),
        ("/full/x?q=1", 302, format!("http://shop.test:{port}/all?q=1")),
        ("/part/x", 307, format!("http://shop.test:{port}/p/x")),
        ("/part", 307, format!("http://shop.test:{port}/p")),
        ("/drop/x", 303, format!("http://shop.test:{port}/x")),
        ("/drop", 303, format!("http://shop.test:{port}/")),
    ];
    for (target, status, location) in table {
        let reply = gateway.get(&format!("http://shop.test:{port}{target}")).await;
        assert_eq!(reply.status(), status, "{target}");
        assert_eq!(reply.header("location"), Some(location), "{target}");
    }
}

/// CWE-113 and CWE-601: the Location has the matched host, and nothing of the path can end it.
#[tokio::test]
async fn no_client_chooses_where_others_are_sent() {
    let gateway = Gateway::setup()
        .file("routes/redirect.yaml", &http_route("https", &["shop.test"], TO_HTTPS))
        .start()
        .await;

    // (target, host): each is refused, or sent to shop.test and nowhere else
    let table = [
        ("//evil.test/", "shop.test"),
        ("///evil.test", "shop.test"),
        ("/\\evil.test", "shop.test"),
        ("/%5Cevil.test", "shop.test"),
        ("/%2Fevil.test", "shop.test"),
        ("/a%0d%0aSet-Cookie:x=1", "shop.test"),
        ("/a%0aSet-Cookie:x=1", "shop.test"),
        ("/..//evil.test", "shop.test"),
        ("http://evil.test/", "shop.test"),
        ("http://shop.test@evil.test/", "shop.test"),
        ("/", "shop.test@evil.test"),
        ("/", "evil.test"),
        ("/", "shop.test/evil"),
        ("/", "shop.test:80@evil.test"),
        ("/", "shop.test#evil.test"),
    ];
    for (target, host) in table {
        let sent = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let mut wire = gateway.wire().await;
        wire.send(&sent).await;
        let reply = wire.reply().await;
        assert!(matches!(reply.status(), 301 | 400 | 404), "{sent}: {reply:?}");
        assert!(!reply.head.has("set-cookie"), "{sent}: {reply:?}");
        let Some(location) = reply.header("location") else { continue };
        assert_eq!(reply.status(), 301, "{sent}");
        let path = location.strip_prefix("https://shop.test/");
        let path = path.unwrap_or_else(|| panic!("{sent}: {location}"));
        assert!(path.bytes().all(|byte| byte.is_ascii_graphic()), "{sent}: {location}");
        assert!(!path.starts_with('/') && !path.contains('\\'), "{sent}: {location}");
    }
}
