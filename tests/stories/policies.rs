//! SecurityPolicies on a Gateway and its routes: the one that applies, what it does, and their statuses.

use crate::support::{
    Gateway, Greeter, Origin, Wire, forward_route, gateway_of, says_why, serve_all, soon,
};

/// A SecurityPolicy with one target and these fields beside it.
fn policy(name: &str, target: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: SecurityPolicy\n\
         metadata: {{name: {name}, namespace: envoy-gateway-system}}\nspec:\n  \
         targetRefs: [{{group: gateway.networking.k8s.io, {target}}}]\n{fields}"
    )
}

/// The status of one policy, as `check --status` prints it.
async fn status_of(gateway: &Gateway, name: &str) -> String {
    let mut command = gateway.setup_ref().command("check --status");
    command.args(gateway.setup_ref().files());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let documents = printed.split("---\n");
    let named = format!("kind: SecurityPolicy\nmetadata:\n  name: {name}\n");
    let found = documents.into_iter().find(|document| document.contains(&named));
    found.unwrap_or_else(|| panic!("{name}: {printed}")).to_owned()
}

#[tokio::test]
async fn the_policy_of_a_route_is_merged_with_that_of_its_gateway() {
    let shop = Origin::replying("shop").await;
    let cors = "  cors: {allowOrigins: [\"https://app.test\"], allowMethods: [GET]}\n";
    let merged = "  mergeType: StrategicMerge\n  cors: {allowMethods: [PUT], maxAge: 1m}\n";
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &serve_all("blog", "blog.test", &[shop.address])
        + &policy("base", "kind: Gateway, name: eg", cors)
        + &policy("shop", "kind: HTTPRoute, name: shop", merged);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    // (host, methods, how long a browser keeps the answer)
    for (host, methods, age) in [("shop.test", "PUT", Some("60")), ("blog.test", "GET", None)] {
        let mut wire = gateway.wire().await;
        wire.send(format!(
            "OPTIONS / HTTP/1.1\r\nHost: {host}\r\nOrigin: https://app.test\r\n\
             Access-Control-Request-Method: {methods}\r\nConnection: close\r\n\r\n"
        ))
        .await;
        let reply = wire.reply().await;
        let header = |name: &str| reply.header(&format!("access-control-{name}"));
        assert_eq!(header("allow-origin").as_deref(), Some("https://app.test"), "{host}");
        assert_eq!(header("allow-methods").as_deref(), Some(methods), "{host}");
        assert_eq!(header("max-age").as_deref(), age, "{host}");
    }

    let status = status_of(&gateway, "shop").await;
    assert!(status.contains("sectionName: http\n"), "{status}");
    let merged = "message: merged with SecurityPolicy envoy-gateway-system/base\n";
    assert!(status.contains(merged) && status.contains("type: Merged\n"), "{status}");
    let status = status_of(&gateway, "base").await;
    let routes = "routes HTTPRoute envoy-gateway-system/shop\n";
    assert!(status.contains(&format!("message: merged with the policies of {routes}")), "{status}");
}

#[tokio::test]
async fn two_policies_for_one_route_close_it_and_the_second_says_so() {
    let shop = Origin::replying("shop").await;
    let cors = "  cors: {allowOrigins: [\"https://app.test\"]}\n";
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &serve_all("blog", "blog.test", &[shop.address])
        + &policy("first", "kind: HTTPRoute, name: shop", cors)
        + &policy("second", "kind: HTTPRoute, name: shop", cors);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    assert_eq!(gateway.get("http://shop.test/").await.status(), 500);
    assert_eq!(gateway.get("http://blog.test/").await.text(), "shop");
    assert!(status_of(&gateway, "first").await.contains("reason: Accepted\n"));
    let status = status_of(&gateway, "second").await;
    assert!(status.contains("reason: Conflicted\n"), "{status}");
    assert!(status.contains("HTTPRoute envoy-gateway-system/shop is a target of"), "{status}");
}

/// Rules for the clients of documentation networks; nobody else is allowed.
const CLIENTS: &str = "  authorization:
    rules:
      - {action: Deny, principal: {clientCIDRs: [203.0.113.9/32]}}
      - {action: Allow, principal: {clientCIDRs: [203.0.113.0/24, \"2001:db8::/32\"]}}
      - {name: rest, action: Deny, principal: {clientCIDRs: [198.51.100.0/24]}}
";

#[tokio::test]
async fn a_client_is_allowed_by_its_address() {
    let shop = Origin::replying("shop").await;
    let merged = "  mergeType: StrategicMerge\n  authorization: {defaultAction: Allow}\n  \
                  cors: {allowOrigins: [\"https://app.test\"]}\n";
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &serve_all("blog", "blog.test", &[shop.address])
        + &policy("base", "kind: Gateway, name: eg", CLIENTS)
        + &policy("blog", "kind: HTTPRoute, name: blog", merged);
    let setup = || Gateway::setup().file("routes/shop.yaml", &files);
    let gateway = setup().flag("--trusted-proxies 127.0.0.0/8").start().await;
    let first = "securitypolicy/envoy-gateway-system/base/authorization/rule/0";
    // (host, client, the rule that denies it)
    let table = [
        ("shop.test", "203.0.113.8", None),
        ("shop.test", "::ffff:203.0.113.7", None),
        ("shop.test", "2001:db8::7", None),
        ("shop.test", "203.0.113.9", Some(first)),
        ("shop.test", "198.51.100.1", Some("rest")),
        ("shop.test", "192.0.2.1", Some("none")),
        // The rules are those of the Gateway's policy, the default is that of its own.
        ("blog.test", "203.0.113.9", Some(first)),
        ("blog.test", "192.0.2.1", None),
    ];
    let origin = "Origin: https://app.test\r\n";
    for (number, (host, client, denied_by)) in table.into_iter().enumerate() {
        let url = format!("http://{host}/{number}");
        let reply = gateway.get_with(&url, &format!("{origin}X-Forwarded-For: {client}\r\n")).await;
        let path = format!("/{number}");
        let entry = gateway.logged(client, |entry| entry["path"] == *path).await;
        assert_eq!(entry["flags"], "-", "{url} {client}");
        let Some(rule) = denied_by else {
            assert_eq!((reply.status(), &*reply.text()), (200, "shop"), "{url} {client}");
            continue;
        };
        let got = (reply.status(), &*reply.text());
        assert_eq!(got, (403, "RBAC: access denied"), "{url} {client}");
        let details = format!("rbac_access_denied_matched_policy[{rule}]");
        assert_eq!(entry["details"], *details, "{url} {client}");
        // A page of the other origin may read the refusal.
        let readable = reply.header("access-control-allow-origin").is_some();
        assert_eq!(readable, host == "blog.test", "{url} {client}");
    }
    assert_eq!(shop.requests().len(), 4);

    // The client is the peer if it is not a trusted proxy, whatever it says.
    let gateway = setup().start().await;
    let lines = "X-Forwarded-For: 203.0.113.8\r\n";
    assert_eq!(gateway.get_with("http://shop.test/", lines).await.status(), 403);
    assert_eq!(gateway.get_with("http://blog.test/", lines).await.status(), 200);

    // A refusal is no answer: the exit code says so.
    for (arguments, want, code) in [
        ("--client 203.0.113.8", "as for a client at 203.0.113.8; ", 0),
        (
            "--client 203.0.113.9",
            "403: RBAC: access denied (rbac_access_denied_matched_policy[secu",
            1,
        ),
        ("", "as for a client at 127.0.0.1; `--client` is for another", 1),
    ] {
        let mut command = gateway.setup_ref().command("explain http://shop.test/");
        command.args(arguments.split_whitespace());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains(want), "{arguments}: {printed}");
        assert_eq!(output.status.code(), Some(code), "{arguments}: {printed}");
    }
}

#[tokio::test]
async fn a_rule_allows_by_method_and_header() {
    let shop = Origin::replying("shop").await;
    let fields = "  authorization:\n    rules:\n      - name: team\n        action: Allow\n        \
                  operation: {methods: [GET]}\n        \
                  principal: {headers: [{name: x-team, values: [red, blue]}]}\n";
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &policy("base", "kind: Gateway, name: eg", fields);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    // (method, fields, status)
    let table = [
        ("GET", "X-Team: red\r\n", 200),
        ("GET", "X-Team: blue\r\n", 200),
        ("GET", "X-Team: green\r\n", 403),
        ("GET", "X-Team: red\r\nX-Team: red\r\n", 403),
        ("GET", "", 403),
        ("DELETE", "X-Team: red\r\n", 403),
    ];
    for (method, fields, status) in table {
        let mut wire = gateway.wire().await;
        wire.send(format!(
            "{method} / HTTP/1.1\r\nHost: shop.test\r\n{fields}Connection: close\r\n\r\n"
        ))
        .await;
        assert_eq!(wire.reply().await.status(), status, "{method} {fields}");
    }
    assert_eq!(shop.requests().len(), 2);
}

#[tokio::test]
async fn a_change_is_refused_if_a_page_of_another_host_sends_it() {
    let shop = Origin::replying("shop").await;
    let fields = "  cors: {allowOrigins: [\"https://app.test\"]}\n  \
                  csrf: {additionalOrigins: [\"https://*.pay.test\"]}\n";
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &policy("base", "kind: Gateway, name: eg", fields);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    // (method, fields, refused)
    let table = [
        ("POST", "Origin: https://shop.test\r\n", false),
        ("POST", "Origin: https://eu.pay.test\r\n", false),
        ("POST", "Referer: https://shop.test/cart\r\n", false),
        ("GET", "Origin: https://app.test\r\n", false),
        ("POST", "Origin: https://app.test\r\n", true),
        ("DELETE", "Origin: https://shop.test.evil.test\r\n", true),
        ("PUT", "Origin: null\r\n", true),
        ("PATCH", "", true),
    ];
    for (number, (method, fields, is_refused)) in table.into_iter().enumerate() {
        let mut wire = gateway.wire().await;
        wire.send(format!(
            "{method} /{number} HTTP/1.1\r\nHost: shop.test\r\n{fields}Content-Length: 0\r\n\
             Connection: close\r\n\r\n"
        ))
        .await;
        let reply = wire.reply().await;
        let path = format!("/{number}");
        let entry = gateway.logged(&path, |entry| entry["path"] == *path).await;
        if is_refused {
            let got = (reply.status(), &*reply.text(), &entry["details"], &entry["flags"]);
            assert_eq!((got.0, got.1), (403, "Invalid origin"), "{method} {fields}");
            assert_eq!((got.2.as_str(), got.3.as_str()), (Some("csrf_origin_mismatch"), Some("-")));
            // A page that may read responses may read the refusal.
            let readable = reply.header("access-control-allow-origin").is_some();
            assert_eq!(readable, fields.contains("app.test"), "{method} {fields}");
        } else {
            assert_eq!((reply.status(), &*reply.text()), (200, "shop"), "{method} {fields}");
        }
    }
    assert_eq!(shop.requests().len(), 4);
}

#[tokio::test]
async fn a_tcp_route_closes_the_connection_of_a_client_that_it_does_not_allow() {
    let greeter = Greeter::plain("one").await;
    let listeners = "- {name: inside, protocol: TCP, port: 9300}\n\
                     - {name: outside, protocol: TCP, port: 9301}\n";
    let here =
        "  authorization: {rules: [{action: Allow, principal: {clientCIDRs: [127.0.0.0/8]}}]}\n";
    let files = ["inside", "outside"]
        .map(|name| forward_route("TCPRoute", name, name, &[], &[(greeter.address, 1)]))
        .concat()
        + &policy("inside", "kind: TCPRoute, name: inside", here)
        + &policy("outside", "kind: TCPRoute, name: outside", CLIENTS);
    let gateway = Gateway::setup()
        .file("common/gateway.yaml", &gateway_of(listeners))
        .file("routes/tcp.yaml", &files)
        .socket("inside", "127.0.0.1:0")
        .socket("outside", "127.0.0.1:0")
        .start()
        .await;
    let mut allowed = Wire::connect(gateway.address("inside")).await;
    let greeting = soon("the greeting", allowed.through(b"\n")).await.unwrap();
    assert_eq!(greeting, b"hello from one\n");
    let mut denied = Wire::connect(gateway.address("outside")).await;
    assert_eq!(denied.rest().await, b"");
    says_why(&gateway, "outside", "-", "rbac_access_denied_matched_policy[none]").await;
    assert_eq!(greeter.connections(), 1);
}

#[tokio::test]
async fn a_range_that_is_none_closes_the_route_and_is_told_with_its_place() {
    let shop = Origin::replying("shop").await;
    let wrong = "  authorization:\n    defaultAction: Allow\n    rules:\n      - action: Deny\n        \
                 principal: {clientCIDRs: [10.0.0.0/8, 10.0.0.0/33]}\n";
    let files = serve_all("blog", "blog.test", &[shop.address])
        + &serve_all("shop", "shop.test", &[shop.address]);
    let gateway = Gateway::setup()
        .file("routes/shop.yaml", &files)
        .file("routes/policy.yaml", &policy("shop", "kind: HTTPRoute, name: shop", wrong))
        .start()
        .await;
    assert_eq!(gateway.get("http://shop.test/").await.status(), 500);
    assert_eq!(gateway.get("http://blog.test/").await.text(), "shop");
    let status = status_of(&gateway, "shop").await;
    assert!(status.contains("reason: Invalid\n"), "{status}");
    let mut command = gateway.setup_ref().command("check");
    command.args(gateway.setup_ref().files());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let printed =
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    let want = "policy.yaml:11:47: SecurityPolicy envoy-gateway-system/shop: \
                spec.authorization.rules[0].principal.clientCIDRs[1]: `10.0.0.0/33` is not an address \
                range; write it like `10.0.0.0/8` or `2001:db8::/32`";
    assert!(printed.contains(want), "{printed}");
}
