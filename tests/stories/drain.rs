//! The end of a process: what is under way is finished, what is idle is closed, nothing is lost.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    Answer, Backend, Frame, GOAWAY, Gateway, H2, Origin, Wire, clock, free_address, serve_all, soon,
};

/// Well under any limit that ends a connection by itself.
const AT_ONCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn idle_connections_are_closed_at_once() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let mut used = gateway.wire().await;
    used.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!(used.reply().await.status(), 200);
    let mut by_tls = gateway.tls_wire("shop.test").await;
    by_tls.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!(by_tls.reply().await.status(), 200);
    let mut fresh = gateway.wire().await;
    let mut http2 = gateway.http2("shop.test").await;
    assert_eq!(http2.get("https://shop.test/").await.status, 200);

    let begin = clock();
    gateway.terminate();
    for wire in [&mut used, &mut by_tls, &mut fresh] {
        assert_eq!(wire.rest().await, b"");
    }
    http2.end().await.unwrap();
    assert!(gateway.exit().await.success());
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}

/// A request that its backend has, and has not answered: both ends of it.
async fn under_way(gateway: &Gateway, backend: &Backend, target: &str) -> (Wire, Wire) {
    let mut client = gateway.wire().await;
    client.send(format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n")).await;
    let mut origin = backend.accept().await;
    origin.request().await.unwrap();
    (client, origin)
}

#[tokio::test]
async fn a_request_under_way_is_finished_and_is_the_last() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let (mut client, mut origin) = under_way(&gateway, &backend, "/slow").await;

    gateway.terminate();
    gateway.notify().message("STOPPING=1", 0, |message| message.is("STOPPING")).await;
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast").await;
    let reply = client.reply().await;
    assert_eq!(reply.text(), "last");
    assert_eq!(reply.header("connection").as_deref(), Some("close"));
    assert_eq!(client.rest().await, b"");
    assert!(gateway.exit().await.success());
}

/// Who sends requests here looks at `/ready`, as with Envoy; a scraper at its metrics.
#[tokio::test]
async fn it_says_that_it_drains_until_the_end() {
    let backend = Backend::bind().await;
    let (admin, metrics) = (free_address(), free_address());
    let gateway = Gateway::setup()
        .admin_at(admin)
        .metrics_at(metrics)
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[backend.address]))
        .start()
        .await;
    let get = async |at: SocketAddr, target: &str| {
        let mut wire = Wire::once_there(at).await;
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: {at}\r\n\r\n")).await;
        let reply = wire.reply().await;
        (reply.status(), reply.text())
    };
    assert_eq!(get(admin, "/ready").await, (200, "LIVE\n".into()));
    let live = get(metrics, "/metrics").await.1;
    assert!(live.contains("envoy_server_live 1\n") && live.contains("envoy_server_state 0\n"));

    let (mut client, mut origin) = under_way(&gateway, &backend, "/slow").await;
    gateway.terminate();
    gateway.notify().message("STOPPING=1", 0, |message| message.is("STOPPING")).await;
    assert_eq!(get(admin, "/ready").await, (503, "DRAINING\n".into()));
    assert_eq!(get(admin, "/healthz").await, (200, "ok\n".into()));
    assert_eq!(get(admin, "/routes").await.0, 200);
    let (status, refused) = get(admin, "/status").await;
    assert_eq!(status, 503, "{refused}");
    assert!(refused.contains("the gateway is stopping"), "{refused}");
    let drains = get(metrics, "/metrics").await.1;
    assert!(drains.contains("envoy_server_live 0\n") && drains.contains("envoy_server_state 1\n"));
    assert!(!gateway.setup_ref().control_socket().exists(), "it is for the next process");

    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast").await;
    assert_eq!(client.reply().await.text(), "last");
    assert!(gateway.exit().await.success());
}

#[tokio::test]
async fn a_body_under_way_is_finished() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let (mut client, mut origin) = under_way(&gateway, &backend, "/long").await;
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
    assert_eq!(client.head().await.unwrap().status(), 200);

    gateway.terminate();
    gateway.notify().message("STOPPING=1", 0, |message| message.is("STOPPING")).await;
    origin.send("rest").await;
    assert_eq!(client.exactly(8).await, b"halfrest");
    assert_eq!(client.rest().await, b"");
    assert!(gateway.exit().await.success());
}

#[tokio::test]
async fn http2_is_told_to_go_and_finishes_its_streams() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let mut h2 = H2::connect(&gateway).await;
    h2.frame(&Frame::get(1, "/slow")).await;
    let mut origin = backend.accept().await;
    origin.request().await.unwrap();

    gateway.terminate();
    let mut frame = soon("a frame", h2.next()).await.unwrap();
    // Settings and windows of the connection's beginning may still stand before it.
    while frame.kind != GOAWAY {
        assert_eq!(frame.stream, 0, "{frame:?}");
        frame = soon("a frame", h2.next()).await.unwrap();
    }
    assert_eq!(frame.payload[4..8], [0; 4], "nothing is wrong: {frame:?}");
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast").await;
    let outcome = h2.outcome(1).await;
    assert_eq!(outcome.status(), Some(200), "{outcome:?}");
    assert!(gateway.exit().await.success());
}

#[tokio::test]
async fn what_does_not_end_is_cut_at_the_limit() {
    let backend = Backend::bind().await;
    let gateway = Gateway::setup()
        .flag("--drain-timeout 1s")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[backend.address]))
        .start()
        .await;
    let (mut client, _origin) = under_way(&gateway, &backend, "/never").await;
    let mut h2 = H2::connect(&gateway).await;
    h2.frame(&Frame::get(1, "/never")).await;
    let mut other = backend.accept().await;
    other.request().await.unwrap();

    let begin = clock();
    gateway.terminate();
    client.rest().await;
    assert!(gateway.exit().await.success());
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(6), "{took:?}");
    let outcome = h2.outcome(1).await;
    assert!(outcome.status().is_none(), "{outcome:?}");
    for protocol in ["HTTP/1.1", "HTTP/2"] {
        let entry = gateway.logged("the cut", |entry| entry["protocol"] == protocol).await;
        assert_eq!((&entry["flags"], &entry["status"]), (&"DT".into(), &0.into()), "{entry}");
        assert_eq!(entry["details"], "drain_timeout", "{entry}");
        assert_eq!(entry["upstream"], backend.address.to_string(), "{entry}");
    }
}

/// Whatever arrives in a drain, once one of the workers has ended or before: what is under way is
/// finished, and the process ends well.
#[tokio::test]
async fn whatever_arrives_in_a_drain_it_goes_on() {
    let backend = Backend::bind().await;
    let admin = free_address();
    let gateway = Gateway::setup()
        .admin_at(admin)
        .watching()
        .flag("--workers 4 --api-writable --api-listen 127.0.0.1:0")
        .watchdog(2_000_000)
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[backend.address]))
        .start()
        .await;
    let (mut client, mut origin) = under_way(&gateway, &backend, "/slow").await;
    let hang_up = || gateway.process().signal(Signal::SIGHUP);
    // In the middle of a reload, and before the drain has begun.
    hang_up();
    gateway.terminate();
    hang_up();
    gateway.notify().message("STOPPING=1", 0, |message| message.is("STOPPING")).await;
    for round in 0..5 {
        hang_up();
        gateway.write("routes/shop.yaml", &format!("# {round}\n"));
        let renewed = crate::support::ca().leaf(&["gateway.test", "shop.test"]);
        gateway.lineage().renew(&renewed);
        for target in ["/reload", "/reload?allow_removal=true", "/drain_listeners", "/status"] {
            let method = if target == "/status" { "GET" } else { "POST" };
            let mut wire = Wire::once_there(admin).await;
            wire.send(format!(
                "{method} {target} HTTP/1.1\r\nHost: {admin}\r\nX-Edge-Gateway-Admin: 1\r\n\
                 Connection: close\r\n\r\n"
            ))
            .await;
            assert_eq!(wire.reply().await.status(), 503, "{target}");
        }
        // Long enough for workers without a connection to end, and for the watch to see a change.
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert!(!gateway.process().has_ended(), "round {round}");
    }
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast").await;
    assert_eq!(client.reply().await.text(), "last");
    assert_eq!(client.rest().await, b"");
    assert!(gateway.exit().await.success());
    let log = gateway.process().stderr();
    assert!(!log.contains("panicked") && log.contains("\"stopped\""), "{log}");
}

/// And in a start: a signal that comes before it serves is no reason to end otherwise than well.
#[tokio::test]
async fn whatever_arrives_in_a_start_it_serves_or_ends_well() {
    let shop = Origin::replying("shop").await;
    let route = serve_all("shop", "shop.test", &[shop.address]);
    // READY=1 is sent by the loop, before it looks at signals that came earlier.
    let gateway = Gateway::setup().watching().file("routes/shop.yaml", &route).start().await;
    for _ in 0..20 {
        gateway.process().signal(Signal::SIGHUP);
    }
    gateway.terminate();
    for _ in 0..20 {
        gateway.process().signal(Signal::SIGHUP);
    }
    assert!(gateway.exit().await.success());
    assert!(!gateway.process().stderr().contains("panicked"));
}

/// Both over HTTP/1.1, where the connection is the tunnel.
#[tokio::test]
async fn a_tunnel_is_waited_for_and_cut_at_the_limit() {
    let backend = Backend::bind().await;
    let gateway = Gateway::setup()
        .flag("--drain-timeout 2s")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[backend.address]))
        .start()
        .await;
    let mut tunnels = Vec::new();
    for path in ["/ends", "/goes-on"] {
        let mut client = gateway.wire().await;
        let lines = "Host: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        client.send(format!("GET {path} HTTP/1.1\r\n{lines}")).await;
        let mut origin = backend.accept().await;
        origin.request().await.unwrap();
        let lines = "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        origin.send(format!("HTTP/1.1 101 Switching Protocols\r\n{lines}")).await;
        assert_eq!(client.head().await.unwrap().status(), 101);
        tunnels.push((client, origin));
    }
    gateway.terminate();
    gateway.notify().message("STOPPING=1", 0, |message| message.is("STOPPING")).await;
    // Longer than an idle connection is given.
    tokio::time::sleep(Duration::from_millis(700)).await;
    for (client, origin) in &mut tunnels {
        client.send("to the backend").await;
        assert_eq!(origin.exactly(14).await, b"to the backend");
        origin.send("and back").await;
        assert_eq!(client.exactly(8).await, b"and back");
    }
    drop(tunnels.remove(0));
    let (mut client, _origin) = tunnels.remove(0);
    client.rest().await;
    assert!(gateway.exit().await.success());
    for (path, flags) in [("/ends", "-"), ("/goes-on", "DT")] {
        let entry = gateway.logged("the tunnel", |entry| entry["path"] == path).await;
        assert_eq!((&entry["flags"], &entry["status"]), (&flags.into(), &101.into()), "{entry}");
        assert_eq!(entry["request_bytes"], 14, "{entry}");
        assert_eq!(entry["response_bytes"], 8, "{entry}");
    }
}

/// RFC 6455 section 7.4.1. Whoever is between two frames learns that the server goes away; in the
/// middle of one, the bytes of a close would be payload.
#[tokio::test]
async fn a_websocket_that_is_cut_is_told_so_between_frames() {
    let backend = Backend::bind().await;
    let gateway = Gateway::setup()
        .flag("--drain-timeout 1s --upgrade websocket,other")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[backend.address]))
        .start()
        .await;
    // (protocol, what the backend sends, what the client gets after it)
    let close: &[u8] = &[0x88, 2, 0x03, 0xE9];
    let table: [(&str, &[u8], &[u8]); 5] = [
        ("websocket", b"", close),
        ("WebSocket", b"\x81\x05hello", close),
        ("websocket", b"\x81\x05hel", b""),
        ("websocket", b"\x88\x02\x03\xe8", b""),
        ("other", b"\x81\x05hello", b""),
    ];
    let mut tunnels = Vec::new();
    for (protocol, sent, after) in table {
        let mut client = gateway.tls_wire("shop.test").await;
        let lines = format!("Connection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
        client.send(format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{lines}")).await;
        let mut origin = backend.accept().await;
        origin.request().await.unwrap();
        origin.send(format!("HTTP/1.1 101 Switching Protocols\r\n{lines}")).await;
        assert_eq!(client.head().await.unwrap().status(), 101);
        origin.send(sent).await;
        assert_eq!(client.exactly(sent.len()).await, sent);
        tunnels.push((client, origin, after));
    }
    gateway.terminate();
    for (number, (mut client, _origin, after)) in tunnels.into_iter().enumerate() {
        assert_eq!(client.rest().await, after, "row {number}");
    }
    assert!(gateway.exit().await.success());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let mut client = gateway.wire().await;
    client.send("GET /never HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    backend.accept().await.request().await.unwrap();

    gateway.terminate();
    gateway.notify().message("STOPPING=1", 0, |message| message.is("STOPPING")).await;
    assert!(!gateway.process().has_ended());
    let begin = clock();
    gateway.terminate();
    gateway.exit().await;
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn an_interrupt_from_the_keyboard_drains_too() {
    let gateway = Gateway::start().await;
    gateway.process().signal(Signal::SIGINT);
    assert!(gateway.exit().await.success());
    let messages = gateway.notify().messages();
    assert!(messages.iter().any(|message| message.is("STOPPING")), "{messages:?}");
}

/// The sockets are the service manager's: who connects in between waits for the next process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_behind_the_sockets_refuses_and_loses_nothing() {
    let shop = Origin::scripted(|_| Answer::ok("shop").after(Duration::from_millis(20))).await;
    let mut gateway = Gateway::in_front_of(shop.address).await;
    let address = gateway.http();
    let mut clients = tokio::task::JoinSet::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for _ in 0..8 {
        let stopped = stopped.clone();
        clients.spawn(async move {
            let mut count = 0;
            while !*stopped.borrow() {
                let mut wire = Wire::connect(address).await;
                let lines = "Host: shop.test\r\nConnection: close\r\n\r\n";
                wire.send(format!("GET / HTTP/1.1\r\n{lines}")).await;
                let reply = soon("an answer", wire.try_reply_to("GET")).await;
                let text = reply.expect("an answer before the end").text();
                assert_eq!(text, "shop");
                count += 1;
            }
            count
        });
    }
    for _ in 0..3 {
        let since = gateway.notify().messages().len();
        // systemd starts the next one when the old one is gone.
        gateway.terminate();
        assert!(gateway.exit().await.success());
        drop(gateway.replace());
        gateway.replaced(since).await;
    }
    stop.send_replace(true);
    let mut total = 0;
    while let Some(count) = soon("clients end", clients.join_next()).await {
        total += count.unwrap();
    }
    assert!(total > 8, "{total} requests");
}

/// As when two processes share the sockets for a while: the old one takes no connection any more.
#[tokio::test]
async fn a_process_that_drains_accepts_nothing() {
    let backend = Backend::bind().await;
    let mut gateway = Gateway::in_front_of(backend.address).await;
    let (mut client, mut origin) = under_way(&gateway, &backend, "/slow").await;

    gateway.terminate();
    gateway.notify().message("STOPPING=1", 0, |message| message.is("STOPPING")).await;
    let mut waiting = gateway.wire().await;
    waiting.send("GET /next HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n").await;
    assert!(backend.accept_within(Duration::from_millis(300)).await.is_none(), "it waits");

    let since = gateway.notify().messages().len();
    let old = gateway.replace();
    gateway.replaced(since).await;
    let mut next = backend.accept().await;
    assert_eq!(next.request().await.unwrap().target(), "/next");
    next.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext").await;
    assert_eq!(waiting.reply().await.text(), "next");
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast").await;
    assert_eq!(client.reply().await.text(), "last");
    assert!(old.exit().await.success());
}
