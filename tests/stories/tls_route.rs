//! TLS listeners: whose handshake it is depends on the name that the client asks for.

use std::time::Duration;

use crate::support::{
    Gateway, Greeter, Hello, Leaf, Setup, Tls, Wire, ca, clock, forward_route, gateway_of,
    serve_all, soon,
};
use crate::support::{Origin, record};

/// A Gateway with these listeners on the socket `tls`.
fn setup(listeners: &str) -> Setup {
    Gateway::setup()
        .socket("tls", "127.0.0.1:0")
        .file("common/gateway.yaml", &gateway_of(listeners))
}

const PASSED: &str = "- {name: tls, protocol: TLS, port: 8883, tls: {mode: Passthrough}}\n";

fn to(name: &str, hosts: &[&str], greeter: &Greeter) -> String {
    forward_route("TLSRoute", name, "tls", hosts, &[(greeter.address, 1)])
}

fn leaf() -> Leaf {
    ca().leaf(&["abc.example.com", "*.example.com"])
}

async fn line(wire: &mut Wire) -> String {
    let line = soon("a line", wire.through(b"\n")).await;
    line.map_or_else(String::new, |line| String::from_utf8(line).unwrap())
}

/// The greeting behind a handshake for `name`.
async fn greeting(gateway: &Gateway, name: &str) -> String {
    line(&mut Wire::over(Tls::of(name).connect(gateway.address("tls")).await.unwrap())).await
}

/// What comes back for `bytes` on a fresh connection until it is closed.
async fn answer(gateway: &Gateway, bytes: &[u8]) -> Vec<u8> {
    let mut wire = Wire::connect(gateway.address("tls")).await;
    wire.send(bytes).await;
    soon("the end", wire.rest()).await
}

/// Conformance: TLSRouteSimpleSameNamespace.
#[tokio::test]
async fn a_passed_handshake_is_the_backends() {
    let leaf = leaf();
    let backend = Greeter::secure("one", &leaf).await;
    let gateway =
        setup(PASSED).file("routes/r.yaml", &to("r", &["abc.example.com"], &backend)).start().await;
    let tls = Tls::of("abc.example.com");
    assert_eq!(tls.serial(gateway.address("tls")).await.unwrap(), leaf.serial);
    let stream = tls.connect(gateway.address("tls")).await.unwrap();
    let mut client = Wire::over(stream);
    assert_eq!(line(&mut client).await, "hello from one to abc.example.com\n");
    client.send("through\n").await;
    assert_eq!(line(&mut client).await, "through\n");
    client.finish().await;
    assert_eq!(soon("the end", client.rest()).await, b"bye\n");

    let is_it = |record: &serde_json::Value| record["response_bytes"].as_u64() > Some(500);
    let record = gateway.logged("the connection", is_it).await;
    assert_eq!((&record["protocol"], &record["tls"]), (&"TLS".into(), &serde_json::Value::Null));
    assert_eq!(record["host"], "abc.example.com");
    assert_eq!(record["route"], "tlsroute/envoy-gateway-system/r/rule/0");
}

/// Conformance: TLSRouteHostnameIntersection, and its rule for what belongs to nobody: closed, and
/// not by an alert.
#[tokio::test]
async fn names_choose_the_route_and_strangers_are_closed_without_a_word() {
    let leaf = leaf();
    let (one, two) = (Greeter::secure("one", &leaf).await, Greeter::secure("two", &leaf).await);
    // (hostname of the listener, of the first route, of the second)
    let table = [
        ("abc.example.com", "abc.example.com", "*.com"),
        ("*.example.com", "abc.example.com", "*.com"),
        ("*.com", "abc.example.com", "*.example.com"),
        ("", "abc.example.com", "*.example.com"),
    ];
    for (listener, first, second) in table {
        let hostname = if listener.is_empty() { "" } else { "hostname: " };
        let quoted = if listener.is_empty() { String::new() } else { format!("\"{listener}\", ") };
        let yaml = PASSED.replacen("port", &format!("{hostname}{quoted}port"), 1);
        let gateway = setup(&yaml)
            .file("routes/a.yaml", &to("a", &[first], &one))
            .file("routes/b.yaml", &to("b", &[second], &two))
            .start()
            .await;
        assert_eq!(
            greeting(&gateway, "abc.example.com").await,
            "hello from one to abc.example.com\n",
            "{listener}"
        );
        if listener != "abc.example.com" {
            assert_eq!(
                greeting(&gateway, "other.example.com").await,
                "hello from two to other.example.com\n",
                "{listener}"
            );
        }
        for stranger in ["non.matching.org", "example.com.evil.test"] {
            let bytes = Hello::modern(stranger).bytes();
            assert_eq!(answer(&gateway, &bytes).await, b"", "{stranger} at {listener}");
        }
    }
}

/// No name, two names, no hello at all, and names of routes that lead nowhere.
#[tokio::test]
async fn what_names_no_backend_gets_no_byte_of_an_answer() {
    let dangling = "\
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: dangling, namespace: envoy-gateway-system}
spec:
  parentRefs: [{name: eg}]
  hostnames: [dangling.test]
  rules: [{backendRefs: [{name: nobody, port: 443}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: unknown-kind, namespace: envoy-gateway-system}
spec:
  parentRefs: [{name: eg}]
  hostnames: [unknown.test]
  rules: [{backendRefs: [{group: example.com, kind: Nothing, name: nobody}]}]
";
    let backend = Greeter::secure("one", &leaf()).await;
    let gateway = setup(PASSED)
        .file("routes/r.yaml", &to("r", &["abc.example.com"], &backend))
        .file("routes/dangling.yaml", dangling)
        .start()
        .await;
    let names = crate::support::server_name;
    let good = || Hello::modern("abc.example.com");
    let whole = good().bytes();
    // (what, bytes)
    let table: [(&str, Vec<u8>); 9] = [
        ("dangling", Hello::modern("dangling.test").bytes()),
        ("unknown kind", Hello::modern("unknown.test").bytes()),
        ("no name", good().with(0, None).bytes()),
        ("two names", good().with(0, Some(names(&[b"abc.example.com", b"b.test"]).1)).bytes()),
        ("a NUL", good().with(0, Some(names(&[b"abc.example.com\0"]).1)).bytes()),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: abc.example.com\r\n\r\n".to_vec()),
        ("SSLv2", vec![0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10]),
        ("an alert", record(21, &[1, 0])),
        ("17 KiB", good().with(21, Some(vec![0; 17 << 10])).records(16_000)),
    ];
    for (what, bytes) in table {
        assert_eq!(answer(&gateway, &bytes).await, b"", "{what}");
    }
    let mut half = Wire::connect(gateway.address("tls")).await;
    half.send(&whole[..whole.len() / 2]).await;
    half.finish().await;
    assert_eq!(soon("the end", half.rest()).await, b"", "half a hello");
    assert_eq!(backend.connections(), 0);
    let record = gateway.logged("dangling", |record| record["host"] == "dangling.test").await;
    assert_eq!(
        (&record["flags"], &record["details"]),
        (&"NC".into(), &"backend_ref_invalid".into())
    );
    assert_eq!(greeting(&gateway, "abc.example.com").await, "hello from one to abc.example.com\n");
}

/// A hello in many segments and records, and one that only an old server would take.
#[tokio::test]
async fn a_hello_is_passed_on_as_it_came() {
    let backend = crate::support::Backend::bind().await;
    let route =
        forward_route("TLSRoute", "r", "tls", &["abc.example.com"], &[(backend.address, 1)]);
    let gateway = setup(PASSED).file("routes/r.yaml", &route).start().await;
    let mut old = Hello::tls12("abc.example.com").with(13, None).with(10, None);
    old.version = 0x0301;
    old.suites = vec![0x002f, 0x000a];
    for bytes in [old.bytes(), Hello::modern("ABC.example.com").records(7)] {
        let mut client = Wire::connect(gateway.address("tls")).await;
        for piece in bytes.chunks(50) {
            client.send(piece).await;
            // So that the pieces arrive as segments of their own.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        client.send("and what follows").await;
        let mut origin = backend.accept().await;
        assert_eq!(origin.exactly(bytes.len()).await, bytes);
        assert_eq!(origin.exactly(16).await, b"and what follows");
    }
}

/// Silent, half or dripping: the handshake's limit is for all of it, and the places are given back.
#[tokio::test]
async fn a_slow_hello_has_the_time_of_a_handshake() {
    let backend = Greeter::secure("one", &leaf()).await;
    let gateway = setup(PASSED)
        .flag("--tls-handshake-timeout 1s")
        .file("routes/r.yaml", &to("r", &["abc.example.com"], &backend))
        .start()
        .await;
    let whole = Hello::modern("abc.example.com").bytes();
    for kept in [0, 1, 40] {
        let begin = clock();
        let mut client = Wire::connect(gateway.address("tls")).await;
        client.send(&whole[..kept]).await;
        assert_eq!(soon("the end", client.rest()).await, b"", "{kept} bytes");
        assert!(begin.elapsed() > Duration::from_millis(800), "{kept}: {:?}", begin.elapsed());
    }
    let begin = clock();
    let mut client = Wire::connect(gateway.address("tls")).await;
    for byte in &whole {
        if client.push(&[*byte]).await.is_err() || begin.elapsed() > Duration::from_secs(10) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(begin.elapsed() < Duration::from_secs(8), "a drip is no way around it");
    assert_eq!(backend.connections(), 0);
}

const ENDED: &str = "\
- {name: tls, protocol: TLS, port: 8883, hostname: gateway.test, tls: {mode: Terminate, certificateRefs: [{name: eih-tls-cert}]}}
";

/// Conformance: TLSRouteTerminateSimpleSameNamespace. The backend speaks first, and in clear.
#[tokio::test]
async fn a_handshake_that_ends_here_leaves_bytes_for_the_backend() {
    let backend = Greeter::plain("one").await;
    let gateway =
        setup(ENDED).file("routes/r.yaml", &to("r", &["gateway.test"], &backend)).start().await;
    let stream =
        Tls::of("gateway.test").alpn(&["postgresql"]).connect(gateway.address("tls")).await;
    let stream = stream.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), None, "nothing is promised for the backend");
    let mut client = Wire::over(stream);
    assert_eq!(line(&mut client).await, "hello from one\n");
    client.send("in clear\n").await;
    assert_eq!(line(&mut client).await, "in clear\n");
    client.finish().await;
    assert_eq!(soon("the end", client.rest()).await, b"bye\n");
    let record = gateway.logged("the connection", |record| record["protocol"] == "TCP").await;
    assert_eq!((&record["tls"], &record["host"]), (&"TLSv1.3".into(), &"gateway.test".into()));
    assert_eq!((&record["request_bytes"], &record["response_bytes"]), (&9.into(), &28.into()));

    let stranger = Hello::modern("other.test").bytes();
    assert_eq!(answer(&gateway, &stranger).await, b"", "no listener of that name, no alert");
}

#[tokio::test]
async fn a_handshake_for_a_route_that_leads_nowhere_does_not_begin() {
    let dangling = "\
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: dangling, namespace: envoy-gateway-system}
spec:
  parentRefs: [{name: eg}]
  hostnames: [gateway.test]
  rules: [{backendRefs: [{name: nobody, port: 443}]}]
";
    let gateway = setup(ENDED).file("routes/r.yaml", dangling).start().await;
    assert_eq!(answer(&gateway, &Hello::modern("gateway.test").bytes()).await, b"");
}

/// Conformance: TLSRouteMixedTerminationSameNamespace, and HTTPS beside both.
#[tokio::test]
async fn one_port_serves_https_and_both_modes_by_name() {
    let listeners = "\
- {name: tls, protocol: TLS, port: 8883, hostname: gateway.test, tls: {mode: Terminate, certificateRefs: [{name: eih-tls-cert}]}}
- {name: passed, protocol: TLS, port: 8883, hostname: abc.example.com, tls: {mode: Passthrough}}
- {name: web, protocol: HTTPS, port: 8883, hostname: shop.test, tls: {certificateRefs: [{name: eih-tls-cert}]}}
";
    let (ended, passed) = (Greeter::plain("ended").await, Greeter::secure("passed", &leaf()).await);
    let shop = Origin::replying("shop").await;
    let passed_route =
        forward_route("TLSRoute", "p", "passed", &["abc.example.com"], &[(passed.address, 1)]);
    let gateway = setup(listeners)
        .file("routes/e.yaml", &to("e", &["gateway.test"], &ended))
        .file("routes/p.yaml", &passed_route)
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    assert_eq!(greeting(&gateway, "gateway.test").await, "hello from ended\n");
    assert_eq!(
        greeting(&gateway, "abc.example.com").await,
        "hello from passed to abc.example.com\n"
    );
    let mut web = Wire::tls(gateway.address("tls"), "shop.test").await;
    web.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!(web.reply().await.text(), "shop");
    // A browser that comes back over this connection for another's name is told so.
    web.send("GET / HTTP/1.1\r\nHost: abc.example.com\r\n\r\n").await;
    assert_eq!(web.reply().await.status(), 421);
    // Where HTTPS is served too, a browser hears that its name is wrong.
    let refused = answer(&gateway, &Hello::modern("other.test").bytes()).await;
    assert_eq!(refused, record_of_alert(112));
}

fn record_of_alert(code: u8) -> Vec<u8> {
    vec![21, 3, 3, 0, 2, 2, code]
}

/// A certificate that certbot renews is shown to the next client, as on HTTPS.
#[tokio::test]
async fn a_renewed_certificate_is_shown() {
    let backend = Greeter::plain("one").await;
    let gateway =
        setup(ENDED).file("routes/r.yaml", &to("r", &["gateway.test"], &backend)).start().await;
    let renewed = ca().leaf(&["gateway.test"]);
    gateway.lineage().renew(&renewed);
    gateway.reload().await;
    let serial = Tls::of("gateway.test").serial(gateway.address("tls")).await.unwrap();
    assert_eq!(serial, renewed.serial);
    let mut open =
        Wire::over(Tls::of("gateway.test").connect(gateway.address("tls")).await.unwrap());
    assert_eq!(line(&mut open).await, "hello from one\n");
    gateway.reload().await;
    open.send("still\n").await;
    assert_eq!(line(&mut open).await, "still\n");
}
