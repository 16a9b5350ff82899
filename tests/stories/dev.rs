//! `edge-gateway dev`: what a newcomer gets without a certificate, a file or a right.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::{GIVEN_PORTS, Origin, Process, Reply, Wire, clock, has_ipv6, serve_all, soon};

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
    if let Some(error) = taken() {
        let hint = format!("left out: port 8080 or 8443 cannot be had: {error}");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{hint}");
        eprintln!("{hint}");
        return None;
    }
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

    process.signal(Signal::SIGINT);
    assert!(process.exit().await.success());
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
