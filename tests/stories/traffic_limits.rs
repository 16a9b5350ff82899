//! Circuit breakers, timeouts and connections of BackendTrafficPolicies on the wire.

use std::time::Duration;

use crate::metrics::{scrape, value};
use crate::support::{
    Answer, Echo, Gateway, Origin, Step, Wire, free_address, h2c_backend, http_route, serve_all,
    soon, until,
};
use crate::traffic::policy;

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n")
}

/// A value of the rule of `shop`.
fn of_rule(text: &str, name: &str) -> f64 {
    let labels = "{envoy_cluster_name=\"httproute/envoy-gateway-system/shop/rule/0\"}";
    value(text, &format!("envoy_cluster_{name}{labels}"))
}

/// A backend that never answers `/slow`.
async fn slow() -> Origin {
    Origin::scripted(|seen| match seen.target().starts_with("/slow") {
        true => Answer::hang(),
        false => Answer::ok("ok"),
    })
    .await
}

/// Clients with a request each that the backend does not answer, all under way.
async fn under_way(shop: &Origin, gateway: &Gateway, count: usize) -> Vec<Wire> {
    let mut wires = Vec::new();
    for _ in 0..count {
        let mut wire = gateway.wire().await;
        wire.send(get("/slow")).await;
        wires.push(wire);
    }
    until("all are under way", || shop.seen().len() >= count).await;
    wires
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_beyond_the_breaker_are_refused_at_once() {
    let at = free_address();
    let shop = slow().await;
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &policy(
            "shop",
            "kind: HTTPRoute, name: shop",
            "  circuitBreaker: {maxParallelRequests: 20}\n",
        );
    let gateway = Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
    let held = under_way(&shop, &gateway, 20).await;
    let flood = |gateway: &Gateway| {
        let http = gateway.http();
        tokio::spawn(async move {
            let mut wire = Wire::connect(http).await;
            for _ in 0..25 {
                wire.send(get("/quick").repeat(100)).await;
                for _ in 0..100 {
                    assert_eq!(soon("a refusal", wire.reply()).await.status(), 503);
                }
            }
        })
    };
    for flood in [(); 4].map(|()| flood(&gateway)) {
        flood.await.unwrap();
    }
    assert_eq!(shop.seen().len(), 20, "no backend sees them");
    let line = gateway.logged("a refusal", |line| line["status"] == 503).await;
    assert_eq!(line["flags"], "UO");
    assert_eq!(
        line["details"],
        "upstream_reset_before_response_started{overflow|maxParallelRequests}"
    );
    let text = scrape(at).await;
    assert_eq!(of_rule(&text, "upstream_rq_pending_overflow"), 10_000.0);
    assert_eq!(of_rule(&text, "circuit_breakers_default_rq_open"), 1.0);
    assert_eq!(of_rule(&text, "circuit_breakers_default_remaining_rq"), 0.0);
    assert_eq!(of_rule(&text, "circuit_breakers_default_cx_open"), 0.0);

    drop(held);
    soon("there is room again", async {
        while gateway.get("http://shop.test/quick").await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let remaining = "circuit_breakers_default_remaining_rq";
    soon("all have ended", async {
        while of_rule(&scrape(at).await, remaining) < 20.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_retry_beyond_the_breaker_is_not_made() {
    // (circuitBreaker, tries)
    let table = [
        ("{maxParallelRetries: 0}", 1),
        ("{maxParallelRetries: 1}", 3),
        ("{retryBudget: {percent: {numerator: 50}, minRetryConcurrency: 0}}", 1),
        ("{retryBudget: {percent: {numerator: 100}, minRetryConcurrency: 0}}", 3),
        // With a budget the number has no effect.
        ("{maxParallelRetries: 0, retryBudget: {percent: {numerator: 0}}}", 3),
    ];
    for (breaker, tries) in table {
        let at = free_address();
        let shop = Origin::scripted(|_| Answer::status(503, "broken")).await;
        let fields = format!("  retry: {{}}\n  circuitBreaker: {breaker}\n");
        let files = serve_all("shop", "shop.test", &[shop.address])
            + &policy("shop", "kind: HTTPRoute, name: shop", &fields);
        let gateway =
            Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
        let reply = gateway.get("http://shop.test/").await;
        assert_eq!((reply.status(), &*reply.text()), (503, "broken"), "{breaker}");
        assert_eq!(shop.seen().len(), tries, "{breaker}");
        let missed = of_rule(&scrape(at).await, "upstream_rq_retry_overflow");
        assert_eq!(missed, if tries == 1 { 1.0 } else { 0.0 }, "{breaker}");
    }
}

/// The only connection is idle at the worker that served the request before.
#[tokio::test]
async fn a_request_that_may_not_wait_gets_the_idle_connection_of_another_worker() {
    let shop = Origin::replying("shop").await;
    let breaker = "  circuitBreaker: {maxConnections: 1, maxPendingRequests: 0}\n";
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &policy("shop", "kind: HTTPRoute, name: shop", breaker);
    let gateway =
        Gateway::setup().flag("--workers 2").file("routes/shop.yaml", &files).start().await;
    // An open connection counts for its worker, so the next one goes to the other worker.
    let (mut one, mut other) = (gateway.wire().await, gateway.wire().await);
    for turn in 0..4 {
        for wire in [&mut one, &mut other] {
            wire.send(get("/")).await;
            assert_eq!(soon("an answer", wire.reply()).await.status(), 200, "{turn}");
        }
    }
    assert!(shop.connections() > 1, "the workers did not share the requests");
}

#[tokio::test]
async fn a_connection_serves_as_many_requests_and_for_as_long_as_it_may() {
    // (fields, wait before each request, connections for four requests, metric)
    let table = [
        ("circuitBreaker: {maxRequestsPerConnection: 1}", 0, 4, "cx_max_requests"),
        ("circuitBreaker: {maxRequestsPerConnection: 2}", 0, 2, "cx_max_requests"),
        ("timeout: {http: {maxConnectionDuration: 300ms}}", 400, 4, "cx_max_duration_reached"),
        ("timeout: {http: {maxConnectionDuration: 1h}}", 0, 1, "cx_max_duration_reached"),
    ];
    for (fields, wait, connections, metric) in table {
        let at = free_address();
        let shop = Origin::replying("shop").await;
        let files = serve_all("shop", "shop.test", &[shop.address])
            + &policy("shop", "kind: HTTPRoute, name: shop", &format!("  {fields}\n"));
        let gateway = Gateway::setup()
            .flag("--workers 1")
            .metrics_at(at)
            .file("routes/shop.yaml", &files)
            .start()
            .await;
        for _ in 0..4 {
            // The age of the connection.
            tokio::time::sleep(Duration::from_millis(wait)).await;
            assert_eq!(gateway.get("http://shop.test/").await.text(), "shop", "{fields}");
        }
        assert_eq!(shop.connections(), connections, "{fields}");
        let ended = of_rule(&scrape(at).await, &format!("upstream_{metric}"));
        // The last one may have a request left.
        assert!(ended >= connections as f64 - 1.0, "{fields}: {ended}");
    }
}

#[tokio::test]
async fn a_connection_of_http2_that_is_used_up_finishes_its_streams() {
    let shop = Echo::start().await;
    let files = h2c_backend("shop", &[shop.address])
        + &http_route(
            "shop",
            &["shop.test"],
            "- backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: shop}]\n",
        )
        + &policy(
            "shop",
            "kind: HTTPRoute, name: shop",
            "  circuitBreaker: {maxRequestsPerConnection: 1}\n",
        );
    let at = free_address();
    let gateway = Gateway::setup()
        .flag("--workers 1")
        .metrics_at(at)
        .file("routes/shop.yaml", &files)
        .start()
        .await;
    for _ in 0..3 {
        assert_eq!(gateway.get("http://shop.test/?delay=300ms").await.status(), 200);
    }
    assert_eq!(of_rule(&scrape(at).await, "upstream_cx_total"), 3.0);
}

const HALF_A_POST: &str =
    "POST /slow HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 10\r\n\r\nhalf";
const WEBSOCKET: &str = "GET /ws HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A backend that does not answer `/slow`, sends `/part` in part and `/drip` bit by bit for a second,
/// and begins a tunnel.
async fn of_streams() -> Origin {
    Origin::scripted(|seen| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n";
        match &*seen.target() {
            "/slow" => Answer::hang(),
            "/part" => Answer::raw(format!("{head}part")).then(Step::Hang),
            "/drip" => (0..8).fold(Answer::raw(head), |answer, _| {
                answer.then(Step::Wait(Duration::from_millis(130))).then(Step::Send(b"d".into()))
            }),
            "/ws" => Answer::raw(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )
            .then(Step::Hang),
            _ => Answer::ok("ok").after(Duration::from_millis(1500)),
        }
    })
    .await
}

async fn with_timeouts(shop: &Origin, timeouts: &str, flags: &str) -> Gateway {
    let fields = format!("  timeout: {{http: {{{timeouts}}}}}\n");
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &policy("shop", "kind: HTTPRoute, name: shop", &fields);
    Gateway::setup().flag(flags).file("routes/shop.yaml", &files).start().await
}

/// The status of an answer to these bytes, 0 if it breaks off after its head.
async fn status(gateway: &Gateway, request: &str) -> u16 {
    let mut wire = gateway.wire().await;
    wire.send(request).await;
    let Some(head) = soon("a head", wire.head()).await else { return 0 };
    if head.status() == 101 {
        soon("the end of the tunnel", wire.rest()).await;
        return 0;
    }
    let (.., whole) = soon("the end of the body", wire.body_of(&head)).await;
    if whole { head.status() } else { 0 }
}

#[tokio::test]
async fn a_silent_stream_ends_with_what_is_still_possible() {
    let shop = of_streams().await;
    let gateway = with_timeouts(&shop, "streamIdleTimeout: 400ms", "").await;
    // (request, status, status in the log)
    let table = [
        (get("/slow"), 504, 504),
        (HALF_A_POST.into(), 408, 408),
        (get("/part"), 0, 200),
        (WEBSOCKET.into(), 0, 101),
    ];
    for (request, want, logged) in table {
        assert_eq!(status(&gateway, &request).await, want, "{request}");
        let line = gateway.logged("the end", |line| line["status"] == logged).await;
        assert_eq!(
            (&line["flags"], &line["details"]),
            (&"SI".into(), &"stream_idle_timeout".into()),
            "{line}"
        );
    }
    // Each byte begins the time anew.
    assert_eq!(status(&gateway, &get("/drip")).await, 200);
}

#[tokio::test]
async fn the_idle_timeout_of_a_rule_takes_the_place_of_the_listener_s() {
    let flags = "--body-timeout 400ms --response-timeout 400ms --tunnel-idle-timeout 400ms";
    let shop = of_streams().await;
    // (timeouts, status of a late answer, of a request that pauses)
    let table = [
        ("connectionIdleTimeout: 1s", 504, 0),
        ("streamIdleTimeout: 0s", 200, 200),
        ("streamIdleTimeout: 30s", 200, 200),
    ];
    for (timeouts, late, paused) in table {
        let gateway = with_timeouts(&shop, timeouts, flags).await;
        assert_eq!(status(&gateway, &get("/late")).await, late, "{timeouts}");
        let mut wire = gateway.wire().await;
        wire.send("POST /late HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 8\r\n\r\nhalf").await;
        // Longer than the timeout of the listener and two sweeps.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let _ = wire.push(b"half").await;
        let reply = soon("an answer", wire.try_reply_to("POST")).await;
        assert_eq!(reply.map_or(0, |reply| reply.status()), paused, "{timeouts}");
    }
}

#[tokio::test]
async fn a_stream_ends_at_its_maximum_duration_whatever_moves() {
    let shop = of_streams().await;
    let gateway = with_timeouts(&shop, "maxStreamDuration: 500ms, requestTimeout: 0s", "").await;
    // (request, status, status in the log)
    let table = [
        (get("/slow"), 504, 504),
        (HALF_A_POST.into(), 408, 408),
        (get("/drip"), 0, 200),
        (WEBSOCKET.into(), 0, 101),
    ];
    for (request, want, logged) in table {
        assert_eq!(status(&gateway, &request).await, want, "{request}");
        let line = gateway.logged("the end", |line| line["status"] == logged).await;
        assert_eq!(
            (&line["flags"], &line["details"]),
            (&"UMSDR".into(), &"upstream_max_stream_duration_reached".into()),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_body_beyond_the_buffer_limit_is_not_sent_again() {
    // (connection, length of the body, tries)
    let table = [
        ("{}", 60 << 10, 3),
        ("{}", 70 << 10, 1),
        ("{bufferLimit: 100Ki}", 70 << 10, 3),
        ("{bufferLimit: 1Ki}", 2 << 10, 1),
    ];
    for (connection, length, tries) in table {
        let shop = Origin::scripted(|_| Answer::status(503, "broken")).await;
        let fields = format!("  retry: {{}}\n  connection: {connection}\n");
        let files = serve_all("shop", "shop.test", &[shop.address])
            + &policy("shop", "kind: HTTPRoute, name: shop", &fields);
        let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
        let mut wire = gateway.wire().await;
        let head =
            format!("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n\r\n");
        wire.send([head.into_bytes(), vec![b'a'; length]].concat()).await;
        assert_eq!(soon("an answer", wire.reply()).await.status(), 503, "{connection}");
        assert_eq!(shop.requests().len(), tries, "{connection} {length}");
    }
}
