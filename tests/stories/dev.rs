//! `edge-gateway dev`: what a newcomer gets without a certificate, a file or a right.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::needs::needs;
use crate::support::{
    Answer, GIVEN_PORTS, Gateway, Origin, Process, Reply, Tls, Wire, clock, has_ipv6, serve_all,
    soon, until,
};

/// Starts `dev` with `arguments`; none where another program has one of its ports, which CI does
/// not let pass.
async fn start(home: &TempDir, arguments: &[&str]) -> Option<Process> {
    let any = if has_ipv6() { "::" } else { "0.0.0.0" };
    let taken = || {
        [8080, 8443].map(|port| TcpListener::bind((any, port))).into_iter().find_map(Result::err)
    };
    let begin = clock();
    // A process of a test before this one was killed and may not be gone yet.
    while taken().is_some() && begin.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let free = taken().is_none().then_some(());
    needs("ports 8080 and 8443", free, "stop the program that has one of them")?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-gateway"));
    command.arg("dev").args(arguments).args(["--log-format", "json"]);
    command.env_clear().env("HOME", home.path()).current_dir(home.path());
    let process = Process::spawn(command);
    process.stdout_line("it says what to open", |line| line.contains("localhost")).await;
    Some(process)
}

async fn get(port: u16, host: &str, path: &str) -> Reply {
    let mut wire = Wire::connect(([127, 0, 0, 1], port).into()).await;
    let lines = "Connection: close\r\n\r\n";
    wire.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}")).await;
    wire.reply().await
}

#[tokio::test]
async fn it_serves_at_once_and_says_what_to_try() {
    let _alone = GIVEN_PORTS.write().await;
    let home = tempfile::tempdir().unwrap();
    let Some(process) = start(&home, &[]).await else { return };
    let reply = get(8080, "localhost:8080", "/").await;
    assert_eq!(reply.status(), 200, "{reply:?}");

    // Whatever it says to try must do.
    let said = process.stdout().join("\n");
    assert!(said.contains("http://localhost:8080") && said.contains("https://localhost:8443"));
    let mut tried = 0;
    for word in said.split_whitespace() {
        let Some(rest) = word.strip_prefix("http://localhost:8080") else { continue };
        let path = if rest.is_empty() { "/" } else { rest };
        let reply = get(8080, "localhost:8080", path).await;
        assert!(reply.status() < 500 && reply.status() != 404, "{word}: {reply:?}");
        tried += 1;
    }
    assert!(tried > 0, "{said}");
    // It has written the files itself, just before it read them.
    let log = process.stderr();
    assert!(!log.contains("reloading"), "{log}");

    process.signal(Signal::SIGINT);
    assert!(process.exit().await.success());
}

/// What a filter does can be seen before there is a service: the echo shows what would reach it.
#[tokio::test]
async fn the_echo_shows_what_a_service_would_receive_and_by_which_route() {
    let _alone = GIVEN_PORTS.write().await;
    let home = tempfile::tempdir().unwrap();
    let Some(process) = start(&home, &[]).await else { return };
    let head = "GET /hello/world?a=b HTTP/1.1\r\nHost: localhost\r\nX-Edge-Gateway-Route: mine\r\n\
                X-Edge-Gateway-Tls: mine\r\nConnection: close\r\n\r\n";
    let mut wire = Wire::connect(([127, 0, 0, 1], 8080).into()).await;
    wire.send(head).await;
    let reply = wire.reply().await;
    let rule = "httproute/default/hello/rule/0";
    assert_eq!(reply.header("x-edge-gateway-route").as_deref(), Some(rule), "{reply:?}");
    let image: Value = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!((&image["method"], &image["path"]), (&"GET".into(), &"/world".into()), "{image}");
    assert_eq!(image["query"], "a=b", "{image}");
    assert_eq!(image["headers"]["x-greeting"], json!(["hello from the gateway"]), "{image}");
    assert_eq!(image["headers"]["x-forwarded-for"], json!(["127.0.0.1"]), "{image}");
    let told = json!({ "route": rule, "listener": "default/eg/http", "tls": null });
    assert_eq!(image["gateway"], told, "not what the client says: {image}");
    let fields = image["headers"].as_object().unwrap();
    assert!(!fields.keys().any(|name| name.starts_with("x-edge-gateway")), "{image}");

    // With the certificate that it made for itself.
    let lineage = ".local/state/edge-gateway/dev/letsencrypt/live/localhost/fullchain.pem";
    let certificate = CertificateDer::from_pem_file(home.path().join(lineage)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let tls = Tls::of("localhost").trusting(roots).alpn(&["http/1.1"]);
    let mut wire = Wire::over(tls.connect(([127, 0, 0, 1], 8443).into()).await.unwrap());
    wire.send(head).await;
    let image: Value = serde_json::from_str(&wire.reply().await.text()).unwrap();
    let facts = &image["gateway"]["tls"];
    assert_eq!((&facts["version"], &facts["sni"]), (&"TLSv1.3".into(), &"localhost".into()));
    assert!(facts["cipher"].as_str().unwrap().starts_with("TLS_"), "{image}");
    assert_eq!(image["gateway"]["listener"], "default/eg/https", "{image}");

    // What a filter answers has a route as well, and what has no route says nothing.
    let secure = get(8080, "localhost", "/secure").await;
    let rule = secure.header("x-edge-gateway-route");
    assert_eq!(rule.as_deref(), Some("httproute/default/secure/rule/0"), "{secure:?}");
    drop(process);
}

#[tokio::test]
async fn it_has_a_dashboard_and_metrics_where_it_says() {
    let _alone = GIVEN_PORTS.write().await;
    let home = tempfile::tempdir().unwrap();
    // Somebody has the usual port, so it takes another. A process of a test before this one may have
    // it until it is gone.
    let mut taken = None;
    until("the usual port is ours", || {
        taken = TcpListener::bind(("127.0.0.1", 19000)).ok();
        taken.is_some()
    })
    .await;
    let Some(process) = start(&home, &[]).await else { return };
    let said = process.stdout_line("the dashboard", |line| line.contains("dashboard")).await;
    let (_, rest) = said.split_once("http://").unwrap();
    let address: SocketAddr = rest.split('/').next().unwrap().parse().unwrap();
    assert!(address.ip().is_loopback() && address.port() != 19000, "{said}");
    let mut wire = Wire::once_there(address).await;
    wire.send(format!("GET /ready HTTP/1.1\r\nHost: {address}\r\n\r\n")).await;
    assert_eq!(wire.reply().await.text(), "LIVE\n");
    let metrics = || {
        process.stderr().lines().find_map(|line| {
            let (_, rest) = line.split_once(r#""server":"metrics""#)?;
            let (_, rest) = rest.split_once("http://")?;
            rest.split('/').next()?.parse::<SocketAddr>().ok()
        })
    };
    until("it says where its metrics are", || metrics().is_some()).await;
    let address = metrics().unwrap();
    let mut wire = Wire::once_there(address).await;
    wire.send(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n")).await;
    assert!(wire.reply().await.text().contains("envoy_server_live 1\n"));

    let home = tempfile::tempdir().unwrap();
    drop(process);
    let flags = ["--admin-listen", "none", "--metrics-listen", "none"];
    let Some(process) = start(&home, &flags).await else { return };
    assert!(!process.stdout().join("\n").contains("dashboard"), "{:?}", process.stdout());
}

/// The fields are those of a gateway to try things with; in any other they are somebody's own.
#[tokio::test]
async fn a_gateway_that_serves_says_nothing_of_its_routes() {
    let shop = Origin::scripted(|seen| {
        Answer::ok(&seen.header("x-edge-gateway-route").unwrap_or_default())
    })
    .await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let reply = gateway.get_with("http://shop.test/", "X-Edge-Gateway-Route: mine\r\n").await;
    assert_eq!(reply.text(), "mine");
    assert_eq!(reply.header("x-edge-gateway-route"), None, "{reply:?}");
}

#[tokio::test]
async fn a_file_that_is_saved_is_live() {
    let _alone = GIVEN_PORTS.write().await;
    let shop = Origin::replying("shop").await;
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("gateway");
    std::fs::create_dir(&folder).unwrap();
    let gateway = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: eg
  namespace: envoy-gateway-system
spec:
  gatewayClassName: eg
  listeners:
    - {name: http, protocol: HTTP, port: 8080}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata:
  name: eg
spec:
  controllerName: gateway.envoyproxy.io/gatewayclass-controller
";
    std::fs::write(folder.join("gateway.yaml"), gateway).unwrap();
    let Some(_process) = start(&home, &[folder.to_str().unwrap()]).await else { return };
    assert_eq!(get(8080, "shop.test", "/").await.status(), 404);
    let route = serve_all("shop", "shop.test", &[shop.address]);
    std::fs::write(folder.join("shop.yaml"), route).unwrap();
    soon("the route is live", async {
        while get(8080, "shop.test", "/").await.text() != "shop" {
            // The gateway waits for the files to be quiet before it reads them.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
