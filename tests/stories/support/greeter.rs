//! A backend that is no HTTP: it speaks first, then says what it hears.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Leaf;

/// Greets every connection with `hello from NAME\n` (over TLS, `hello from NAME to SNI\n`), echoes
/// what comes until the client has finished, and ends with `bye\n`.
#[derive(Debug)]
pub(crate) struct Greeter {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Greeter {
    pub(crate) async fn plain(name: &'static str) -> Self {
        Self::start(name, None).await
    }

    /// One that ends TLS itself, with this certificate.
    pub(crate) async fn secure(name: &'static str, leaf: &Leaf) -> Self {
        Self::start(name, Some(TlsAcceptor::from(leaf.server()))).await
    }

    async fn start(name: &'static str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let tls = tls.clone();
                connections.spawn(async move {
                    let Some(tls) = tls else {
                        return greet(stream, format!("hello from {name}\n")).await;
                    };
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let sni = stream.get_ref().1.server_name().unwrap_or("nobody").to_owned();
                    greet(stream, format!("hello from {name} to {sni}\n")).await;
                });
            }
        });
        Self { address, accepted, _tasks: tasks }
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

async fn greet(mut stream: impl AsyncRead + AsyncWrite + Unpin, greeting: String) {
    if stream.write_all(greeting.as_bytes()).await.is_err() {
        return;
    }
    let mut chunk = vec![0; 4096];
    loop {
        let Ok(length) = stream.read(&mut chunk).await else { return };
        let said = if length == 0 { &b"bye\n"[..] } else { &chunk[..length] };
        if stream.write_all(said).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        if length == 0 {
            let _ = stream.shutdown().await;
            return;
        }
    }
}
