//! BackendTrafficPolicies on the wire: limits of requests, timeouts, retries, circuit breakers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;

use crate::grpc::message;
use crate::metrics::{scrape, value};
use crate::support::{
    Answer, Gateway, Origin, Wire, backend, free_address, full, http_route, refusing_address,
    serve_all, soon,
};

/// A BackendTrafficPolicy with one target and these fields beside it.
pub(crate) fn policy(name: &str, target: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: BackendTrafficPolicy\n\
         metadata: {{name: {name}, namespace: envoy-gateway-system}}\nspec:\n  \
         targetRefs: [{{group: gateway.networking.k8s.io, {target}}}]\n{fields}"
    )
}

/// A policy of route `shop` with these rules of `rateLimit.local`.
fn limits(rules: &[&str]) -> String {
    let rules: String = rules.iter().map(|rule| format!("        - {{{rule}}}\n")).collect();
    let fields = format!("  rateLimit:\n    local:\n      rules:\n{rules}");
    policy("shop", "kind: HTTPRoute, name: shop", &fields)
}

/// A gateway with route `shop` to `shop`, and more YAML.
async fn gateway(shop: &Origin, more: &str) -> Gateway {
    let files = serve_all("shop", "shop.test", &[shop.address]) + more;
    Gateway::setup()
        .flag("--trusted-proxies 127.0.0.0/8")
        .file("routes/shop.yaml", &files)
        .start()
        .await
}

/// The number of requests that pass of `count` equal ones; the others get 429.
async fn passing(gateway: &Gateway, request: &str, count: usize) -> usize {
    let mut wire = gateway.wire().await;
    let mut passed = 0;
    for _ in 0..count {
        wire.send(format!("{request}Host: shop.test\r\n\r\n")).await;
        let reply = wire.reply().await;
        match reply.status() {
            200 => passed += 1,
            429 => assert_eq!(reply.text(), "local_rate_limited", "{request}"),
            other => panic!("{other} {request}"),
        }
    }
    passed
}

#[tokio::test]
async fn each_selector_counts_the_requests_that_it_names() {
    let selecting = |selector: &str| {
        format!("clientSelectors: [{{{selector}}}], limit: {{requests: 2, unit: Hour}}")
    };
    let get = |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\n{lines}");
    let client = |client: &str| get("/", &format!("X-Forwarded-For: {client}\r\n"));
    let plan = |plan: &str| get("/", &format!("X-Plan: {plan}\r\n"));
    // (selector, requests in turn, how many of three of each pass)
    let table: [(&str, Vec<String>, &[usize]); 13] = [
        (
            "headers: [{name: X-Plan, value: free}]",
            vec![plan("free"), plan("paid"), get("/", "")],
            &[2, 3, 3],
        ),
        (
            "headers: [{name: X-Plan, value: paid, invert: true}]",
            vec![plan("paid"), plan("free"), get("/", "")],
            &[3, 2, 0],
        ),
        (
            "headers: [{name: X-Plan, type: RegularExpression, value: \"fr.*\"}]",
            vec![plan("free"), plan("afraid"), plan("fresh")],
            &[2, 3, 0],
        ),
        (
            "headers: [{name: X-Plan, type: Distinct}]",
            vec![plan("a"), plan("b"), plan("a"), get("/", "")],
            &[2, 2, 0, 3],
        ),
        (
            "sourceCIDR: {value: 203.0.113.0/24}",
            vec![client("203.0.113.1"), client("203.0.113.2"), client("192.0.2.1")],
            &[2, 0, 3],
        ),
        (
            "sourceCIDR: {value: 203.0.113.0/24, invert: true}",
            vec![client("203.0.113.1"), client("192.0.2.1"), client("192.0.2.2")],
            &[3, 2, 0],
        ),
        (
            "sourceCIDR: {value: 203.0.113.0/24, type: Distinct}",
            vec![client("203.0.113.1"), client("203.0.113.2"), client("192.0.2.1")],
            &[2, 2, 3],
        ),
        (
            "sourceCIDR: {value: \"2001:db8::/32\", type: Distinct, invert: true}",
            vec![client("2001:db8::1"), client("192.0.2.1"), client("192.0.2.2")],
            &[3, 2, 2],
        ),
        (
            "path: {value: /api}",
            vec![get("/api/a?b", ""), get("/apis", ""), get("/api", "")],
            &[2, 3, 0],
        ),
        (
            "path: {type: Exact, value: /login, invert: true}",
            vec![get("/login?a", ""), get("/", "")],
            &[3, 2],
        ),
        (
            "methods: [{value: POST}, {value: DELETE}]",
            vec![
                "POST / HTTP/1.1\r\nContent-Length: 0\r\n".into(),
                "DELETE / HTTP/1.1\r\n".into(),
                get("/", ""),
            ],
            &[2, 0, 3],
        ),
        (
            "queryParams: [{name: key, value: \"a b\"}]",
            vec![get("/?key=a%20b", ""), get("/?key=c", ""), get("/?x&key=a+b&key=c", "")],
            &[2, 3, 0],
        ),
        (
            "queryParams: [{name: key, type: Distinct}], path: {value: /api}",
            vec![get("/api?key=a", ""), get("/api?key=b", ""), get("/?key=a", "")],
            &[2, 2, 3],
        ),
    ];
    let shop = Origin::replying("shop").await;
    for (selector, requests, want) in table {
        let gateway = gateway(&shop, &limits(&[&selecting(selector)])).await;
        for (request, want) in requests.iter().zip(want) {
            assert_eq!(passing(&gateway, request, 3).await, *want, "{selector} {request}");
        }
    }
}

#[tokio::test]
async fn a_refusal_says_what_the_limit_is_and_when_to_come_back() {
    let at = free_address();
    let shop = Origin::replying("shop").await;
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &limits(&["limit: {requests: 2, unit: Minute}"]);
    let gateway = Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
    // (status, remaining, reset)
    for (status, remaining, reset) in [(200, "1", "0"), (200, "0", "30"), (429, "0", "30")] {
        let reply = gateway.get("http://shop.test/a").await;
        let header = |name: &str| reply.header(name).unwrap_or_default();
        assert_eq!(reply.status(), status);
        assert_eq!(header("x-ratelimit-limit"), "2");
        assert_eq!(header("x-ratelimit-remaining"), remaining, "{status}");
        assert_eq!(header("x-ratelimit-reset"), reset, "{status}");
        assert_eq!(header("retry-after"), if status == 429 { "30" } else { "" });
    }
    let line = gateway.logged("the refusal", |line| line["status"] == 429).await;
    assert_eq!((&line["flags"], &line["details"]), (&"RL".into(), &"local_rate_limited".into()));
    assert_eq!(shop.seen().len(), 2, "no backend sees it");
    let text = scrape(at).await;
    let of = |name: &str| {
        let labels = "{envoy_local_http_ratelimit_prefix=\"http_local_rate_limiter\"}";
        value(&text, &format!("envoy_http_local_rate_limit_{name}{labels}"))
    };
    assert_eq!(["enabled", "ok", "rate_limited", "enforced"].map(of), [3.0, 2.0, 1.0, 1.0]);
}

#[tokio::test]
async fn a_grpc_call_beyond_a_limit_is_unavailable() {
    let shop = Origin::replying("shop").await;
    let calls = http_route("calls", &["api.example.test"], "- backendRefs: []\n")
        .replace("HTTPRoute", "GRPCRoute")
        .replace("[]", "[{group: gateway.envoyproxy.io, kind: Backend, name: shop}]");
    let none = "  rateLimit: {local: {rules: [{limit: {requests: 0, unit: Second}}]}}\n";
    let more = calls + &policy("calls", "kind: GRPCRoute, name: calls", none);
    let gateway = gateway(&shop, &more).await;
    let mut http2 = gateway.http2("api.example.test").await;
    let request = Request::post("https://api.example.test/shop.Orders/Place")
        .header("content-type", "application/grpc");
    let answer = http2.fetch(request.body(full(message("x"))).unwrap()).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["grpc-status"], "14", "{answer:?}");
    assert_eq!(answer.headers["grpc-message"], "local_rate_limited");
}

#[tokio::test]
async fn rules_add_up_and_the_one_without_selectors_is_for_the_rest() {
    let shop = Origin::replying("shop").await;
    let rules = [
        "limit: {requests: 2, unit: Hour}",
        "clientSelectors: [{path: {value: /a}}], limit: {requests: 4, unit: Hour}",
        "clientSelectors: [{headers: [{name: X-B, value: b}]}], limit: {requests: 3, unit: Hour}",
        "clientSelectors: [{path: {value: /costly}}], limit: {requests: 5, unit: Hour}, \
         cost: {request: {from: Number, number: 2}}",
        "clientSelectors: [{path: {value: /watched}}], limit: {requests: 1, unit: Hour}, \
         shadowMode: true",
        "clientSelectors: [{path: {value: /closed}}], limit: {requests: 0, unit: Hour}",
        "clientSelectors: [{path: {value: /quiet}}], limit: {requests: 1, unit: Hour}, \
         xRateLimitHeaders: \"Off\"",
    ];
    let gateway = gateway(&shop, &limits(&rules)).await;
    // (request, how many of six pass)
    for (request, want) in [
        ("GET /a HTTP/1.1\r\nX-B: b\r\n", 3),
        // What the slower rule refused took nothing of the other.
        ("GET /a HTTP/1.1\r\n", 1),
        ("GET /c HTTP/1.1\r\nX-B: b\r\n", 0),
        ("GET /costly HTTP/1.1\r\n", 2),
        ("GET /watched HTTP/1.1\r\n", 6),
        ("GET /closed HTTP/1.1\r\n", 0),
        ("GET /rest HTTP/1.1\r\n", 2),
    ] {
        assert_eq!(passing(&gateway, request, 6).await, want, "{request}");
    }
    let closed = gateway.get("http://shop.test/closed").await;
    assert_eq!((closed.status(), closed.header("retry-after")), (429, None), "never");
    for status in [200, 429] {
        let quiet = gateway.get("http://shop.test/quiet").await;
        assert_eq!((quiet.status(), quiet.header("x-ratelimit-limit")), (status, None));
    }
}

#[tokio::test]
async fn a_flood_of_distinct_keys_resets_nobody_s_count() {
    let at = free_address();
    let rule = "- matches: [{path: {value: /}}]\n  filters:\n    - type: RequestRedirect\n      \
                requestRedirect: {hostname: else.test}\n";
    let each = "clientSelectors: [{headers: [{name: X-User, type: Distinct}]}], \
                limit: {requests: 2, unit: Hour}";
    let files = http_route("shop", &["shop.test"], rule) + &limits(&[each]);
    let gateway = Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
    let user = async |name: &str| {
        gateway.get_with("http://shop.test/", &format!("X-User: {name}\r\n")).await.status()
    };
    // One client has used its limit, one has a request left.
    assert_eq!([user("spent").await, user("spent").await], [302, 302]);
    assert_eq!([user("spent").await, user("half").await], [429, 302]);

    // More keys than there are buckets, from several connections at once.
    let flood = |from: usize| {
        let http = gateway.http();
        async move {
            let mut wire = Wire::connect(http).await;
            let mut passed = 0;
            for first in (from..from + 6_000).step_by(100) {
                let request =
                    |key| format!("GET / HTTP/1.1\r\nHost: shop.test\r\nX-User: {key}\r\n\r\n");
                wire.send((first..first + 100).map(request).collect::<String>()).await;
                for _ in 0..100 {
                    passed += usize::from(wire.reply().await.status() == 302);
                }
            }
            passed
        }
    };
    let floods = (0..4).map(|number| tokio::spawn(flood(number * 6_000)));
    let mut passed = 0;
    for flood in futures_util::future::join_all(floods).await {
        passed += flood.unwrap();
    }
    assert!((10_000..=21_830).contains(&passed), "{passed}: one for each bucket, and two more");
    assert_eq!([user("spent").await, user("half").await], [429, 302]);
    assert_eq!(user("half").await, 429);
    let shared = value(&scrape(at).await, "edge_gateway_rate_limit_buckets_shared_total");
    assert!(shared > 1_000.0, "{shared}");
}

#[tokio::test]
async fn no_request_passes_without_the_limit_while_the_configuration_is_loaded() {
    let shop = Origin::replying("shop").await;
    let gateway = Arc::new(gateway(&shop, &limits(&["limit: {requests: 100, unit: Hour}"])).await);
    let (done, passed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (gateway, done, passed) =
                (Arc::clone(&gateway), Arc::clone(&done), Arc::clone(&passed));
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let status = gateway.get("http://shop.test/").await.status();
                    assert!([200, 429].contains(&status), "{status}");
                    passed.fetch_add(usize::from(status == 200), Ordering::Relaxed);
                }
            })
        })
        .collect();
    for number in 0..4 {
        let other = serve_all(&format!("other-{number}"), "other.test", &[shop.address]);
        gateway.write(&format!("routes/other-{number}.yaml"), &other);
        gateway.reload().await;
    }
    soon("the limit is reached", async {
        while passed.load(Ordering::Relaxed) < 100 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    // A token comes back every 36 s.
    let passed = passed.load(Ordering::Relaxed);
    assert!((100..=105).contains(&passed), "{passed}");

    // With another limit the rule has another bucket.
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &limits(&["limit: {requests: 3, unit: Hour}"]);
    gateway.write("routes/shop.yaml", &files);
    gateway.reload().await;
    assert_eq!(passing(&gateway, "GET / HTTP/1.1\r\n", 5).await, 3);
}

#[tokio::test]
async fn a_policy_that_cannot_be_used_closes_its_routes() {
    let shop = Origin::replying("shop").await;
    let more = serve_all("blog", "blog.test", &[shop.address])
        + &limits(&["limit: {requests: 1, unit: Fortnight}"]);
    let gateway = gateway(&shop, &more).await;
    assert_eq!(gateway.get("http://shop.test/").await.status(), 500);
    assert_eq!(gateway.get("http://blog.test/").await.text(), "shop");
}

#[tokio::test]
async fn the_limit_of_a_route_joins_that_of_its_gateway() {
    let shop = Origin::replying("shop").await;
    let local = |rules: &str| format!("  rateLimit: {{local: {{rules: [{rules}]}}}}\n");
    let all = local("{limit: {requests: 2, unit: Hour}}");
    let own = local("{clientSelectors: [{path: {value: /a}}], limit: {requests: 3, unit: Hour}}");
    let more = policy("all", "kind: Gateway, name: eg", &all)
        + &policy(
            "own",
            "kind: HTTPRoute, name: shop",
            &format!("  mergeType: StrategicMerge\n{own}"),
        );
    let gateway = gateway(&shop, &more).await;
    assert_eq!(passing(&gateway, "GET /a HTTP/1.1\r\n", 5).await, 3);
    assert_eq!(passing(&gateway, "GET /b HTTP/1.1\r\n", 5).await, 2);
    let mut command = gateway.setup_ref().command("explain http://shop.test/a");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    for line in [
        "limit 3 each hour (BackendTrafficPolicy envoy-gateway-system/own) for path /a and below",
        "limit 2 each hour (BackendTrafficPolicy envoy-gateway-system/all) for all other requests",
        "counted by limit 3 each hour (BackendTrafficPolicy envoy-gateway-system/own)",
    ] {
        assert!(printed.contains(line), "{printed}");
    }
}

#[tokio::test]
async fn timeouts_of_a_policy_apply_where_the_route_has_none() {
    let shop = Origin::scripted(|_| Answer::ok("late").after(Duration::from_millis(600))).await;
    let own = |name: &str, timeouts: &str| {
        let rule = format!(
            "- timeouts: {{{timeouts}}}\n  backendRefs:\n    - {{group: gateway.envoyproxy.io, \
             kind: Backend, name: shop}}\n"
        );
        http_route(name, &[&format!("{name}.test")], &rule)
    };
    let timeout = "  timeout: {http: {requestTimeout: 100ms}}\n";
    let more = own("patient", "request: 20s")
        + &own("endless", "request: 0s")
        + &policy("all", "kind: Gateway, name: eg", timeout);
    let gateway = gateway(&shop, &more).await;
    let reply = gateway.get("http://shop.test/").await;
    assert_eq!(reply.status(), 504);
    let line = gateway.logged("the timeout", |line| line["status"] == 504).await;
    assert_eq!(line["flags"], "UT");
    for host in ["patient", "endless"] {
        assert_eq!(gateway.get(&format!("http://{host}.test/")).await.text(), "late", "{host}");
    }
}

#[tokio::test]
async fn retries_of_a_policy_follow_its_triggers() {
    // (retry, status of the backend at first, status, tries)
    let table = [
        ("{}", 503, 200, 2),
        ("{}", 502, 502, 1),
        ("{retryOn: {triggers: [gateway-error]}, numRetries: 1}", 502, 200, 2),
        ("{retryOn: {triggers: [gateway-error]}}", 500, 500, 1),
        ("{retryOn: {triggers: [5xx]}}", 500, 200, 2),
        ("{retryOn: {triggers: [connect-failure]}}", 503, 503, 1),
        ("{retryOn: {triggers: [retriable-4xx]}}", 409, 200, 2),
        ("{numRetries: 0}", 503, 503, 1),
    ];
    for (retry, status, want, tries) in table {
        let asked = AtomicUsize::new(0);
        let shop = Origin::scripted(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::status(status, "not yet"),
            _ => Answer::ok("served"),
        })
        .await;
        let fields = format!("  retry: {retry}\n");
        let gateway = gateway(&shop, &policy("all", "kind: Gateway, name: eg", &fields)).await;
        assert_eq!(gateway.get("http://shop.test/").await.status(), want, "{retry} {status}");
        assert_eq!(shop.seen().len(), tries, "{retry} {status}");
    }
    // The next try goes to another endpoint.
    let shop = Origin::replying("shop").await;
    let files = backend("shop", &[refusing_address(), shop.address])
        + &http_route(
            "shop",
            &["shop.test"],
            "- backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: shop}]\n",
        )
        + &policy("all", "kind: Gateway, name: eg", "  retry: {}\n");
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    for _ in 0..4 {
        assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    }
}

#[tokio::test]
async fn a_circuit_breaker_bounds_the_connections_of_its_routes() {
    let shop = Origin::scripted(|seen| match &*seen.target() {
        "/slow" => Answer::ok("slow").after(Duration::from_secs(4)),
        _ => Answer::ok("fast"),
    })
    .await;
    let breaker = "  circuitBreaker: {maxConnections: 1, maxPendingRequests: 1}\n";
    let other = http_route(
        "other",
        &["other.test"],
        "- backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: shop}]\n",
    );
    let more = other + &policy("shop", "kind: HTTPRoute, name: shop", breaker);
    let gateway = Arc::new(gateway(&shop, &more).await);
    let asks = |path: &'static str| {
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move { gateway.get(&format!("http://shop.test{path}")).await.status() })
    };
    // One request has the connection, one waits for it, and there is no room for a third.
    let slow = asks("/slow");
    shop.saw(1).await;
    let waits = [asks("/"), asks("/"), asks("/")];
    let mut statuses = Vec::new();
    for one in waits {
        statuses.push(one.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503, 503]);
    let line = gateway.logged("the overflow", |line| line["status"] == 503).await;
    assert_eq!(line["flags"], "UO");
    assert_eq!(
        line["details"],
        "upstream_reset_before_response_started{overflow|maxPendingRequests}"
    );
    // Another route to the same backend has the gateway's own limits.
    assert_eq!(gateway.get("http://other.test/").await.text(), "fast");
    assert_eq!(slow.await.unwrap(), 200);
    assert_eq!(gateway.get("http://shop.test/").await.text(), "fast");
}
