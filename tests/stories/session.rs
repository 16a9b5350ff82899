//! A client back to the backend that it had (GEP-1619).

use std::collections::HashSet;
use std::net::SocketAddr;

use crate::support::{Gateway, Origin, Reply, backend, http_route};

/// A rule for `path` to each of the Backends with its weight.
fn rule(path: &str, backends: &[(&str, u32)], session: &str) -> String {
    let refs: String = backends
        .iter()
        .map(|(name, weight)| {
            format!(
                "    - {{group: gateway.envoyproxy.io, kind: Backend, name: {name}, \
                 weight: {weight}}}\n"
            )
        })
        .collect();
    format!(
        "- matches: [{{path: {{value: {path}}}}}]\n  backendRefs:\n{refs}  \
         sessionPersistence: {session}\n"
    )
}

/// Three endpoints of one Backend that say their numbers.
async fn three() -> (Vec<Origin>, Vec<SocketAddr>) {
    let origins =
        vec![Origin::replying("0").await, Origin::replying("1").await, Origin::replying("2").await];
    let addresses = origins.iter().map(|origin| origin.address).collect();
    (origins, addresses)
}

/// `name=value` of the cookie that a reply sets.
fn cookie(reply: &Reply) -> String {
    let set = reply.header("set-cookie").unwrap_or_else(|| panic!("no cookie in {:?}", reply.head));
    set.split(';').next().unwrap().to_owned()
}

fn sending(cookie: &str) -> String {
    format!("Cookie: theme=dark; {cookie}\r\n")
}

#[tokio::test]
async fn a_client_goes_back_to_its_endpoint_by_cookie() {
    let (_origins, addresses) = three().await;
    let rules = rule("/app", &[("shop", 1)], "{sessionName: sticky}");
    let yaml = backend("shop", &addresses) + &http_route("shop", &["shop.test"], &rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &yaml).start().await;

    let mut seen = HashSet::new();
    for _ in 0..6 {
        let first = gateway.get("http://shop.test/app/a").await;
        let cookie = cookie(&first);
        seen.insert(first.text());
        for _ in 0..3 {
            let next = gateway.get_with("http://shop.test/app/b", &sending(&cookie)).await;
            assert_eq!(next.text(), first.text());
            assert_eq!(next.header("set-cookie"), None, "one is enough");
        }
    }
    assert_eq!(seen.len(), 3, "new clients go to every endpoint");

    let set = gateway.get("http://shop.test/app").await.header("set-cookie").unwrap();
    let (value, attributes) = set.split_once("; ").unwrap();
    assert!(value.starts_with("sticky="), "{set}");
    assert_eq!(attributes, "Path=/app; HttpOnly; SameSite=Lax");
    assert!(addresses.iter().all(|one| !set.contains(&one.to_string())), "{set}");
    let set = gateway.get("https://shop.test/app").await.header("set-cookie").unwrap();
    assert!(set.ends_with("; Path=/app; Secure; HttpOnly; SameSite=Lax"), "{set}");
}

#[tokio::test]
async fn a_session_survives_a_restart_and_not_its_endpoint() {
    let state = tempfile::tempdir().unwrap();
    let flag = format!("--state-dir {}", state.path().display());
    let (mut origins, addresses) = three().await;
    let rules = rule("/", &[("shop", 1)], "{sessionName: sticky}");
    let yaml = backend("shop", &addresses) + &http_route("shop", &["shop.test"], &rules);
    let setup = || Gateway::setup().flag(&flag).file("routes/shop.yaml", &yaml);

    let before = setup().start().await;
    let first = before.get("http://shop.test/").await;
    let had = cookie(&first);
    drop(before);

    let gateway = setup().start().await;
    for _ in 0..4 {
        let next = gateway.get_with("http://shop.test/", &sending(&had)).await;
        assert_eq!((next.text(), next.header("set-cookie")), (first.text(), None));
    }

    // Stopped, but written still: the client is served elsewhere, and stays there.
    let gone: usize = first.text().parse().unwrap();
    drop(origins.remove(gone));
    let moved = gateway.get_with("http://shop.test/", &sending(&had)).await;
    assert_eq!(moved.status(), 200);
    assert_ne!(moved.text(), first.text());
    let has = cookie(&moved);
    for _ in 0..4 {
        assert_eq!(
            gateway.get_with("http://shop.test/", &sending(&has)).await.text(),
            moved.text()
        );
    }

    // Not written any more: what names it is no way to it.
    let left: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let yaml = backend("shop", &left) + &http_route("shop", &["shop.test"], &rules);
    gateway.write("routes/shop.yaml", &yaml);
    gateway.reload().await;
    assert_eq!(gateway.get_with("http://shop.test/", &sending(&had)).await.status(), 200);
}

#[tokio::test]
async fn a_session_keeps_its_backend_whatever_the_weights_become() {
    let (a, b) = (Origin::replying("a").await, Origin::replying("b").await);
    let backends = backend("a", &[a.address]) + &backend("b", &[b.address]);
    let yaml = |weights| {
        let rules = rule("/", &[("a", weights), ("b", 1 - weights)], "{sessionName: sticky}");
        format!("{backends}{}", http_route("shop", &["shop.test"], &rules))
    };
    let gateway = Gateway::setup().file("routes/shop.yaml", &yaml(1)).start().await;
    let first = gateway.get("http://shop.test/").await;
    assert_eq!(first.text(), "a");

    gateway.write("routes/shop.yaml", &yaml(0));
    gateway.reload().await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "b");
    let cookie = cookie(&first);
    assert_eq!(gateway.get_with("http://shop.test/", &sending(&cookie)).await.text(), "a");
}

#[tokio::test]
async fn nobody_chooses_an_endpoint_by_what_they_send() {
    let (_origins, addresses) = three().await;
    let elsewhere = Origin::replying("elsewhere").await;
    let rules = rule("/a", &[("shop", 1)], "{sessionName: sticky}")
        + &rule("/b", &[("shop", 1)], "{sessionName: sticky}");
    let yaml = backend("shop", &addresses) + &http_route("shop", &["shop.test"], &rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &yaml).start().await;
    let token = cookie(&gateway.get("http://shop.test/a").await);
    let mut changed = token.clone();
    let last = changed.pop().unwrap();
    changed.push(if last == 'A' { 'Q' } else { 'A' });
    // (path, cookie)
    let table = [
        ("/a", format!("sticky={}", elsewhere.address)),
        ("/a", "sticky=".to_owned()),
        ("/a", changed),
        ("/a", format!("sticky={}", "A".repeat(8000))),
        ("/b", token.clone()),
    ];
    for (path, cookie) in table {
        let url = format!("http://shop.test{path}");
        let reply = gateway.get_with(&url, &sending(&cookie)).await;
        assert_eq!(reply.status(), 200, "{path} {cookie}");
        assert!(reply.header("set-cookie").is_some(), "{path} {cookie}");
    }
    assert_eq!(elsewhere.connections(), 0);
    // Among others of the name, the one that is good counts.
    let both = format!("sticky=x; {token}");
    assert_eq!(
        gateway.get_with("http://shop.test/a", &sending(&both)).await.header("set-cookie"),
        None
    );
}

#[tokio::test]
async fn a_session_ends_when_its_time_is_over() {
    let (_origins, addresses) = three().await;
    let permanent =
        "{sessionName: p, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}";
    let rules = rule("/short", &[("shop", 1)], "{sessionName: s, absoluteTimeout: 1s}")
        + &rule("/permanent", &[("shop", 1)], permanent);
    let yaml = backend("shop", &addresses) + &http_route("shop", &["shop.test"], &rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &yaml).start().await;

    let set = gateway.get("http://shop.test/permanent").await.header("set-cookie").unwrap();
    assert!(set.contains("; Max-Age=3600;"), "{set}");

    let first = gateway.get("http://shop.test/short").await;
    let set = first.header("set-cookie").unwrap();
    assert!(!set.contains("Max-Age") && !set.contains("Expires"), "{set}");
    let cookie = cookie(&first);
    // The limit itself: time has to pass. Tokens count whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let next = gateway.get_with("http://shop.test/short", &sending(&cookie)).await;
    assert!(next.header("set-cookie").is_some(), "another session begins");
}

#[tokio::test]
async fn a_session_may_be_a_header() {
    let (_origins, addresses) = three().await;
    let rules = rule("/", &[("shop", 1)], "{type: Header, sessionName: X-Session}");
    let yaml = backend("shop", &addresses) + &http_route("shop", &["shop.test"], &rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &yaml).start().await;
    let first = gateway.get("http://shop.test/").await;
    assert_eq!(first.header("set-cookie"), None);
    let line = format!("X-Session: {}\r\n", first.header("x-session").unwrap());
    for _ in 0..4 {
        let next = gateway.get_with("http://shop.test/", &line).await;
        assert_eq!((next.text(), next.header("x-session")), (first.text(), None));
    }
}
