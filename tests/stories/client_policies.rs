//! ClientTrafficPolicies on the wire: who the client is, timeouts, headers, and what is closed.

use std::time::Duration;

use crate::support::{Gateway, Origin, Setup, Wire, forward_route, gateway_of, serve_all, soon};

/// A ClientTrafficPolicy with one target and these fields beside it.
fn policy(name: &str, target: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: ClientTrafficPolicy\n\
         metadata: {{name: {name}, namespace: envoy-gateway-system}}\nspec:\n  \
         targetRefs: [{{group: gateway.networking.k8s.io, {target}}}]\n{fields}"
    )
}

/// A gateway in front of `shop.test` with a policy for all its listeners.
fn governed(shop: &Origin, fields: &str) -> Setup {
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &policy("all", "kind: Gateway, name: eg", fields);
    Gateway::setup().file("routes/shop.yaml", &files)
}

/// The status of a request with these lines in its head.
async fn ask(gateway: &Gateway, lines: &str) -> u16 {
    let mut wire = gateway.wire().await;
    wire.send(format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{lines}Connection: close\r\n\r\n"))
        .await;
    soon("an answer", wire.reply()).await.status()
}

#[tokio::test]
async fn an_address_is_believed_from_those_that_the_policy_trusts_alone() {
    let detection = |fields: &str| format!("  clientIPDetection: {{{fields}}}\n");
    let hops = "X-Forwarded-For: 6.6.6.6, 203.0.113.9\r\nX-Forwarded-Proto: https\r\n";
    let client = "CF-Connecting-IP: 203.0.113.9\r\n";
    // (policy, lines that are sent, status, `X-Forwarded-For` and scheme that the backend gets)
    let table: [(&str, &str, u16, &str, &str); 9] = [
        (
            "xForwardedFor: {trustedCIDRs: [127.0.0.0/8]}",
            hops,
            200,
            "6.6.6.6, 203.0.113.9, 127.0.0.1",
            "https",
        ),
        ("xForwardedFor: {trustedCIDRs: [10.0.0.0/8]}", hops, 200, "127.0.0.1", "http"),
        (
            "xForwardedFor: {numTrustedHops: 1}",
            hops,
            200,
            "6.6.6.6, 203.0.113.9, 127.0.0.1",
            "https",
        ),
        ("xForwardedFor: {numTrustedHops: 3}", hops, 200, "127.0.0.1", "http"),
        ("xForwardedFor: {numTrustedHops: 0}", hops, 200, "127.0.0.1", "http"),
        ("customHeader: {name: CF-Connecting-IP}", client, 200, "203.0.113.9, 127.0.0.1", "http"),
        ("customHeader: {name: CF-Connecting-IP}", hops, 200, "127.0.0.1", "http"),
        ("customHeader: {name: CF-Connecting-IP, failClosed: true}", hops, 403, "", ""),
        ("directSourceIP: {}", hops, 200, "127.0.0.1", "http"),
    ];
    for (fields, lines, status, hops, scheme) in table {
        let shop = Origin::replying("shop").await;
        let gateway = governed(&shop, &detection(fields)).start().await;
        assert_eq!(ask(&gateway, lines).await, status, "{fields}");
        if status != 200 {
            assert_eq!(shop.connections(), 0, "{fields}");
            continue;
        }
        let seen = shop.last();
        assert_eq!(seen.head.all("x-forwarded-for"), [hops], "{fields}");
        assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some(scheme), "{fields}");
        let known = if hops.contains("203.0.113.9") { "203.0.113.9" } else { "127.0.0.1" };
        assert_eq!(seen.head.all("x-envoy-external-address"), [known], "{fields}");
    }
}

#[tokio::test]
async fn the_policy_takes_the_place_of_the_flag_and_feeds_authorization() {
    let shop = Origin::replying("shop").await;
    let fields = "  clientIPDetection: {xForwardedFor: {trustedCIDRs: [10.0.0.0/8]}}\n";
    let allowed = "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: SecurityPolicy\n\
                   metadata: {name: office, namespace: envoy-gateway-system}\nspec:\n  \
                   targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}]\n  \
                   authorization: {defaultAction: Deny, rules: [{action: Allow, principal: \
                   {clientCIDRs: [203.0.113.0/24]}}]}\n";
    let files = serve_all("shop", "shop.test", &[shop.address]) + allowed;
    let lie = "X-Forwarded-For: 203.0.113.9\r\n";
    // By the flag the peer is believed, by the policy it is not.
    let setup = || Gateway::setup().flag("--trusted-proxies 127.0.0.0/8");
    let gateway = setup().file("routes/shop.yaml", &files).start().await;
    assert_eq!(ask(&gateway, lie).await, 200);
    let files = files + &policy("all", "kind: Gateway, name: eg", fields);
    let gateway = setup().file("routes/shop.yaml", &files).start().await;
    assert_eq!(ask(&gateway, lie).await, 403);
}

#[tokio::test]
async fn a_request_must_be_complete_in_time() {
    let shop = Origin::replying("shop").await;
    let fields = "  timeout: {http: {requestReceivedTimeout: 300ms}}\n";
    let gateway = governed(&shop, fields).start().await;
    let mut wire = gateway.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100\r\n\r\n").await;
    // A byte at a time is progress, and late all the same.
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        wire.send("x").await;
    }
    let reply = soon("an answer", wire.reply()).await;
    assert_eq!(reply.status(), 408);
    assert_eq!(reply.header("connection").as_deref(), Some("close"));
    // One that is complete has all the time it needs for its answer.
    assert_eq!(ask(&gateway, "").await, 200);
}

#[tokio::test]
async fn each_listener_has_its_own_timeouts() {
    let shop = Origin::replying("shop").await;
    let fields = "  timeout: {http: {requestHeadersReceivedTimeout: 200ms, idleTimeout: 200ms}}\n";
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &policy("http", "kind: Gateway, name: eg, sectionName: http", fields);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    // A head that does not end, and a connection that rests.
    for begun in ["GET / HTTP/1.1\r\nHost: sh", "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"] {
        let mut wire = gateway.wire().await;
        wire.send(begun).await;
        if begun.ends_with("\r\n\r\n") {
            assert_eq!(wire.reply().await.status(), 200);
        }
        soon("the end", wire.rest()).await;
    }
}

#[tokio::test]
async fn a_handshake_that_is_not_begun_ends_in_time() {
    let shop = Origin::replying("shop").await;
    let fields = "  timeout: {tcp: {connectionInspectionTimeout: 200ms}}\n";
    let gateway = governed(&shop, fields).start().await;
    let stream = tokio::net::TcpStream::connect(gateway.https()).await.unwrap();
    let mut wire = Wire::tcp(stream);
    assert_eq!(soon("the end", wire.rest()).await, b"");
}

#[tokio::test]
async fn headers_are_changed_before_routing_and_on_every_response() {
    let shop = Origin::replying("shop").await;
    let fields = "  headers:\n    earlyRequestHeaders:\n      set: [{name: X-Set, value: ours}]\n      \
                  remove: [X-Gone]\n      removeOnMatch: [{type: Prefix, value: X-User-}]\n    \
                  lateResponseHeaders:\n      set: [{name: Strict-Transport-Security, value: max-age=1}]\n    \
                  requestID: PreserveOrGenerate\n    withUnderscoresAction: Allow\n    \
                  enableEnvoyHeaders: true\n    host: {stripTrailingHostDot: true}\n";
    let gateway = governed(&shop, fields).start().await;
    let mut wire = gateway.wire().await;
    wire.send(
        "GET / HTTP/1.1\r\nHost: shop.test.:81\r\nX-Set: theirs\r\nX-Gone: 1\r\nX-User-Id: root\r\n\
         x-user-NAME: root\r\nX-Request-Id: theirs\r\nsentry_trace: 1\r\nx_forwarded_for: 6.6.6.6\r\n\r\n",
    )
    .await;
    let reply = wire.reply().await;
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.header("strict-transport-security").as_deref(), Some("max-age=1"));
    let took = reply.header("x-envoy-upstream-service-time").unwrap();
    assert!(took.parse::<u64>().is_ok(), "{took}");
    let seen = shop.last();
    assert_eq!(seen.head.all("x-set"), ["ours"]);
    assert_eq!(seen.header("host").as_deref(), Some("shop.test:81"));
    assert_eq!(seen.header("x-request-id").as_deref(), Some("theirs"));
    assert_eq!(seen.header("sentry_trace").as_deref(), Some("1"));
    assert_eq!(seen.header("x-envoy-attempt-count").as_deref(), Some("1"));
    for gone in ["x-gone", "x-user-id", "x-user-name", "x_forwarded_for"] {
        assert!(!seen.head.has(gone), "{gone}");
    }
    // An answer of the gateway itself.
    wire.send("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n").await;
    let reply = wire.reply().await;
    assert_eq!(reply.status(), 404);
    assert_eq!(reply.header("strict-transport-security").as_deref(), Some("max-age=1"));
}

#[tokio::test]
async fn a_name_with_an_underscore_is_refused_where_the_policy_says_so() {
    let shop = Origin::replying("shop").await;
    let fields = "  headers: {withUnderscoresAction: RejectRequest}\n";
    let gateway = governed(&shop, fields).start().await;
    assert_eq!(ask(&gateway, "a_b: 1\r\n").await, 400);
    assert_eq!(ask(&gateway, "a-b: 1\r\n").await, 200);
}

#[tokio::test]
async fn a_policy_that_cannot_be_applied_closes_its_listeners() {
    let shop = Origin::replying("shop").await;
    let listeners = "- name: http\n  protocol: HTTP\n  port: 80\n\
                     - name: tcp\n  protocol: TCP\n  port: 81\n";
    let broken = "  headers: {earlyRequestHeaders: {}}\n";
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &forward_route("TCPRoute", "bytes", "tcp", &[], &[(shop.address, 1)])
        + &policy("all", "kind: Gateway, name: eg", broken);
    let gateway = Gateway::setup()
        .socket("tcp", "127.0.0.1:0")
        .file("common/gateway.yaml", &gateway_of(listeners))
        .file("routes/shop.yaml", &files)
        .start()
        .await;
    assert_eq!(ask(&gateway, "").await, 500);
    let stream = tokio::net::TcpStream::connect(gateway.address("tcp")).await.unwrap();
    let mut wire = Wire::tcp(stream);
    assert_eq!(soon("the end", wire.rest()).await, b"");
    assert_eq!(shop.connections(), 0);
}

#[tokio::test]
async fn escaped_slashes_are_handled_as_the_policy_says() {
    let action = |action: &str| format!("  path: {{{action}}}\n");
    // (policy, target, status, target that the backend or the client gets)
    let table: [(&str, &str, u16, &str); 10] = [
        ("disableMergeSlashes: false", "/a%2Fb", 200, "/a%2Fb"),
        ("escapedSlashesAction: KeepUnchanged", "/a%2fb?c=%2f", 200, "/a%2Fb?c=%2f"),
        ("escapedSlashesAction: RejectRequest", "/a%5Cb", 400, ""),
        ("escapedSlashesAction: RejectRequest", "/a/b?c=%2f", 200, "/a/b?c=%2f"),
        ("escapedSlashesAction: UnescapeAndForward", "/a%2F..%2fb?c=%2f", 200, "/b?c=%2f"),
        ("escapedSlashesAction: UnescapeAndForward", "/a%252Fb", 200, "/a%252Fb"),
        ("escapedSlashesAction: UnescapeAndRedirect", "/a%2Fb?c=%2f", 307, "/a/b?c=%2f"),
        ("escapedSlashesAction: UnescapeAndRedirect", "/%2Fevil.test", 307, "/evil.test"),
        ("disableMergeSlashes: true", "/a//b", 200, "/a//b"),
        // It would lead to another host.
        (
            "disableMergeSlashes: true, escapedSlashesAction: UnescapeAndRedirect",
            "/%2Fevil.test",
            400,
            "",
        ),
    ];
    for (fields, target, status, want) in table {
        let shop = Origin::replying("shop").await;
        let gateway = governed(&shop, &action(fields)).start().await;
        let mut wire = gateway.wire().await;
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n")).await;
        let reply = wire.reply().await;
        assert_eq!(reply.status(), status, "{fields} {target}");
        match status {
            200 => assert_eq!(shop.last().target(), want, "{fields} {target}"),
            307 => assert_eq!(reply.header("location").as_deref(), Some(want), "{fields} {target}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_health_check_is_answered_by_the_gateway_for_its_target_alone() {
    let shop = Origin::replying("shop").await;
    let fields = "  healthCheck: {path: \"/healthz?full\"}\n";
    let gateway = governed(&shop, fields).start().await;
    let mut wire = gateway.wire().await;
    // (host, target, status)
    for (host, target, status) in [
        ("nowhere.test", "/healthz?full", 200),
        ("nowhere.test", "/healthz", 404),
        ("shop.test", "/healthz?full", 200),
    ] {
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let reply = wire.reply().await;
        assert_eq!(
            (reply.status(), reply.text().as_str()),
            (status, if status == 200 { "" } else { "no route matches this host and path\n" }),
            "{host} {target}"
        );
    }
    assert_eq!(shop.connections(), 0);
}

#[tokio::test]
async fn an_upgrade_that_the_policy_ignores_is_not_forwarded() {
    let shop = Origin::replying("shop").await;
    let fields = "  http1: {ignoredUpgradeTypes: [{type: Prefix, value: Web}]}\n";
    let gateway = governed(&shop, fields).start().await;
    let lines = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    let mut wire = gateway.wire().await;
    wire.send(format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{lines}\r\n")).await;
    assert_eq!(wire.reply().await.status(), 200);
    assert!(!shop.last().head.has("upgrade"));
}

#[tokio::test]
async fn explain_names_the_policy_and_what_it_answers() {
    let shop = Origin::replying("shop").await;
    let fields =
        "  path: {escapedSlashesAction: UnescapeAndRedirect}\n  healthCheck: {path: /healthz}\n";
    let setup = governed(&shop, fields);
    let explain = |url: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_edge-gateway"));
        command.env_clear().env("DOMAIN", "gateway.test").arg("explain").args(setup.files());
        String::from_utf8(command.arg(url).output().unwrap().stdout).unwrap()
    };
    // (URL, what is said)
    for (url, said) in [
        ("http://shop.test/a", "ClientTrafficPolicy envoy-gateway-system/all"),
        ("http://shop.test/a%2Fb", "location: /a/b"),
        (
            "http://shop.test/healthz",
            "health check of ClientTrafficPolicy envoy-gateway-system/all",
        ),
    ] {
        let told = explain(url);
        assert!(told.contains(said), "{told}");
    }
}
