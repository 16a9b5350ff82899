//! Connections that change their protocol: WebSocket over HTTP/1.1 and over HTTP/2.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Method, StatusCode, Version, request};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::body::Response;
use crate::proxy::guard::Upgrade;
use crate::proxy::record::{Carried, Record};
use crate::proxy::tasks;
use crate::proxy::watch::{Ending, coarse_now};
use crate::upstream::Tunnel;

/// Bytes read at once in each direction of a tunnel.
const CHUNK: usize = 16 << 10;

/// The client's side of a tunnel, where its request asks for one.
pub(super) fn wanted<B>(request: &mut http::Request<B>) -> Option<OnUpgrade> {
    let asked = request.headers().contains_key(UPGRADE) || request.method() == Method::CONNECT;
    asked.then(|| hyper::upgrade::on(request))
}

/// Makes of an extended CONNECT the HTTP/1.1 handshake it stands for (RFC 8441 section 5).
pub(super) fn to_http1(head: &mut request::Parts) {
    head.method = Method::GET;
    head.version = Version::HTTP_11;
    head.extensions.remove::<hyper::ext::Protocol>();
    let headers = &mut head.headers;
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_KEY, new_key());
}

/// RFC 6455 section 4.1: 16 random bytes in base64. They guard against nothing but caches.
fn new_key() -> HeaderValue {
    use base64::Engine;
    let random = fastrand::u128(..).to_be_bytes();
    let key = base64::engine::general_purpose::STANDARD.encode(random);
    HeaderValue::from_str(&key).unwrap_or(HeaderValue::from_static(""))
}

/// The backend's 101 as the client's protocol says it.
pub(super) fn answer(kind: Upgrade, response: &mut Response) {
    match kind {
        Upgrade::Http1 => {
            let token = response.headers().get(UPGRADE).cloned();
            super::guard::remove_hop_by_hop(response.headers_mut());
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, token.unwrap_or(HeaderValue::from_static("websocket")));
        }
        Upgrade::Http2 => {
            super::guard::remove_hop_by_hop(response.headers_mut());
            response.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
            *response.status_mut() = StatusCode::OK;
        }
    }
}

/// An exchange that has become a tunnel, but for the answer that says so to the client.
#[derive(Debug)]
pub(super) struct Switched {
    pub kind: Upgrade,
    pub downstream: OnUpgrade,
    pub upstream: Tunnel,
}

/// Carries bytes both ways until both ends have ended, or nothing moved for the tunnel timeout; then
/// the record writes its line.
///
/// The exchange stays open meanwhile, so that a drain waits for it up to its limit.
pub(super) fn run(mut record: Box<Record>, switched: Switched) {
    let carried = Arc::<Carried>::default();
    record.carried = Some(Arc::clone(&carried));
    let limit = record.connection.gateway.limits.tunnel_timeout;
    tasks::spawn(async move {
        let Switched { kind, downstream, upstream } = switched;
        let Ok(downstream) = downstream.await else { return };
        let watch = record.open.watch();
        let ending = async {
            match kind {
                // The task of the connection is gone, and nobody else hears it.
                Upgrade::Http1 => watch.ending(Some(Ending::Gracefully)).await,
                // The connection ends, and its streams with it.
                Upgrade::Http2 => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = carry(TokioIo::new(downstream), upstream, limit, &carried) => ended,
            _ = ending => Err(io::ErrorKind::ConnectionAborted.into()),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, peer = %watch.peer, "tunnel ended");
        }
    });
}

async fn carry(
    client: impl AsyncRead + AsyncWrite + Unpin,
    backend: impl AsyncRead + AsyncWrite + Unpin,
    limit: Duration,
    carried: &Carried,
) -> io::Result<()> {
    let moved = AtomicU64::new(coarse_now());
    let (client_reader, client_writer) = tokio::io::split(client);
    let (backend_reader, backend_writer) = tokio::io::split(backend);
    let up = one_way(client_reader, backend_writer, &moved, &carried.up);
    let down = one_way(backend_reader, client_writer, &moved, &carried.down);
    tokio::select! {
        ended = async { tokio::try_join!(up, down) } => ended.map(|_| ()),
        () = silence(&moved, limit) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &AtomicU64,
    count: &AtomicU64,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        moved.store(coarse_now(), Ordering::Relaxed);
        to.write_all(&chunk[..length]).await?;
        to.flush().await?;
        count.fetch_add(length as u64, Ordering::Relaxed);
    }
}

/// Resolves when nothing has moved for `limit`.
async fn silence(moved: &AtomicU64, limit: Duration) {
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    loop {
        let still = coarse_now().saturating_sub(moved.load(Ordering::Relaxed));
        let Some(left) = limit_ms.checked_sub(still).filter(|left| *left > 0) else { return };
        tokio::time::sleep(Duration::from_millis(left)).await;
    }
}
