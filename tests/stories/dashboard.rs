//! The dashboard, seen and clicked in a browser: `tests/browser/dashboard.py` is the person.

use std::process::Command;
use std::time::Duration;

use crate::admin::RULES;
use crate::needs::{INSTALL, needs};
use crate::support::{
    Answer, GATEWAY, Gateway, Greeter, NAMES, Origin, backend, ca, forward_route, free_address,
    http_route, in_package, refusing_address, rule_to, soon,
};

/// What a file says is text, too.
const MARKUP: &str = "\
- matches: [{headers: [{name: X-A, value: '<img src=x onerror=window.taken=1>'}]}]
  backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: api}]
";

#[tokio::test]
async fn a_person_at_the_dashboard_sees_what_happens_and_can_act() {
    let python = in_package("tests/.cache/venv/bin/python");
    let has = |what: &str| {
        let mut command = Command::new(&python);
        command.args(["-c", &format!("import {what}")]);
        command.output().is_ok_and(|output| output.status.success())
    };
    let chromium = std::path::Path::new("/usr/bin/chromium");
    let there = (chromium.exists() && has("playwright")).then_some(());
    if needs("chromium and playwright", there, INSTALL).is_none() {
        return;
    }
    let origin = Origin::scripted(|seen| match &*seen.target() {
        "/api/broken" => Answer::status(500, "no"),
        _ => Answer::ok("yes").after(Duration::from_millis(2)),
    })
    .await;
    let greeter = Greeter::plain("tcp").await;
    let tcp = forward_route("TCPRoute", "tcp", "tcp", &[], &[(greeter.address, 1)]);
    let dead = refusing_address();
    let at = free_address();
    let to_api = "- backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: api}]\n";
    let api = format!("{RULES}{to_api}");
    let setup = Gateway::setup();
    let names = [&NAMES[..], &["dead.test", "evil.test", "quiet.test"]].concat();
    setup.lineage().renew(&ca().leaf(&names));
    let gateway = setup
        .admin_at(at)
        // A fault is to be seen as a condition, too.
        .flag("--reload-policy partial")
        .socket("tcp", "127.0.0.1:0")
        .file(
            "common/gateway.yaml",
            &format!("{GATEWAY}    - {{name: tcp, protocol: TCP, port: 9300}}\n"),
        )
        .file("routes/tcp.yaml", &tcp)
        .file("routes/backend-api.yaml", &backend("api", &[origin.address]))
        .file("routes/backend-dead.yaml", &backend("dead", &[dead]))
        .file("routes/api.yaml", &http_route("api", &["shop.test"], &api))
        .file("routes/dead.yaml", &http_route("dead", &["dead.test"], &rule_to("/", "dead")))
        .file("routes/markup.yaml", &http_route("markup", &["evil.test"], MARKUP))
        .file("routes/quiet.yaml", &http_route("quiet", &["quiet.test"], &rule_to("/", "api")))
        .start()
        .await;
    let mut command = Command::new(&python);
    command.args(["-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]);
    command.args(["--durations=5", "-o", "addopts="]);
    command.arg(in_package("tests/browser/dashboard.py"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("ADMIN", format!("http://{at}"));
    command.env("GATEWAY", gateway.http().to_string());
    command.env("TCP", gateway.address("tcp").to_string());
    command.env("ROUTES", gateway.path("routes"));
    command.env("BACKEND", origin.address.to_string());
    command.env("DEAD", dead.to_string());
    command.env("SECRET", "hush-hush");
    command.current_dir(gateway.setup_ref().letsencrypt());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    // The last thing that the person does is to drain it.
    assert!(soon("the end", gateway.exit()).await.success());
}
