//! Certificates of clients: who is let in, and that nothing gets around the question.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{Ca, Gateway, Leaf, Origin, ca, serve_all, soon};

/// A client with a certificate or without, which remembers its sessions.
struct Client(TlsConnector);

/// What a client saw: the status, and how the handshake went.
type Seen = std::io::Result<(u16, HandshakeKind)>;

impl Client {
    fn new(shows: Option<&Leaf>) -> Self {
        let config = ClientConfig::builder().with_root_certificates(ca().roots());
        let config = match shows {
            None => config.with_no_client_auth(),
            Some(leaf) => {
                let chain = CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![chain.unwrap()], key).unwrap()
            }
        };
        Self(TlsConnector::from(Arc::new(config)))
    }

    async fn get(&self, address: SocketAddr) -> Seen {
        let exchange = async {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("shop.test").unwrap();
            let mut stream = self.0.connect(name, stream).await?;
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
                .await?;
            stream.flush().await?;
            let mut text = Vec::new();
            stream.read_to_end(&mut text).await?;
            let text = String::from_utf8(text).unwrap();
            let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
            let status = status.ok_or_else(|| std::io::Error::other("no answer"))?;
            Ok((status, stream.get_ref().1.handshake_kind().unwrap()))
        };
        soon("an exchange", exchange).await
    }
}

fn config_map(name: &str, pem: &str) -> String {
    let indented: String = pem.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\n\
         metadata:\n  name: {name}\n  namespace: envoy-gateway-system\ndata:\n  ca.crt: |\n{indented}"
    )
}

/// The Gateway of most stories, with what it asks of clients.
fn asking(default: &str, more: &str) -> String {
    let refs = "caCertificateRefs: [{group: \"\", kind: ConfigMap, name: clients}]";
    crate::support::GATEWAY.to_owned()
        + &format!(
            "  tls:\n    frontend:\n      default:\n        validation: {{{default}{refs}}}\n{more}"
        )
}

/// The suite's GatewayFrontendClientCertificateValidation: not a status but no session.
#[tokio::test]
async fn only_who_shows_a_certificate_of_the_ca_is_let_in() {
    let shop = Origin::replying("shop").await;
    let (clients, other) = (Ca::new(), Ca::new());
    let gateway = Gateway::setup()
        .file("common/gateway.yaml", &asking("", ""))
        .file("common/clients.yaml", &config_map("clients", &clients.pem()))
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;

    let good = Client::new(Some(&clients.leaf(&["client.test"])));
    assert_eq!(good.get(gateway.https()).await.unwrap().0, 200);
    for (what, shows) in [
        ("another CA", Some(other.leaf(&["client.test"]))),
        ("expired", Some(clients.expired_leaf(&["client.test"]))),
        ("nothing", None),
    ] {
        let seen = Client::new(shows.as_ref()).get(gateway.https()).await;
        assert!(seen.is_err(), "{what}: {seen:?}");
    }
    assert_eq!(shop.requests().len(), 1);
    // Of clients in clear nothing is asked.
    assert_eq!(gateway.get("http://shop.test/").await.status(), 200);
}

/// The suite's GatewayFrontendClientCertificateValidationInsecureFallback.
#[tokio::test]
async fn a_fallback_asks_and_lets_everybody_in() {
    let shop = Origin::replying("shop").await;
    let (clients, other) = (Ca::new(), Ca::new());
    let gateway = Gateway::setup()
        .file("common/gateway.yaml", &asking("mode: AllowInsecureFallback, ", ""))
        .file("common/clients.yaml", &config_map("clients", &clients.pem()))
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    for shows in [Some(clients.leaf(&["a.test"])), Some(other.leaf(&["a.test"])), None] {
        let seen = Client::new(shows.as_ref()).get(gateway.https()).await;
        assert_eq!(seen.unwrap().0, 200, "{shows:?}");
    }
}

/// A session that began under one CA is none under another.
#[tokio::test]
async fn no_session_is_resumed_past_a_changed_ca() {
    let shop = Origin::replying("shop").await;
    let (clients, other) = (Ca::new(), Ca::new());
    let gateway = Gateway::setup()
        .file("common/gateway.yaml", &asking("", ""))
        .file("common/clients.yaml", &config_map("clients", &clients.pem()))
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let client = Client::new(Some(&clients.leaf(&["client.test"])));
    assert_eq!(client.get(gateway.https()).await.unwrap(), (200, HandshakeKind::Full));
    assert_eq!(client.get(gateway.https()).await.unwrap(), (200, HandshakeKind::Resumed));
    // The same asked for is the same session.
    gateway.reload().await;
    assert_eq!(client.get(gateway.https()).await.unwrap(), (200, HandshakeKind::Resumed));

    gateway.write("common/clients.yaml", &config_map("clients", &other.pem()));
    gateway.reload().await;
    assert!(client.get(gateway.https()).await.is_err());
    gateway.write("common/clients.yaml", &config_map("clients", &(other.pem() + &clients.pem())));
    gateway.reload().await;
    assert_eq!(client.get(gateway.https()).await.unwrap().0, 200);

    // One that began when nobody asked does not help either.
    gateway.write("common/gateway.yaml", crate::support::GATEWAY);
    gateway.reload().await;
    let bare = Client::new(None);
    for _ in 0..2 {
        assert_eq!(bare.get(gateway.https()).await.unwrap().0, 200);
    }
    gateway.write("common/gateway.yaml", &asking("", ""));
    gateway.reload().await;
    assert!(bare.get(gateway.https()).await.is_err());
}

/// The suite's GatewayFrontendInvalidDefaultClientCertificateValidation.
#[tokio::test]
async fn without_a_ca_nobody_is_let_in_and_clear_text_is_served_on() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::setup()
        .file("common/gateway.yaml", &asking("", ""))
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    assert_eq!(gateway.get("http://shop.test/").await.status(), 200);
    let nobody = Client::new(None);
    let wait = std::time::Duration::from_secs(1);
    let reached = tokio::time::timeout(wait, nobody.get(gateway.https()));
    assert!(!matches!(reached.await, Ok(Ok(_))));

    let clients = Ca::new();
    gateway.write("common/clients.yaml", &config_map("clients", &clients.pem()));
    gateway.reload().await;
    let client = Client::new(Some(&clients.leaf(&["client.test"])));
    assert_eq!(client.get(gateway.https()).await.unwrap().0, 200);
}
