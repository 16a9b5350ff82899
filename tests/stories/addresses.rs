//! Several Gateways on one host, each on an address of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use tokio::net::TcpStream;

use crate::support::{
    GATEWAY, Gateway, Origin, Wire, backend, free_port, rule_to, serve_all, until,
};

/// A Gateway on `port`, with a route to the Backend of the same name.
fn gateway(name: &str, port: u16, origin: SocketAddr) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: {name}, namespace: envoy-gateway-system}}\n\
         spec:\n  gatewayClassName: eg\n  listeners: [{{name: own, protocol: HTTP, port: {port}}}]\n\
         ---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: {name}, namespace: envoy-gateway-system}}\n\
         spec:\n  parentRefs: [{{name: {name}}}]\n  rules:\n  {}\n{}",
        rule_to("/", name).replace('\n', "\n  "),
        backend(name, &[origin]),
    )
}

/// Which Gateway has which address, as it is kept for the next start.
fn kept(state: &Path) -> BTreeMap<String, IpAddr> {
    let text = fs::read_to_string(state.join("addresses")).unwrap();
    let lines = text.lines().map(|line| line.split_once(' ').unwrap());
    lines
        .map(|(address, gateway)| {
            let name = gateway.strip_prefix("envoy-gateway-system/").unwrap();
            (name.to_owned(), address.parse().unwrap())
        })
        .collect()
}

async fn ask(wire: &mut Wire) -> String {
    wire.send("GET / HTTP/1.1\r\nHost: any.test\r\n\r\n").await;
    wire.reply().await.text()
}

/// All of them have one port. One that comes or goes opens and closes its own socket: a connection
/// to another goes on, though it is idle.
#[tokio::test]
async fn gateways_of_a_pool_share_a_port_and_do_not_notice_each_other() {
    let (one, two) = (Origin::replying("one").await, Origin::replying("two").await);
    let (port, state) = (free_port(), tempfile::tempdir().unwrap());
    let started = Gateway::setup()
        .without_sockets()
        .flag("--address-pool 127.77.1.0/28")
        .flag(&format!("--state-dir {}", state.path().display()))
        .file("common/gateway.yaml", &gateway("one", port, one.address))
        .start()
        .await;
    let at = |name: &str| SocketAddr::new(kept(state.path())[name], port);
    let first = at("one");
    let mut idle = Wire::connect(first).await;
    assert_eq!(ask(&mut idle).await, "one");

    started.write("routes/two.yaml", &gateway("two", port, two.address));
    started.reload().await;
    let second = at("two");
    assert_ne!(first, second);
    assert_eq!(ask(&mut Wire::connect(second).await).await, "two");
    assert_eq!(at("one"), first);
    assert_eq!(ask(&mut idle).await, "one");

    started.remove("routes/two.yaml");
    started.reload_with_removals().await;
    // Each worker closes its socket when it hears of it, which may be after the reload has been told.
    until("its address is closed", || std::net::TcpStream::connect(second).is_err()).await;
    assert_eq!(ask(&mut idle).await, "one");
}

#[tokio::test]
async fn a_gateway_has_its_address_again_after_a_restart() {
    let origin = Origin::replying("here").await;
    let (port, state) = (free_port(), tempfile::tempdir().unwrap());
    // Not the one that it would be given if nothing was remembered.
    fs::write(state.path().join("addresses"), "127.77.2.9 envoy-gateway-system/one\n").unwrap();
    let setup = || {
        Gateway::setup()
            .without_sockets()
            .flag("--address-pool 127.77.2.0/28")
            .flag(&format!("--state-dir {}", state.path().display()))
            .file("common/gateway.yaml", &gateway("one", port, origin.address))
    };
    for _ in 0..2 {
        let started = setup().start().await;
        let address = SocketAddr::new("127.77.2.9".parse().unwrap(), port);
        assert_eq!(ask(&mut Wire::connect(address).await).await, "here");
        started.terminate();
        assert!(started.exit().await.success());
    }
}

/// A ListenerSet adds a port to a Gateway that runs, with routes of its own, and takes it away again;
/// a mistake in it is refused rather than closing what it serves.
#[tokio::test]
async fn a_listener_set_comes_and_goes_beside_its_gateway() {
    let (shop, more) = (Origin::replying("shop").await, Origin::replying("more").await);
    let port = free_port();
    let set = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\n\
         metadata: {{name: more, namespace: envoy-gateway-system}}\n\
         spec:\n  parentRef: {{name: eg}}\n  listeners:\n    \
         - {{name: more, protocol: HTTP, port: {port}}}\n{}",
        serve_all("more", "more.test", &[more.address])
            .replace("- name: eg\n", "- {kind: ListenerSet, name: more}\n")
    );
    let allowing = GATEWAY.replace(
        "  listeners:\n",
        "  allowedListeners: {namespaces: {from: Same}}\n  listeners:\n",
    );
    let gateway = Gateway::setup()
        .file("common/gateway.yaml", &allowing)
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    assert!(TcpStream::connect(at).await.is_err());

    gateway.write("routes/more.yaml", &set);
    gateway.reload().await;
    let ask_more = async || {
        let mut wire = Wire::connect(at).await;
        wire.send("GET / HTTP/1.1\r\nHost: more.test\r\n\r\n").await;
        wire.reply().await.text()
    };
    assert_eq!(ask_more().await, "more");
    // Its routes are not those of the Gateway.
    assert_eq!(gateway.get("http://more.test/").await.status(), 404);

    gateway.write("routes/more.yaml", &set.replace("protocol: HTTP", "protocol: HTTP, tls: {}"));
    let ready = gateway.reload().await;
    let status = ready.value("STATUS").unwrap_or_default();
    assert!(status.contains("more.yaml:7:"), "{status}");
    assert_eq!(ask_more().await, "more");

    gateway.remove("routes/more.yaml");
    gateway.reload_with_removals().await;
    until("the port is closed", || std::net::TcpStream::connect(at).is_err()).await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
}
