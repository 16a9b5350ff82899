//! Outlier detection and the panic threshold.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::{
    Answer, Gateway, Greeter, Origin, Wire, backend, free_address, gateway_of, http_route,
    refusing_address, rule_to, serve_all, soon, until,
};

use super::{SHOP, Sick, answers, becomes, metric, of_shop, policy};

/// Ejects after 3 errors, half of the hosts at most; ends ejections soon.
const SHORT: &str = "passive: {consecutive5XxErrors: 3, baseEjectionTime: 1s, interval: 50ms, \
                     maxEjectionPercent: 50}";

#[tokio::test]
async fn an_endpoint_is_ejected_after_errors_in_a_row_and_comes_back() {
    let (at, one, two) = (free_address(), Sick::new("one").await, Sick::new("two").await);
    one.status.store(500, Ordering::SeqCst);
    let files = serve_all("shop", "shop.test", &[one.address(), two.address()]) + &of_shop(SHORT);
    let gateway = Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
    // Requests take turns: the third error is that of the fifth or sixth request.
    let mixed = answers(&gateway, 6).await;
    assert_eq!(mixed.iter().filter(|answer| *answer == "500 one").count(), 3, "{mixed:?}");
    assert_eq!(answers(&gateway, 4).await, ["200 two"; 4]);
    assert!((metric(at, "membership_healthy", SHOP).await - 1.0).abs() < 1e-9);
    assert!((metric(at, "outlier_detection_ejections_active", SHOP).await - 1.0).abs() < 1e-9);
    let enforced = "outlier_detection_ejections_enforced_consecutive_5xx";
    assert!((metric(at, enforced, SHOP).await - 1.0).abs() < 1e-9);
    let ejected = |line: &str| {
        line.contains("endpoint is ejected")
            && line.contains(&one.address().to_string())
            && line.contains("consecutive_5xx")
    };
    until("a log line", || gateway.process().stderr().lines().any(ejected)).await;

    one.status.store(200, Ordering::SeqCst);
    becomes(at, "outlier_detection_ejections_active", 0.0).await;
    let both = answers(&gateway, 4).await;
    assert!(both.contains(&"200 one".into()), "{both:?}");
    until("a log line of the return", || {
        gateway.process().stderr().contains("endpoint is no longer ejected")
    })
    .await;
}

#[tokio::test]
async fn a_reload_keeps_an_ejection() {
    let (at, one, two) = (free_address(), Sick::new("one").await, Sick::new("two").await);
    one.status.store(503, Ordering::SeqCst);
    let check = of_shop(
        "passive: {consecutiveGatewayErrors: 2, baseEjectionTime: 1h, maxEjectionPercent: 50}",
    );
    let files = serve_all("shop", "shop.test", &[one.address(), two.address()]) + &check;
    let gateway = Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
    answers(&gateway, 4).await;
    assert_eq!(answers(&gateway, 4).await, ["200 two"; 4]);
    let enforced = "outlier_detection_ejections_enforced_consecutive_gateway_failure";
    assert!((metric(at, enforced, SHOP).await - 1.0).abs() < 1e-9);

    gateway.write("routes/shop.yaml", &(files + "  timeout: {tcp: {connectTimeout: 4s}}\n"));
    gateway.reload().await;
    assert_eq!(answers(&gateway, 4).await, ["200 two"; 4]);
    assert!((metric(at, enforced, SHOP).await - 1.0).abs() < 1e-9);
    assert!((metric(at, "outlier_detection_ejections_active", SHOP).await - 1.0).abs() < 1e-9);
}

#[tokio::test]
async fn the_only_endpoint_is_not_ejected_unless_there_is_no_panic() {
    // (fields, answer after errors)
    let table = [
        ("passive: {consecutive5XxErrors: 1, alwaysEjectOneEndpoint: true}", "500 one"),
        (
            "panicThreshold: 0, passive: {consecutive5XxErrors: 1, alwaysEjectOneEndpoint: true, \
             baseEjectionTime: 1h}",
            "503",
        ),
        // 10 % of one host is nobody.
        ("panicThreshold: 0, passive: {consecutive5XxErrors: 1}", "500 one"),
    ];
    for (fields, want) in table {
        let (at, one) = (free_address(), Sick::new("one").await);
        one.status.store(500, Ordering::SeqCst);
        let files = serve_all("shop", "shop.test", &[one.address()]) + &of_shop(fields);
        let gateway =
            Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
        assert_eq!(answers(&gateway, 1).await, ["500 one"]);
        let then = answers(&gateway, 2).await;
        assert!(then.iter().all(|answer| answer.starts_with(want)), "{fields}: {then:?}");
        if want == "503" {
            let record = gateway.logged("the refusal", |record| record["status"] == 503).await;
            assert_eq!(record["flags"], "UH", "{record}");
            assert_eq!(one.served(), 1);
        }
    }
}

#[tokio::test]
async fn health_is_ignored_while_too_few_are_healthy() {
    // (threshold, endpoints that fail their checks, answers)
    let table: [(&str, usize, &[&str]); 4] = [
        ("", 1, &["200 two"]),
        ("panicThreshold: 51, ", 1, &["200 one", "200 two"]),
        ("", 2, &["200 one", "200 two"]),
        ("panicThreshold: 0, ", 2, &["503 "]),
    ];
    for (threshold, failing, want) in table {
        let (at, one, two) = (free_address(), Sick::new("one").await, Sick::new("two").await);
        for sick in [&one, &two].into_iter().take(failing) {
            sick.health.store(500, Ordering::SeqCst);
        }
        let check = of_shop(&format!(
            "{threshold}active: {{type: HTTP, interval: 1h, http: {{path: /health}}}}"
        ));
        let files = serve_all("shop", "shop.test", &[one.address(), two.address()]) + &check;
        let gateway =
            Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
        becomes(at, "health_check_failure", if failing == 2 { 2.0 } else { 1.0 }).await;
        if failing == 1 {
            becomes(at, "health_check_success", 1.0).await;
        }
        let mut got = answers(&gateway, 6).await;
        got.sort();
        got.dedup();
        let is_wanted = got.len() == want.len()
            && got.iter().zip(want).all(|(got, want)| got.starts_with(want));
        assert!(is_wanted, "{threshold} {failing}: {got:?}");
        let panics = metric(at, "lb_healthy_panic", SHOP).await;
        assert_eq!(panics > 0.0, want.len() == 2, "{threshold} {failing}: {panics}");
    }
}

/// What is no response counts as 503 or 504, or by itself.
#[tokio::test]
async fn failures_without_a_response_count_too() {
    let gone = refusing_address();
    let hanging = Origin::scripted(|_| Answer::hang()).await;
    let breaking = Origin::scripted(|_| Answer::reset()).await;
    let split = "splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2, \
                 consecutive5XxErrors: 1";
    // (endpoint, fields, metric)
    let table = [
        (gone, "consecutive5XxErrors: 1", "consecutive_5xx"),
        (breaking.address, "consecutive5XxErrors: 2", "consecutive_5xx"),
        (hanging.address, "consecutiveGatewayErrors: 2", "consecutive_gateway_failure"),
        (breaking.address, split, "consecutive_local_origin_failure"),
    ];
    for (endpoint, fields, cause) in table {
        let (at, good) = (free_address(), Sick::new("good").await);
        let check = of_shop(&format!(
            "passive: {{{fields}, baseEjectionTime: 1h, maxEjectionPercent: 50}}"
        ));
        let rules = format!("- timeouts: {{request: 300ms}}\n  {}", &rule_to("/", "shop")[2..]);
        let files = backend("shop", &[endpoint, good.address()])
            + &http_route("shop", &["shop.test"], &rules)
            + &check;
        let gateway =
            Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
        answers(&gateway, 4).await;
        let enforced = format!("outlier_detection_ejections_enforced_{cause}");
        assert!((metric(at, &enforced, SHOP).await - 1.0).abs() < 1e-9, "{fields}");
        assert_eq!(answers(&gateway, 3).await, ["200 good"; 3], "{fields}");
    }
}

#[tokio::test]
async fn a_passed_check_ends_an_ejection() {
    let (at, one, two) = (free_address(), Sick::new("one").await, Sick::new("two").await);
    one.status.store(500, Ordering::SeqCst);
    let check = of_shop(
        "active: {type: HTTP, interval: 100ms, http: {path: /health}}, passive: \
         {consecutive5XxErrors: 1, baseEjectionTime: 1h, maxEjectionPercent: 50}",
    );
    let files = serve_all("shop", "shop.test", &[one.address(), two.address()]) + &check;
    let gateway = Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
    becomes(at, "health_check_healthy", 2.0).await;
    answers(&gateway, 4).await;
    let enforced = "outlier_detection_ejections_enforced_total";
    assert!(metric(at, enforced, SHOP).await >= 1.0);
    one.status.store(200, Ordering::SeqCst);
    becomes(at, "outlier_detection_ejections_active", 0.0).await;
}

/// A TCPRoute ejects the endpoint that takes no connections.
#[tokio::test]
async fn a_tcp_route_has_outlier_detection_too() {
    let (at, mail, gone) = (free_address(), Greeter::plain("mail").await, refusing_address());
    let route = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\n\
                 metadata: {name: mail, namespace: envoy-gateway-system}\nspec:\n  \
                 parentRefs: [{name: eg, sectionName: tcp}]\n  rules:\n    - backendRefs: \
                 [{group: gateway.envoyproxy.io, kind: Backend, name: mail}]\n";
    let check = policy(
        "kind: TCPRoute, name: mail",
        "passive: {consecutive5XxErrors: 1, baseEjectionTime: 1h, maxEjectionPercent: 50}",
    );
    let files = backend("mail", &[gone, mail.address]) + route + &check;
    let listener = "- {name: tcp, protocol: TCP, port: 9300}\n";
    let gateway = Gateway::setup()
        .metrics_at(at)
        .socket("tcp", "127.0.0.1:0")
        .file("common/gateway.yaml", &gateway_of(listener))
        .file("routes/mail.yaml", &files)
        .start()
        .await;
    for _ in 0..4 {
        let mut client = Wire::connect(gateway.address("tcp")).await;
        let greeting = soon("a greeting", client.exactly(16)).await;
        assert_eq!(greeting, b"hello from mail\n");
    }
    let rule = "tcproute/envoy-gateway-system/mail";
    let enforced = "outlier_detection_ejections_enforced_consecutive_5xx";
    assert!((metric(at, enforced, rule).await - 1.0).abs() < 1e-9);
    // The log and the counters are of one ejection, which lasts.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!((metric(at, "membership_healthy", rule).await - 1.0).abs() < 1e-9);
}
