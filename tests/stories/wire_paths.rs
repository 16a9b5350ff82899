//! Paths: what was routed by is what is sent on (RFC 3986 section 6.2.2), and what can be read in
//! two ways is refused.

use crate::support::{
    Answer, Faults, Frame, Gateway, H2, Origin, Outcome, Target, backend, http_route, rule_to,
};

fn with_target(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n").into_bytes()
}

/// (as the client writes it, as the backend reads it)
const SAME: [(&str, &str); 37] = [
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
    // The digits of an escape are of either case, and mean the same.
    ("/a%2fb", "/a%2Fb"),
    ("/a%c3%a9", "/a%C3%A9"),
    ("/a%C3%a9", "/a%C3%A9"),
    ("/a%2bb%5bc", "/a%2Bb%5Bc"),
    // What no URI has is escaped.
    ("/a\u{e9}", "/a%C3%A9"),
    ("/a[1]{b}|\"^", "/a%5B1%5D%7Bb%7D%7C%22%5E"),
    ("HTTP://SHOP.test/a%c3", "/a%C3"),
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
        target.faults.unless(got == want, || format!("`{sent}` became `{got}`, not `{want}`"));
    }
    // Over HTTP/2 the same.
    for (sent, want) in SAME.into_iter().filter(|(sent, _)| sent.starts_with('/')) {
        let before = target.origin.requests().len();
        let mut h2 = H2::connect(&target.gateway).await;
        h2.frame(&Frame::get(1, sent)).await;
        let outcome = h2.outcome(1).await;
        let reached = target.origin.targets().split_off(before);
        let fits = outcome.status() == Some(200) && reached == [want];
        target.faults.unless(fits, || format!("`{sent}` by HTTP/2: {outcome:?} and {reached:?}"));
    }
}

/// A rule to the Backend `name` by one match of a path.
fn rule_by(kind: &str, value: &str, name: &str) -> String {
    format!(
        "- matches: [{{path: {{type: {kind}, value: '{value}'}}}}]\n  backendRefs: \
         [{{group: gateway.envoyproxy.io, kind: Backend, name: {name}}}]\n"
    )
}

/// RFC 3986 section 6.2.2.1: a rule is for its path in every spelling, however it is written itself.
#[tokio::test]
async fn a_rule_takes_its_path_in_every_spelling() {
    let open = Origin::replying("open").await;
    let shut = Origin::replying("shut").await;
    let rules = rule_to("/", "open")
        + &rule_by("PathPrefix", "/caf%C3%A9", "shut")
        + &rule_by("PathPrefix", "/na%c3%afve", "shut")
        + &rule_by("Exact", "/a%2Bb", "shut")
        + &rule_by("Exact", "/c%2bd", "shut")
        + &rule_by("Exact", "/%7eroot", "shut")
        + &rule_by("RegularExpression", "/r%c3%a9s/[0-9]+", "shut")
        + &rule_by("RegularExpression", "/vidéo/[0-9]+", "shut")
        + &rule_by("RegularExpression", "/@[^/]+(%2[fF]|/)pkg", "shut");
    let files = backend("open", &[open.address])
        + &backend("shut", &[shut.address])
        + &http_route("shop", &["shop.test"], &rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;

    let faults = Faults::default();
    for (path, want) in [
        ("/caf%C3%A9", "shut"),
        ("/caf%c3%a9/x", "shut"),
        ("/caf%C3%a9/x", "shut"),
        ("/caf\u{e9}/x", "shut"),
        ("/c%61f%c3%a9/x", "shut"),
        ("/na%C3%AFve", "shut"),
        ("/na%c3%af%76e/", "shut"),
        ("/a%2bb", "shut"),
        ("/a%2Bb", "shut"),
        // Reserved: encoded it is another path.
        ("/a+b", "open"),
        ("/c%2Bd", "shut"),
        ("/c%2bd", "shut"),
        ("/~root", "shut"),
        ("/%7Eroot", "shut"),
        ("/r%c3%a9s/1", "shut"),
        ("/r%C3%A9s/1", "shut"),
        ("/vid%c3%a9o/1", "shut"),
        ("/vid\u{e9}o/1", "shut"),
        ("/@scope%2fpkg", "shut"),
        ("/@scope%2Fpkg", "shut"),
        ("/caf", "open"),
    ] {
        let reply = gateway.get(&format!("http://shop.test{path}")).await;
        faults.unless(reply.text() == want, || format!("{path}: {reply:?}"));
        let mut h2 = H2::connect(&gateway).await;
        h2.frame(&Frame::get(1, path)).await;
        let outcome = h2.outcome(1).await;
        let fits = outcome == Outcome::Answer { status: 200, body: want.into() };
        faults.unless(fits, || format!("{path} by HTTP/2: {outcome:?}"));
    }
}

/// What a rule writes into a path has the same spelling; what it means is left alone.
#[tokio::test]
async fn a_rewrite_and_a_redirect_have_that_spelling_too() {
    let origin = Origin::replying("ok").await;
    let filter = |path: &str, filter: &str| {
        format!(
            "- matches: [{{path: {{value: {path}}}}}]\n  filters: [{filter}]\n  backendRefs: \
             [{{group: gateway.envoyproxy.io, kind: Backend, name: shop}}]\n"
        )
    };
    let rules = filter(
        "/full",
        "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: '/neu%c3%a9/../n%7e%c3%a9'}}}",
    ) + &filter(
        "/prefix",
        "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: '/né'}}}",
    ) + &filter(
        "/moved",
        "{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: '/web/http://a.test/%c3%a9'}}}",
    )
    .replace("  backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: shop}]\n", "");
    let files = backend("shop", &[origin.address]) + &http_route("shop", &["shop.test"], &rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    gateway.get("http://shop.test/full/x").await;
    gateway.get("http://shop.test/prefix/%c3%a9?q=%c3").await;
    assert_eq!(origin.targets(), ["/n~%C3%A9", "/n%C3%A9/%C3%A9?q=%c3"]);
    let moved = gateway.get("http://shop.test/moved").await;
    let location = moved.header("location").unwrap_or_default();
    assert!(location.ends_with("/web/http://a.test/%C3%A9"), "{location}");
}

/// Where a lenient backend would read a path so that it belongs to another rule, the path goes
/// nowhere; elsewhere it is nobody's business but the backend's.
#[tokio::test]
async fn a_path_with_two_readings_goes_nowhere_where_they_are_two_rules() {
    let open = Origin::replying("open").await;
    let shut = Origin::replying("shut").await;
    let rules = rule_to("/", "open")
        + &rule_to("/restricted", "shut")
        + &rule_by("Exact", "/x", "shut")
        + &rule_by("RegularExpression", "/api/v[0-9]+/admin", "shut");
    let files = backend("open", &[open.address])
        + &backend("shut", &[shut.address])
        + &http_route("shop", &["shop.test"], &rules)
        // Everything of these hosts has one rule.
        + &http_route("one", &["npm.test"], &rule_to("/", "open"))
        + &http_route("api", &["gitlab.test"], &rule_to("/api", "open"));
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;

    let faults = Faults::default();
    let refused = [
        "/;/restricted/x",
        "/;a=b/;c/restricted/x",
        "/restricted;v=1/x",
        "/restricted;",
        "/a;b%2frestricted/..;c/x",
        "/%2frestricted/x",
        "/%2Frestricted",
        "/restricted%2fx",
        "/restricted%5cx",
        "/%5Crestricted",
        "/restricted%252fx",
        "/restricted%255Cx",
        "/%252frestricted/x",
        "/a/%252e%252e/restricted",
        "/a/%252e%252e%252frestricted",
        "/restricted%2f;x",
        "/;%2frestricted/x",
        "/restricted%5ca%2fb",
        "/x;jsessionid=1",
        "/api/v1%2fadmin",
        "/api;a/v1/admin;b",
        "//restricted%2fx",
        "http://shop.test/restricted%2fx",
        // Out of the narrower rule as well.
        "/restricted/%252e%252e/y",
    ];
    for path in refused {
        let mut wire = gateway.wire().await;
        wire.send(with_target(path)).await;
        let reply = wire.reply().await;
        faults.unless(reply.status() == 400, || format!("{path}: {reply:?}"));
        if path.starts_with('/') {
            let mut h2 = H2::connect(&gateway).await;
            h2.frame(&Frame::get(1, path)).await;
            let outcome = h2.outcome(1).await;
            faults.unless(outcome.status() == Some(400), || format!("{path}, HTTP/2: {outcome:?}"));
        }
    }
    assert_eq!((open.requests().len(), shut.requests().len()), (0, 0));

    // (host, path, answer)
    for (host, path, want) in [
        ("shop.test", "/a;v=1/b", "open"),
        ("shop.test", "/a%2Fb", "open"),
        ("shop.test", "/a%252Fb", "open"),
        ("shop.test", "/a%5Cb", "open"),
        ("shop.test", "/restrictedx%2Fy", "open"),
        ("shop.test", "/Restricted%2Fx", "open"),
        ("shop.test", "/restricted/a%2Fb;c", "shut"),
        ("shop.test", "/restricted/;/x", "shut"),
        ("shop.test", "/restricted%25252fx", "open"),
        ("shop.test", "/a?/restricted;%2f", "open"),
        ("npm.test", "/@scope%2Fpkg", "open"),
        ("npm.test", "/;/restricted%2fx", "open"),
        ("gitlab.test", "/api/v4/projects/group%2Fproject", "open"),
        // The other reading is nobody's: no rule is passed by.
        ("gitlab.test", "/api/%252e%252e%252fx", "open"),
    ] {
        let reply = gateway.get(&format!("http://{host}{path}")).await;
        faults.unless(reply.text() == want, || format!("{host}{path}: {reply:?}"));
    }
    let reached = open.targets();
    assert!(reached.contains(&"/@scope%2Fpkg".into()) && reached.contains(&"/a;v=1/b".into()));
    let entry = gateway.logged("a refusal", |entry| entry["path"] == "/restricted%2fx").await;
    assert_eq!((&entry["status"], &entry["flags"]), (&400.into(), &"DPE".into()));
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
