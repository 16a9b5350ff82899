//! Paths: what was routed by is what is sent on (RFC 3986 section 6.2.2), and what can be read in
//! two ways is refused.

use crate::support::{
    Answer, Faults, Frame, Gateway, H2, Origin, Target, backend, http_route, rule_to,
};

fn with_target(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n").into_bytes()
}

/// (as the client writes it, as the backend reads it)
const SAME: [(&str, &str); 30] = [
    ("/", "/"),
    ("/a/b", "/a/b"),
    ("/a/b/", "/a/b/"),
    ("/a/./b", "/a/b"),
    ("/a/../b", "/b"),
    ("/a/b/..", "/a/"),
    ("/a/b/.", "/a/b/"),
    ("/../../a", "/a"),
    ("/..", "/"),
    ("/.", "/"),
    ("/a/%2e%2e/b", "/b"),
    ("/a/%2E./b", "/b"),
    ("/a/.%2e/b", "/b"),
    ("/a/%2e/b", "/a/b"),
    ("//a", "/a"),
    ("/a//b", "/a/b"),
    ("/a///b//", "/a/b/"),
    ("/a//../b", "/b"),
    ("/%61%7e%2D", "/a~-"),
    ("/%72%6f%6F%74", "/root"),
    // Reserved and not ASCII: they mean something else decoded, so they stay.
    ("/a%3Fb", "/a%3Fb"),
    ("/a%20b", "/a%20b"),
    ("/a%C3%A9", "/a%C3%A9"),
    ("/a%25b", "/a%25b"),
    ("/a%2Fb", "/a%2Fb"),
    ("/a;b=c/d", "/a;b=c/d"),
    ("/a...b/...", "/a...b/..."),
    ("/a:b@c!$&'()*+,=", "/a:b@c!$&'()*+,="),
    ("http://shop.test/a/../b", "/b"),
    ("http://shop.test", "/"),
];

#[tokio::test]
async fn the_backend_gets_the_path_that_was_routed_by() {
    let target = Target::start().await;
    for (sent, want) in SAME {
        let seen = target.passes_or_refuses(sent, &with_target(sent)).await;
        let got = seen.map_or_else(|| "an error".into(), |seen| seen.target());
        // The case of the digits is the same to everybody.
        let same = got.eq_ignore_ascii_case(want);
        target.faults.unless(same, || format!("`{sent}` became `{got}`, not `{want}`"));
    }
}

#[tokio::test]
async fn a_query_is_the_backends_and_stays_as_it_is() {
    let target = Target::start().await;
    for query in
        ["?", "?a=b", "?a=/../b", "?a=%2e%2e%2f", "?a//b", "?a=%00", "?a=%zz", "?a?b", "?[]|"]
    {
        let sent = format!("/p{query}");
        let Some(seen) = target.passes_or_refuses(&sent, &with_target(&sent)).await else {
            continue;
        };
        assert_eq!(seen.target(), sent);
    }
}

#[tokio::test]
async fn a_path_that_can_be_read_in_two_ways_is_refused() {
    let target = Target::start().await;
    let table = [
        "/a%00b",
        "/%00",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a%2gb",
        "/a%0ab",
        "/a%0d%0ab",
        "/a%1fb",
        "/a%7fb",
        "/a\\..\\b",
        "/..\\a",
        "/a\\b",
        "/..%2fa",
        "/..%2Fa",
        "/a/..%2fb",
        "/a%2f..",
        "/a%2f../b",
        "/%2e%2e%2fa",
        "/%2e%2e%5ca",
        "/..%5ca",
        "/a/..%5c..%5cb",
        "/a%5c../b",
        "/.%2fa",
        "/a/..;/b",
        "/..;/a",
        "/a/..;x=y/b",
        "/a/%2e%2e;/b",
    ];
    for path in table {
        target.refuses(path, &with_target(path), &[400]).await;
    }
    // Over HTTP/2 the same.
    for path in table {
        let mut h2 = H2::connect(&target.gateway).await;
        h2.frame(&Frame::get(1, path)).await;
        let outcome = h2.outcome(1).await;
        target.faults.unless(outcome.is_refusal(), || format!("{path} by HTTP/2: {outcome:?}"));
    }
    assert!(target.origin.targets().iter().all(|path| path.starts_with("/canary")));
}

/// No way of writing a path reaches a backend that the path does not belong to.
#[tokio::test]
async fn a_rule_for_a_path_holds_however_the_path_is_written() {
    let public = Origin::replying("public").await;
    let admin = Origin::scripted(|_| Answer::ok("admin")).await;
    let files = backend("public", &[public.address])
        + &backend("admin", &[admin.address])
        + &http_route(
            "shop",
            &["shop.test"],
            &(rule_to("/", "public") + &rule_to("/admin", "admin")),
        );
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;

    let faults = Faults::default();
    // Each leads to /admin, or is refused.
    let table = [
        "/admin",
        "/admin/",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/%61dmin",
        "/adm%69n/x",
        "/x/%2e%2e/admin",
        "/x//..//admin",
        "/admin//x",
        "/admin/./x",
        "/admin/x/..",
        "http://shop.test/x/../admin",
        "http://shop.test//admin",
        "/x/..%2fadmin",
        "/x/..;/admin",
        "/x\\..\\admin",
        "/%2e%2e%2fadmin",
        "/admin%00",
        "/admin%00/x",
    ];
    for path in table {
        let mut wire = gateway.wire().await;
        wire.send(with_target(path)).await;
        let reply = wire.reply().await;
        let fits = reply.status() == 400 || reply.text() == "admin";
        faults.unless(fits, || format!("{path}: {reply:?}"));
    }
    for path in ["/admin2", "/Admin", "/x/admin", "/admin%2Fx", "/admin/../x", "/%2561dmin"] {
        let mut wire = gateway.wire().await;
        wire.send(with_target(path)).await;
        let reply = wire.reply().await;
        let fits = reply.status() == 400 || reply.text() == "public";
        faults.unless(fits, || format!("{path}: {reply:?}"));
    }
    for seen in public.seen() {
        let path = seen.target();
        let inside = path.split('/').nth(1) == Some("admin");
        assert!(!inside && !path.contains("..") && !path.contains("//"), "{path}");
    }
    for seen in admin.seen() {
        let path = seen.target();
        assert!(path == "/admin" || path.starts_with("/admin/"), "{path}");
        assert!(!path.contains("..") && !path.contains("//"), "{path}");
    }
}
