//! TCP listeners: whole connections to a backend, whatever they say.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    Backend, Gateway, Greeter, NOWHERE, SOON, Setup, Wire, clock, forward_route, gateway_of,
    nowhere, refusing_address, says_why, soon,
};

/// A Gateway with TCP listeners of these names, each with a socket.
fn setup(listeners: &[&str]) -> Setup {
    let mut yaml = String::new();
    let mut setup = Gateway::setup();
    for (name, port) in listeners.iter().zip(9300..) {
        yaml.push_str(&format!("- {{name: {name}, protocol: TCP, port: {port}}}\n"));
        setup = setup.socket(name, "127.0.0.1:0");
    }
    setup.file("common/gateway.yaml", &gateway_of(&yaml))
}

fn route(backends: &[(std::net::SocketAddr, u32)]) -> String {
    forward_route("TCPRoute", "tcp", "tcp", &[], backends)
}

async fn line(wire: &mut Wire) -> String {
    let line = soon("a line", wire.through(b"\n")).await;
    line.map_or_else(String::new, |line| String::from_utf8(line).unwrap())
}

/// PostgreSQL waits for its client, SSH and SMTP do not: the backend may be the one that begins.
#[tokio::test]
async fn the_backend_may_speak_first_and_each_end_may_finish_first() {
    let greeter = Greeter::plain("one").await;
    let gateway =
        setup(&["tcp"]).file("routes/r.yaml", &route(&[(greeter.address, 1)])).start().await;
    let mut client = Wire::connect(gateway.address("tcp")).await;
    assert_eq!(line(&mut client).await, "hello from one\n");
    client.send("what you hear\n").await;
    assert_eq!(line(&mut client).await, "what you hear\n");
    client.finish().await;
    assert_eq!(soon("the end", client.rest()).await, b"bye\n", "what comes after our end comes");

    let record = gateway.logged("the connection", |record| record["protocol"] == "TCP").await;
    assert_eq!(record["route"], "tcproute/envoy-gateway-system/tcp/rule/0");
    assert_eq!(record["listener"], "envoy-gateway-system/eg/tcp");
    assert_eq!(record["upstream"], greeter.address.to_string());
    assert_eq!((&record["request_bytes"], &record["response_bytes"]), (&14.into(), &33.into()));
    assert_eq!((&record["status"], &record["flags"]), (&0.into(), &"-".into()));
    assert_eq!(record["client"], "127.0.0.1");
}

/// A megabyte each way at the same time, byte for byte.
#[tokio::test]
async fn nothing_is_lost_or_turned_round() {
    let backend = Backend::bind().await;
    let gateway =
        setup(&["tcp"]).file("routes/r.yaml", &route(&[(backend.address, 1)])).start().await;
    let mut client = Wire::connect(gateway.address("tcp")).await;
    let mut origin = backend.accept().await;
    let up: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    let down: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 241) as u8).collect();
    let (sent, got) = (up.clone(), down.clone());
    let origin_side = async {
        origin.push(&got).await.unwrap();
        origin.finish().await;
        origin.rest().await
    };
    let client_side = async {
        let there = client.exactly(down.len() / 2).await;
        client.push(&sent).await.unwrap();
        client.finish().await;
        [there, client.rest().await].concat()
    };
    let (heard_above, heard_below) =
        soon("both megabytes", async { tokio::join!(origin_side, client_side) }).await;
    assert!(heard_above == up && heard_below == down);
}

/// Conformance: TCPRouteWeightedRouting, weights by connection.
#[tokio::test]
async fn weights_are_shares_of_connections() {
    let (one, two, none) =
        (Greeter::plain("one").await, Greeter::plain("two").await, Greeter::plain("none").await);
    let weighted = [(one.address, 70), (two.address, 30), (none.address, 0)];
    let gateway = setup(&["tcp"]).file("routes/r.yaml", &route(&weighted)).start().await;
    for _ in 0..100 {
        let mut client = Wire::connect(gateway.address("tcp")).await;
        assert!(line(&mut client).await.starts_with("hello from "));
    }
    let shares = [one.connections(), two.connections(), none.connections()];
    assert!((68..=72).contains(&shares[0]) && shares[2] == 0, "{shares:?}");
    assert_eq!(shares[0] + shares[1], 100);
}

/// Conformance: TCPRouteMultipleRoutesAttachment. Without a time of creation, the first by name.
#[tokio::test]
async fn of_two_routes_on_a_listener_the_older_one_has_it() {
    let (old, new) = (Greeter::plain("old").await, Greeter::plain("new").await);
    let of = |name: &str, year: u32, greeter: &Greeter| {
        let route = forward_route("TCPRoute", name, "tcp", &[], &[(greeter.address, 1)]);
        let name = format!("  name: {name}\n");
        let dated = format!("{name}  creationTimestamp: {year}-01-01T00:00:00Z\n");
        let (backend, route) = route.rsplit_once("---\n").unwrap();
        format!("{backend}---\n{}", route.replacen(&name, &dated, 1))
    };
    let gateway = setup(&["tcp"])
        .file("routes/a.yaml", &of("a", 2025, &new))
        .file("routes/b.yaml", &of("b", 2024, &old))
        .start()
        .await;
    for _ in 0..20 {
        let mut client = Wire::connect(gateway.address("tcp")).await;
        assert_eq!(line(&mut client).await, "hello from old\n");
    }
    gateway.remove("routes/b.yaml");
    gateway.reload().await;
    let mut client = Wire::connect(gateway.address("tcp")).await;
    assert_eq!(line(&mut client).await, "hello from new\n");
}

#[tokio::test]
async fn an_endpoint_that_takes_no_connection_is_followed_by_the_next() {
    let greeter = Greeter::plain("one").await;
    let yaml = route(&[(greeter.address, 1)]);
    let refusing = refusing_address();
    let more = format!(
        "  endpoints:\n    - ip:\n        address: {}\n        port: {}\n",
        refusing.ip(),
        refusing.port()
    );
    let yaml = yaml.replacen("  endpoints:\n", &more, 1);
    let gateway = setup(&["tcp"]).file("routes/r.yaml", &yaml).start().await;
    for _ in 0..4 {
        let mut client = Wire::connect(gateway.address("tcp")).await;
        assert_eq!(line(&mut client).await, "hello from one\n");
    }
}

/// What cannot be served is closed at once, and its line says why.
#[tokio::test]
async fn a_connection_that_has_nowhere_to_go_is_closed() {
    let listeners = NOWHERE.map(|(name, ..)| name);
    let gateway = nowhere(setup(&listeners), "TCPRoute").start().await;
    for (name, flags, details) in NOWHERE {
        // Where the backend refuses, so do we: the reset may be quicker than the connection.
        if let Ok(stream) = tokio::net::TcpStream::connect(gateway.address(name)).await {
            assert_eq!(soon(name, Wire::over(stream).rest()).await, b"", "{name}");
        }
        says_why(&gateway, name, flags, details).await;
    }
}

/// A cut must not look like an end: a client of a database would take half an answer for all of it.
#[tokio::test]
async fn a_reset_is_passed_on_as_one() {
    let backend = Backend::bind().await;
    let gateway =
        setup(&["tcp"]).file("routes/r.yaml", &route(&[(backend.address, 1)])).start().await;
    let mut client = tokio::net::TcpStream::connect(gateway.address("tcp")).await.unwrap();
    let mut origin = backend.accept().await;
    origin.send("half an ans").await;
    let mut read = vec![0; 64];
    let length = soon("the half", tokio::io::AsyncReadExt::read(&mut client, &mut read)).await;
    assert_eq!(&read[..length.unwrap()], b"half an ans");
    origin.reset();
    let ended = soon("the cut", tokio::io::AsyncReadExt::read(&mut client, &mut read)).await;
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let record = gateway.logged("the cut", |record| record["protocol"] == "TCP").await;
    assert_eq!(record["flags"], "UC");

    let client = Wire::connect(gateway.address("tcp")).await;
    let mut origin = backend.accept().await;
    client.reset();
    assert!(!soon("the end", origin.more()).await);
    let record = gateway.logged("the other cut", |record| record["flags"] == "DC").await;
    assert_eq!(record["details"], "downstream_remote_disconnect");
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_ended() {
    let backend = Backend::bind().await;
    let gateway = setup(&["tcp"])
        .flag("--tunnel-idle-timeout 1s")
        .file("routes/r.yaml", &route(&[(backend.address, 1)]))
        .start()
        .await;
    let begin = clock();
    let mut client = Wire::connect(gateway.address("tcp")).await;
    let mut origin = backend.accept().await;
    for _ in 0..3 {
        // Whoever says something in time is not idle.
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.send("x").await;
        assert_eq!(origin.exactly(1).await, b"x");
    }
    assert_eq!(soon("the end", client.rest()).await, b"");
    assert!(begin.elapsed() > Duration::from_millis(2400), "{:?}", begin.elapsed());
    assert!(!soon("the backend's end", origin.more()).await);
    let record = gateway.logged("the end", |record| record["protocol"] == "TCP").await;
    assert_eq!(record["flags"], "SI");
}

/// Connections count against the limit from the first; at the limit nobody who is served has to go.
#[tokio::test]
async fn the_limit_on_connections_holds_for_tunnels() {
    let greeter = Greeter::plain("one").await;
    let gateway = setup(&["tcp"])
        .flag("--max-connections 3")
        .file("routes/r.yaml", &route(&[(greeter.address, 1)]))
        .start()
        .await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = Wire::connect(gateway.address("tcp")).await;
        assert_eq!(line(&mut client).await, "hello from one\n");
        held.push(client);
    }
    let mut refused = Wire::connect(gateway.address("tcp")).await;
    assert_eq!(soon("the refusal", refused.rest()).await, b"");
    for client in &mut held {
        client.send("still\n").await;
        assert_eq!(line(client).await, "still\n");
    }
    drop(held.pop());
    let begin = clock();
    loop {
        let mut next = Wire::connect(gateway.address("tcp")).await;
        if line(&mut next).await == "hello from one\n" {
            break;
        }
        assert!(begin.elapsed() < SOON, "a place that is free is given to the next");
    }
}

/// A reload that changes where connections go leaves alone those that are there.
#[tokio::test]
async fn a_reload_leaves_open_connections_alone() {
    let (old, new) = (Greeter::plain("old").await, Greeter::plain("new").await);
    let gateway = setup(&["tcp"]).file("routes/r.yaml", &route(&[(old.address, 1)])).start().await;
    let mut client = Wire::connect(gateway.address("tcp")).await;
    assert_eq!(line(&mut client).await, "hello from old\n");
    gateway.write("routes/r.yaml", &route(&[(new.address, 1)]));
    gateway.reload().await;
    client.send("still there\n").await;
    assert_eq!(line(&mut client).await, "still there\n");
    let mut next = Wire::connect(gateway.address("tcp")).await;
    assert_eq!(line(&mut next).await, "hello from new\n");

    // The listener too: what it let in goes on.
    gateway.write("common/gateway.yaml", crate::support::GATEWAY);
    gateway.reload().await;
    client.send("and still\n").await;
    assert_eq!(line(&mut client).await, "and still\n");
}

/// A restart: the old process drains and its tunnel lives; the next has the socket.
#[tokio::test]
async fn a_restart_refuses_nobody_and_lets_tunnels_end() {
    let greeter = Greeter::plain("one").await;
    let mut gateway = setup(&["tcp"])
        .flag("--drain-timeout 20s")
        .file("routes/r.yaml", &route(&[(greeter.address, 1)]))
        .start()
        .await;
    let mut client = Wire::connect(gateway.address("tcp")).await;
    assert_eq!(line(&mut client).await, "hello from one\n");
    gateway.terminate();
    gateway.notify().message("STOPPING=1", 0, |message| message.is("STOPPING")).await;
    let since = gateway.notify().messages().len();
    let before = gateway.replace();
    gateway.replaced(since).await;
    let mut next = Wire::connect(gateway.address("tcp")).await;
    assert_eq!(line(&mut next).await, "hello from one\n");
    client.send("on the old one\n").await;
    assert_eq!(line(&mut client).await, "on the old one\n");
    client.finish().await;
    assert_eq!(soon("the end", client.rest()).await, b"bye\n");
    assert!(before.exit().await.success(), "it leaves as soon as its last tunnel has ended");
    assert!(!gateway.process().has_ended());
}

/// The end of the drain is the end of a tunnel that has none of its own.
#[tokio::test]
async fn a_tunnel_lasts_no_longer_than_the_drain() {
    let greeter = Greeter::plain("one").await;
    let gateway = setup(&["tcp"])
        .flag("--drain-timeout 1s")
        .file("routes/r.yaml", &route(&[(greeter.address, 1)]))
        .start()
        .await;
    let mut client = Wire::connect(gateway.address("tcp")).await;
    assert_eq!(line(&mut client).await, "hello from one\n");
    gateway.process().signal(Signal::SIGTERM);
    assert_eq!(soon("the end", client.rest()).await, b"");
    assert!(client.broken, "neither end has said that it has ended");
    assert!(gateway.exit().await.success());
    let record = gateway.logged("the tunnel", |record| record["protocol"] == "TCP").await;
    assert_eq!(record["flags"], "DT");
}
