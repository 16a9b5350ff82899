//! HTTP/1 connections that rest: the gateway gives their buffers back, and clients do not notice.

use std::net::SocketAddr;
use std::time::Duration;

use crate::metrics::{scrape, value};
use crate::support::{
    Answer, Gateway, Origin, Setup, Wire, ca, clock, free_address, serve_all, soon,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";

/// A gateway for shop.test that says how many connections it has parked.
struct Shop {
    gateway: Gateway,
    metrics: SocketAddr,
    origin: Origin,
}

impl Shop {
    async fn open() -> Self {
        Self::with(|setup| setup).await
    }

    async fn with(more: impl FnOnce(Setup) -> Setup) -> Self {
        let metrics = free_address();
        let origin = Origin::scripted(|seen| Answer::ok(&(seen.target() + &seen.text()))).await;
        let setup = Gateway::setup()
            .metrics_at(metrics)
            .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[origin.address]));
        Self { gateway: more(setup).start().await, metrics, origin }
    }

    /// A connection over TLS and one in clear.
    async fn both(&self) -> [Wire; 2] {
        [self.gateway.tls_wire("shop.test").await, self.gateway.wire().await]
    }

    /// Waits until so many connections are parked.
    async fn parked(&self, count: usize) {
        let reached = async {
            loop {
                let text = scrape(self.metrics).await;
                if value(&text, "edge_gateway_connections_parked") == count as f64 {
                    return;
                }
                // The sweep counts ten times a second.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        soon("connections are parked", reached).await;
    }
}

async fn is_served(wire: &mut Wire) {
    wire.send(GET).await;
    assert_eq!(wire.reply().await.text(), "/");
}

#[tokio::test]
async fn a_parked_connection_serves_its_next_requests() {
    let shop = Shop::open().await;
    let mut wires = shop.both().await;
    // Before the first request, too; in clear, no protocol is chosen and no parser there until then.
    shop.parked(1).await;
    for wire in &mut wires {
        is_served(wire).await;
    }
    shop.parked(2).await;
    for wire in &mut wires {
        for byte in GET.bytes() {
            wire.send([byte]).await;
        }
        assert_eq!(wire.reply().await.text(), "/");
    }
    shop.parked(2).await;
    for wire in &mut wires {
        wire.send([GET, "GET /second HTTP/1.1\r\nHost: shop.test\r\n\r\n"].concat()).await;
        assert_eq!(wire.reply().await.text(), "/");
        assert_eq!(wire.reply().await.text(), "/second");
    }
    shop.parked(2).await;
    // More than is read at first, in one piece and with a request behind it.
    let body = "x".repeat(20_000);
    for wire in &mut wires {
        let head = "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 20000\r\n\r\n";
        wire.send([head, &body, GET].concat()).await;
        assert_eq!(wire.reply().await.text(), format!("/{body}"));
        assert_eq!(wire.reply().await.text(), "/");
    }
    // Empty lines before a request line are skipped (RFC 9112 section 2.2), wherever they come.
    shop.parked(2).await;
    for wire in &mut wires {
        wire.send([GET, "\r\n"].concat()).await;
        assert_eq!(wire.reply().await.text(), "/");
        is_served(wire).await;
    }
    assert!(shop.origin.requests().len() == 16, "{:?}", shop.origin.targets());
}

/// A head that is refused is refused as on any connection, and with its status.
#[tokio::test]
async fn a_parked_connection_refuses_what_another_refuses() {
    let shop = Shop::open().await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: shop.test\r\n\r\n", "x".repeat(20_000));
    let both = "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n";
    let twofold = format!("POST / HTTP/1.1\r\nHost: shop.test\r\n{both}\r\n0\r\n\r\n");
    let table = [("GET /\u{1}\r\n\r\n", 400), (&*long, 414), (&*twofold, 400)];
    for (bytes, status) in table {
        let mut wires = shop.both().await;
        for wire in &mut wires {
            is_served(wire).await;
        }
        shop.parked(2).await;
        for wire in &mut wires {
            wire.send(bytes).await;
            assert_eq!(wire.reply().await.status(), status, "{bytes:.30}");
            wire.rest().await;
        }
        shop.parked(0).await;
    }
}

#[tokio::test]
async fn a_parked_connection_that_its_client_ends_is_gone() {
    let shop = Shop::open().await;
    for is_reset in [false, true] {
        let mut clear = shop.gateway.wire().await;
        is_served(&mut clear).await;
        let mut tls = shop.gateway.tls_wire("shop.test").await;
        is_served(&mut tls).await;
        shop.parked(2).await;
        // By close_notify over TLS.
        tls.finish().await;
        assert_eq!(tls.rest().await, b"");
        assert!(!tls.broken);
        if is_reset {
            clear.reset();
        } else {
            clear.finish().await;
            assert_eq!(clear.rest().await, b"");
            assert!(!clear.broken);
        }
        shop.parked(0).await;
        let open = || async {
            let text = scrape(shop.metrics).await;
            value(&text, "envoy_server_total_connections")
        };
        soon("none is open", async { while open().await > 0.0 {} }).await;
    }
}

#[tokio::test]
async fn a_parked_connection_outlives_a_reload_and_a_renewal() {
    let shop = Shop::open().await;
    let mut wires = shop.both().await;
    for wire in &mut wires {
        is_served(wire).await;
    }
    shop.parked(2).await;
    let blog = Origin::replying("blog").await;
    shop.gateway.write("routes/shop.yaml", &serve_all("shop", "shop.test", &[blog.address]));
    shop.gateway.lineage().renew(&ca().leaf(&["gateway.test", "shop.test"]));
    shop.gateway.reload().await;
    for wire in &mut wires {
        wire.send(GET).await;
        assert_eq!(wire.reply().await.text(), "blog");
    }
}

#[tokio::test]
async fn the_timeouts_of_a_parked_connection_are_those_of_another() {
    let shop = Shop::with(|setup| setup.flag("--head-timeout 1s --idle-timeout 4s")).await;
    let mut wires = shop.both().await;
    let served = clock();
    for wire in &mut wires {
        is_served(wire).await;
    }
    shop.parked(2).await;
    let [idle, slow] = &mut wires;
    let begun = clock();
    let drip = async {
        for byte in GET.bytes() {
            if slow.push(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        slow.rest().await
    };
    assert_eq!(soon("the head timeout", drip).await, b"");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(3), "{took:?}");
    // From the last response on, not from the moment of parking.
    assert_eq!(soon("the idle timeout", idle.rest()).await, b"");
    assert!(!idle.broken);
    let took = served.elapsed();
    assert!(took >= Duration::from_millis(3900) && took < Duration::from_millis(4900), "{took:?}");

    // The first head has its time from the start of the connection.
    let mut silent = shop.gateway.wire().await;
    let begun = clock();
    assert_eq!(silent.rest().await, b"");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_drain_closes_parked_connections_and_answers_the_request_that_comes_with_it() {
    let shop = Shop::open().await;
    let mut wires = shop.both().await;
    for wire in &mut wires {
        is_served(wire).await;
    }
    let mut late = shop.gateway.tls_wire("shop.test").await;
    is_served(&mut late).await;
    shop.parked(3).await;
    let begun = clock();
    shop.gateway.terminate();
    shop.gateway.notify().message("STOPPING=1", 0, |message| message.is("STOPPING")).await;
    late.send(GET).await;
    let reply = late.reply().await;
    assert_eq!(
        (reply.text().as_str(), reply.header("connection").as_deref()),
        ("/", Some("close"))
    );
    for wire in &mut wires {
        assert_eq!(wire.rest().await, b"");
        assert!(!wire.broken);
    }
    assert!(shop.gateway.exit().await.success());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

/// At the limit, a parked connection makes room as an idle one does.
#[tokio::test]
async fn a_parked_connection_makes_room() {
    let shop = Shop::with(|setup| setup.flag("--max-connections 16")).await;
    let mut wires = Vec::new();
    for _ in 0..16 {
        let mut wire = shop.gateway.wire().await;
        is_served(&mut wire).await;
        wires.push(wire);
    }
    shop.parked(16).await;
    let mut next = shop.gateway.wire().await;
    is_served(&mut next).await;
    wires[0].rest().await;
    is_served(&mut wires[1]).await;
}
