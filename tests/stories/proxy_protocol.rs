//! The PROXY protocol: the client's address ahead of a connection, from clients and to backends.

use std::net::{IpAddr, SocketAddr};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::metrics::{scrape, value};
use crate::support::{
    Backend, Gateway, Greeter, Haproxy, Origin, Setup, Tls, Wire, backend, ca, forward_route,
    free_address, gateway_of, http_route, own_loopback, rule_to, serve_all, soon,
};

/// A Gateway with the listeners of most stories and one of TCP.
fn setup() -> Setup {
    let listeners = "- {name: http, protocol: HTTP, port: 8080}\n\
                     - {name: https, protocol: HTTPS, port: 8443, tls: {certificateRefs: [{name: \
                     eih-tls-cert}]}}\n\
                     - {name: tcp, protocol: TCP, port: 9300}\n";
    Gateway::setup()
        .file("common/gateway.yaml", &gateway_of(listeners))
        .socket("tcp", "127.0.0.1:0")
}

/// A BackendTrafficPolicy for a route: its connections begin with a header.
fn to_backends(kind: &str, route: &str, version: &str) -> String {
    format!(
        "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: BackendTrafficPolicy\n\
         metadata: {{name: {route}, namespace: envoy-gateway-system}}\nspec:\n  \
         targetRefs: [{{group: gateway.networking.k8s.io, kind: {kind}, name: {route}}}]\n  \
         proxyProtocol: {{version: {version}}}\n  \
         timeout: {{http: {{connectionIdleTimeout: 10m}}}}\n"
    )
}

/// Two gateways' worth of routes: `v1.test` and `v2.test` to one backend each.
fn routes(v1: &str, v2: &str) -> String {
    let mut files = String::new();
    for (name, version, backend) in [("v1", "V1", v1), ("v2", "V2", v2)] {
        let host = format!("{name}.example.test");
        files += backend;
        files += &http_route(name, &[&host], &rule_to("/", name));
        files += &to_backends("HTTPRoute", name, version);
    }
    files
}

/// HAProxy answers with the addresses that it takes the client's connection to have.
#[tokio::test]
async fn haproxy_hears_the_addresses_of_the_client() {
    let [plain, secure] = [free_address(), free_address()];
    let leaf = ca().leaf(&["haproxy.test"]);
    let config = format!(
        "frontend all\n    bind {plain} accept-proxy\n    bind {secure} accept-proxy ssl crt CERT\n    \
         http-request return status 200 content-type text/plain lf-string \"%[src]:%[src_port] \
         %[dst]:%[dst_port]\"\n"
    );
    let pem = leaf.certificate_pem.clone() + &leaf.key_pem;
    let Some(_haproxy) = Haproxy::start(&config, &pem, &[plain, secure]).await else { return };

    let secured = format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
         metadata: {{name: v2, namespace: envoy-gateway-system}}\nspec:\n  \
         targetRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: v2}}]\n  \
         validation:\n    hostname: haproxy.test\n    \
         caCertificateRefs: [{{group: \"\", kind: ConfigMap, name: ca}}]\n\
         ---\napiVersion: v1\nkind: ConfigMap\n\
         metadata: {{name: ca, namespace: envoy-gateway-system}}\ndata:\n  ca.crt: |\n{}",
        ca().pem().lines().map(|line| format!("    {line}\n")).collect::<String>()
    );
    let http = routes(&backend("v1", &[plain]), &backend("v2", &[secure])) + &secured;
    let tcp = forward_route("TCPRoute", "tcp", "tcp", &[], &[(plain, 1)])
        + &to_backends("TCPRoute", "tcp", "V2");
    let gateway =
        setup().file("routes/http.yaml", &http).file("routes/tcp.yaml", &tcp).start().await;

    // (client's connection, name, the gateway's address)
    for (name, socket) in [("v1", "http"), ("v2", "http"), ("v1", "https"), ("any", "tcp")] {
        let address = gateway.address(socket);
        let stream = TcpStream::connect(address).await.unwrap();
        let client = stream.local_addr().unwrap();
        let host = format!("{name}.example.test");
        let mut wire = match socket {
            "https" => {
                let tls = Tls::of(&host).alpn(&["http/1.1"]);
                Wire::over(tls.handshake(stream).await.unwrap())
            }
            _ => Wire::tcp(stream),
        };
        for _ in 0..2 {
            wire.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            let reply = wire.reply().await;
            assert_eq!(reply.status(), 200, "{name} by {socket}: {}", reply.text());
            assert_eq!(reply.text(), format!("{client} {address}"), "{name} by {socket}");
        }
    }
}

/// A connection with a header belongs to one connection of a client; no other request uses it.
#[tokio::test]
async fn no_request_travels_under_the_address_of_another_client() {
    let origin = Backend::bind().await;
    let route = routes(&backend("v1", &[origin.address]), &backend("v2", &[origin.address]));
    let gateway = setup().file("routes/http.yaml", &route).start().await;

    let ask = "GET / HTTP/1.1\r\nHost: v1.example.test\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let mut held = Vec::new();
    for _ in 0..2 {
        let stream = TcpStream::connect(gateway.http()).await.unwrap();
        let client = stream.local_addr().unwrap();
        let mut wire = Wire::tcp(stream);
        wire.send(ask).await;
        let mut backend = origin.accept().await;
        let line = soon("the header", backend.through(b"\r\n")).await.unwrap();
        let port = gateway.http().port();
        let want = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {port}\r\n", client.port());
        assert_eq!(String::from_utf8(line).unwrap(), want);
        assert!(backend.head().await.unwrap().text().starts_with("GET / HTTP/1.1"));
        backend.send(answer).await;
        assert_eq!(wire.reply().await.text(), "ok");
        held.push((wire, backend));
    }
    // Each goes on over its own connection, without a second header.
    for (wire, backend) in &mut held {
        wire.send(ask).await;
        assert!(backend.head().await.unwrap().text().starts_with("GET / HTTP/1.1"));
        backend.send(answer).await;
        assert_eq!(wire.reply().await.text(), "ok");
    }
}

/// gRPC and h2c backends share connections between requests, so between clients, too.
#[tokio::test]
async fn http2_to_backends_is_shared_by_the_requests_of_one_client_only() {
    let origin = Backend::bind().await;
    let files = crate::support::h2c_backend("v1", &[origin.address])
        + &http_route("v1", &["v1.example.test"], &rule_to("/", "v1"))
        + &to_backends("HTTPRoute", "v1", "V1");
    let gateway = setup().file("routes/http.yaml", &files).start().await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let stream = TcpStream::connect(gateway.http()).await.unwrap();
        let client = stream.local_addr().unwrap();
        let mut wire = Wire::tcp(stream);
        wire.send("GET / HTTP/1.1\r\nHost: v1.example.test\r\n\r\n").await;
        let mut backend = origin.accept().await;
        let line = soon("the header", backend.through(b"\r\n")).await.unwrap();
        let line = String::from_utf8(line).unwrap();
        assert!(line.contains(&format!(" {} ", client.port())), "{line}");
        let preface = soon("the preface", backend.exactly(24)).await;
        assert_eq!(preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        held.push((wire, backend));
    }
}

/// A Gateway with a listener of each protocol, whose connections begin with a header.
fn behind_proxy(settings: &str) -> Setup {
    let listeners = "- {name: http, protocol: HTTP, port: 8080}\n\
                     - {name: https, protocol: HTTPS, port: 8443, tls: {certificateRefs: [{name: \
                     eih-tls-cert}]}}\n\
                     - {name: tcp, protocol: TCP, port: 9300}\n\
                     - {name: tls, protocol: TLS, port: 9400, tls: {mode: Passthrough}}\n";
    let policy = format!(
        "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: ClientTrafficPolicy\n\
         metadata: {{name: all, namespace: envoy-gateway-system}}\nspec:\n  \
         targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: eg}}]\n{settings}"
    );
    Gateway::setup()
        .file("common/gateway.yaml", &(gateway_of(listeners) + &policy))
        .socket("tcp", "127.0.0.1:0")
        .socket("tls", "127.0.0.1:0")
}

/// A connection from an address of the client's own.
async fn connect_from(client: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((client, 0).into()).unwrap();
    soon("a connection", socket.connect(to)).await.unwrap()
}

/// A connection on which `header` was sent.
async fn connect_with(header: &[u8], to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(header).await.unwrap();
    stream
}

#[tokio::test]
async fn a_real_haproxy_in_front_tells_the_client_on_every_kind_of_listener() {
    let setup = behind_proxy("  proxyProtocol: {}\n");
    let port = |name: &str| SocketAddr::from(([127, 0, 0, 1], setup.port(name)));
    let ports = ["http", "https", "tcp", "tls"].map(port);
    let sends = ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"];
    let mut fronts = Vec::new();
    let mut config = String::new();
    for send in sends {
        for to in ports {
            let at = free_address();
            config += &format!(
                "listen f{}\n    mode tcp\n    bind {at}\n    server gateway {to} {send}\n",
                fronts.len()
            );
            fronts.push(at);
        }
    }
    let Some(_haproxy) = Haproxy::start(&config, "", &fronts).await else { return };
    let origin = Origin::replying("shop").await;
    let leaf = ca().leaf(&["pass.example.test"]);
    let (plain, secure) = (Greeter::plain("tcp").await, Greeter::secure("tls", &leaf).await);
    let routes = serve_all("shop", "shop.test", &[origin.address])
        + &forward_route("TCPRoute", "tcp", "tcp", &[], &[(plain.address, 1)])
        + &forward_route("TLSRoute", "tls", "tls", &["pass.example.test"], &[(secure.address, 1)]);
    let gateway = setup.file("routes/all.yaml", &routes).start().await;

    for (send, fronts) in sends.iter().zip(fronts.chunks(4)) {
        let client = IpAddr::from(own_loopback());
        let ask = "GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
        let mut http = Wire::tcp(connect_from(client, fronts[0]).await);
        http.send(ask).await;
        assert_eq!(http.reply().await.text(), "shop", "{send}");
        assert_eq!(origin.last().header("x-forwarded-for"), Some(client.to_string()), "{send}");

        let stream = connect_from(client, fronts[1]).await;
        let tls = Tls::of("shop.test").alpn(&["http/1.1"]);
        let mut https = Wire::over(soon("a handshake", tls.handshake(stream)).await.unwrap());
        https.send(ask).await;
        assert_eq!(https.reply().await.text(), "shop", "{send}");
        assert_eq!(origin.last().header("x-forwarded-for"), Some(client.to_string()), "{send}");
        let record = gateway
            .logged("the request", |record| {
                record["client"] == client.to_string() && record["tls"].is_string()
            })
            .await;
        assert_eq!(record["status"], 200, "{send}");

        let mut tcp = Wire::tcp(connect_from(client, fronts[2]).await);
        let hello = soon("a greeting", tcp.through(b"\n")).await.unwrap();
        assert_eq!(hello, b"hello from tcp\n", "{send}");
        drop(tcp);

        let stream = connect_from(client, fronts[3]).await;
        let tls = Tls::of("pass.example.test");
        let mut passed = Wire::over(soon("a handshake", tls.handshake(stream)).await.unwrap());
        let hello = soon("a greeting", passed.through(b"\n")).await.unwrap();
        assert_eq!(hello, b"hello from tls to pass.example.test\n", "{send}");
        drop(passed);
        for protocol in ["TCP", "TLS"] {
            let is_it = |record: &serde_json::Value| {
                record["protocol"] == protocol && record["client"] == client.to_string()
            };
            gateway.logged(protocol, is_it).await;
        }
    }
}

/// What a peer sends in place of a header gets no answer, and is counted; the gateway goes on.
#[tokio::test]
async fn lies_garbage_and_half_headers_are_closed_without_a_byte() {
    let metrics = free_address();
    let origin = Origin::replying("shop").await;
    let gateway = behind_proxy("  proxyProtocol: {}\n")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[origin.address]))
        .metrics_at(metrics)
        .flag("--tls-handshake-timeout 3s")
        .start()
        .await;
    let ask = "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    let long = format!("PROXY TCP4 {}\r\n{ask}", "1".repeat(10_000));
    let huge = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"[..], &[0; 65_535]].concat();
    let lies: [&[u8]; 12] = [
        ask.as_bytes(),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\nGET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.999 1 2\r\nGET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\n\r\n",
        b"PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\n\r\n",
        b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\nGET / HTTP/1.1\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04\0\0\0\0",
        long.as_bytes(),
        &huge,
    ];
    for socket in ["http", "https", "tcp"] {
        for lie in lies {
            let mut wire = Wire::connect(gateway.address(socket)).await;
            let _ = wire.push(lie).await;
            let answer = soon("the end", wire.rest()).await;
            assert!(answer.is_empty(), "{socket}: {:?}", String::from_utf8_lossy(lie));
        }
    }
    let mut half = connect_with(b"PROXY TCP4 192.0.2.1", gateway.http()).await;
    half.shutdown().await.unwrap();
    assert!(soon("the end", Wire::tcp(half).rest()).await.is_empty());
    // A peer that sends no more has the time of a handshake.
    let silent = connect_with(b"PROXY TCP4 192.0.2.1", gateway.http()).await;
    assert!(soon("the end", Wire::tcp(silent).rest()).await.is_empty());
    assert!(origin.requests().is_empty());
    let text = scrape(metrics).await;
    let errors = |port: &str| {
        value(
            &text,
            &format!(
                "envoy_listener_downstream_cx_proxy_proto_error{{\
                 envoy_listener_address=\"0.0.0.0_{port}\"}}"
            ),
        )
    };
    assert_eq!((errors("8080"), errors("8443"), errors("9300")), (14.0, 12.0, 12.0), "{text}");

    // Byte by byte, with extensions, and for nobody.
    let mut extended = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x03\xf4".to_vec();
    extended.extend([203, 0, 113, 9, 192, 0, 2, 2, 1, 2, 0, 80]);
    extended.resize(16 + 0x3f4, 4);
    let headers: [(&[u8], &str); 4] = [
        (b"PROXY TCP4 203.0.113.7 192.0.2.2 1 2\r\n", "203.0.113.7"),
        (&extended, "203.0.113.9"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ];
    for (header, client) in headers {
        let mut stream = TcpStream::connect(gateway.http()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in header.iter().chain(ask.as_bytes()) {
            stream.write_all(&[*byte]).await.unwrap();
        }
        let reply = Wire::tcp(stream).reply().await;
        assert_eq!(reply.text(), "shop", "{client}");
        assert_eq!(origin.last().header("x-forwarded-for").as_deref(), Some(client));
    }
}

/// The limit of connections holds for the client, not for the balancer in front.
#[tokio::test]
async fn connections_are_counted_for_the_client_of_the_header() {
    let gateway = behind_proxy("  enableProxyProtocol: true\n")
        .flag("--max-connections-per-peer 2")
        .start()
        .await;
    let part = "GET / HTTP/1.1\r\nHost: sh";
    let mut held = Vec::new();
    for client in 1..=4 {
        for _ in 0..2 {
            let header = format!("PROXY TCP4 203.0.113.{client} 192.0.2.2 1 2\r\n{part}");
            held.push(Wire::tcp(connect_with(header.as_bytes(), gateway.http()).await));
        }
    }
    for mut wire in held {
        wire.send("op.test\r\nConnection: close\r\n\r\n").await;
        assert_eq!(wire.reply().await.status(), 404);
    }
}

/// Behind `optional` a connection without a header is what it always was.
#[tokio::test]
async fn an_optional_header_may_be_absent() {
    let origin = Origin::replying("shop").await;
    let gateway = behind_proxy("  proxyProtocol: {optional: true}\n")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[origin.address]))
        .start()
        .await;
    for scheme in ["http", "https"] {
        assert_eq!(gateway.get(&format!("{scheme}://shop.test/")).await.text(), "shop");
        assert_eq!(origin.last().header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    }
    let header = b"PROXY TCP4 203.0.113.7 192.0.2.2 1 2\r\n";
    let mut wire = Wire::tcp(connect_with(header, gateway.http()).await);
    wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!(wire.reply().await.text(), "shop");
    assert_eq!(origin.last().header("x-forwarded-for").as_deref(), Some("203.0.113.7"));
}
