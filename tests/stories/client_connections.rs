//! ClientTrafficPolicies on the wire: how many connections a listener has, and how long they live.

use std::time::Duration;

use http::Request;

use crate::metrics::{scrape, value};
use crate::support::{
    Gateway, Greeter, Origin, Setup, Tls, Wire, clock, empty, forward_route, free_address,
    gateway_of, serve_all, soon, until,
};

/// The listeners `http`, `https` and `tcp`, with a policy for all of them.
fn setup(settings: &str) -> Setup {
    let setup = Gateway::setup().socket("tcp", "127.0.0.1:0");
    setup.file("common/gateway.yaml", &gateway(settings))
}

fn gateway(settings: &str) -> String {
    let listeners = "- {name: http, protocol: HTTP, port: 8080}\n\
                     - {name: https, protocol: HTTPS, port: 8443, tls: {certificateRefs: [{name: \
                     eih-tls-cert}]}}\n\
                     - {name: tcp, protocol: TCP, port: 9300}\n";
    gateway_of(listeners)
        + &format!(
            "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: ClientTrafficPolicy\n\
             metadata: {{name: all, namespace: envoy-gateway-system}}\nspec:\n  \
             targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: eg}}]\n  \
             {settings}\n"
        )
}

const ASK: &str = "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";

/// A connection; `None` if it is closed in the handshake.
async fn open(gateway: &Gateway, socket: &str) -> Option<Wire> {
    match socket {
        "https" => {
            let tls = Tls::of("shop.test").alpn(&["http/1.1"]);
            tls.connect(gateway.https()).await.ok().map(Wire::over)
        }
        _ => Some(Wire::connect(gateway.address(socket)).await),
    }
}

/// A connection that has been answered once, so that it is counted; `None` if it was closed.
async fn served(gateway: &Gateway, socket: &str) -> Option<Wire> {
    let mut wire = open(gateway, socket).await?;
    let _ = wire.push(ASK.as_bytes()).await;
    wire.try_reply_to("GET").await.map(|_| wire)
}

#[tokio::test]
async fn one_connection_more_than_the_limit_is_closed_and_a_reload_forgets_none() {
    let metrics = free_address();
    let origin = Origin::replying("shop").await;
    let front = setup("connection: {connectionLimit: {value: 2}}")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[origin.address]))
        .metrics_at(metrics)
        .start()
        .await;
    for socket in ["http", "https"] {
        let first = served(&front, socket).await.unwrap();
        let _second = served(&front, socket).await.unwrap();
        assert!(served(&front, socket).await.is_none(), "{socket}");
        drop(first);
        // The room of a closed connection is free.
        let again = soon("room", async {
            loop {
                if let Some(wire) = served(&front, socket).await {
                    break wire;
                }
            }
        })
        .await;
        front.write("common/gateway.yaml", &gateway("connection: {connectionLimit: {value: 3}}"));
        assert!(front.reload().await.is("READY"));
        let _third = served(&front, socket).await.unwrap();
        assert!(served(&front, socket).await.is_none(), "{socket}: two are open from before");
        drop(again);
        front.write("common/gateway.yaml", &gateway("connection: {connectionLimit: {value: 2}}"));
        assert!(front.reload().await.is("READY"));
    }
    let text = scrape(metrics).await;
    for port in ["8080", "8443"] {
        let series = format!(
            "envoy_connection_limit_limited_connections{{envoy_listener_address=\"0.0.0.0_{port}\"}}"
        );
        assert!(value(&text, &series) >= 2.0, "{text}");
    }
}

/// A tunnel counts, and one too many sees no byte of the backend.
#[tokio::test]
async fn the_limit_holds_for_connections_that_are_forwarded() {
    let greeter = Greeter::plain("one").await;
    let gateway = setup("connection: {connectionLimit: {value: 1, closeDelay: 1s}}")
        .file(
            "routes/tcp.yaml",
            &forward_route("TCPRoute", "tcp", "tcp", &[], &[(greeter.address, 1)]),
        )
        .start()
        .await;
    let mut first = Wire::connect(gateway.address("tcp")).await;
    assert_eq!(soon("a greeting", first.through(b"\n")).await.unwrap(), b"hello from one\n");
    let began = clock();
    let mut second = Wire::connect(gateway.address("tcp")).await;
    assert!(soon("the end", second.rest()).await.is_empty());
    assert!(began.elapsed() >= Duration::from_secs(1), "closed after its delay");
    assert_eq!(greeter.connections(), 1);
    first.send("still\n").await;
    assert_eq!(soon("an answer", first.through(b"\n")).await.unwrap(), b"still\n");
}

#[tokio::test]
async fn a_connection_says_that_its_last_request_is_the_last() {
    let origin = Origin::replying("shop").await;
    let gateway = setup("connection: {connectionLimit: {maxRequestsPerConnection: 3}}")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[origin.address]))
        .start()
        .await;
    let mut wire = gateway.wire().await;
    for number in 1..=3 {
        wire.send(ASK).await;
        let reply = wire.reply().await;
        assert_eq!(reply.text(), "shop");
        let closes = reply.header("connection").is_some_and(|value| value == "close");
        assert_eq!(closes, number == 3, "request {number}");
    }
    assert!(soon("the end", wire.rest()).await.is_empty());

    let mut http2 = gateway.http2("shop.test").await;
    let sender = http2.sender();
    for _ in 0..3 {
        assert_eq!(http2.get("https://shop.test/").await.text(), "shop");
    }
    soon("GOAWAY", http2.end()).await.unwrap();
    let mut late = sender;
    let request = Request::get("https://shop.test/").body(empty()).unwrap();
    assert!(late.send_request(request).await.is_err());
    assert_eq!(origin.requests().len(), 6);
}

/// No request is cut off by the age of its connection.
#[tokio::test]
async fn an_old_connection_ends_after_its_request() {
    let origin = Origin::scripted(|seen| {
        let answer = crate::support::Answer::ok("shop");
        if seen.target() == "/slow" { answer.after(Duration::from_secs(3)) } else { answer }
    })
    .await;
    let gateway = setup("connection: {connectionLimit: {maxConnectionDuration: 1s}}")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[origin.address]))
        .start()
        .await;
    let mut wire = gateway.wire().await;
    wire.send("GET /slow HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    let reply = wire.reply().await;
    assert_eq!((reply.text(), reply.header("connection")), ("shop".into(), Some("close".into())));
    assert!(soon("the end", wire.rest()).await.is_empty());

    let mut idle = served(&gateway, "http").await.unwrap();
    let began = clock();
    assert!(soon("the end", idle.rest()).await.is_empty());
    assert!(began.elapsed() < Duration::from_secs(15), "long before the idle timeout");
}

/// The kernel's list of connections says when the next probe is due.
#[tokio::test]
async fn probes_of_the_kernel_are_those_of_the_policy() {
    let gateway = setup("tcpKeepalive: {idleTime: 100s, probes: 2}").start().await;
    let mut wire = gateway.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n").await;
    wire.reply().await;
    let at = format!("0100007F:{:04X}", gateway.http().port());
    let timer = || {
        let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let fields = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut open = fields.filter(|of| of.len() > 5 && of[1] == at && of[3] == "01");
        open.next().map(|of| of[5].to_owned())
    };
    until("a keep-alive timer", || timer().is_some_and(|timer| timer.starts_with("02:"))).await;
    let due = timer().unwrap();
    let due = u64::from_str_radix(&due[3..], 16).unwrap();
    // In hundredths of a second.
    assert!((5_000..=10_100).contains(&due), "{due}");
}
