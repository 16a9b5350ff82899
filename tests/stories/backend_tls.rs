//! TLS to backends: who is believed, what is shown, and that nothing goes there in clear.

use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::{
    Ca, Gateway, Greeter, Leaf, Origin, Reply, Setup, Tls, TlsOrigin, Wire, backend, ca,
    forward_route, gateway_of, h2c_backend, http_route, rule_to, soon, until,
};

fn config_map(name: &str, pem: &str) -> String {
    let indented: String = pem.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\n\
         metadata:\n  name: {name}\n  namespace: envoy-gateway-system\ndata:\n  ca.crt: |\n{indented}"
    )
}

/// A policy for the Backend of the same name; `validation` is YAML, written at the left edge.
fn policy(name: &str, validation: &str) -> String {
    let indented: String = validation.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
         metadata:\n  name: {name}\n  namespace: envoy-gateway-system\n\
         spec:\n  targetRefs:\n    - {{group: gateway.envoyproxy.io, kind: Backend, name: {name}}}\n  \
         validation:\n{indented}"
    )
}

fn by(ca: &str, hostname: &str) -> String {
    format!(
        "caCertificateRefs: [{{group: \"\", kind: ConfigMap, name: {ca}}}]\nhostname: {hostname}\n"
    )
}

/// Backend, route and policy `web`, for every host.
fn web(address: SocketAddr, validation: &str) -> String {
    backend("web", &[address])
        + &http_route("web", &[], &rule_to("/", "web"))
        + &policy("web", validation)
}

fn trusting(setup: Setup, routes: &str) -> Setup {
    setup.file("common/ca.yaml", &config_map("ca", &ca().pem())).file("routes/web.yaml", routes)
}

async fn get(gateway: &Gateway) -> Reply {
    gateway.get("http://shop.test/").await
}

/// The suite's BackendTLSPolicy: SNI, HTTP over both listeners, connections that are used again.
#[tokio::test]
async fn a_policy_encrypts_what_goes_to_its_target() {
    let origin = TlsOrigin::new(&ca().leaf(&["abc.example.test"])).await;
    let routes = web(origin.address, &by("ca", "abc.example.test"));
    let gateway = trusting(Gateway::setup(), &routes).start().await;

    for url in ["http://shop.test/", "https://shop.test/", "http://shop.test/"] {
        let reply = gateway.get(url).await;
        assert_eq!((reply.status(), &*reply.text()), (200, "0 bytes"), "{url}");
    }
    let mut wire = gateway.wire().await;
    let body = "x".repeat(1 << 20);
    wire.send(format!(
        "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    let reply = wire.reply().await;
    assert_eq!((reply.status(), reply.text()), (200, format!("{} bytes", body.len())));

    let told = origin.told();
    assert!(told.iter().all(|told| told.server_name.as_deref() == Some("abc.example.test")));
    assert!(told.iter().all(|told| told.alpn.as_deref() == Some("http/1.1")));
    assert!(told.iter().all(|told| told.certificates.is_empty()));
}

#[tokio::test]
async fn a_connection_is_kept_though_the_backend_sends_tickets() {
    let origin = TlsOrigin::new(&ca().leaf(&["web.test"])).await;
    let routes = web(origin.address, &by("ca", "web.test"));
    let gateway = trusting(Gateway::setup().flag("--workers 1"), &routes).start().await;

    for _ in 0..3 {
        assert_eq!(get(&gateway).await.status(), 200);
    }
    let mut wire = gateway.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1\r\n\r\nx").await;
    assert_eq!(wire.reply().await.text(), "1 bytes");
    assert_eq!(origin.told().len(), 1);

    // Equal settings live on across a reload; another connection resumes the session.
    gateway.reload().await;
    assert_eq!(get(&gateway).await.status(), 200);
    assert_eq!(origin.told().len(), 1);
    until("the connection has rested for too long", || origin.open() == 0).await;
    assert_eq!(get(&gateway).await.status(), 200);
    assert!(origin.told()[1].resumed);
}

/// What is wrong with the backend is told, and no request reaches it.
#[tokio::test]
async fn who_is_not_believed_gets_nothing() {
    let other = Ca::new();
    let good = ca().leaf(&["web.test"]);
    let plain = answers_in_clear().await;
    let bad_name = TlsOrigin::new(&ca().leaf(&["other.test"])).await;
    let bad_issuer = TlsOrigin::new(&other.leaf(&["web.test"])).await;
    let expired = TlsOrigin::new(&ca().expired_leaf(&["web.test"])).await;
    let asking = TlsOrigin::with(&good, Some(ca().roots()), &["http/1.1"]).await;
    let other_protocol = TlsOrigin::with(&good, None, &["h2"]).await;
    let gateway = trusting(Gateway::setup(), "").start().await;

    // (backend, behind TLS_error)
    let table = [
        (bad_name.address, "certificate_for_another_name"),
        (bad_issuer.address, "certificate_of_unknown_issuer"),
        (expired.address, "certificate_expired"),
        (asking.address, "refused_by_backend"),
        (other_protocol.address, "no_application_protocol"),
        (plain.0, "not_tls"),
    ];
    for (address, why) in table {
        gateway.write("routes/web.yaml", &web(address, &by("ca", "web.test")));
        gateway.reload().await;
        assert_eq!(get(&gateway).await.status(), 503, "{why}");
        let details =
            format!("upstream_reset_before_response_started{{connection_failure|TLS_error:{why}}}");
        let line = gateway.logged(why, |line| line["details"] == *details).await;
        assert_eq!(line["flags"], "UF", "{why}: {line}");
    }
}

/// A backend that takes what comes for a bad request of HTTP.
async fn answers_in_clear() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut wire = Wire::tcp(stream);
            wire.more().await;
            wire.send("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
            wire.finish().await;
        }
    });
    (address, server)
}

/// The suite's BackendTLSPolicySANValidation.
#[tokio::test]
async fn of_alternative_names_one_suffices() {
    let leaf = ca().leaf_with_uri(&["abc.example.test"], "spiffe://abc.example.test/test-identity");
    let origin = TlsOrigin::new(&leaf).await;
    let gateway = trusting(Gateway::setup(), "").start().await;
    let host = |name: &str| format!("- {{type: Hostname, hostname: {name}}}\n");
    let uri = |uri: &str| format!("- {{type: URI, uri: \"{uri}\"}}\n");
    let (good, bad) =
        ("spiffe://abc.example.test/test-identity", "spiffe://def.example.test/test-identity");
    // (hostname, names, status)
    let table = [
        ("abc.example.test", host("abc.example.test"), 200),
        ("abc.example.test", host("dce.example.test"), 503),
        ("abc.example.test", uri(good), 200),
        ("abc.example.test", uri(bad), 503),
        ("abc.example.test", uri(good) + &host("abc.example.test"), 200),
        ("abc.example.test", uri(bad) + &host("def.example.test"), 503),
        ("not-in-it.example.test", uri(bad) + &host("abc.example.test"), 200),
    ];
    for (hostname, names, status) in table {
        let validation = by("ca", hostname) + "subjectAltNames:\n" + &names;
        gateway.write("routes/web.yaml", &web(origin.address, &validation));
        gateway.reload().await;
        assert_eq!(get(&gateway).await.status(), status, "{hostname} {names}");
    }
    let asked: Vec<_> = origin.told().into_iter().filter_map(|told| told.server_name).collect();
    assert!(asked.contains(&"not-in-it.example.test".to_owned()), "{asked:?}");
}

/// The suite's BackendTLSPolicy, reconciled: the ConfigMap is not there, there, blank, there again.
#[tokio::test]
async fn a_ca_that_comes_and_goes_is_followed_and_never_replaced_by_clear_text() {
    let origin = TlsOrigin::new(&ca().leaf(&["web.test"])).await;
    // What is served while a CA is missing is to be seen.
    let gateway = Gateway::setup()
        .flag("--reload-policy partial")
        .file("routes/web.yaml", &web(origin.address, &by("ca", "web.test")))
        .start()
        .await;
    let other = Ca::new();
    // (ConfigMap, status)
    let table = [
        (None, 500),
        (Some(config_map("ca", &ca().pem())), 200),
        (Some(config_map("ca", "")), 500),
        (Some(config_map("ca", &ca().pem())), 200),
        (Some(config_map("ca", &other.pem())), 503),
        (
            Some(config_map("ca", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")),
            500,
        ),
        (Some(config_map("ca", &(other.pem() + &ca().pem()))), 200),
        (None, 500),
    ];
    for (step, (text, status)) in table.into_iter().enumerate() {
        match text {
            Some(text) => gateway.write("common/ca.yaml", &text),
            None if step > 0 => gateway.remove("common/ca.yaml"),
            None => {}
        }
        gateway.reload().await;
        assert_eq!(get(&gateway).await.status(), status, "step {step}");
    }
}

#[tokio::test]
async fn http2_and_websockets_are_spoken_over_tls() {
    let leaf = ca().leaf(&["web.test"]);
    let origin = TlsOrigin::with(&leaf, None, &["h2", "http/1.1"]).await;
    let routes = h2c_backend("web", &[origin.address])
        + "    - gateway.envoyproxy.io/wss\n"
        + &http_route("web", &[], &rule_to("/", "web"))
        + &policy("web", &by("ca", "web.test"));
    let gateway = trusting(Gateway::setup(), &routes).start().await;

    for _ in 0..2 {
        let reply = get(&gateway).await;
        assert_eq!((reply.status(), &*reply.text()), (200, "h2 https"));
    }
    let fetched = gateway.http2("shop.test").await.get("https://shop.test/").await;
    assert_eq!(fetched.text(), "h2 https");

    let mut wire = gateway.wire().await;
    wire.send(
        "GET /ws HTTP/1.1\r\nHost: shop.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    )
    .await;
    let head = soon("101", wire.head()).await.unwrap();
    assert!(head.line().contains("101"), "{head:?}");
    wire.send("hello").await;
    assert_eq!(wire.exactly(5).await, b"hello");

    let alpn: Vec<_> = origin.told().into_iter().filter_map(|told| told.alpn).collect();
    assert!(alpn.contains(&"h2".to_owned()) && alpn.contains(&"http/1.1".to_owned()), "{alpn:?}");
}

/// The suite's GatewayTLSBackendClientCertificate; and that nobody shows what another Gateway does.
#[tokio::test]
async fn a_gateway_shows_its_client_certificate() {
    let origin =
        TlsOrigin::with(&ca().leaf(&["web.test"]), Some(ca().roots()), &["http/1.1"]).await;
    let client = ca().leaf(&["client.test"]);
    let setup = trusting(Gateway::setup(), &web(origin.address, &by("ca", "web.test")));
    let shown = crate::support::GATEWAY.to_owned()
        + "  tls:\n    backend:\n      clientCertificateRef: {name: client}\n";
    let setup = setup
        .file("common/gateway.yaml", &shown)
        .file("common/client.yaml", &crate::tls::secret("client", &client));
    let gateway = setup.start().await;

    assert_eq!(get(&gateway).await.status(), 200);
    let der = CertificateDer::from_pem_slice(client.certificate_pem.as_bytes()).unwrap();
    let told = origin.told();
    assert_eq!(told[0].certificates[0], der.as_ref());

    // Without it the backend refuses, and the connections that were made with it are not used.
    gateway.write("common/gateway.yaml", crate::support::GATEWAY);
    gateway.reload().await;
    assert_eq!(get(&gateway).await.status(), 503);

    // The reference is broken: nothing is shown, and the Gateway is served.
    gateway.write("common/gateway.yaml", &shown);
    gateway.remove("common/client.yaml");
    gateway.reload().await;
    assert_eq!(get(&gateway).await.status(), 503);

    let renewed = ca().leaf(&["client.test"]);
    gateway.write("common/client.yaml", &crate::tls::secret("client", &renewed));
    gateway.reload().await;
    assert_eq!(get(&gateway).await.status(), 200);
    let der = CertificateDer::from_pem_slice(renewed.certificate_pem.as_bytes()).unwrap();
    assert_eq!(origin.told().last().unwrap().certificates[0], der.as_ref());
}

#[tokio::test]
async fn the_authorities_of_the_host_are_those_that_it_trusts() {
    let origin = TlsOrigin::new(&ca().leaf(&["web.test"])).await;
    let validation = "wellKnownCACertificates: System\nhostname: web.test\n";
    // (the host's CA certificates, status)
    for (pem, status) in [(ca().pem(), 200), (Ca::new().pem(), 503), (String::new(), 500)] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cas.pem");
        std::fs::write(&file, pem).unwrap();
        let gateway = Gateway::setup()
            .env("SSL_CERT_FILE", file.to_str().unwrap())
            .file("routes/web.yaml", &web(origin.address, validation))
            .start()
            .await;
        assert_eq!(get(&gateway).await.status(), status);
    }
}

#[tokio::test]
async fn a_mirror_is_encrypted_too() {
    let copy = TlsOrigin::new(&ca().leaf(&["web.test"])).await;
    let shop = Origin::replying("shop").await;
    let rule = rule_to("/", "shop")
        + "  filters:\n    - type: RequestMirror\n      requestMirror: {backendRef: {group: \
           gateway.envoyproxy.io, kind: Backend, name: web}}\n";
    let routes = backend("web", &[copy.address])
        + &backend("shop", &[shop.address])
        + &http_route("web", &[], &rule)
        + &policy("web", &by("ca", "web.test"));
    let gateway = trusting(Gateway::setup(), &routes).start().await;

    assert_eq!(get(&gateway).await.text(), "shop");
    until("the copy arrives", || !copy.told().is_empty()).await;
}

#[tokio::test]
async fn nothing_of_a_key_is_told() {
    let client = ca().leaf(&["client.test"]);
    let shown = crate::support::GATEWAY.to_owned()
        + "  tls:\n    backend:\n      clientCertificateRef: {name: client}\n";
    let broken = Leaf { key_pem: ca().leaf(&["other.test"]).key_pem, ..client };
    let origin = TlsOrigin::new(&ca().leaf(&["web.test"])).await;
    let setup = trusting(Gateway::setup(), &web(origin.address, &by("ca", "web.test")))
        .file("common/gateway.yaml", &shown)
        .file("common/client.yaml", &crate::tls::secret("client", &broken))
        .env("RUST_LOG", "trace");
    let gateway = setup.start().await;
    assert_eq!(get(&gateway).await.status(), 200);
    gateway.terminate();
    gateway.exit().await;

    let said = gateway.process().stderr() + &gateway.process().stdout().join("\n");
    assert!(said.contains("does not fit"), "{said}");
    for line in broken.key_pem.lines().filter(|line| line.len() > 40) {
        assert!(!said.contains(line));
    }
}

/// A TLSRoute whose handshake ends here, and begins anew to the backend.
#[tokio::test]
async fn what_a_tls_listener_ends_is_encrypted_again() {
    let (leaf, other) = (ca().leaf(&["inner.test"]), Ca::new().leaf(&["inner.test"]));
    let good = Greeter::secure("good", &leaf).await;
    let strange = Greeter::secure("strange", &other).await;
    let listener = "- {name: tls, protocol: TLS, port: 8883, \
                    tls: {mode: Terminate, certificateRefs: [{name: eih-tls-cert}]}}\n";
    let routes = |name: &str, host: &str, greeter: &Greeter| {
        forward_route("TLSRoute", name, "tls", &[host], &[(greeter.address, 1)])
            + &policy(&format!("{name}-0"), &by("ca", "inner.test"))
    };
    let all = routes("good", "shop.test", &good) + &routes("strange", "blog.test", &strange);
    let gateway = trusting(Gateway::setup().socket("tls", "127.0.0.1:0"), &all)
        .file("common/gateway.yaml", &gateway_of(listener))
        .start()
        .await;
    let connect =
        async |name: &str| Wire::over(Tls::of(name).connect(gateway.address("tls")).await.unwrap());

    let mut client = connect("shop.test").await;
    let greeting = soon("the greeting", client.through(b"\n")).await.unwrap();
    assert_eq!(greeting, b"hello from good to inner.test\n");
    let many = vec![b'x'; 64 << 10];
    client.send(&many).await;
    assert!(client.exactly(many.len()).await == many, "each byte comes back");
    client.finish().await;
    assert_eq!(client.rest().await, b"bye\n");
    let record = gateway.logged("the connection", |record| record["host"] == "shop.test").await;
    assert_eq!((&record["tls"], &record["flags"]), (&"TLSv1.3".into(), &"-".into()), "{record}");
    assert_eq!(record["upstream"], good.address.to_string(), "{record}");

    // Who cannot be believed is sent nothing, and the client hears no greeting.
    let mut client = connect("blog.test").await;
    client.push(b"a secret").await.unwrap();
    assert_eq!(client.rest().await, b"");
    let record = gateway.logged("the refusal", |record| record["host"] == "blog.test").await;
    let why = record["details"].as_str().unwrap();
    assert_eq!(record["flags"], "UF", "{record}");
    assert!(why.contains("TLS_error:certificate_of_unknown_issuer"), "{record}");
    assert_eq!(record["request_bytes"], 0, "{record}");
}
