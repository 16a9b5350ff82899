//! h2spec, the HTTP/2 conformance suite (RFC 9113, RFC 7541), against the gateway.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::needs::{INSTALL, needs};
use crate::support::{Gateway, Origin, backend, http_route, in_package, rule_to};

/// The number of tests that h2spec has.
const TESTS: usize = 145;

/// The gateway passes every test over TLS. Over a cleartext port, which HTTP/1.1 has too, bytes that are
/// no connection preface of HTTP/2 are a faulty HTTP/1.1 request, which is answered 400.
#[tokio::test]
async fn h2spec_finds_no_fault() {
    let Some(h2spec) = needs("h2spec", h2spec(), INSTALL) else { return };
    // Some tests need a body that does not fit into a small window.
    let origin = Origin::replying(&"x".repeat(2000)).await;
    let gateway = Gateway::setup()
        .file("routes/backend.yaml", &backend("all", &[origin.address]))
        .file("routes/all.yaml", &http_route("all", &[], &rule_to("/", "all")))
        .start()
        .await;
    assert_eq!(failures(&h2spec, gateway.https(), &["--tls", "--insecure"]).await, [""; 0]);
    let preface = "2: Sends invalid connection preface";
    assert_eq!(failures(&h2spec, gateway.http(), &[]).await, [preface]);
}

/// The names of the tests that fail.
async fn failures(h2spec: &Path, address: SocketAddr, more: &[&str]) -> Vec<String> {
    let port = address.port().to_string();
    // Each test waits at most 5 s for the gateway.
    let mut command = Command::new(h2spec);
    command.args(["--host", "127.0.0.1", "--timeout", "5", "--port", &port]).args(more);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // Each failed test is named once where it runs, behind its name, and once more at the end.
    let failed = text.lines().filter_map(|line| line.trim().strip_prefix("× "));
    let failed: Vec<String> = failed.map(str::to_owned).collect();
    let (passed, count) = (TESTS - failed.len(), failed.len());
    let sum = format!("{TESTS} tests, {passed} passed, 0 skipped, {count} failed");
    assert!(text.contains(&sum), "expected {sum}, found {text}");
    failed
}

fn h2spec() -> Option<PathBuf> {
    Some(in_package("tests/.cache/h2spec/h2spec")).filter(|path| path.exists())
}
