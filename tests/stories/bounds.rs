//! Bounds: what one client and one backend may take, so that others are served all the same.

use std::time::Duration;

use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};

use crate::metrics::{scrape, value};
use crate::support::{
    Answer, Asker, Frame, Gateway, Greeter, H2, Origin, Setup, UdpEcho, Wire, forward_route,
    free_address, gateway_of, serve_all, soon, until,
};

const SHOP: &str = "httproute/envoy-gateway-system/shop/rule/0";

fn get(host: &str, target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// A client at an address of its own.
async fn from(client: &str, gateway: &Gateway) -> Wire {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{client}:0").parse().unwrap()).unwrap();
    Wire::tcp(socket.connect(gateway.http()).await.unwrap())
}

async fn status_for(client: &str, gateway: &Gateway, host: &str, target: &str) -> u16 {
    let mut wire = from(client, gateway).await;
    wire.send(get(host, target)).await;
    soon("an answer", wire.reply()).await.status()
}

/// A backend that never answers `/slow`.
async fn slow() -> Origin {
    Origin::scripted(|seen| match seen.target().starts_with("/slow") {
        true => Answer::hang(),
        false => Answer::ok("ok"),
    })
    .await
}

fn waits(origin: &Origin) -> usize {
    origin.targets().iter().filter(|target| target.starts_with("/slow")).count()
}

/// shop.test, whose backend may be slow, and other.test.
fn two_sites(shop: &Origin, other: &Origin) -> Setup {
    Gateway::setup()
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .file("routes/other.yaml", &serve_all("other", "other.test", &[other.address]))
}

/// Eleven connections of HTTP/2 with a hundred requests each, for a backend that does not answer.
async fn attack(client: &str, gateway: &Gateway) -> Vec<H2> {
    let requests: Vec<u8> =
        (0..100).flat_map(|number| Frame::get(1 + 2 * number, "/slow").bytes()).collect();
    let mut attackers = Vec::new();
    for _ in 0..11 {
        let mut h2 = H2::connect_from(client, gateway).await;
        h2.push(&requests).await;
        attackers.push(h2);
    }
    attackers
}

/// Where the process may open 1,024 files, a client with 1,100 requests for a slow backend would take
/// them all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_does_not_take_every_descriptor() {
    let (shop, other) = (slow().await, Origin::replying("other").await);
    let at = free_address();
    let gateway = two_sites(&shop, &other).metrics_at(at).descriptors(1024).start().await;
    let attackers = attack("127.0.0.3", &gateway).await;
    // 448 connections to backends, 112 for one client.
    until("the client has its share", || waits(&shop) >= 112).await;
    let entry = gateway.logged("what was refused", |entry| entry["flags"] == "OM").await;
    assert_eq!((&entry["status"], &entry["client"]), (&503.into(), &"127.0.0.3".into()), "{entry}");
    assert_eq!(entry["details"], "overload{client_share}", "{entry}");
    let refused = |text: &str| value(text, "edge_gateway_requests_failed_total{flag=\"OM\"}");
    soon("the others are refused", async {
        while refused(&scrape(at).await) < 988.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(waits(&shop), 112);

    // Everybody else is served, by this backend too.
    for (host, target) in [("other.test", "/"), ("shop.test", "/quick")] {
        assert_eq!(status_for("127.0.0.4", &gateway, host, target).await, 200, "{host}");
    }
    let open = gateway.process().descriptors();
    assert!(open < 250, "{open} descriptors");
    assert_eq!(status_for("127.0.0.3", &gateway, "other.test", "/").await, 503);

    drop(attackers);
    soon("it is served again", async {
        while status_for("127.0.0.3", &gateway, "shop.test", "/quick").await != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(!gateway.process().stderr().contains("accept failed"));
}

/// Many clients do to a backend what one may not: other sites do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_backend_does_not_take_every_descriptor() {
    let (shop, other) = (slow().await, Origin::replying("other").await);
    let at = free_address();
    let gateway = two_sites(&shop, &other).metrics_at(at).descriptors(512).start().await;
    // 192 connections to backends, 144 to one, 48 for one client.
    let mut attackers = Vec::new();
    for client in ["127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6"] {
        attackers.push(attack(client, &gateway).await);
    }
    until("the backend has its share", || waits(&shop) >= 144).await;
    let overflow = format!("envoy_cluster_upstream_cx_overflow{{envoy_cluster_name=\"{SHOP}\"}}");
    let pending =
        format!("envoy_cluster_upstream_rq_pending_active{{envoy_cluster_name=\"{SHOP}\"}}");
    soon("the others wait", async {
        loop {
            let text = scrape(at).await;
            if value(&text, &overflow) > 0.0 && value(&text, &pending) > 0.0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(waits(&shop), 144);
    for _ in 0..20 {
        assert_eq!(status_for("127.0.0.7", &gateway, "other.test", "/").await, 200);
    }
    drop(attackers);
    soon("it is served again", async {
        while status_for("127.0.0.7", &gateway, "shop.test", "/quick").await != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn requests_wait_for_a_connection_and_too_many_are_refused() {
    let shop = slow().await;
    let at = free_address();
    let gateway = Gateway::setup()
        .flag("--max-connections-per-backend 2 --max-pending-per-backend 2 --workers 1")
        .metrics_at(at)
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let (mut slow, mut waiting) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let mut wire = gateway.wire().await;
        wire.send(get("shop.test", "/slow")).await;
        slow.push(wire);
    }
    until("two are there", || waits(&shop) == 2).await;
    for _ in 0..2 {
        let mut wire = gateway.wire().await;
        wire.send(get("shop.test", "/quick")).await;
        waiting.push(wire);
    }
    let pending =
        format!("envoy_cluster_upstream_rq_pending_active{{envoy_cluster_name=\"{SHOP}\"}}");
    soon("two wait", async {
        while value(&scrape(at).await, &pending) < 2.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let refused = gateway.get("http://shop.test/quick").await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.header("x-envoy-overloaded"), None, "as Envoy Gateway has it by default");
    let entry = gateway.logged("the refusal", |entry| entry["flags"] == "UO").await;
    assert_eq!(
        entry["details"], "upstream_reset_before_response_started{overflow|maxPendingRequests}",
        "{entry}"
    );
    let text = scrape(at).await;
    let of = |name: &str| {
        value(&text, &format!("envoy_cluster_upstream_{name}{{envoy_cluster_name=\"{SHOP}\"}}"))
    };
    assert_eq!((of("rq_pending_overflow"), of("cx_overflow"), of("cx_active")), (1.0, 3.0, 2.0));
    assert_eq!(value(&text, "edge_gateway_requests_failed_total{flag=\"UO\"}"), 1.0);

    drop(slow.pop());
    for mut wire in waiting {
        assert_eq!(soon("its turn", wire.reply()).await.status(), 200);
    }
    // Over HTTP/2 the same, with one connection left.
    let mut http2 = gateway.http2("shop.test").await;
    assert_eq!(http2.get("https://shop.test/quick").await.status, 200);
}

/// Behind a proxy that is trusted the clients are those that it names.
#[tokio::test]
async fn a_client_behind_a_trusted_proxy_has_its_own_share() {
    let shop = slow().await;
    let gateway = Gateway::setup()
        .flag("--trusted-proxies 127.0.0.1 --max-backend-connections-per-peer 2")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let ask = async |client: &str, target: &str| {
        let mut wire = gateway.wire().await;
        let name = match client {
            "" => String::new(),
            client => format!("X-Forwarded-For: {client}\r\n"),
        };
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n{name}\r\n")).await;
        wire
    };
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(ask("192.0.2.1", "/slow").await);
        // What names nobody counts for nobody: these are of many.
        held.push(ask("", "/slow").await);
        held.push(ask("", "/slow").await);
    }
    until("all are there", || waits(&shop) == 6).await;
    for (client, status) in [("192.0.2.1", 503), ("192.0.2.2", 200), ("", 200)] {
        let mut wire = ask(client, "/quick").await;
        let reply = soon("an answer", wire.reply()).await;
        assert_eq!(reply.status(), status, "{client}");
        let again = reply.header("retry-after");
        assert_eq!(again.as_deref(), (status == 503).then_some("1"), "{client}");
    }
    drop(held);
}

/// At once: nothing is known of what goes through, so nobody can wait.
#[tokio::test]
async fn tunnels_beyond_a_bound_are_closed() {
    let yaml = "- {name: tcp, protocol: TCP, port: 9300}\n";
    // (flag, tunnels that there is room for, flag and details of the next)
    let table = [
        (
            "--max-connections-per-backend 2",
            2,
            "UO",
            "upstream_reset_before_response_started{overflow|maxConnections}",
        ),
        ("--max-backend-connections-per-peer 2", 2, "OM", "overload{client_share}"),
    ];
    for (flag, room, flags, details) in table {
        let greeter = Greeter::plain("one").await;
        let gateway = Gateway::setup()
            .socket("tcp", "127.0.0.1:0")
            .flag(flag)
            .file("common/gateway.yaml", &gateway_of(yaml))
            .file(
                "routes/r.yaml",
                &forward_route("TCPRoute", "tcp", "tcp", &[], &[(greeter.address, 1)]),
            )
            .start()
            .await;
        let mut held = Vec::new();
        for _ in 0..room {
            let mut client = Wire::connect(gateway.address("tcp")).await;
            let line = soon("a line", client.through(b"\n")).await;
            assert_eq!(line.as_deref(), Some(&b"hello from one\n"[..]), "{flag}");
            held.push(client);
        }
        let greeting = async || {
            // A connection that is refused may be over before it could be used.
            let stream = TcpStream::connect(gateway.address("tcp")).await.ok()?;
            let mut client = Wire::over(stream);
            let line = client.through(b"\n").await?;
            Some((client, line))
        };
        assert!(soon("the refusal", greeting()).await.is_none(), "{flag}");
        let entry = gateway.logged("the refusal", |entry| entry["flags"] == flags).await;
        assert_eq!(entry["details"], details, "{entry}");
        drop(held);
        soon("room again", async {
            while greeting().await.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// A flow that is worth less goes for another; see `udp_route.rs`.
#[tokio::test]
async fn flows_of_datagrams_keep_to_the_bound_of_their_backend() {
    let echo = UdpEcho::start("one").await;
    let gateway = Gateway::setup()
        .datagrams("dns", "127.0.0.1:0")
        .flag("--max-connections-per-backend 8")
        .file("common/gateway.yaml", &gateway_of("- {name: dns, protocol: UDP, port: 9300}\n"))
        .file("routes/r.yaml", &forward_route("UDPRoute", "dns", "dns", &[], &[(echo.address, 1)]))
        .start()
        .await;
    let before = gateway.process().descriptors();
    let served = Asker::of(gateway.address("dns")).await;
    assert_eq!(served.ask("x").await, "one: x");
    let mut flood = Vec::new();
    for count in 2..=40 {
        let client = Asker::of(gateway.address("dns")).await;
        client.send("say nothing").await;
        until("it was heard", || echo.heard() == count).await;
        flood.push(client);
    }
    assert!(gateway.process().descriptors() <= before + 8);
    assert_eq!(served.ask("y").await, "one: y");
    let is_evicted = |entry: &Value| entry["flags"] == "OM" && entry["details"] == "overload";
    gateway.logged("one that had to go", is_evicted).await;
}

#[tokio::test]
async fn a_bound_is_a_setting() {
    for flag in ["--max-connections-per-backend few", "--max-backend-connections-per-peer -1"] {
        let gateway = Gateway::setup().flag(flag).launch();
        assert!(!gateway.exit().await.success(), "{flag}");
    }
    let gateway = Gateway::setup().descriptors(1024).start().await;
    let told = || gateway.process().stderr();
    until("a line about it", || told().contains("limits of connections to backends")).await;
    let text = told();
    for field in ["connections_per_backend", "336", "connections_for_peer", "112"] {
        assert!(text.contains(field), "{text}");
    }
}
