//! The API on a loopback address: TLS or plain HTTP/1.1, with a token on every request.
//!
//! kubectl sends a token only over TLS, so the server supports TLS, with a certificate that is made
//! at each start. A connection that begins like a TLS handshake is treated as TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use rustls::ServerConfig;
use rustls_pemfile::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::local_http::{self, Limits};

use super::front::{AnyBody, Front};
use super::refused::ApiError;
use super::token::{BearerToken, NoToken, publish};

/// The maximum number of concurrent connections. Others wait in the backlog.
const CONNECTIONS: usize = 256;
/// The timeout for a TLS handshake, and for the first byte, which shows whether there is one.
const HANDSHAKE: Duration = Duration::from_secs(5);
const LIMITS: Limits = Limits {
    head_bytes: 64 << 10,
    head_fields: 64,
    head_time: Duration::from_secs(60),
    // No limit: a watch stays open.
    connection_time: None,
};

/// The address to listen on, and the files of the token and the certificate.
#[derive(Clone, Debug)]
pub(crate) struct Listen {
    pub address: SocketAddr,
    pub token_file: PathBuf,
    /// The file that the certificate is written to, for clients that have to trust it.
    pub ca_file: PathBuf,
}

/// The reason why the API is not served over TCP.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiCannotListen {
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

/// The state that a connection needs.
#[derive(Clone)]
struct ApiDoor {
    front: Front,
    token: BearerToken,
    tls: TlsAcceptor,
}

/// Starts to listen. Needs to be called within a runtime.
pub(super) fn listen(
    listen: &Listen,
    front: Front,
    tasks: &mut JoinSet<()>,
) -> Result<SocketAddr, ApiCannotListen> {
    let Listen { address, token_file, ca_file } = listen;
    if !address.ip().is_loopback() {
        return Err(ApiCannotListen::NotLoopback(*address));
    }
    let token = BearerToken::in_file(token_file)?;
    let listener = bind(*address).map_err(|source| ApiCannotListen::Address(*address, source))?;
    let tls = certificate(*address, ca_file)?;
    let bound =
        listener.local_addr().map_err(|source| ApiCannotListen::Address(*address, source))?;
    let door = ApiDoor { front, token, tls };
    tasks.spawn(async move {
        let answers = |stream| connection(stream, door.clone());
        local_http::accept(listener, CONNECTIONS, "API", answers).await;
    });
    Ok(bound)
}

/// Binds the socket with `SO_REUSEPORT`: during a takeover the new process listens beside the old
/// one for a moment.
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

fn certificate(address: SocketAddr, ca_file: &Path) -> Result<TlsAcceptor, ApiCannotListen> {
    let failed = |error: &dyn std::fmt::Display| ApiCannotListen::Certificate(error.to_string());
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
        .map_err(|source| ApiCannotListen::File { path: ca_file.to_owned(), source })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn connection(stream: TcpStream, door: ApiDoor) {
    let mut first = [0];
    let peeked = tokio::time::timeout(HANDSHAKE, stream.peek(&mut first)).await;
    match (peeked, first) {
        // A TLS record of type handshake.
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

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, door: ApiDoor) {
    local_http::serve(stream, LIMITS, move |request| {
        let door = door.clone();
        async move { door.answer(request).await }
    })
    .await;
}

impl ApiDoor {
    async fn answer(&self, request: Request<Incoming>) -> Response<AnyBody> {
        if !local_http::is_own_name(request.headers()) {
            // Another name that resolves to this host was used by a web page in a browser.
            let why = "Host must be a name of this host's loopback: localhost, 127.0.0.1 or [::1]";
            return self.front.refused(ApiError::forbidden(why));
        }
        let shown = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let shown = shown.and_then(|value| {
            let (scheme, token) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
        });
        if !shown.is_some_and(|shown| self.token.is(shown.trim_ascii())) {
            return self.front.refused(ApiError::unauthorized());
        }
        self.front.serve(request, true).await
    }
}
