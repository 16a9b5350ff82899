//! What an operator asks of the running gateway, over the control socket and the admin address.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};

use serde_json::Value;
use tokio::net::TcpStream;

use crate::needs::{INSTALL, needs};
use crate::support::{
    Answer, Gateway, Origin, Setup, Wire, backend, free_address, http_route, in_package, rule_to,
    soon,
};

pub(crate) const RULES: &str = "\
- matches: [{path: {value: /api}}]
  filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: Authorization, value: Bearer hush-hush}]}
  backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: api}]
- matches: [{path: {type: Exact, value: /old}}]
  filters:
    - type: RequestRedirect
      requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /api}, statusCode: 302}
";

async fn setup() -> (Setup, SocketAddr, Origin) {
    let origin = Origin::scripted(|seen| match &*seen.target() {
        "/api/broken" => Answer::status(500, "no"),
        _ => Answer::ok("yes"),
    })
    .await;
    let at = free_address();
    let setup = Gateway::setup()
        .admin_at(at)
        .file("routes/backend.yaml", &backend("api", &[origin.address]))
        .file("routes/api.yaml", &http_route("api", &["shop.test"], RULES));
    (setup, at, origin)
}

/// Status, and body as JSON where it is some.
async fn send(at: SocketAddr, head: &str) -> (u16, Value) {
    let mut wire = Wire::once_there(at).await;
    wire.send(format!("{head}\r\n\r\n")).await;
    let reply = soon("an answer", wire.reply()).await;
    let text = reply.text();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (reply.status(), body)
}

async fn get(at: SocketAddr, target: &str) -> Value {
    let (status, body) = send(at, &format!("GET {target} HTTP/1.1\r\nHost: {at}")).await;
    assert_eq!(status, 200, "{target}: {body}");
    body
}

async fn run(gateway: &Gateway, command: &str) -> Output {
    let mut command = gateway.setup_ref().command(command);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn the_admin_address_tells_what_is_served() {
    let (setup, at, origin) = setup().await;
    let gateway = setup.start().await;
    assert_eq!(gateway.get("http://shop.test/api").await.status(), 200);
    assert_eq!(gateway.get("http://shop.test/api/broken").await.status(), 500);

    assert_eq!(get(at, "/ready").await, "LIVE\n");
    assert_eq!(get(at, "/healthz").await, "ok\n");
    let routes = get(at, "/routes").await;
    let row = &routes["routes"][1];
    assert_eq!(row["match"], "prefix /api", "{routes}");
    assert_eq!((row["host"].as_str(), row["hits"].as_u64()), (Some("shop.test"), Some(2)));
    assert!(row["backends"][0]["name"].as_str().unwrap().ends_with("/api"), "{row}");
    let clusters = get(at, "/clusters").await;
    let endpoint = &clusters["clusters"][0]["endpoints"][0];
    assert_eq!(endpoint["address"], origin.address.to_string());
    assert_eq!(endpoint["health"], "healthy");
    let listeners = get(at, "/listeners").await;
    let ports: Vec<_> =
        listeners["listeners"].as_array().unwrap().iter().map(|one| &one["port"]).collect();
    assert_eq!(ports, [8080, 8443]);
    let certificates = get(at, "/certs").await;
    assert_eq!(certificates["certificates"][0]["verdict"], "good", "{certificates}");
    let stats = get(at, "/stats?format=json").await;
    assert_eq!(stats["routes"][0]["responses"], serde_json::json!([0, 1, 0, 0, 1]), "{stats}");
    let plain = get(at, "/stats").await;
    let line = "envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix=\"http-8080\"}: 2\n";
    assert!(plain.as_str().unwrap().contains(line), "{plain}");
    let prometheus = get(at, "/stats?format=prometheus").await;
    assert!(prometheus.as_str().unwrap().starts_with("# HELP "), "{prometheus}");
    let reloads = get(at, "/reloads").await;
    assert_eq!(reloads["reloads"][0]["cause"], "start", "{reloads}");
    assert_eq!(reloads["reloads"][0]["serving"]["generation"], 1, "{reloads}");
    let explained = get(at, "/explain?method=POST&url=http://shop.test/api/x%3Fy").await;
    assert_eq!(explained["request"], "POST http://shop.test/api/x?y");
    assert!(explained["rule"].as_str().unwrap().ends_with("/api/rule/0"), "{explained}");

    let dump = get(at, "/config_dump").await.to_string();
    assert!(dump.contains("authorization"), "{dump}");
    assert!(!dump.contains("hush-hush"), "{dump}");
}

#[tokio::test]
async fn pages_of_other_origins_and_other_names_are_refused() {
    let (setup, at, _origin) = setup().await;
    let gateway = setup.start().await;
    let own = format!("Host: {at}");
    let same = format!("{own}\r\nOrigin: http://{at}\r\nSec-Fetch-Site: same-origin");
    let header = "X-Edge-Gateway-Admin: 1";
    // (request line, fields, status)
    let table = [
        ("GET /routes", own.clone(), 200),
        ("GET /routes", same.clone(), 200),
        ("GET /routes", "Host: localhost".into(), 200),
        ("GET /routes", "Host: rebound.example".into(), 403),
        ("GET /routes", format!("{own}\r\nOrigin: https://evil.example"), 403),
        ("GET /routes", format!("{own}\r\nOrigin: null"), 403),
        ("GET /routes", format!("{own}\r\nSec-Fetch-Site: cross-site"), 403),
        ("GET /routes", format!("{own}\r\nSec-Fetch-Site: same-site"), 403),
        ("GET /nothing", own.clone(), 404),
        ("GET /apis", own.clone(), 404),
        ("DELETE /routes", own.clone(), 405),
        ("GET /reload", own.clone(), 405),
        ("GET /routes?x=1", own.clone(), 400),
        ("GET /explain", own.clone(), 400),
        // A form of another page can send this much.
        ("POST /reload", own.clone(), 403),
        ("POST /drain_listeners", own.clone(), 403),
        ("POST /logging?level=trace", own.clone(), 403),
        ("POST /reload", format!("{own}\r\n{header}\r\nOrigin: https://evil.example"), 403),
        ("POST /logging?level=loud", format!("{own}\r\n{header}"), 400),
        ("POST /reload", format!("{same}\r\n{header}"), 200),
    ];
    for (line, fields, want) in table {
        let (status, body) = send(at, &format!("{line} HTTP/1.1\r\n{fields}")).await;
        assert_eq!(status, want, "{line} with {fields}: {body}");
    }
    let reloads = get(at, "/reloads").await;
    let causes: Vec<_> =
        reloads["reloads"].as_array().unwrap().iter().map(|one| &one["cause"]).collect();
    assert_eq!(causes, ["asked", "start"]);
    // None of it is on the listeners.
    assert_eq!(gateway.get("http://shop.test/routes").await.status(), 404);
}

#[tokio::test]
async fn the_log_level_changes_while_it_runs() {
    let (setup, at, _origin) = setup().await;
    let gateway = setup.start().await;
    assert_eq!(get(at, "/logging").await["level"], "info");
    let head = format!("Host: {at}\r\nX-Edge-Gateway-Admin: 1");
    let (status, body) = send(at, &format!("POST /logging?level=error HTTP/1.1\r\n{head}")).await;
    assert_eq!((status, &body["level"]), (200, &Value::from("error")));
    gateway.reload().await;
    let (_, body) = send(at, &format!("POST /logging?level=debug HTTP/1.1\r\n{head}")).await;
    assert_eq!(body["level"], "debug");
    gateway.reload().await;
    gateway.terminate();
    gateway.exit().await;
    let log = gateway.process().stderr();
    let reloads = log.matches("reloading on SIGHUP").count();
    assert_eq!(reloads, 1, "one of two was logged:\n{log}");
}

#[tokio::test]
async fn a_drain_that_is_asked_for_ends_the_process_as_sigterm_does() {
    let (setup, at, _origin) = setup().await;
    let gateway = setup.start().await;
    let head = format!("Host: {at}\r\nX-Edge-Gateway-Admin: 1");
    let (status, body) = send(at, &format!("POST /drain_listeners HTTP/1.1\r\n{head}")).await;
    assert_eq!((status, &body["connections"]), (202, &Value::from(0)));
    assert!(soon("the end", gateway.exit()).await.success());
}

#[tokio::test]
async fn requests_are_shown_live_while_somebody_looks() {
    let (setup, at, _origin) = setup().await;
    let gateway = setup.start().await;
    gateway.get("http://shop.test/api/before").await;
    assert_eq!(get(at, "/requests").await["requests"], serde_json::json!([]));
    gateway.get("http://shop.test/api/seen?token=hush-hush").await;
    let seen = loop {
        // A record is made when the last byte is gone, which the client may see before.
        let seen = get(at, "/requests?after=0").await;
        if seen["last"] == 1 {
            break seen;
        }
    };
    assert_eq!(seen["requests"][0]["path"], "/api/seen?token=[redacted]", "{seen}");
    assert_eq!(seen["requests"][0]["status"], 200);
    assert_eq!(get(at, "/requests?after=1").await["requests"], serde_json::json!([]));
}

#[tokio::test]
async fn commands_ask_the_gateway_that_runs() {
    let (setup, _at, _origin) = setup().await;
    let broken = http_route("lost", &["blog.test"], &rule_to("/", "nowhere"));
    let gateway = setup.file("routes/lost.yaml", &broken).start().await;
    for _ in 0..3 {
        gateway.get("http://shop.test/api").await;
    }
    let text = stdout(&run(&gateway, "explain http://shop.test/api?a=b").await);
    assert!(text.contains("rule      httproute/envoy-gateway-system/api/rule/0"), "{text}");
    assert!(!text.contains("hush-hush"), "{text}");

    let text = stdout(&run(&gateway, "top --once --interval 100ms").await);
    assert!(text.contains("\nenvoy-gateway-system/api  0  "), "{text}");

    let text = stdout(&run(&gateway, "routes --host shop").await);
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    assert!(lines[0].starts_with("HOST ") && lines[0].ends_with(" HITS"), "{text}");
    assert!(lines[3].contains("prefix /api") && lines[3].ends_with(" 3"), "{text}");
    let json: Value =
        serde_json::from_str(&stdout(&run(&gateway, "routes -o json").await)).unwrap();
    assert_eq!(json["routes"][0]["rule"].as_str().unwrap().split('/').next(), Some("httproute"));
    let yaml = stdout(&run(&gateway, "routes -o yaml").await);
    assert!(yaml.starts_with("routes:\n"), "{yaml}");
}

/// The description is held against the gateway itself: what it does not promise is never answered,
/// and what it takes is taken.
#[tokio::test]
async fn the_openapi_description_is_true() {
    let schemathesis = in_package("tests/.cache/venv/bin/schemathesis");
    let there = schemathesis.exists().then_some(schemathesis);
    let Some(schemathesis) = needs("schemathesis", there, INSTALL) else { return };
    let (setup, at, _origin) = setup().await;
    let gateway = setup.start().await;
    get(at, "/ready").await;
    // What is asked about may be any request; the description has those that are surely understood.
    let config = gateway.setup_ref().path("schemathesis.toml");
    let lenient = "[[operations]]\ninclude-path = \"/explain\"\n\
                   checks.negative_data_rejection.enabled = false\n";
    fs::write(&config, lenient).unwrap();
    let mut command = Command::new(schemathesis);
    command.arg("--config-file").arg(config);
    command.arg("run").arg(in_package("docs/admin-openapi.yaml"));
    command.args(["--url", &format!("http://{at}"), "--header", "X-Edge-Gateway-Admin: 1"]);
    command.args([
        "--seed",
        "7",
        "--max-examples",
        "15",
        "--no-color",
        "--phases",
        "examples,coverage,fuzzing",
    ]);
    // It ends the gateway, and has a story of its own.
    command.args(["--exclude-path", "/drain_listeners", "--generation-database", "none"]);
    command.current_dir(gateway.setup_ref().letsencrypt());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!gateway.process().has_ended());
}

#[tokio::test]
async fn the_dashboard_talks_to_nobody_else() {
    let (setup, at, _origin) = setup().await;
    let _gateway = setup.start().await;
    get(at, "/ready").await;
    let mut wire = Wire::tcp(TcpStream::connect(at).await.unwrap());
    wire.send(format!("GET / HTTP/1.1\r\nHost: {at}\r\n\r\n")).await;
    let reply = wire.reply().await;
    let policy = reply.header("content-security-policy").unwrap_or_default();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    let mut files = reply.text();
    for file in ["/dashboard.js", "/dashboard.css"] {
        files.push_str(get(at, file).await.as_str().unwrap());
    }
    for outside in [
        "src=\"http",
        "href=\"http",
        "(\"http",
        "url(",
        "@import",
        "innerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
    ] {
        assert!(!files.contains(outside), "{outside}");
    }
}
