//! What the service manager gives the gateway, and what it is told by it.

use std::net::{Ipv6Addr, TcpListener};
use std::time::Duration;

use crate::support::{
    GATEWAY, Gateway, Message, Origin, Wire, clock, free_address, has_ipv6, serve_all, until,
};

#[tokio::test]
async fn the_life_of_a_process_is_told_in_order() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    gateway.reload().await;
    gateway.terminate();
    assert!(gateway.exit().await.success());

    let messages = gateway.notify().messages();
    let states = ["READY", "RELOADING", "STOPPING"];
    let order: Vec<_> = messages
        .iter()
        .filter_map(|message| states.into_iter().find(|state| message.is(state)))
        .collect();
    assert_eq!(order, ["READY", "RELOADING", "READY", "STOPPING"], "{messages:?}");

    let reloading = messages.iter().find(|message| message.is("RELOADING")).unwrap();
    let stamp = reloading.value("MONOTONIC_USEC").expect("in the same message");
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let seconds = stamp.parse::<f64>().unwrap() / 1e6;
    // CLOCK_MONOTONIC and the uptime differ by the time spent in suspension, which is none here.
    assert!(seconds <= uptime && seconds > uptime - 60.0, "{seconds} s of {uptime} s");
}

/// A script around the gateway that does not `exec` it keeps the sockets: what it would have to do is
/// told where the port is missed.
#[tokio::test]
async fn sockets_that_are_for_another_process_are_told_by_its_number() {
    let address = free_address();
    let _theirs = TcpListener::bind(address).unwrap();
    let gateway_yaml = GATEWAY.replace("port: 8080", &format!("port: {}", address.port()));
    assert_ne!(GATEWAY, gateway_yaml);
    let own = format!("  addresses: [{{type: IPAddress, value: {}}}]\n  listeners:", address.ip());
    let gateway_yaml = gateway_yaml.replace("  listeners:", &own);
    let gateway = Gateway::setup()
        .without_sockets()
        .file("common/gateway.yaml", &gateway_yaml)
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", "1")
        .launch();
    assert_eq!(gateway.exit().await.code(), Some(1));
    let said = gateway.process().stderr();
    let why = "the sockets of the service manager are for process 1 (LISTEN_PID)";
    let last = said.lines().rfind(|line| line.starts_with("edge-gateway: ")).unwrap_or_default();
    assert!(last.contains(why) && !last.contains("ss -ltnp"), "{said}");
    assert!(said.lines().any(|line| line.starts_with('{') && line.contains(why)), "{said}");
}

#[tokio::test]
async fn the_status_line_counts_what_is_served() {
    let gateway = Gateway::start().await;
    let status = async |since| {
        let said = |message: &Message| message.value("STATUS").is_some();
        let (_, message) = gateway.notify().message("STATUS=", since, said).await;
        message.value("STATUS").unwrap().to_owned()
    };
    let first = status(0).await;
    assert!(first.chars().any(|c| c.is_ascii_digit()), "{first}");

    let shop = Origin::replying("shop").await;
    gateway.write("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]));
    let since = gateway.notify().messages().len();
    gateway.reload().await;
    let second = status(since).await;
    assert_ne!(first, second, "one route more");
}

#[tokio::test]
async fn the_watchdog_is_fed_in_time() {
    let gateway = Gateway::setup().watchdog(500_000).start().await;
    let begin = clock();
    let mut since = 0;
    for _ in 0..4 {
        let fed = gateway.notify().message("WATCHDOG=1", since, |m| m.is("WATCHDOG")).await;
        since = fed.0 + 1;
    }
    // At least as often as asked for; systemd advises twice as often.
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn without_a_watchdog_nothing_is_fed() {
    let gateway = Gateway::start().await;
    gateway.reload().await;
    gateway.terminate();
    gateway.exit().await;
    assert!(gateway.notify().messages().iter().all(|message| !message.is("WATCHDOG")));
}

/// The port in the file is that of a container; the socket is the one that has the name.
#[tokio::test]
async fn a_socket_serves_the_listener_of_its_name_whatever_its_port() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    assert_ne!(gateway.http().port(), 8080);
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    assert_eq!(gateway.get("https://shop.test/").await.text(), "shop");
}

#[tokio::test]
async fn sockets_are_told_apart_by_name_in_any_order() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::setup()
        .without_sockets()
        .socket("https", "127.0.0.1:0")
        .socket("unrelated", "127.0.0.1:0")
        .socket("http", "127.0.0.1:0")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    assert_eq!(gateway.get("https://shop.test/").await.text(), "shop");
}

#[tokio::test]
async fn one_name_may_stand_for_several_sockets() {
    let (second, client) =
        if has_ipv6() { ("[::1]:0", "::1") } else { ("127.0.0.2:0", "127.0.0.1") };
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::setup()
        .socket_names(Some("http:https:http"))
        .socket("second", second)
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    for address in [gateway.http(), gateway.address("second")] {
        let mut wire = Wire::connect(address).await;
        wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n").await;
        assert_eq!(wire.reply().await.text(), "shop", "{address}");
    }
    assert_eq!(shop.last().header("x-forwarded-for").as_deref(), Some(client));
}

/// Without a name of ours, the port decides.
#[tokio::test]
async fn a_socket_without_a_name_serves_the_listener_of_its_port() {
    let shop = Origin::replying("shop").await;
    for names in [None, Some("unknown:unknown"), Some("some.socket:other.socket")] {
        let setup = Gateway::setup();
        let file = std::fs::read_to_string(setup.path("common/gateway.yaml")).unwrap();
        let file = file
            .replace("port: 8080", &format!("port: {}", setup.port("http")))
            .replace("port: 8443", &format!("port: {}", setup.port("https")));
        let gateway = setup
            .file("common/gateway.yaml", &file)
            .socket_names(names)
            .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
            .start()
            .await;
        assert_eq!(gateway.get("http://shop.test/").await.text(), "shop", "{names:?}");
        assert_eq!(gateway.get("https://shop.test/").await.text(), "shop", "{names:?}");
    }
}

#[tokio::test]
async fn what_was_not_handed_over_is_bound() {
    let shop = Origin::replying("shop").await;
    let setup = Gateway::setup().without_sockets().socket("https", "127.0.0.1:0");
    // A port that was free a moment ago; another process may take it, but not this one's tests.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = std::fs::read_to_string(setup.path("common/gateway.yaml")).unwrap();
    let gateway = setup
        .file("common/gateway.yaml", &file.replace("port: 8080", &format!("port: {}", free.port())))
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    assert_eq!(gateway.get("https://shop.test/").await.text(), "shop");
    for address in [free, (Ipv6Addr::LOCALHOST, free.port()).into()] {
        if address.is_ipv6() && !has_ipv6() {
            continue;
        }
        let mut wire = Wire::connect(address).await;
        wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n").await;
        assert_eq!(wire.reply().await.text(), "shop", "{address}");
    }
}

#[tokio::test]
async fn every_port_that_is_taken_is_named_and_ends_the_start() {
    let taken = ["0.0.0.0:0", "0.0.0.0:0"].map(|any| TcpListener::bind(any).unwrap());
    let [port, other] = taken.each_ref().map(|taken| taken.local_addr().unwrap().port());
    let setup = Gateway::setup().without_sockets();
    let file = std::fs::read_to_string(setup.path("common/gateway.yaml")).unwrap();
    let file = file
        .replace("port: 8080", &format!("port: {port}"))
        .replace("port: 8443", &format!("port: {other}"));
    let gateway = setup.file("common/gateway.yaml", &file).launch();
    assert!(!gateway.exit().await.success());
    let stderr = gateway.process().stderr();
    for port in [port, other] {
        let told = format!("edge-gateway: port {port} cannot be listened on: ");
        assert!(stderr.lines().any(|line| line.starts_with(&told)), "{stderr}");
    }
    assert!(gateway.notify().messages().iter().all(|message| !message.is("READY")));
}

#[tokio::test]
async fn a_configuration_that_cannot_be_read_ends_the_start_with_its_place() {
    let gateway = Gateway::setup().file("routes/broken.yaml", "kind: [\n").launch();
    assert!(!gateway.exit().await.success());
    let stderr = gateway.process().stderr();
    assert!(stderr.contains("broken.yaml:"), "{stderr}");
}

#[tokio::test]
async fn a_reload_leaves_no_descriptor_behind() {
    let gateway = Gateway::start().await;
    let before = gateway.process().descriptors();
    for _ in 0..5 {
        gateway.reload().await;
    }
    // The watch of before is closed by a thread of its own.
    until("as many as before", || gateway.process().descriptors() <= before + 2).await;
}

#[tokio::test]
async fn a_socket_that_no_listener_wants_is_told() {
    let gateway = Gateway::setup().socket("htpps", "127.0.0.1:0").start().await;
    let address = gateway.address("htpps").to_string();
    let told = |line: &str| {
        ["`htpps`", &*address, "`http`", "`https`"].iter().all(|word| line.contains(word))
    };
    until("a warning", || gateway.process().stderr().lines().any(told)).await;
}

/// A listener of a name is on the socket of that name, so another port in the file closes nothing.
#[tokio::test]
async fn another_port_for_a_socket_that_is_handed_over_takes_nothing_away() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let moved = GATEWAY.replace("port: 8080", "port: 80").replace("port: 8443", "port: 443");
    gateway.write("common/gateway.yaml", &moved);
    gateway.reload().await;
    let log = gateway.process().stderr();
    assert!(!log.contains("reload failed"), "{log}");
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    assert_eq!(gateway.get("https://shop.test/").await.text(), "shop");
    // With another name, too, nothing is left on the socket.
    let port = format!("name: web\n      protocol: HTTP\n      port: {}\n", free_address().port());
    let other = moved.replace("name: http\n      protocol: HTTP\n      port: 80\n", &port);
    gateway.write("common/gateway.yaml", &other);
    gateway.reload().await;
    until("it is refused", || gateway.process().stderr().contains("reload failed")).await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
}
