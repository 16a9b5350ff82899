//! Which backend a request reaches, and what a route does to it on the way.

use std::collections::HashMap;

use tokio::net::UnixListener;

use crate::support::{
    Answer, Gateway, Origin, Wire, backend, http_route, refusing_address, rule_to, serve_all, soon,
};

#[tokio::test]
async fn a_request_reaches_the_backend_of_its_host() {
    let shop = Origin::replying("shop").await;
    let any = Origin::replying("any of example.test").await;
    let one = Origin::replying("one.example.test").await;
    let gateway = Gateway::setup()
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .file("routes/any.yaml", &serve_all("any", "*.example.test", &[any.address]))
        .file("routes/one.yaml", &serve_all("one", "one.example.test", &[one.address]))
        .start()
        .await;

    // (host, status, body)
    let table = [
        ("shop.test", 200, Some("shop")),
        ("SHOP.test", 200, Some("shop")),
        ("shop.test:8080", 200, Some("shop")),
        ("one.example.test", 200, Some("one.example.test")),
        ("two.example.test", 200, Some("any of example.test")),
        ("a.b.example.test", 200, Some("any of example.test")),
        ("example.test", 404, None),
        ("notshop.test", 404, None),
        ("127.0.0.1", 404, None),
        ("[::1]", 404, None),
    ];
    for (host, status, body) in table {
        let reply = gateway.get(&format!("http://{host}/")).await;
        assert_eq!(reply.status(), status, "{host}");
        if let Some(body) = body {
            assert_eq!(reply.text(), body, "{host}");
        }
    }
    assert_eq!(gateway.get("https://shop.test/").await.text(), "shop", "the same by TLS");
}

/// HTTPRoute, "Matching precedence": exact path, longest prefix, method, headers, query.
#[tokio::test]
async fn the_most_specific_match_wins_whatever_the_order_in_the_file() {
    let origin = Origin::scripted(|seen| Answer::ok(&seen.header("x-rule").unwrap())).await;
    let names = ["root", "a", "a-post", "a-header", "a-query", "a-b", "a-b-exact"];
    let matches = [
        "path: {type: PathPrefix, value: /}",
        "path: {type: PathPrefix, value: /a}",
        "path: {type: PathPrefix, value: /a}\n      method: POST",
        "path: {type: PathPrefix, value: /a}\n      headers: [{name: X-Beta, value: \"1\"}]",
        "path: {type: PathPrefix, value: /a}\n      queryParams: [{name: beta, value: \"1\"}]",
        "path: {type: PathPrefix, value: /a/b}",
        "path: {type: Exact, value: /a/b}",
    ];
    let rules: String = names
        .iter()
        .zip(matches)
        .map(|(name, one)| {
            format!(
                "- matches:\n    - {one}\n  filters:\n    - type: RequestHeaderModifier\n      \
                 requestHeaderModifier:\n        set: [{{name: X-Rule, value: {name}}}]\n  \
                 backendRefs:\n    - {{group: gateway.envoyproxy.io, kind: Backend, name: shop}}\n"
            )
        })
        .collect();
    let files = backend("shop", &[origin.address]) + &http_route("shop", &["shop.test"], &rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;

    // (request line and headers, rule)
    let table = [
        ("GET /", "root"),
        ("GET /abc", "root"),
        ("GET /a", "a"),
        ("GET /a/", "a"),
        ("GET /a?beta=2", "a"),
        ("POST /a", "a-post"),
        ("GET /a/x\r\nx-beta: 1", "a-header"),
        ("POST /a\r\nX-Beta: 1", "a-post"),
        ("GET /a?beta=1", "a-query"),
        ("GET /a?beta=1\r\nX-Beta: 1", "a-header"),
        ("GET /a/b/", "a-b"),
        ("POST /a/b/c\r\nX-Beta: 1", "a-b"),
        ("GET /a/b", "a-b-exact"),
    ];
    let mut wire = gateway.wire().await;
    for (request, rule) in table {
        let (line, header) = request.split_once("\r\n").unwrap_or((request, "X-None: 0"));
        wire.send(format!(
            "{line} HTTP/1.1\r\nHost: shop.test\r\n{header}\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
        assert_eq!(wire.reply().await.text(), rule, "{request}");
    }
}

#[tokio::test]
async fn a_regular_expression_matches_the_whole_path() {
    let shop = Origin::replying("item").await;
    let rules = "\
- matches:
    - path:
        type: RegularExpression
        value: /item/[0-9]+
  backendRefs:
    - group: gateway.envoyproxy.io
      kind: Backend
      name: shop
";
    let files = backend("shop", &[shop.address]) + &http_route("shop", &["shop.test"], rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    for (path, status) in [("/item/12", 200), ("/item/x", 404), ("/x/item/12", 404)] {
        assert_eq!(
            gateway.get(&format!("http://shop.test{path}")).await.status(),
            status,
            "{path}"
        );
    }
}

/// HTTPRoute `backendRefs`: an invalid one keeps its share of the traffic, and answers 500 for it.
#[tokio::test]
async fn a_broken_reference_answers_500_for_its_share() {
    let shop = Origin::replying("shop").await;
    let rules = rule_to("/", "shop")
        + "    - group: gateway.envoyproxy.io\n      kind: Backend\n      name: nowhere\n";
    let files = backend("shop", &[shop.address]) + &http_route("shop", &["shop.test"], &rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;

    let mut statuses = HashMap::<u16, u32>::new();
    let mut wire = gateway.wire().await;
    for _ in 0..100 {
        wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
        *statuses.entry(wire.reply().await.status()).or_default() += 1;
    }
    assert_eq!(statuses.values().sum::<u32>(), 100);
    // Half of it: less than a quarter would be off by more than five standard deviations.
    let share = |status| statuses.get(&status).copied().unwrap_or(0);
    assert!(share(200) >= 25 && share(500) >= 25, "{statuses:?}");
    let stderr = gateway.process().stderr();
    assert!(stderr.contains("nowhere") && stderr.contains("shop.yaml:"), "{stderr}");
}

#[tokio::test]
async fn weights_share_out_the_traffic() {
    let (many, few) = (Origin::replying("many").await, Origin::replying("few").await);
    let rules = "\
- backendRefs:
    - {group: gateway.envoyproxy.io, kind: Backend, name: many, weight: 3}
    - {group: gateway.envoyproxy.io, kind: Backend, name: few, weight: 1}
    - {group: gateway.envoyproxy.io, kind: Backend, name: none, weight: 0}
";
    let files = backend("many", &[many.address])
        + &backend("few", &[few.address])
        + &backend("none", &[refusing_address()])
        + &http_route("shop", &["shop.test"], rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;

    let mut wire = gateway.wire().await;
    for _ in 0..400 {
        wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
        assert_eq!(wire.reply().await.status(), 200);
    }
    let few = few.requests().len();
    // 100 expected; 50 to 150 is beyond five standard deviations either way.
    assert!((50..=150).contains(&few), "{few} of 400");
}

#[tokio::test]
async fn endpoints_take_turns() {
    let (a, b) = (Origin::replying("a").await, Origin::replying("b").await);
    let files = serve_all("shop", "shop.test", &[a.address, b.address]);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    for _ in 0..10 {
        assert_eq!(gateway.get("http://shop.test/").await.status(), 200);
    }
    let (a, b) = (a.requests().len(), b.requests().len());
    assert!(a >= 3 && b >= 3, "{a} and {b} of 10");
}

#[tokio::test]
async fn filters_change_the_request_and_the_response() {
    let shop = Origin::scripted(|_| {
        Answer::raw(
            "HTTP/1.1 200 OK\r\nServer: secret/1.0\r\nX-Kept: yes\r\nX-Old: old\r\n\
             Content-Length: 2\r\n\r\nok",
        )
    })
    .await;
    let rules = "\
- matches:
    - path: {type: PathPrefix, value: /old}
  filters:
    - type: RequestHeaderModifier
      requestHeaderModifier:
        set: [{name: X-Set, value: set}]
        add: [{name: X-Add, value: added}]
        remove: [X-Remove]
    - type: URLRewrite
      urlRewrite:
        hostname: inner.test
        path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}
    - type: ResponseHeaderModifier
      responseHeaderModifier:
        set: [{name: X-Old, value: new}]
        add: [{name: X-More, value: more}]
        remove: [Server]
  backendRefs:
    - group: gateway.envoyproxy.io
      kind: Backend
      name: shop
      filters:
        - type: RequestHeaderModifier
          requestHeaderModifier:
            set: [{name: X-Backend, value: shop}]
";
    let files = backend("shop", &[shop.address]) + &http_route("shop", &["shop.test"], rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;

    let lines = "X-Set: client\r\nX-Add: client\r\nx-remove: client\r\n";
    let reply = gateway.get_with("http://shop.test/old/item?q=1", lines).await;
    assert_eq!(reply.header("server"), None);
    assert_eq!(reply.header("x-kept").as_deref(), Some("yes"));
    assert_eq!(reply.header("x-old").as_deref(), Some("new"));
    assert_eq!(reply.header("x-more").as_deref(), Some("more"));
    let seen = shop.last();
    assert_eq!(seen.target(), "/new/item?q=1");
    assert_eq!(seen.header("host").as_deref(), Some("inner.test"));
    assert_eq!(seen.header("x-set").as_deref(), Some("set"));
    assert_eq!(seen.head.all("x-add").join(","), "client,added");
    assert_eq!(seen.header("x-remove"), None);
    assert_eq!(seen.header("x-backend").as_deref(), Some("shop"));

    // HTTPRoute `ReplacePrefixMatch`: the prefix goes as a whole element.
    assert_eq!(gateway.get("http://shop.test/old").await.status(), 200);
    assert_eq!(shop.last().target(), "/new");
    assert_eq!(gateway.get("http://shop.test/older").await.status(), 404);
}

#[tokio::test]
async fn a_mirror_gets_a_copy_and_harms_nobody() {
    let shop = Origin::replying("shop").await;
    let copy = Origin::scripted(|_| Answer::hang()).await;
    let rules = "\
- filters:
    - type: RequestMirror
      requestMirror:
        backendRef: {group: gateway.envoyproxy.io, kind: Backend, name: copy}
    - type: RequestMirror
      requestMirror:
        backendRef: {group: gateway.envoyproxy.io, kind: Backend, name: dead}
  backendRefs:
    - {group: gateway.envoyproxy.io, kind: Backend, name: shop}
";
    let files = backend("shop", &[shop.address])
        + &backend("copy", &[copy.address])
        + &backend("dead", &[refusing_address()])
        + &http_route("shop", &["shop.test"], rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;

    let mut wire = gateway.wire().await;
    wire.send("POST /a?b=c HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nhello").await;
    assert_eq!(wire.reply().await.text(), "shop");
    copy.saw(1).await;
    let seen = copy.last();
    assert_eq!((seen.target().as_str(), seen.text().as_str()), ("/a?b=c", "hello"));
    assert_eq!(shop.last().text(), "hello");
}

#[tokio::test]
async fn a_preflight_is_answered_for_the_backend() {
    let shop = Origin::replying("shop").await;
    let rules = "\
- matches:
    - path: {type: PathPrefix, value: /api}
      method: GET
  filters:
    - type: CORS
      cors:
        allowOrigins: [\"https://app.test\"]
        allowMethods: [GET, PUT]
        allowHeaders: [X-Token]
        maxAge: 60
  backendRefs:
    - {group: gateway.envoyproxy.io, kind: Backend, name: shop}
";
    let files = backend("shop", &[shop.address]) + &http_route("shop", &["shop.test"], rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;

    let preflight = |origin| {
        format!(
            "OPTIONS /api HTTP/1.1\r\nHost: shop.test\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: PUT\r\nConnection: close\r\n\r\n"
        )
    };
    let mut wire = gateway.wire().await;
    wire.send(preflight("https://app.test")).await;
    let reply = wire.reply().await;
    assert!(matches!(reply.status(), 200 | 204), "{reply:?}");
    assert_eq!(reply.header("access-control-allow-origin").as_deref(), Some("https://app.test"));
    assert_eq!(reply.header("access-control-max-age").as_deref(), Some("60"));
    let mut wire = gateway.wire().await;
    wire.send(preflight("https://evil.test")).await;
    let reply = wire.reply().await;
    assert_eq!(reply.header("access-control-allow-origin"), None);
    let varies = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    assert_eq!(reply.header("vary").as_deref(), Some(varies));
    assert!(shop.requests().iter().all(|seen| seen.method() != "OPTIONS"), "{:?}", shop.seen());

    let reply = gateway.get_with("http://shop.test/api", "Origin: https://app.test\r\n").await;
    assert_eq!(reply.text(), "shop");
    assert_eq!(reply.header("access-control-allow-origin").as_deref(), Some("https://app.test"));
}

/// Fetch standard, "CORS protocol and HTTP caches": a cache must not give one origin's response to
/// another, so every response of such a rule says that it depends on it.
#[tokio::test]
async fn every_response_of_a_cors_rule_depends_on_the_origin() {
    let shop = Origin::scripted(|seen| match &*seen.target() {
        "/api/vary" => Answer::raw(
            "HTTP/1.1 200 OK\r\nVary: Accept\r\nVary: origin\r\nContent-Length: 0\r\n\r\n",
        ),
        "/api/reset" => Answer::reset(),
        "/api/bad" => Answer::status(500, "bad"),
        _ => Answer::ok("shop"),
    })
    .await;
    let cors =
        "    - {type: CORS, cors: {allowOrigins: [\"https://app.test\", \"https://b.test\"]}}\n";
    let to = |name: &str| {
        format!("  backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: {name}}}]\n")
    };
    let by = |path: &str| format!("- matches: [{{path: {{value: {path}}}}}]\n  filters:\n");
    let rules = by("/api")
        + cors
        + &to("shop")
        + &by("/dead")
        + cors
        + &to("dead")
        + &by("/none")
        + cors
        + &to("nobody")
        + &by("/moved")
        + cors
        + "    - {type: RequestRedirect, requestRedirect: {scheme: https}}\n"
        + &by("/plain").replace("  filters:\n", "")
        + &to("shop");
    let files = backend("shop", &[shop.address])
        + &backend("dead", &[refusing_address()])
        + &http_route("shop", &["shop.test"], &rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;

    let (ours, theirs) = ("Origin: https://app.test\r\n", "Origin: https://evil.test\r\n");
    for (path, status) in [
        ("/api", 200),
        ("/api/vary", 200),
        ("/api/bad", 500),
        ("/api/reset", 502),
        ("/dead", 503),
        ("/none", 500),
        ("/moved", 302),
    ] {
        for lines in ["", ours, theirs] {
            let reply = gateway.get_with(&format!("http://shop.test{path}"), lines).await;
            assert_eq!(reply.status(), status, "{path}");
            let vary = reply.head.all("vary").join(", ").to_lowercase();
            let count = vary.split(", ").filter(|name| *name == "origin").count();
            assert_eq!(count, 1, "{path} {lines}: {reply:?}");
            let allowed = reply.header("access-control-allow-origin");
            let want = (lines == ours).then_some("https://app.test");
            assert_eq!(allowed.as_deref(), want, "{path} {lines}: {reply:?}");
        }
    }
    let reply = gateway.get_with("http://shop.test/plain", ours).await;
    assert_eq!((reply.status(), reply.header("vary")), (200, None));
}

#[tokio::test]
async fn a_backend_of_another_namespace_needs_a_grant() {
    let shop = Origin::replying("shop").await;
    let there = backend("shop", &[shop.address]).replace("envoy-gateway-system", "other");
    let rules = rule_to("/", "shop") + "      namespace: other\n";
    let files = there + &http_route("shop", &["shop.test"], &rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    assert_eq!(gateway.get("http://shop.test/").await.status(), 500);

    let grant = "\
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata:
  name: shop
  namespace: other
spec:
  from:
    - group: gateway.networking.k8s.io
      kind: HTTPRoute
      namespace: envoy-gateway-system
  to:
    - group: gateway.envoyproxy.io
      kind: Backend
      name: shop
";
    gateway.write("routes/grant.yaml", grant);
    gateway.reload().await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    gateway.remove("routes/grant.yaml");
    gateway.reload_with_removals().await;
    assert_eq!(gateway.get("http://shop.test/").await.status(), 500);
}

#[tokio::test]
async fn a_service_is_served_by_the_endpoints_of_its_slices() {
    let shop = Origin::replying("shop").await;
    let service = "\
apiVersion: v1
kind: Service
metadata:
  name: shop
  namespace: envoy-gateway-system
spec:
  ports:
    - name: web
      port: 80
      targetPort: 3000
";
    let slice = format!(
        "apiVersion: discovery.k8s.io/v1\n\
         kind: EndpointSlice\n\
         metadata:\n  name: shop-1\n  namespace: envoy-gateway-system\n  \
           labels:\n    kubernetes.io/service-name: shop\n\
         addressType: IPv4\n\
         ports:\n  - name: web\n    port: {}\n\
         endpoints:\n  - addresses: [\"127.0.0.1\"]\n    conditions: {{ready: true}}\n",
        shop.address.port()
    );
    let rules = "- backendRefs:\n    - {name: shop, port: 80}\n";
    let gateway = Gateway::setup()
        .file("routes/service.yaml", service)
        .file("routes/shop.yaml", &http_route("shop", &["shop.test"], rules))
        .start()
        .await;
    assert_eq!(gateway.get("http://shop.test/").await.status(), 503, "no endpoint is ready");

    gateway.write("routes/slice.yaml", &slice);
    gateway.reload().await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
}

#[tokio::test]
async fn a_backend_may_be_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let shop = format!(
        "---\n\
         apiVersion: gateway.envoyproxy.io/v1alpha1\n\
         kind: Backend\n\
         metadata:\n  name: shop\n  namespace: envoy-gateway-system\n\
         spec:\n  endpoints:\n    - unix:\n        path: {}\n",
        path.display()
    );
    let files = shop + &http_route("shop", &["shop.test"], &rule_to("/", "shop"));
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;

    let mut client = gateway.wire().await;
    client.send("GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    let (stream, _) = soon("a connection to the socket", listener.accept()).await.unwrap();
    let mut wire = Wire::over(stream);
    assert_eq!(wire.request().await.unwrap().target(), "/a");
    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix").await;
    assert_eq!(client.reply().await.text(), "unix");
}

#[tokio::test]
async fn a_route_that_is_on_one_listener_is_not_on_the_other() {
    let shop = Origin::replying("shop").await;
    let files = serve_all("shop", "shop.test", &[shop.address])
        .replace("    - name: eg\n", "    - name: eg\n      sectionName: https\n");
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    assert_eq!(gateway.get("https://shop.test/").await.text(), "shop");
    assert_eq!(gateway.get("http://shop.test/").await.status(), 404);
}

/// An HTTPRouteFilter of Envoy Gateway answers in place of a backend.
#[tokio::test]
async fn a_direct_response_needs_no_backend() {
    let filter = "\
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: HTTPRouteFilter
metadata: {name: noon, namespace: envoy-gateway-system}
spec:
  directResponse:
    statusCode: 503
    contentType: text/plain
    body: {type: Inline, inline: back at noon}
";
    let rules = "\
- filters:
    - type: ExtensionRef
      extensionRef: {group: gateway.envoyproxy.io, kind: HTTPRouteFilter, name: noon}
";
    let files = filter.to_owned() + &http_route("shop", &["shop.test"], rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    let reply = gateway.get("http://shop.test/").await;
    assert_eq!((reply.status(), reply.text().as_str()), (503, "back at noon"));
    assert_eq!(reply.header("content-type").as_deref(), Some("text/plain"));
    let entry = gateway.logged("the answer", |entry| entry["status"] == 503).await;
    assert_eq!(entry["details"], "direct_response");
}

/// The body is its author's: neither the environment nor a dollar sign changes it.
#[tokio::test]
async fn a_direct_response_is_sent_as_it_is_written() {
    let page = "const s = `hello ${HOME} ${not-a-name} $$`";
    let filter = |name: &str, body: &str| {
        format!(
            "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: HTTPRouteFilter\n\
             metadata: {{name: {name}, namespace: envoy-gateway-system}}\n\
             spec: {{directResponse: {{body: {body}}}}}\n"
        )
    };
    let map = format!(
        "---\napiVersion: v1\nkind: ConfigMap\n\
         metadata: {{name: page, namespace: envoy-gateway-system}}\n\
         data:\n  response.body: |-\n    {page}\n"
    );
    let inline = format!("{{type: Inline, inline: \"{page}\"}}");
    let by_name = "{type: ValueRef, valueRef: {group: \"\", kind: ConfigMap, name: page}}";
    let rule = |name: &str| {
        format!(
            "- matches: [{{path: {{type: Exact, value: /{name}}}}}]\n  filters: [{{type: ExtensionRef, \
             extensionRef: {{group: gateway.envoyproxy.io, kind: HTTPRouteFilter, name: {name}}}}}]\n"
        )
    };
    let rules = rule("inline") + &rule("map");
    let files = map + &filter("inline", &inline) + &filter("map", by_name);
    let files = files + &http_route("shop", &["shop.test"], &rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    for path in ["inline", "map"] {
        let reply = gateway.get(&format!("http://shop.test/{path}")).await;
        assert_eq!((reply.status(), reply.text().as_str()), (200, page), "{path}");
    }
}

/// kubectl takes JSON, and so does the gateway.
#[tokio::test]
async fn a_route_in_json_is_served() {
    let shop = Origin::replying("shop").await;
    let route = "{\"apiVersion\": \"gateway.networking.k8s.io/v1\", \"kind\": \"HTTPRoute\",\n\
                 \t\"metadata\": {\"name\": \"json\", \"namespace\": \"envoy-gateway-system\"},\n\
                 \t\"spec\": {\"parentRefs\": [{\"name\": \"eg\"}], \"hostnames\": [\"json.test\"], \"rules\": [\n\
                 \t\t{\"backendRefs\": [{\"group\": \"gateway.envoyproxy.io\", \"kind\": \"Backend\", \"name\": \"shop\"}]}]}}";
    let gateway = Gateway::setup()
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .file("routes/route.json", route)
        .start()
        .await;
    assert_eq!(gateway.get("http://json.test/").await.text(), "shop");
}

/// Nothing is served open that somebody should guard.
#[tokio::test]
async fn what_a_security_policy_is_to_protect_is_closed() {
    let shop = Origin::replying("shop").await;
    let policy = "\
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {name: guard, namespace: envoy-gateway-system}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}]
  basicAuth: {users: {name: users}}
";
    let gateway = Gateway::setup()
        .file("routes/shop.yaml", &(serve_all("shop", "shop.test", &[shop.address]) + policy))
        .file("routes/all.yaml", &http_route("all", &[], &rule_to("/", "shop")))
        .start()
        .await;
    assert_eq!(gateway.get("http://shop.test/").await.status(), 500);
    assert!(shop.requests().is_empty());
    let entry = gateway.logged("the refusal", |entry| entry["status"] == 500).await;
    assert_eq!(entry["flags"], "LR", "{entry}");
    assert_eq!(gateway.get("http://blog.test/").await.text(), "shop");
    assert!(gateway.process().stderr().contains("SecurityPolicy"), "it is told");
}
