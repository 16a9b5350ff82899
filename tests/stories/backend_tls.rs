//! TLS to backends: who is believed, what is shown, and that nothing goes there in clear.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Request;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::support::{
    Ca, Gateway, Leaf, Origin, Reply, Setup, Wire, backend, ca, h2c_backend, http_route, rule_to,
    soon, until,
};

/// What a backend was sent on a connection with a session.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    server_name: Option<String>,
    alpn: Option<String>,
    /// Serial numbers are not told apart: certificates that the client showed.
    certificates: Vec<Vec<u8>>,
    resumed: bool,
}

/// A backend that ends TLS in front of an origin. It answers with what it knows of the session.
struct TlsOrigin {
    address: SocketAddr,
    told: Arc<std::sync::Mutex<Vec<Told>>>,
    open: Arc<AtomicUsize>,
    _server: JoinSet<()>,
}

impl TlsOrigin {
    async fn new(leaf: &Leaf) -> Self {
        Self::with(leaf, None, &["http/1.1"]).await
    }

    /// Asks clients for a certificate of `clients`; takes `alpn`.
    async fn with(leaf: &Leaf, clients: Option<RootCertStore>, alpn: &[&str]) -> Self {
        let config = ServerConfig::builder();
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
                config.with_client_cert_verifier(verifier)
            }
        };
        let chain = CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
        let mut config = config.with_single_cert(vec![chain], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut server = JoinSet::new();
        let notes = Arc::clone(&told);
        let open = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&open);
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, notes) = (acceptor.clone(), Arc::clone(&notes));
                let open = Open::new(&count);
                connections.spawn(async move {
                    let _open = open;
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let (_, session) = stream.get_ref();
                    let alpn = session.alpn_protocol();
                    notes.lock().unwrap().push(Told {
                        server_name: session.server_name().map(Into::into),
                        alpn: alpn.map(|name| String::from_utf8(name.to_vec()).unwrap()),
                        certificates: session
                            .peer_certificates()
                            .map(|all| all.iter().map(|one| one.to_vec()).collect())
                            .unwrap_or_default(),
                        resumed: session.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
                    });
                    if alpn == Some(b"h2") {
                        return serve_http2(stream).await;
                    }
                    let mut wire = Wire::over(stream);
                    while let Some(seen) = wire.request().await {
                        if seen.header("upgrade").is_some() {
                            wire.send(
                                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                                 Upgrade: websocket\r\n\r\n",
                            )
                            .await;
                            let said = wire.exactly(5).await;
                            wire.send(said).await;
                            while wire.more().await {}
                            return;
                        }
                        let text = format!("{} bytes", seen.body.len());
                        let head =
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
                        wire.send(head + &text).await;
                    }
                });
            }
        });
        Self { address, told, open, _server: server }
    }

    /// Connections there are.
    fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }
}

/// A connection that is counted while it lives.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve_http2(stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>) {
    let service =
        hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
            let scheme = request.uri().scheme_str().unwrap_or_default().to_owned();
            Ok::<_, std::convert::Infallible>(http::Response::new(format!("h2 {scheme}")))
        });
    let _ = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
        .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
        .await;
}

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
    let gateway = Gateway::setup()
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
