//! What a scraper reads: Envoy's names for what happened, on an address of its own.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::support::{
    Answer, Gateway, Http2, Origin, Wire, backend, http_route, in_package, own_loopback,
    refusing_address, rule_to, soon,
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

/// What dashboards and alerts ask for, those that come with us and Envoy Gateway's own.
#[tokio::test]
async fn whatever_a_dashboard_asks_for_is_there() {
    let at = free();
    let origin = Origin::replying("yes").await;
    let gateway = Gateway::setup()
        .metrics_at(at)
        .file("routes/backend-api.yaml", &backend("api", &[origin.address]))
        .file("routes/api.yaml", &http_route("api", &["shop.test"], &rule_to("/", "api")))
        .start()
        .await;
    assert_eq!(gateway.get("https://shop.test/").await.status(), 200);
    let text = scrape(at).await;
    let told: BTreeSet<&str> =
        text.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();

    let dashboard = read("docs/dashboards/edge-gateway.json");
    let rules = read("docs/dashboards/edge-gateway.rules.yaml");
    let mut asked: BTreeSet<&str> = names(&dashboard).chain(names(&rules)).collect();
    assert!(asked.len() > 30, "{asked:?}");
    asked.extend(ENVOYS);
    let missing: Vec<_> = asked.difference(&told).collect();
    assert!(missing.is_empty(), "{missing:?} of\n{text}");
}

/// The metrics in Envoy Gateway's dashboards of its data plane.
const ENVOYS: [&str; 30] = [
    "envoy_cluster_membership_degraded",
    "envoy_cluster_membership_excluded",
    "envoy_cluster_membership_healthy",
    "envoy_cluster_membership_total",
    "envoy_cluster_outlier_detection_ejections_active",
    "envoy_cluster_upstream_cx_active",
    "envoy_cluster_upstream_cx_connect_fail",
    "envoy_cluster_upstream_cx_connect_timeout",
    "envoy_cluster_upstream_cx_rx_bytes_total",
    "envoy_cluster_upstream_cx_total",
    "envoy_cluster_upstream_cx_tx_bytes_total",
    "envoy_cluster_upstream_rq_active",
    "envoy_cluster_upstream_rq_retry",
    "envoy_cluster_upstream_rq_time_bucket",
    "envoy_cluster_upstream_rq_timeout",
    "envoy_cluster_upstream_rq_total",
    "envoy_cluster_upstream_rq_xx",
    "envoy_http_downstream_cx_active",
    "envoy_http_downstream_cx_rx_bytes_total",
    "envoy_http_downstream_cx_total",
    "envoy_http_downstream_cx_tx_bytes_total",
    "envoy_http_downstream_rq_time_bucket",
    "envoy_http_downstream_rq_total",
    "envoy_http_downstream_rq_xx",
    "envoy_listener_downstream_cx_active",
    "envoy_listener_ssl_certificate_expiration_unix_time_seconds",
    "envoy_server_live",
    "envoy_server_memory_allocated",
    "envoy_server_uptime",
    "envoy_ssl_ciphers",
];

/// Our metrics that a text names.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| {
            ["envoy_", "edge_gateway_", "process_"].iter().any(|of| word.starts_with(of))
        })
        .filter(|word| !LABELS.contains(word))
}

const LABELS: [&str; 5] = [
    "envoy_cluster_name",
    "envoy_http_conn_manager_prefix",
    "envoy_response_code_class",
    "envoy_ssl_cipher",
    "envoy_ssl_version",
];

fn read(path: &str) -> String {
    std::fs::read_to_string(in_package(path)).unwrap()
}

/// Prometheus' own judgement: of a scrape, and of the alerts.
#[tokio::test]
async fn prometheus_takes_the_metrics_and_the_alerts() {
    let Some(promtool) = promtool() else {
        println!("left out: promtool is missing (scripts/install test)");
        return;
    };
    let at = free();
    let gateway = Gateway::setup().metrics_at(at).start().await;
    gateway.get("https://shop.test/").await;
    let text = scrape(at).await;
    let judged = said(Command::new(&promtool).args(["check", "metrics"]), &text);
    // It would have every counter end in `_total`, and no unit but the base one; Envoy's do not.
    let complaints: Vec<_> = String::from_utf8_lossy(&judged.stderr)
        .lines()
        .filter(|line| !line.starts_with("envoy_"))
        .map(str::to_owned)
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");

    for (verb, file) in
        [("check", "edge-gateway.rules.yaml"), ("test", "edge-gateway.rules.test.yaml")]
    {
        let file = in_package("docs/dashboards").join(file);
        let judged = said(Command::new(&promtool).args([verb, "rules"]).arg(file), "");
        assert!(judged.status.success(), "{verb}: {judged:?}");
    }
}

fn promtool() -> Option<PathBuf> {
    let unpacked = in_package("tests/.cache/prometheus/usr/bin/promtool");
    let candidates = [unpacked, Path::new("/usr/bin/promtool").into()];
    candidates.into_iter().find(|path| path.exists())
}

fn said(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // What it has not read when it is done is its business.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}
