//! The PROXY protocol: the client's address ahead of a connection, to backends.

use crate::support::{
    Backend, Gateway, Haproxy, Setup, Wire, backend, ca, forward_route, free_address, gateway_of,
    http_route, rule_to, soon,
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
         proxyProtocol: {{version: {version}}}\n"
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
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let client = stream.local_addr().unwrap();
        let host = format!("{name}.example.test");
        let mut wire = match socket {
            "https" => {
                let tls = crate::support::Tls::of(&host).alpn(&["http/1.1"]);
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
        let stream = tokio::net::TcpStream::connect(gateway.http()).await.unwrap();
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
        let stream = tokio::net::TcpStream::connect(gateway.http()).await.unwrap();
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
