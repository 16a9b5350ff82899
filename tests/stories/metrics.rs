//! What a scraper reads: Envoy's names for what happened, on an address of its own.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::needs::{INSTALL, needs};
use crate::support::{
    Answer, Asker, Gateway, Greeter, Hello, Http2, Origin, Process, SOON, Tls, UdpEcho, Wire,
    backend, ca, clock, forward_route, free_address, gateway_of, http_route, in_package,
    own_loopback, refusing_address, rule_to, soon,
};

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

pub(crate) async fn scrape(address: SocketAddr) -> String {
    let head = format!("GET /stats/prometheus HTTP/1.1\r\nHost: {address}");
    let (status, form, text) = soon("a scrape", ask(address, &head)).await;
    assert_eq!((status, &*form), (200, "text/plain; version=0.0.4; charset=utf-8"));
    text
}

/// The value of a series, written as it stands in the text.
pub(crate) fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn what_happens_is_counted_under_envoys_names() {
    let at = free_address();
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
    let at = free_address();
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

/// A greeting, a line there and back, and the end: 5 bytes to the backend.
async fn converse(mut client: Wire, greeting: &str) {
    client.send("ping\n").await;
    client.finish().await;
    let heard = soon("the end", client.rest()).await;
    assert_eq!(String::from_utf8_lossy(&heard), format!("{greeting}ping\nbye\n"));
}

/// Waits until the series have these values: the last byte is there before it is counted.
async fn counted(at: SocketAddr, table: &[(String, f64)]) {
    let wrong = std::cell::RefCell::new(String::new());
    let all = async {
        loop {
            let text = scrape(at).await;
            let mut wrong = wrong.borrow_mut();
            wrong.clear();
            for (series, want) in table {
                let got = value(&text, series);
                if (got - want).abs() > 1e-9 {
                    wrong.push_str(&format!("{series} is {got}, not {want}\n"));
                }
            }
            if wrong.is_empty() {
                return;
            }
        }
    };
    let done = tokio::time::timeout(SOON, all).await;
    assert!(done.is_ok(), "{}", wrong.borrow());
}

const FORWARDING: &str = "\
- {name: tcp, protocol: TCP, port: 9300}
- {name: empty, protocol: TCP, port: 9301}
- {name: udp, protocol: UDP, port: 9300}
- {name: lost, protocol: UDP, port: 9301}
- {name: ended, protocol: TLS, port: 8883, hostname: gateway.test, tls: {mode: Terminate, certificateRefs: [{name: eih-tls-cert}]}}
- {name: passed, protocol: TLS, port: 8883, hostname: abc.example.com, tls: {mode: Passthrough}}
";

/// What is no HTTP has series of its own, by port and by route, and a reload leaves them alone.
#[tokio::test]
async fn connections_and_datagrams_are_counted_by_port_and_by_route() {
    let at = free_address();
    let leaf = ca().leaf(&["abc.example.com"]);
    let tcp = Greeter::plain("tcp").await;
    let (ended, passed) = (Greeter::plain("ended").await, Greeter::secure("passed", &leaf).await);
    let udp = UdpEcho::start("udp").await;
    let route = |kind: &str, section: &str, hosts: &[&str], backend: SocketAddr| {
        forward_route(kind, section, section, hosts, &[(backend, 1)])
    };
    let gateway = Gateway::setup()
        .metrics_at(at)
        .socket("tcp", "127.0.0.1:0")
        .socket("empty", "127.0.0.1:0")
        .datagrams("udp", "127.0.0.1:0")
        .datagrams("lost", "127.0.0.1:0")
        .socket("ended", "127.0.0.1:0")
        .file("common/gateway.yaml", &gateway_of(FORWARDING))
        .file("routes/tcp.yaml", &route("TCPRoute", "tcp", &[], tcp.address))
        .file("routes/udp.yaml", &route("UDPRoute", "udp", &[], udp.address))
        .file("routes/ended.yaml", &route("TLSRoute", "ended", &["gateway.test"], ended.address))
        .file(
            "routes/passed.yaml",
            &route("TLSRoute", "passed", &["abc.example.com"], passed.address),
        )
        .start()
        .await;
    let tls = gateway.address("ended");
    for round in [1.0, 2.0] {
        converse(Wire::connect(gateway.address("tcp")).await, "hello from tcp\n").await;
        let client = Tls::of("gateway.test").connect(tls).await.unwrap();
        converse(Wire::over(client), "hello from ended\n").await;
        let client = Tls::of("abc.example.com").connect(tls).await.unwrap();
        converse(Wire::over(client), "hello from passed to abc.example.com\n").await;
        let mut stranger = Wire::connect(tls).await;
        stranger.send(Hello::modern("nobody.test").bytes()).await;
        assert_eq!(soon("the end", stranger.rest()).await, b"");
        let mut lost = Wire::connect(gateway.address("empty")).await;
        assert_eq!(soon("the end", lost.rest()).await, b"");
        let asker = Asker::of(gateway.address("udp")).await;
        assert_eq!(asker.ask("who?").await, "udp: who?");

        let port = |name: &str, prefix: &str| {
            format!("envoy_tcp_downstream_{name}{{envoy_tcp_prefix=\"{prefix}\"}}")
        };
        let rule = |name: &str, kind: &str, route: &str| {
            let cluster = format!("{kind}/envoy-gateway-system/{route}/rule/0");
            format!("envoy_cluster_{name}{{envoy_cluster_name=\"{cluster}\"}}")
        };
        let table = [
            (port("cx_total", "tcp-9300"), round),
            (port("cx_no_route", "tcp-9300"), 0.0),
            (port("cx_rx_bytes_total", "tcp-9300"), 5.0 * round),
            (port("cx_tx_bytes_total", "tcp-9300"), 24.0 * round),
            (port("cx_no_route", "tcp-9301"), round),
            (port("cx_total", "tls-terminate-8883"), round),
            (port("cx_rx_bytes_total", "tls-terminate-8883"), 5.0 * round),
            (port("cx_tx_bytes_total", "tls-terminate-8883"), 26.0 * round),
            (port("cx_total", "tls-passthrough-8883"), round),
            (rule("upstream_cx_total", "tcproute", "tcp"), round),
            (rule("upstream_cx_active", "tcproute", "tcp"), 0.0),
            (rule("upstream_cx_tx_bytes_total", "tcproute", "tcp"), 5.0 * round),
            (rule("upstream_cx_rx_bytes_total", "tcproute", "tcp"), 24.0 * round),
            (rule("membership_healthy", "tcproute", "tcp"), 1.0),
            (rule("upstream_cx_total", "tlsroute", "ended"), round),
            (rule("upstream_cx_total", "tlsroute", "passed"), round),
            (rule("upstream_cx_total", "udproute", "udp"), round),
            (rule("upstream_cx_tx_bytes_total", "udproute", "udp"), 4.0 * round),
            (rule("upstream_cx_rx_bytes_total", "udproute", "udp"), 9.0 * round),
            (rule("udp_sess_tx_datagrams", "udproute", "udp"), round),
            (rule("udp_sess_rx_datagrams", "udproute", "udp"), round),
            (
                "envoy_listener_no_filter_chain_match{envoy_listener_address=\"0.0.0.0_8883\"}".into(),
                round,
            ),
            (
                "edge_gateway_route_connections_total{route=\"tcproute/envoy-gateway-system/tcp/rule/0\"}".into(),
                round,
            ),
        ];
        counted(at, &table).await;
        let text = scrape(at).await;
        let handshakes = value(&text, &port("cx_tx_bytes_total", "tls-passthrough-8883"));
        assert!(handshakes > 500.0 * round, "a handshake that passes is bytes: {handshakes}");
        // These ports serve no HTTP.
        assert!(!text.contains("http-9300") && !text.contains("https-8883"), "{text}");
        gateway.write("routes/more.yaml", &backend("unused", &[udp.address]));
        gateway.reload().await;
    }
}

#[tokio::test]
async fn a_scraper_is_told_metrics_and_nothing_else() {
    let at = free_address();
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
    let at = free_address();
    let eventful = Eventful::start(at).await;
    eventful.round().await;
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

const LABELS: [&str; 7] = [
    "envoy_cluster_name",
    "envoy_http_conn_manager_prefix",
    "envoy_listener_address",
    "envoy_response_code_class",
    "envoy_ssl_cipher",
    "envoy_ssl_version",
    "envoy_tcp_prefix",
];

fn read(path: &str) -> String {
    std::fs::read_to_string(in_package(path)).unwrap()
}

/// Prometheus' own judgement: of a scrape, and of the alerts.
#[tokio::test]
async fn prometheus_takes_the_metrics_and_the_alerts() {
    let Some(promtool) = needs("promtool", promtool(), INSTALL) else { return };
    let at = free_address();
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

/// Prometheus itself scrapes a gateway to which everything happens, and is asked what Grafana asks
/// it: there is something to draw in every panel, for every query.
#[tokio::test]
async fn every_query_of_the_dashboard_has_something_to_draw() {
    let prometheus = needs("prometheus", of_prometheus("prometheus"), INSTALL);
    let Some(prometheus) = prometheus else { return };
    let (metrics, web) = (free_address(), free_address());
    let eventful = Eventful::start(metrics).await;
    let dir = TempDir::with_prefix("prometheus-").unwrap();
    let config = format!(
        "global: {{scrape_interval: 500ms}}\n\
         scrape_configs:\n  - job_name: edge-gateway\n    metrics_path: /stats/prometheus\n    \
         static_configs: [{{targets: [\"{metrics}\"]}}]\n"
    );
    std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
    let mut command = Command::new(prometheus);
    command.arg(format!("--config.file={}/prometheus.yml", dir.path().display()));
    command.arg(format!("--storage.tsdb.path={}/data", dir.path().display()));
    command.arg(format!("--web.listen-address={web}"));
    let _prometheus = Process::spawn(command);

    let dashboard: Value =
        serde_json::from_str(&read("docs/dashboards/edge-gateway.json")).unwrap();
    let mut left = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$instance", ".*").replace("$__rate_interval", "5s");
            left.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    assert!(left.len() > 30, "{left:#?}");
    // What is rare is drawn for as long as it is within the window of its rate.
    let began = clock();
    while !left.is_empty() {
        assert!(began.elapsed() < 3 * SOON, "nothing to draw in {left:#?}");
        eventful.round().await;
        let mut empty = Vec::new();
        for (panel, query) in left {
            if !drawn(web, &query).await {
                empty.push((panel, query));
            }
        }
        left = empty;
    }
}

/// True if the query has a result in which there is a number.
async fn drawn(prometheus: SocketAddr, query: &str) -> bool {
    let encoded = query.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let head = format!("GET /api/v1/query?query={encoded} HTTP/1.1\r\nHost: {prometheus}");
    let (status, _, text) = soon("an answer of Prometheus", ask(prometheus, &head)).await;
    // It begins to listen before it answers.
    if status == 503 {
        return false;
    }
    assert_eq!(status, 200, "{query}: {text}");
    let told: Value = serde_json::from_str(&text).unwrap();
    let series = told["data"]["result"].as_array().unwrap();
    series.iter().any(|one| one["value"][1].as_str().is_some_and(|number| number != "NaN"))
}

/// A gateway to which everything happens that the dashboard can show.
#[derive(Debug)]
struct Eventful {
    gateway: Gateway,
    _actors: (Origin, Greeter, UdpEcho),
    /// A queue of one place that is taken: the kernel leaves further connections without an answer.
    _deaf: (socket2::Socket, Vec<TcpStream>),
    _waiting: JoinSet<()>,
}

impl Eventful {
    async fn start(metrics: SocketAddr) -> Self {
        let origin = Origin::scripted(|seen| match &*seen.target() {
            "/slow" => Answer::hang(),
            "/broken" => Answer::status(503, "no"),
            _ => Answer::ok("yes"),
        })
        .await;
        let (tcp, udp) = (Greeter::plain("tcp").await, UdpEcho::start("udp").await);
        let full =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from((own_loopback(), 0)).into()).unwrap();
        full.listen(0).unwrap();
        let deaf = full.local_addr().unwrap().as_socket().unwrap();
        let mut taken = Vec::new();
        while let Ok(stream) =
            tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(deaf)).await
        {
            taken.push(stream.unwrap());
        }
        let listeners = format!(
            "{}{}",
            "- {name: http, protocol: HTTP, port: 8080}\n\
             - {name: https, protocol: HTTPS, port: 8443, tls: {certificateRefs: [{name: eih-tls-cert}]}}\n",
            FORWARDING
        );
        let limited =
            rule_to("/", "api").replacen("matches:", "timeouts: {request: 100ms}\n  matches:", 1);
        let route = |kind: &str, section: &str, backend: SocketAddr| {
            forward_route(kind, section, section, &[], &[(backend, 1)])
        };
        let gateway = Gateway::setup()
            .metrics_at(metrics)
            .socket("tcp", "127.0.0.1:0")
            .socket("empty", "127.0.0.1:0")
            .datagrams("udp", "127.0.0.1:0")
            .datagrams("lost", "127.0.0.1:0")
            .socket("ended", "127.0.0.1:0")
            .file("common/gateway.yaml", &gateway_of(&listeners))
            .file("routes/backend-api.yaml", &backend("api", &[origin.address]))
            .file("routes/backend-dead.yaml", &backend("dead", &[refusing_address()]))
            .file("routes/backend-deaf.yaml", &backend("deaf", &[deaf]))
            .file("routes/api.yaml", &http_route("api", &["shop.test"], &limited))
            .file("routes/dead.yaml", &http_route("dead", &["dead.test"], &rule_to("/", "dead")))
            .file("routes/deaf.yaml", &http_route("deaf", &["deaf.test"], &rule_to("/", "deaf")))
            .file("routes/tcp.yaml", &route("TCPRoute", "tcp", tcp.address))
            .file("routes/udp.yaml", &route("UDPRoute", "udp", udp.address))
            .start()
            .await;
        let mut waiting = JoinSet::new();
        let http = gateway.http();
        // It is given up after 10 s.
        waiting.spawn(async move {
            let mut wire = Wire::connect(http).await;
            wire.send("GET / HTTP/1.1\r\nHost: deaf.test\r\n\r\n").await;
            wire.reply().await;
        });
        Self { gateway, _actors: (origin, tcp, udp), _deaf: (full, taken), _waiting: waiting }
    }

    /// A little of everything.
    async fn round(&self) {
        let gateway = &self.gateway;
        for (url, want) in [
            ("http://shop.test/", 200),
            ("https://shop.test/", 200),
            ("http://shop.test/broken", 503),
            ("http://shop.test/slow", 504),
            ("http://dead.test/", 503),
            ("http://nobody.test/", 404),
        ] {
            assert_eq!(gateway.get(url).await.status(), want, "{url}");
        }
        converse(Wire::connect(gateway.address("tcp")).await, "hello from tcp\n").await;
        let mut lost = Wire::connect(gateway.address("empty")).await;
        assert_eq!(soon("the end", lost.rest()).await, b"");
        let asker = Asker::of(gateway.address("udp")).await;
        assert_eq!(asker.ask("who?").await, "udp: who?");
        Asker::of(gateway.address("lost")).await.send("anybody?").await;
    }
}

fn promtool() -> Option<PathBuf> {
    of_prometheus("promtool")
}

/// A program of Debian's package `prometheus`.
fn of_prometheus(name: &str) -> Option<PathBuf> {
    let unpacked = in_package("tests/.cache/prometheus/usr/bin").join(name);
    let candidates = [unpacked, Path::new("/usr/bin").join(name)];
    candidates.into_iter().find(|path| path.exists())
}

fn said(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // What it has not read when it is done is its business.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}
