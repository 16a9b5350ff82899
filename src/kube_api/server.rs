//! The API on a loopback address: TLS or plain HTTP/1.1, a token on every request.
//!
//! kubectl sends a token over TLS alone, so there is TLS, with a certificate that is made at each
//! start; what begins like a TLS handshake is taken for one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls_pemfile::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::front::{AnyBody, Front};
use super::refused::Refused;
use super::token::{NoToken, Token, publish};

/// Connections at once; others wait in the backlog.
const CONNECTIONS: usize = 256;
const HEAD_BYTES: usize = 64 << 10;
const HEAD_FIELDS: usize = 64;
/// For a TLS handshake, and for the first byte that says whether there is one.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// For the head of a request, and between two of them.
const HEAD: Duration = Duration::from_secs(60);

/// Where to listen, and where the token and the certificate are.
#[derive(Clone, Debug)]
pub(crate) struct Listen {
    pub address: SocketAddr,
    pub token_file: PathBuf,
    /// Where the certificate is put, for whoever is to trust it.
    pub ca_file: PathBuf,
}

/// Why nobody is answered over TCP.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotListen {
    #[error("{0}: {1}")]
    Address(SocketAddr, #[source] std::io::Error),
    #[error("the certificate cannot be made: {0}")]
    Certificate(String),
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0} is no loopback address; put a tunnel before it for other hosts")]
    NotLoopback(SocketAddr),
    #[error("the token: {0}")]
    Token(#[from] NoToken),
}

/// What a connection needs.
#[derive(Clone)]
struct Door {
    front: Front,
    token: Token,
    tls: TlsAcceptor,
}

/// Begins to listen. Needs a runtime around it.
pub(super) fn listen(
    listen: &Listen,
    front: Front,
    tasks: &mut JoinSet<()>,
) -> Result<SocketAddr, CannotListen> {
    let Listen { address, token_file, ca_file } = listen;
    if !address.ip().is_loopback() {
        return Err(CannotListen::NotLoopback(*address));
    }
    let token = Token::in_file(token_file)?;
    let listener = bind(*address).map_err(|source| CannotListen::Address(*address, source))?;
    let tls = certificate(*address, ca_file)?;
    let bound = listener.local_addr().map_err(|source| CannotListen::Address(*address, source))?;
    tasks.spawn(accept(listener, Door { front, token, tls }));
    Ok(bound)
}

/// A process that takes over listens beside the one before for a moment.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

fn certificate(address: SocketAddr, ca_file: &Path) -> Result<TlsAcceptor, CannotListen> {
    let failed = |error: &dyn std::fmt::Display| CannotListen::Certificate(error.to_string());
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".into(), "::1".into()];
    let own = address.ip().to_string();
    if !names.contains(&own) {
        names.push(own);
    }
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| failed(&error))?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(|error| failed(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    publish(ca_file, &made.cert.pem())
        .map_err(|source| CannotListen::File { path: ca_file.to_owned(), source })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(listener: TcpListener, door: Door) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, door.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "API: no connection is accepted");
                    // Out of descriptors, most likely: trying again at once would spin.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, door: Door) {
    let mut first = [0];
    let peeked = tokio::time::timeout(HANDSHAKE, stream.peek(&mut first)).await;
    match (peeked, first) {
        // A record of TLS that holds a handshake.
        (Ok(Ok(1)), [0x16]) => {
            let handshake = door.tls.accept(stream);
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, handshake).await {
                serve(stream, door).await;
            }
        }
        (Ok(Ok(1)), _) => serve(stream, door).await,
        _ => {}
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, door: Door) {
    let service = service_fn(|request: Request<Incoming>| {
        let door = door.clone();
        async move { Ok::<_, Infallible>(door.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    // Whatever went wrong is the peer's to notice.
    let _ = served.await;
}

impl Door {
    async fn answer(&self, request: Request<Incoming>) -> Response<AnyBody> {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        if !host.is_some_and(is_loopback) {
            // Another name that leads here is a page's in somebody's browser.
            let why = "Host must be a name of this host's loopback: localhost, 127.0.0.1 or [::1]";
            return self.front.refused(Refused::forbidden(why));
        }
        let shown = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let shown = shown.and_then(|value| {
            let (scheme, token) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
        });
        if !shown.is_some_and(|shown| self.token.is(shown.trim_ascii())) {
            return self.front.refused(Refused::unauthorized());
        }
        self.front.serve(request, true).await
    }
}

/// True for `localhost`, an address of 127.0.0.0/8 and `[::1]`, with any port.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_address = |name: &str| name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    name.eq_ignore_ascii_case("localhost") || is_address(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_of_the_loopback_or_refused() {
        let table = [
            ("localhost", true),
            ("LOCALHOST:6443", true),
            ("127.0.0.1:6443", true),
            ("127.1.2.3", true),
            ("[::1]:6443", true),
            ("example.com", false),
            ("127.0.0.1.example.com", false),
            ("localhost.example.com:6443", false),
            ("192.0.2.1", false),
            ("[::2]", false),
            ("", false),
        ];
        for (host, want) in table {
            assert_eq!(is_loopback(host), want, "{host}");
        }
    }
}
