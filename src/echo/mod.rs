//! The echo backend, which responds with the request it received.
//!
//! One port serves every protocol that a gateway uses towards its backends: HTTP/1.1, HTTP/2 with
//! prior knowledge (h2c), WebSocket and gRPC. The response to a request is the request as JSON,
//! which shows what a gateway in front made of it; the query selects other responses ([`Wanted`]).
//! The echo is a tool for experiments, so it trusts no client: connections, sizes and times all
//! have a limit.

mod grpc;
mod mirror;
mod preface;
mod responses;
mod sized;
mod tasks;
mod wanted;
mod websocket;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::preface::Spoken;
use self::tasks::{Spawner, Tasks};
use self::wanted::Wanted;
use crate::body::Response;

/// Limit on concurrent connections, tunnels included; the next one waits in the socket's backlog.
const MAX_CONNECTIONS: usize = 4096;
/// Timeout from the start of a connection until its first bytes identify the protocol.
const FIRST_BYTES: Duration = Duration::from_secs(10);
/// Timeout from one request to the end of the next one's head.
const HEAD: Duration = Duration::from_secs(75);
/// The pause before the next `accept` when no descriptors are free.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves connections of `listener` until it is dropped; the connections end with it.
///
/// # Errors
///
/// The listener is broken. A failure to accept one connection is skipped, and a lack of descriptors
/// is waited out.
pub(crate) async fn serve(listener: TcpListener) -> io::Result<()> {
    let tasks = Tasks::default();
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = Arc::clone(&free).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if passes(&error) => {
                // Descriptors are freed when a connection ends, without a notification.
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let spawner = tasks.spawner();
        let connection = Arc::new(Connection { peer, spawner: spawner.clone(), _permit: permit });
        spawner.spawn(connection.run(stream));
    }
}

/// True for an error of one connection, or of a limit that eases with time.
fn passes(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::PermissionDenied
    ) || matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM))
}

/// A client connection, and its permit of the [`MAX_CONNECTIONS`].
#[derive(Debug)]
struct Connection {
    peer: SocketAddr,
    spawner: Spawner,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Serves the connection to its end; its result is ignored.
    async fn run(self: Arc<Self>, stream: TcpStream) {
        // A response of the echo is small, and a client waits for it.
        let _ = stream.set_nodelay(true);
        let sniffed = tokio::time::timeout(FIRST_BYTES, preface::sniff(stream)).await;
        let Ok(Ok((spoken, stream))) = sniffed else { return };

        let spawner = self.spawner.clone();
        let service = service_fn(move |request| {
            let connection = Arc::clone(&self);
            async move { Ok::<_, Infallible>(connection.answer(request).await) }
        });
        let _ = match spoken {
            Spoken::Http1 => {
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD)
                    .max_buf_size(64 << 10)
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await
            }
            Spoken::Http2 => {
                http2::Builder::new(spawner)
                    .timer(TokioTimer::new())
                    .keep_alive_interval(HEAD)
                    .max_concurrent_streams(250)
                    .max_header_list_size(64 << 10)
                    .enable_connect_protocol()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
            }
        };
    }

    async fn answer(self: Arc<Self>, request: http::Request<Incoming>) -> Response {
        if websocket::is_asked_for(&request) {
            let spawner = self.spawner.clone();
            return websocket::accept(request, &spawner, self);
        }
        let wanted = match Wanted::parse(request.uri().query().unwrap_or_default()) {
            Ok(wanted) => wanted,
            Err(wrong) => return mirror::refusal(&wrong),
        };
        if grpc::is_asked_for(&request) {
            // `?delay=` waits as requested; its limit is enforced where it is parsed.
            tokio::time::sleep(wanted.delay).await;
            return grpc::answer(request);
        }
        mirror::answer(request, self.peer, &wanted).await
    }
}

#[cfg(test)]
mod tests;
