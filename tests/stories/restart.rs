//! Restarts and crashes behind sockets that the service manager keeps.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    Backend, Gateway, Message, Origin, Wire, clock, http_route, rule_to, serve_all, soon, until,
};

const HANDSHAKE: &str = "\
GET /chat HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHED: &str = "\
HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

async fn tunnel(gateway: &Gateway, backend: &Backend) -> (Wire, Wire) {
    let mut client = gateway.wire().await;
    client.send(HANDSHAKE).await;
    let mut origin = backend.accept().await;
    origin.request().await.unwrap();
    origin.send(SWITCHED).await;
    assert_eq!(soon("the switch", client.head()).await.unwrap().status(), 101);
    (client, origin)
}

/// Who connects while nobody runs waits in the socket, and is served by the next process.
#[tokio::test]
async fn a_crash_refuses_nobody() {
    let shop = Origin::replying("shop").await;
    let mut gateway = Gateway::in_front_of(shop.address).await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    gateway.process().signal(Signal::SIGKILL);
    assert!(!gateway.exit().await.success());

    let mut waiting = gateway.wire().await;
    waiting.send("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n").await;
    let since = gateway.notify().messages().len();
    let begin = clock();
    drop(gateway.replace());
    gateway.replaced(since).await;
    assert_eq!(waiting.reply().await.text(), "shop");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

/// A WebSocket has no end of its own, so the drain's limit is its end.
#[tokio::test]
async fn a_tunnel_lasts_until_the_drains_limit() {
    let backend = Backend::bind().await;
    let gateway = Gateway::setup()
        .flag("--drain-timeout 2s")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[backend.address]))
        .start()
        .await;
    let (mut client, mut origin) = tunnel(&gateway, &backend).await;
    let begin = clock();
    gateway.terminate();
    gateway.notify().message("STOPPING=1", 0, |message| message.is("STOPPING")).await;
    client.send("still here").await;
    assert_eq!(origin.exactly(10).await, b"still here");
    tokio::join!(client.rest(), origin.rest());
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(8), "{took:?}");
    assert!(gateway.exit().await.success());
}

#[tokio::test]
async fn a_tunnel_outlives_a_reload_that_takes_its_route_away() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let (mut client, mut origin) = tunnel(&gateway, &backend).await;
    gateway.remove("routes/shop.yaml");
    gateway.reload_with_removals().await;
    client.send("still here").await;
    assert_eq!(origin.exactly(10).await, b"still here");
    origin.send("so am I").await;
    assert_eq!(client.exactly(7).await, b"so am I");
}

/// A start has nothing that runs: what loaded last is served then, until the files are mended.
#[tokio::test]
async fn a_start_with_a_broken_file_serves_what_loaded_last() {
    let shop = Origin::replying("shop").await;
    let state = tempfile::tempdir().unwrap();
    let good = serve_all("shop", "shop.test", &[shop.address]);
    let mut gateway = Gateway::setup()
        .flag(&format!("--state-dir {}", state.path().display()))
        .file("routes/shop.yaml", &good)
        .start()
        .await;
    gateway.write("routes/shop.yaml", "kind: [\n");
    let since = gateway.notify().messages().len();
    gateway.terminate();
    assert!(gateway.exit().await.success());
    drop(gateway.replace());
    gateway.replaced(since).await;

    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    let said = |message: &Message| {
        message.value("STATUS").is_some_and(|status| status.contains("shop.yaml:"))
    };
    gateway.notify().message("STATUS=", since, said).await;
    let shop_yaml = gateway.path("routes/shop.yaml").display().to_string();
    let log = || gateway.process().stderr();
    until("the fault is told", || log().contains(&format!("{shop_yaml}:1:"))).await;
    assert!(!log().contains("last-good/"), "no place of a copy: {}", log());

    gateway.write("routes/shop.yaml", &good.replace("shop.test", "blog.test"));
    gateway.reload().await;
    assert_eq!(gateway.get("http://blog.test/").await.text(), "shop");
    assert_eq!(gateway.get("http://shop.test/").await.status(), 404);
    let kept = state.path().join("last-good");
    let mode = std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700, "secrets may stand in it");
}

/// A start takes nothing away either: neither by a fault that the last good configuration does not
/// have, nor by files that are not there.
#[tokio::test]
async fn a_start_with_a_new_fault_or_without_files_serves_the_last_good_configuration() {
    let shop = Origin::replying("shop").await;
    let state = tempfile::tempdir().unwrap();
    // A fault that is there from the beginning; it is the last good configuration's, too.
    let lost = http_route("lost", &["lost.example.test"], &rule_to("/", "nowhere"));
    let good = serve_all("shop", "shop.test", &[shop.address]);
    let mut gateway = Gateway::setup()
        .flag(&format!("--state-dir {}", state.path().display()))
        .file("routes/shop.yaml", &good)
        .file("routes/lost.yaml", &lost)
        .start()
        .await;
    let gateway_yaml = std::fs::read_to_string(gateway.path("common/gateway.yaml")).unwrap();
    // (mistake, file, text, what is said of it)
    let table = [
        ("none", "routes/shop.yaml", good.clone(), None),
        (
            "an enum",
            "routes/shop.yaml",
            good.replace("type: PathPrefix", "type: PathPrefx"),
            Some("routes/shop.yaml:26:19: HTTPRoute"),
        ),
        ("routes emptied", "routes/shop.yaml", String::new(), Some("shop.yaml holds no object")),
        (
            "the class",
            "common/gateway.yaml",
            gateway_yaml.replace("gatewayClassName: eg", "gatewayClassName: egg"),
            Some("common/gateway.yaml:7:21: Gateway"),
        ),
        ("the Gateway", "common/gateway.yaml", String::new(), Some("gateway.yaml holds no object")),
    ];
    for (mistake, file, text, told) in table {
        let before = std::fs::read_to_string(gateway.path(file)).unwrap();
        gateway.write(file, &text);
        let since = gateway.notify().messages().len();
        gateway.terminate();
        assert!(gateway.exit().await.success(), "{mistake}");
        drop(gateway.replace());
        gateway.replaced(since).await;
        assert_eq!(gateway.get("http://shop.test/").await.text(), "shop", "{mistake}");
        let ready = gateway.notify().messages().into_iter().rev().find(|one| one.is("READY"));
        let status = ready.unwrap().value("STATUS").unwrap().to_owned();
        match told {
            None => assert!(!status.contains("last good"), "{mistake}: {status}"),
            Some(told) => {
                assert!(status.contains("the last good configuration is served; "), "{status}");
                assert!(status.contains(told), "{mistake}: {status}");
            }
        }
        assert!(
            !gateway.process().stderr().contains("last-good/"),
            "{mistake}: copies are not told"
        );
        // Asked again it is no other.
        let ready = gateway.reload().await;
        let failed = ready.value("STATUS").unwrap().contains("last reload failed");
        assert_eq!(failed, told.is_some(), "{mistake}");
        gateway.write(file, &before);
        let ready = gateway.reload().await;
        assert!(!ready.value("STATUS").unwrap().contains("failed"), "{mistake}: mended: {ready:?}");
    }
}
