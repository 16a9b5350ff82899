//! What a scraper reads: Envoy's names for what happened, on an address of its own.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::support::{
    Answer, Gateway, Http2, Origin, Wire, backend, http_route, own_loopback, refusing_address,
    rule_to, soon,
};

/// A port on an address of this test's own, which is free now.
fn free() -> SocketAddr {
    TcpListener::bind((own_loopback(), 0)).unwrap().local_addr().unwrap()
}

async fn ask(address: SocketAddr, head: &str) -> (u16, String, String) {
    let mut wire = loop {
        // The gateway is ready before its metrics are.
        if let Ok(stream) = TcpStream::connect(address).await {
            break Wire::tcp(stream);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    wire.send(format!("{head}\r\n\r\n")).await;
    let reply = wire.reply().await;
    (reply.status(), reply.header("content-type").unwrap_or_default(), reply.text())
}

async fn scrape(address: SocketAddr) -> String {
    let head = format!("GET /stats/prometheus HTTP/1.1\r\nHost: {address}");
    let (status, form, text) = soon("a scrape", ask(address, &head)).await;
    assert_eq!((status, &*form), (200, "text/plain; version=0.0.4; charset=utf-8"));
    text
}

/// The value of a series, written as it stands in the text.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn what_happens_is_counted_under_envoys_names() {
    let at = free();
    let origin = Origin::scripted(|seen| match &*seen.target() {
        "/api/slow" => Answer::hang(),
        "/api/broken" => Answer::status(503, "no"),
        _ => Answer::ok("yes"),
    })
    .await;
    let slow = "- timeouts: {request: 100ms}\n  matches: [{path: {value: /api}}]\n  \
                backendRefs:\n    - {group: gateway.envoyproxy.io, kind: Backend, name: api}\n";
    let gateway = Gateway::setup()
        .metrics_at(at)
        .file("routes/backend-api.yaml", &backend("api", &[origin.address]))
        .file("routes/backend-dead.yaml", &backend("dead", &[refusing_address()]))
        .file("routes/api.yaml", &http_route("api", &["shop.test"], slow))
        .file("routes/dead.yaml", &http_route("dead", &["blog.test"], &rule_to("/", "dead")))
        .start()
        .await;
    for _ in 0..3 {
        assert_eq!(gateway.get("http://shop.test/api").await.status(), 200);
    }
    assert_eq!(gateway.get("https://shop.test/api").await.status(), 200);
    assert_eq!(gateway.get("http://shop.test/api/broken").await.status(), 503);
    assert_eq!(gateway.get("http://shop.test/api/slow").await.status(), 504);
    assert_eq!(gateway.get("http://blog.test/").await.status(), 503);
    assert_eq!(gateway.get("http://shop.test/nowhere").await.status(), 404);

    let text = scrape(at).await;
    let api = "envoy_cluster_name=\"httproute/envoy-gateway-system/api/rule/0\"";
    let dead = "envoy_cluster_name=\"httproute/envoy-gateway-system/dead/rule/0\"";
    let http = "envoy_http_conn_manager_prefix=\"http-8080\"";
    let https = "envoy_http_conn_manager_prefix=\"https-8443\"";
    let class = |class| format!("envoy_response_code_class=\"{class}\"");
    // (series, value)
    let table = [
        (format!("envoy_http_downstream_rq_total{{{http}}}"), 7.0),
        (format!("envoy_http_downstream_rq_total{{{https}}}"), 1.0),
        (format!("envoy_http_downstream_rq_xx{{{http},{}}}", class(2)), 3.0),
        (format!("envoy_http_downstream_rq_xx{{{http},{}}}", class(4)), 1.0),
        (format!("envoy_http_downstream_rq_xx{{{http},{}}}", class(5)), 3.0),
        (format!("envoy_http_downstream_rq_active{{{http}}}"), 0.0),
        (format!("envoy_http_downstream_rq_time_count{{{http}}}"), 7.0),
        (format!("envoy_http_downstream_rq_time_bucket{{{http},le=\"+Inf\"}}"), 7.0),
        (format!("envoy_http_downstream_cx_http1_total{{{https}}}"), 1.0),
        ("envoy_listener_ssl_handshake{envoy_listener_address=\"0.0.0.0_8443\"}".into(), 1.0),
        (format!("envoy_cluster_upstream_rq_total{{{api}}}"), 6.0),
        (format!("envoy_cluster_upstream_rq_xx{{{api},{}}}", class(2)), 4.0),
        (format!("envoy_cluster_upstream_rq_timeout{{{api}}}"), 1.0),
        (format!("envoy_cluster_upstream_rq_active{{{api}}}"), 0.0),
        (format!("envoy_cluster_membership_total{{{api}}}"), 1.0),
        (format!("envoy_cluster_membership_healthy{{{api}}}"), 1.0),
        (format!("envoy_cluster_upstream_cx_connect_fail{{{dead}}}"), 1.0),
        (format!("envoy_cluster_membership_healthy{{{dead}}}"), 0.0),
        ("edge_gateway_requests_failed_total{flag=\"UT\"}".into(), 1.0),
        ("edge_gateway_requests_failed_total{flag=\"UF\"}".into(), 1.0),
        ("edge_gateway_requests_failed_total{flag=\"NR\"}".into(), 1.0),
        ("edge_gateway_config_generation".into(), 1.0),
        ("edge_gateway_config_last_reload_successful".into(), 1.0),
        ("envoy_server_live".into(), 1.0),
    ];
    for (series, want) in table {
        let got = value(&text, &series);
        assert!((got - want).abs() < 1e-9, "{series} is {got}, not {want}");
    }
    // The one that timed out took 100 ms, and no other as long.
    let longer = |bound| {
        value(&text, &format!("envoy_http_downstream_rq_time_bucket{{{http},le=\"{bound}\"}}"))
    };
    assert!(longer(50) < 7.0 && longer(5000) > 6.9, "{text}");
    assert!(value(&text, &format!("envoy_http_downstream_cx_rx_bytes_total{{{http}}}")) > 200.0);
    assert!(value(&text, &format!("envoy_cluster_upstream_cx_tx_bytes_total{{{api}}}")) > 200.0);
}

/// A graph does not fall to zero because somebody edited a file.
#[tokio::test]
async fn counts_live_through_a_reload() {
    let at = free();
    let origin = Origin::replying("yes").await;
    let gateway = Gateway::setup()
        .metrics_at(at)
        .file("routes/backend-api.yaml", &backend("api", &[origin.address]))
        .file("routes/api.yaml", &http_route("api", &["shop.test"], &rule_to("/", "api")))
        .start()
        .await;
    let mut client = Http2::over(TcpStream::connect(gateway.http()).await.unwrap()).await;
    client.get("http://shop.test/").await;
    let other = http_route("api", &["shop.test", "blog.test"], &rule_to("/", "api"));
    gateway.write("routes/api.yaml", &other);
    gateway.reload().await;
    client.get("http://blog.test/").await;

    let text = scrape(at).await;
    let rule = "{envoy_cluster_name=\"httproute/envoy-gateway-system/api/rule/0\"}";
    assert_eq!(value(&text, &format!("envoy_cluster_upstream_rq_total{rule}")), 2.0);
    let http = "{envoy_http_conn_manager_prefix=\"http-8080\"}";
    assert_eq!(value(&text, &format!("envoy_http_downstream_rq_total{http}")), 2.0);
    assert_eq!(value(&text, &format!("envoy_http_downstream_cx_active{http}")), 1.0);
    assert_eq!(value(&text, "edge_gateway_config_reloads_total{result=\"loaded\"}"), 2.0);

    gateway.write("routes/api.yaml", "kind: [");
    gateway.reload().await;
    let text = scrape(at).await;
    assert_eq!(value(&text, "edge_gateway_config_reloads_total{result=\"refused\"}"), 1.0);
    assert_eq!(value(&text, "edge_gateway_config_last_reload_successful"), 0.0);
    assert_eq!(value(&text, "edge_gateway_config_generation"), 2.0);
}

#[tokio::test]
async fn a_scraper_is_told_metrics_and_nothing_else() {
    let at = free();
    let gateway = Gateway::setup().metrics_at(at).start().await;
    // (request, status)
    let table = [
        (format!("GET /metrics HTTP/1.1\r\nHost: {at}"), 200),
        ("GET /metrics HTTP/1.1\r\nHost: localhost".into(), 200),
        // A name that somebody made lead here, to read it from a page of theirs.
        ("GET /metrics HTTP/1.1\r\nHost: rebound.test".into(), 403),
        ("GET /metrics HTTP/1.0".into(), 403),
        (format!("GET / HTTP/1.1\r\nHost: {at}"), 404),
        (format!("POST /metrics HTTP/1.1\r\nHost: {at}\r\nContent-Length: 0"), 405),
        (format!("GET /metrics HTTP/1.1\r\nHost: {at}\r\nX: {}", "x".repeat(9000)), 431),
    ];
    for (head, want) in table {
        let (status, _, text) = soon("an answer", ask(at, &head)).await;
        assert_eq!(status, want, "{head}: {text}");
    }
    let head =
        format!("GET /metrics HTTP/1.1\r\nHost: {at}\r\nAccept: application/openmetrics-text");
    let (_, form, text) = soon("an answer", ask(at, &head)).await;
    assert_eq!(form, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("# EOF\n"));
    // Not on what the world sees.
    assert_eq!(gateway.get("http://shop.test/stats/prometheus").await.status(), 404);
}
