//! What a backend is told about the client (RFC 7239 section 8.1), and by whom.

use std::collections::HashSet;

use crate::support::{Gateway, Origin, backend, http_route, serve_all};

/// Every name by which a client might claim to be someone else.
const FORGED: &str = "\
X-Forwarded-For: 6.6.6.6\r\n\
X-Forwarded-Proto: gopher\r\n\
X-Forwarded-Host: evil.test\r\n\
X-Forwarded-Port: 666\r\n\
X-Forwarded-Server: evil.test\r\n\
X-Real-IP: 6.6.6.6\r\n\
X-Request-Id: forged\r\n\
Forwarded: for=6.6.6.6;host=evil.test;proto=gopher\r\n";

#[tokio::test]
async fn a_client_cannot_speak_for_a_proxy() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;

    for scheme in ["http", "https"] {
        let port = gateway.address(scheme).port();
        for lines in ["", FORGED] {
            let url = format!("{scheme}://shop.test:{port}/");
            assert_eq!(gateway.get_with(&url, lines).await.status(), 200);
            let seen = shop.last();
            let header = |name| seen.header(name);
            assert_eq!(header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
            assert_eq!(header("x-forwarded-proto").as_deref(), Some(scheme));
            assert_eq!(header("x-forwarded-port"), Some(port.to_string()));
            let host = header("x-forwarded-host").unwrap();
            assert_eq!(host.trim_end_matches(&format!(":{port}")), "shop.test");
            assert_eq!(header("host"), Some(format!("shop.test:{port}")));
            assert!(header("x-real-ip").is_none_or(|address| address == "127.0.0.1"));
            let head = seen.head.text();
            for claim in ["6.6.6.6", "evil", "gopher", "forged"] {
                assert!(!head.contains(claim), "{claim} in {head}");
            }
            // As a whole field: three digits may be in any identifier.
            assert!(!head.lines().any(|line| line.ends_with(": 666")), "{head}");
        }
    }
}

#[tokio::test]
async fn every_request_has_an_identifier_of_its_own_that_the_log_knows() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    for _ in 0..3 {
        gateway.get("http://shop.test/").await;
    }
    let seen = shop.requests();
    let ids: HashSet<_> = seen.iter().map(|seen| seen.header("x-request-id").unwrap()).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    for id in ids {
        let entry = gateway.logged("the identifier", |entry| entry["request_id"] == *id).await;
        assert_eq!(entry["status"], 200);
    }
}

#[tokio::test]
async fn a_trusted_proxy_speaks_for_its_clients() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::setup()
        .flag("--trusted-proxies 127.0.0.0/8,::1/128")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;

    let lines = "X-Forwarded-For: 6.6.6.6, 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\
                 X-Forwarded-Host: public.test\r\nX-Forwarded-Port: 443\r\n\
                 X-Request-Id: 0f-the-proxys\r\n";
    assert_eq!(gateway.get_with("http://shop.test/", lines).await.status(), 200);
    let seen = shop.last();
    let all = seen.head.all("x-forwarded-for").join(", ");
    assert_eq!(all, "6.6.6.6, 203.0.113.9, 127.0.0.1");
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(seen.header("x-forwarded-host").as_deref(), Some("public.test"));
    assert_eq!(seen.header("x-forwarded-port").as_deref(), Some("443"));
    assert_eq!(seen.header("x-request-id").as_deref(), Some("0f-the-proxys"));

    // One that says nothing is told what there is to tell.
    assert_eq!(gateway.get("http://shop.test/").await.status(), 200);
    let seen = shop.last();
    assert_eq!(seen.header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("http"));
}

/// Proxies write `IP:PORT` and brackets (Azure Application Gateway does), and the client is known.
#[tokio::test]
async fn a_client_is_known_however_a_trusted_proxy_writes_it() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::setup()
        .flag("--trusted-proxies 127.0.0.0/8")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    for (number, (sent, client)) in [
        ("203.0.113.9:51234", "203.0.113.9"),
        ("[2001:db8::9]:51234", "2001:db8::9"),
        ("[2001:db8::9]", "2001:db8::9"),
        ("198.51.100.1, 203.0.113.9:51234", "203.0.113.9"),
        ("203.0.113.9:1, 127.0.0.2:2", "203.0.113.9"),
    ]
    .into_iter()
    .enumerate()
    {
        let url = format!("http://shop.test/{number}");
        gateway.get_with(&url, &format!("X-Forwarded-For: {sent}\r\n")).await;
        let all = shop.last().head.all("x-forwarded-for").join(", ");
        assert_eq!(all, format!("{sent}, 127.0.0.1"));
        let path = format!("/{number}");
        let entry = gateway.logged(sent, |entry| entry["path"] == *path).await;
        assert_eq!(entry["client"], client, "{sent}");
    }
}

/// Behind a port mapping the port that the client used is in `Host`, and not the socket's.
#[tokio::test]
async fn the_port_is_the_one_that_the_client_used() {
    let shop = Origin::replying("shop").await;
    let moved = "\
- matches: [{path: {value: /moved}}]
  filters:
    - {type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /new}}}
";
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &http_route("moved", &["shop.test"], moved);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    for scheme in ["http", "https"] {
        let own = gateway.address(scheme).port();
        for (host, port) in [("shop.test:7443", 7443), ("shop.test", own), ("shop.test:", own)] {
            gateway.get_with(&format!("{scheme}://{host}/"), FORGED).await;
            let seen = shop.last();
            assert_eq!(seen.header("x-forwarded-host").as_deref(), Some(host));
            assert_eq!(seen.header("x-forwarded-port"), Some(port.to_string()), "{host}");
            let reply = gateway.get(&format!("{scheme}://{host}/moved")).await;
            let location = format!("{scheme}://shop.test:{port}/new");
            assert_eq!(reply.header("location"), Some(location), "{host}");
        }
    }
    let mut http2 = gateway.http2("shop.test").await;
    http2.get("https://shop.test:7443/").await;
    assert_eq!(shop.last().header("x-forwarded-port").as_deref(), Some("7443"));
    let mut wire = gateway.wire().await;
    wire.send("GET http://shop.test:7080/ HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!(wire.reply().await.status(), 200);
    assert_eq!(shop.last().header("x-forwarded-host").as_deref(), Some("shop.test:7080"));
    assert_eq!(shop.last().header("x-forwarded-port").as_deref(), Some("7080"));
}

#[tokio::test]
async fn a_route_has_the_last_word() {
    let shop = Origin::replying("shop").await;
    let rules = "\
- filters:
    - type: RequestHeaderModifier
      requestHeaderModifier:
        set:
          - {name: X-Forwarded-Proto, value: https}
          - {name: X-Forwarded-Host, value: \"${DOMAIN}\"}
          - {name: X-Forwarded-Port, value: \"443\"}
  backendRefs:
    - {group: gateway.envoyproxy.io, kind: Backend, name: shop}
";
    let files = backend("shop", &[shop.address]) + &http_route("shop", &["shop.test"], rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    assert_eq!(gateway.get_with("http://shop.test/", FORGED).await.status(), 200);
    let seen = shop.last();
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(seen.header("x-forwarded-host").as_deref(), Some("gateway.test"));
    assert_eq!(seen.header("x-forwarded-port").as_deref(), Some("443"));
}

/// The fields of a request that no backend gets count as well: here one of them decides that it is
/// redirected.
#[tokio::test]
async fn a_route_matches_the_fields_that_the_gateway_sets() {
    let shop = Origin::replying("shop").await;
    let rules = "\
- matches: [{headers: [{name: X-Forwarded-Proto, value: http}]}]
  filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}]
- matches: [{headers: [{name: X-Request-Id, value: forged}]}]
  filters: [{type: RequestRedirect, requestRedirect: {scheme: http, statusCode: 302}}]
- backendRefs:
    - {group: gateway.envoyproxy.io, kind: Backend, name: shop}
";
    let files = backend("shop", &[shop.address]) + &http_route("shop", &["shop.test"], rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    for lines in ["", FORGED, "X-Forwarded-Proto: http\r\n", "X-Forwarded-Proto: https\r\n"] {
        assert_eq!(gateway.get_with("http://shop.test/", lines).await.status(), 301, "{lines}");
        assert_eq!(gateway.get_with("https://shop.test/", lines).await.status(), 200, "{lines}");
        assert_eq!(shop.last().header("x-forwarded-proto").as_deref(), Some("https"));
    }
    assert_eq!(shop.requests().len(), 4);
}

/// A backend by CGI or WSGI cannot tell `X_Forwarded_For` from `X-Forwarded-For`.
#[tokio::test]
async fn a_name_with_an_underscore_does_not_pass_for_one_with_a_hyphen() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let lines = "X_Forwarded_For: 6.6.6.6\r\nX-Forwarded_Proto: gopher\r\nRemote_User: root\r\n";
    let reply = gateway.get_with("http://shop.test/", lines).await;
    // Dropped by default; refused would do as well.
    assert!(matches!(reply.status(), 200 | 400), "{reply:?}");
    for seen in shop.seen() {
        let names = seen.head.text().to_lowercase();
        assert!(!names.contains('_'), "{names}");
    }
}
