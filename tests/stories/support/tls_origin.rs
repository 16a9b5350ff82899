//! A backend of HTTP over TLS that remembers how it was spoken to.

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

use super::{Leaf, Wire};

/// What a backend was sent on a connection with a session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    pub server_name: Option<String>,
    pub alpn: Option<String>,
    /// Serial numbers are not told apart: certificates that the client showed.
    pub certificates: Vec<Vec<u8>>,
    pub resumed: bool,
}

/// A backend that ends TLS in front of an origin. It answers with what it knows of the session.
#[derive(Debug)]
pub(crate) struct TlsOrigin {
    pub address: SocketAddr,
    told: Arc<std::sync::Mutex<Vec<Told>>>,
    open: Arc<AtomicUsize>,
    _server: JoinSet<()>,
}

impl TlsOrigin {
    pub(crate) async fn new(leaf: &Leaf) -> Self {
        Self::with(leaf, None, &["http/1.1"]).await
    }

    /// Asks clients for a certificate of `clients`; takes `alpn`.
    pub(crate) async fn with(leaf: &Leaf, clients: Option<RootCertStore>, alpn: &[&str]) -> Self {
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
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn told(&self) -> Vec<Told> {
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
