//! UDP listeners: flows of datagrams to a backend, whatever they say.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::{
    Asker, Gateway, NOWHERE, Setup, UdpEcho, backend, clock, forward_route, free_port, gateway_of,
    has_ipv6, nowhere, refusing_address, says_why, until,
};

/// A Gateway with UDP listeners of these names, each with a socket.
fn setup(listeners: &[&str]) -> Setup {
    let mut yaml = String::new();
    let mut setup = Gateway::setup();
    for (name, port) in listeners.iter().zip(9400..) {
        yaml.push_str(&format!("- {{name: {name}, protocol: UDP, port: {port}}}\n"));
        setup = setup.datagrams(name, "127.0.0.1:0");
    }
    setup.file("common/gateway.yaml", &gateway_of(&yaml))
}

fn route(backends: &[(SocketAddr, u32)]) -> String {
    forward_route("UDPRoute", "dns", "dns", &[], backends)
}

/// Conformance: UDPRouteSimple. Small and large, the empty one too.
#[tokio::test]
async fn datagrams_go_both_ways_and_a_flow_has_its_line() {
    let echo = UdpEcho::start("one").await;
    let gateway = setup(&["dns"])
        .flag("--udp-idle-timeout 1s")
        .file("routes/r.yaml", &route(&[(echo.address, 1)]))
        .start()
        .await;
    let client = Asker::of(gateway.address("dns")).await;
    let large = "x".repeat(60_000);
    for said in ["first", "", &large] {
        assert!(client.ask(said).await == format!("one: {said}"), "{} bytes", said.len());
    }
    let record = gateway.logged("the flow", |record| record["protocol"] == "UDP").await;
    assert_eq!(record["route"], "udproute/envoy-gateway-system/dns/rule/0");
    assert_eq!(record["listener"], "envoy-gateway-system/eg/dns");
    assert_eq!(record["upstream"], echo.address.to_string());
    let bytes = (&record["request_bytes"], &record["response_bytes"]);
    assert_eq!(bytes, (&60_005.into(), &60_020.into()));
    assert_eq!((&record["status"], &record["flags"]), (&0.into(), &"-".into()));
    assert_eq!(record["client"], "127.0.0.1");
    // Its address has another flow now.
    assert_eq!(client.ask("again").await, "one: again");
}

/// Conformance: UDPRouteWeightedRouting, weights by flow; and a flow keeps its backend.
#[tokio::test]
async fn weights_are_shares_of_flows() {
    let (one, two) = (UdpEcho::start("one").await, UdpEcho::start("two").await);
    let none = UdpEcho::start("none").await;
    let weighted = [(one.address, 70), (two.address, 30), (none.address, 0)];
    let gateway = setup(&["dns"]).file("routes/r.yaml", &route(&weighted)).start().await;
    for _ in 0..100 {
        let client = Asker::of(gateway.address("dns")).await;
        let first = client.ask("x").await;
        assert_eq!(client.ask("x").await, first);
    }
    let shares = [one.heard(), two.heard(), none.heard()];
    assert!((136..=144).contains(&shares[0]) && shares[2] == 0, "{shares:?}");
    assert_eq!(shares[0] + shares[1], 200);
}

#[tokio::test]
async fn listeners_have_flows_of_their_own() {
    let (one, two) = (UdpEcho::start("one").await, UdpEcho::start("two").await);
    let other = forward_route("UDPRoute", "other", "other", &[], &[(two.address, 1)]);
    let gateway = setup(&["dns", "other"])
        .file("routes/r.yaml", &route(&[(one.address, 1)]))
        .file("routes/other.yaml", &other)
        .start()
        .await;
    let (a, b) =
        (Asker::of(gateway.address("dns")).await, Asker::of(gateway.address("other")).await);
    for _ in 0..3 {
        a.send("a").await;
        b.send("b").await;
        assert_eq!((a.hear().await, b.hear().await), ("one: a".into(), "two: b".into()));
    }
}

/// A socket of our own on every address, beside one of TCP on the same port; an answer comes from
/// the address that was asked.
#[tokio::test]
async fn the_gateway_opens_its_sockets_itself_on_the_port_of_a_tcp_listener() {
    let echo = UdpEcho::start("one").await;
    let port = free_port();
    let listeners = format!(
        "- {{name: tcp, protocol: TCP, port: {port}}}\n- {{name: dns, protocol: UDP, port: {port}}}\n"
    );
    let gateway = Gateway::setup()
        .file("common/gateway.yaml", &gateway_of(&listeners))
        .file("routes/r.yaml", &route(&[(echo.address, 1)]))
        .start()
        .await;
    let mut hosts = vec!["127.0.0.1", "127.77.0.9"];
    hosts.extend(has_ipv6().then_some("::1"));
    for host in hosts {
        let client = Asker::of(SocketAddr::new(host.parse().unwrap(), port)).await;
        assert_eq!(client.ask("x").await, "one: x", "asked at {host}");
    }
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok());

    // Gone with its listener, and free.
    gateway.write("common/gateway.yaml", crate::support::GATEWAY);
    gateway.remove("routes/r.yaml");
    gateway.reload_with_removals().await;
    until("the port is free", || std::net::UdpSocket::bind(("0.0.0.0", port)).is_ok()).await;
}

#[tokio::test]
async fn a_reload_ends_the_flows_whose_backend_goes_and_no_other() {
    let (one, two) = (UdpEcho::start("one").await, UdpEcho::start("two").await);
    let gateway = setup(&["dns"])
        .file("routes/r.yaml", &route(&[(one.address, 1), (two.address, 1)]))
        .start()
        .await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let client = Asker::of(gateway.address("dns")).await;
        let first = client.ask("x").await;
        clients.push((client, first));
    }
    // The backend's address of the peer is the flow's: it stays the same.
    gateway.write("routes/r.yaml", &route(&[(one.address, 3), (two.address, 1)]));
    gateway.reload().await;
    for (client, first) in &clients {
        assert_eq!(client.ask("x").await, *first);
    }
    gateway.write("routes/r.yaml", &route(&[(two.address, 1)]));
    gateway.reload().await;
    for (client, _) in &clients {
        assert_eq!(client.ask("x").await, "two: x");
    }
    let ended = |record: &serde_json::Value| record["upstream"] == one.address.to_string();
    gateway.logged("a flow that ended", ended).await;
    let counted: Vec<_> = clients.iter().filter(|(_, first)| first == "one: x").collect();
    assert_eq!(counted.len(), 5);
}

/// What has nowhere to go is dropped, and its line says why: one in a second, not one a datagram.
#[tokio::test]
async fn what_has_nowhere_to_go_is_dropped_and_logged() {
    let listeners = NOWHERE.map(|(name, ..)| name);
    let gateway = nowhere(setup(&listeners), "UDPRoute").start().await;
    for (name, flags, details) in NOWHERE {
        let client = Asker::of(gateway.address(name)).await;
        for _ in 0..10 {
            client.send("anybody?").await;
        }
        assert!(client.hears_nothing().await, "{name}");
        says_why(&gateway, name, flags, details).await;
    }
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_followed_by_the_next() {
    let echo = UdpEcho::start("one").await;
    let both = backend("dns-0", &[refusing_address(), echo.address]);
    let (_, bare) = route(&[(echo.address, 1)])
        .split_once("kind: UDPRoute")
        .map_or_else(|| panic!("a route"), |(_, rest)| ((), rest.to_owned()));
    let yaml = format!("{both}---\napiVersion: gateway.networking.k8s.io/v1\nkind: UDPRoute{bare}");
    let gateway = setup(&["dns"]).file("routes/r.yaml", &yaml).start().await;
    // The first learns it for all of them, and has its answer when it asks again.
    let client = Asker::of(gateway.address("dns")).await;
    client.send("lost").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    client.send("found").await;
    let begin = clock();
    while client.hear().await != "one: found" {
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
    for _ in 0..4 {
        let client = Asker::of(gateway.address("dns")).await;
        assert_eq!(client.ask("x").await, "one: x");
    }
}

/// A flood of senders that nobody answers takes no room from those who are served.
#[tokio::test]
async fn a_flood_of_flows_is_bounded_and_those_that_are_answered_stay() {
    let echo = UdpEcho::start("one").await;
    let gateway = setup(&["dns"])
        .flag("--max-udp-flows 16")
        .file("routes/r.yaml", &route(&[(echo.address, 1)]))
        .start()
        .await;
    let served = Asker::of(gateway.address("dns")).await;
    assert_eq!(served.ask("x").await, "one: x");
    let mut flood = Vec::new();
    for _ in 0..200 {
        let client = Asker::of(gateway.address("dns")).await;
        client.send("say nothing").await;
        flood.push(client);
        // No more at once than any socket has room for, and than there is room for flows many times.
        if flood.len() % 100 == 0 {
            let count = 1 + flood.len();
            until("all were heard", || echo.heard() == count).await;
        }
    }
    let open = gateway.process().descriptors();
    assert!(open < 100, "{open} descriptors");
    let record = gateway.logged("one that had to go", |record| record["flags"] == "OM").await;
    assert_eq!(record["response_bytes"], 0);
    // Its flow is the one that it had: nothing of it was logged.
    assert_eq!(served.ask("y").await, "one: y");
    gateway.terminate();
    assert!(gateway.exit().await.success());
    let of_served = |record: &serde_json::Value| record["peer"] == served.address().to_string();
    let record = gateway.logged("the flow that was served", of_served).await;
    assert_eq!(record["request_bytes"], 2);
}

/// Nothing new is received in a drain, and what backends owe is passed on.
#[tokio::test]
async fn a_drain_waits_for_answers() {
    let echo = UdpEcho::start("one").await;
    let gateway = setup(&["dns"]).file("routes/r.yaml", &route(&[(echo.address, 1)])).start().await;
    let client = Asker::of(gateway.address("dns")).await;
    client.send("later").await;
    until("it is heard", || echo.heard() == 1).await;
    let begin = clock();
    gateway.terminate();
    assert_eq!(client.hear().await, "one: later");
    assert!(gateway.exit().await.success());
    assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
    let record = gateway.logged("the flow", |record| record["protocol"] == "UDP").await;
    assert_eq!((&record["flags"], &record["response_bytes"]), (&"-".into(), &10.into()));
}

/// A restart: the next process has the socket, and what comes meanwhile waits in it.
#[tokio::test]
async fn a_restart_loses_no_datagram() {
    let echo = UdpEcho::start("one").await;
    let mut gateway =
        setup(&["dns"]).file("routes/r.yaml", &route(&[(echo.address, 1)])).start().await;
    let client = Asker::of(gateway.address("dns")).await;
    assert_eq!(client.ask("before").await, "one: before");
    gateway.terminate();
    gateway.notify().message("STOPPING=1", 0, |message| message.is("STOPPING")).await;
    client.send("between").await;
    let since = gateway.notify().messages().len();
    let before = gateway.replace();
    gateway.replaced(since).await;
    assert_eq!(client.hear().await, "one: between");
    assert!(before.exit().await.success());
    assert_eq!(client.ask("after").await, "one: after");
}
