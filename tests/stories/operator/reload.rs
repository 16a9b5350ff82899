//! `edge-gateway reload`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::needs::needs;
use crate::support::{GATEWAY, Gateway, Origin, Wire, free_port, serve_all, until};

use super::{operator, stderr, stdout};

#[tokio::test]
async fn a_reload_that_is_waited_for_says_what_came_of_it() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::start().await;
    let setup = gateway.setup_ref();
    let good = serve_all("shop", "shop.test", &[shop.address]);

    gateway.write("routes/shop.yaml", &good);
    let reloaded = operator(setup, "reload", &["--wait"]).await;
    assert_eq!(reloaded.status.code(), Some(0), "{reloaded:?}");
    let told = stdout(&reloaded);
    assert!(told.contains("serving 1 route on 2 listeners to 1 backend, generation 2"), "{told}");
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");

    gateway.write("routes/shop.yaml", &good.replace("kind: HTTPRoute", "kind: [HTTPRoute"));
    let reloaded = operator(setup, "reload", &["--wait"]).await;
    assert_eq!(reloaded.status.code(), Some(1), "{reloaded:?}");
    let told = stdout(&reloaded);
    let place = format!("{}:15:", gateway.path("routes/shop.yaml").display());
    assert!(told.contains(&place), "{place} in {told}");
    let still = "still serving the previous configuration, generation 2";
    assert!(stderr(&reloaded).contains(still), "{reloaded:?}");
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop", "the old one serves");

    // A fault of one object alone.
    gateway.write("routes/shop.yaml", &good.replace("value: /\n", "value: no-slash\n"));
    let reloaded = operator(setup, "reload", &["--wait"]).await;
    assert_eq!(reloaded.status.code(), Some(1), "{reloaded:?}");
    assert!(stdout(&reloaded).contains("shop.yaml:27:20:"), "{reloaded:?}");
    assert!(stderr(&reloaded).contains(still), "{reloaded:?}");
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop", "the old one serves");
}

/// A port that another process has keeps its own listener out, and nothing else. Once it is free, the
/// next load has it.
#[tokio::test]
async fn a_port_that_is_taken_keeps_its_listener_out_until_it_is_free() {
    let shop = Origin::replying("shop").await;
    let port = free_port();
    let taken = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
    let gateway = Gateway::start().await;
    let file = fs::read_to_string(gateway.path("common/gateway.yaml")).unwrap();
    let more = format!("    - name: more\n      protocol: HTTP\n      port: {port}\n");
    gateway.write("common/gateway.yaml", &(file + &more));
    gateway.write("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]));
    let reloaded = operator(gateway.setup_ref(), "reload", &["--wait"]).await;
    let said = format!(
        "gateway.yaml:22:13: Gateway envoy-gateway-system/eg: spec.listeners[2].port: port {port} cannot be listened on"
    );
    assert!(stdout(&reloaded).contains(&said), "{reloaded:?}");
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");

    drop(taken);
    let reloaded = operator(gateway.setup_ref(), "reload", &["--wait"]).await;
    assert!(reloaded.status.success(), "{reloaded:?}");
    let mut more = Wire::connect(([127, 0, 0, 1], port).into()).await;
    more.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!(more.reply().await.text(), "shop");
}

/// A port cannot change from every address to one of them without a gap, so what serves it stays.
#[tokio::test]
async fn a_reload_is_refused_that_would_leave_a_port_without_a_socket() {
    let shop = Origin::replying("shop").await;
    let port = free_port();
    let file = GATEWAY.replace("port: 8080", &format!("port: {port}"));
    let gateway = Gateway::setup()
        .without_sockets()
        .file("common/gateway.yaml", &file[..file.find("    - name: https").unwrap()])
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let alone = file.replace("  listeners:", "  addresses: [{value: 127.0.0.1}]\n  listeners:");
    gateway.write("common/gateway.yaml", &alone[..alone.find("    - name: https").unwrap()]);
    let reloaded = operator(gateway.setup_ref(), "reload", &["--wait"]).await;
    assert_eq!(reloaded.status.code(), Some(1), "{reloaded:?}");
    assert!(stderr(&reloaded).contains("in a restart alone"), "{reloaded:?}");
    let mut wire = Wire::connect(([127, 0, 0, 1], port).into()).await;
    wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!(wire.reply().await.text(), "shop");
}

#[tokio::test]
async fn a_reload_that_is_not_waited_for_happens_all_the_same() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::start().await;
    gateway.write("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]));
    let since = gateway.notify().messages().len();
    let reloaded = operator(gateway.setup_ref(), "reload", &[]).await;
    assert!(reloaded.status.success() && reloaded.stdout.is_empty(), "{reloaded:?}");
    let ready = |message: &crate::support::Message| message.is("READY");
    gateway.notify().message("READY=1", since, ready).await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
}

#[tokio::test]
async fn where_nobody_answers_a_reload_fails_and_says_where() {
    let gateway = Gateway::start().await;
    let setup = gateway.setup_ref();
    let path = setup.control_socket();
    gateway.terminate();
    gateway.exit().await;
    assert!(!path.exists(), "the socket goes with the gateway");
    for flags in [&["--wait"][..], &[]] {
        let reloaded = operator(setup, "reload", flags).await;
        assert_eq!(reloaded.status.code(), Some(1), "{reloaded:?}");
        assert!(stderr(&reloaded).contains(path.to_str().unwrap()), "{reloaded:?}");
    }
}

/// The mode of the file keeps others out; where somebody opens it to them, they may look.
#[tokio::test]
async fn only_root_and_the_gateways_user_may_reload() {
    let root = nix::unistd::geteuid().is_root().then_some(());
    if needs("root", root, "run it as root, which can play other users").is_none() {
        return;
    }
    let gateway = Gateway::start().await;
    let setup = gateway.setup_ref();
    let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let dir = setup.control_socket().parent().unwrap();
    open(dir, 0o755);
    open(setup.control_socket(), 0o666);
    // The build may be out of the reach of others.
    let binary = dir.join("edge-gateway");
    // By a process of its own: a child that another story starts meanwhile would inherit our
    // descriptor, and a file that is open for writing cannot be executed.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_edge-gateway")).arg(&binary).status();
    assert!(copied.unwrap().success());

    let mut command = Command::new(binary);
    command.args(["reload", "--wait", "--control-socket"]).arg(setup.control_socket());
    command.env_clear().current_dir("/").uid(65534).gid(65534);
    let reloaded = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(reloaded.status.code(), Some(1), "{reloaded:?}");
    assert!(stderr(&reloaded).contains("only root and the user of the gateway"), "{reloaded:?}");
    assert!(!gateway.notify().messages().iter().any(|message| message.is("RELOADING")));
}

/// kill -9 leaves the file of the socket; the next gateway takes its place.
#[tokio::test]
async fn a_dead_gateways_socket_is_taken_over_and_a_live_ones_is_not() {
    let mut gateway = Gateway::start().await;
    gateway.process().signal(Signal::SIGKILL);
    gateway.exit().await;
    assert!(gateway.setup_ref().control_socket().exists());
    let since = gateway.notify().messages().len();
    let _dead = gateway.replace();
    gateway.replaced(since).await;
    let reloaded = operator(gateway.setup_ref(), "reload", &["--wait"]).await;
    assert!(reloaded.status.success(), "{reloaded:?}");

    // Two that share the listening sockets, as in a restart: the second serves without.
    let since = gateway.notify().messages().len();
    let first = gateway.replace();
    gateway.replaced(since).await;
    until("the second complains", || {
        gateway.process().stderr().contains("another gateway answers")
    })
    .await;
    let reloaded = operator(gateway.setup_ref(), "reload", &["--wait"]).await;
    assert!(stdout(&reloaded).contains("generation 3"), "the first: {reloaded:?}");
    drop(first);
}

/// A folder that is missing is no reason not to serve.
#[tokio::test]
async fn a_gateway_without_a_control_socket_serves() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::setup()
        .control_socket_at("/nowhere/edge-gateway/control.sock")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    let complains = || gateway.process().stderr().contains("/nowhere/edge-gateway/control.sock");
    until("it is said", complains).await;
}
