//! Connections that change their protocol: WebSocket over HTTP/1.1 and over HTTP/2.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Method, StatusCode, Version, request};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::body::Response;
use crate::proxy::guard::Upgrade;
use crate::proxy::record::Record;
use crate::proxy::tasks;
use crate::proxy::tunnel::{CHUNK, Carried, pass, silence};
use crate::proxy::watch::{Ending, coarse_now};
use crate::proxy::websocket::{Frames, GOING_AWAY};
use crate::upstream::Tunnel;

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

/// True if the answer begins a WebSocket over HTTP/1.1, rather than another protocol that was let
/// through.
pub(super) fn is_websocket(answer: &Response) -> bool {
    let token = answer.headers().get(UPGRADE);
    token.is_some_and(|token| token.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// An exchange that has become a tunnel, but for the answer that says so to the client.
#[derive(Debug)]
pub(super) struct Switched {
    pub kind: Upgrade,
    /// What is carried are frames of WebSocket over HTTP/1.1.
    pub websocket: bool,
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
        let Switched { kind, websocket, downstream, upstream } = switched;
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
        let tunnel = Tunnelled::between(TokioIo::new(downstream), upstream);
        let ended = tunnel.carry(ending, limit, &carried, websocket).await;
        if let Err(error) = ended {
            tracing::debug!(%error, peer = %watch.peer, "tunnel ended");
        }
    });
}

/// The two ends of a tunnel, each to be read and to be written.
struct Tunnelled<C, B> {
    client: (ReadHalf<C>, WriteHalf<C>),
    backend: (ReadHalf<B>, WriteHalf<B>),
}

impl<C, B> Tunnelled<C, B>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    fn between(client: C, backend: B) -> Self {
        Self { client: tokio::io::split(client), backend: tokio::io::split(backend) }
    }

    /// Carries bytes until both ends have ended, nothing moved for `limit`, or `ending` resolves. In
    /// the last case the client of a `websocket` is told that it is going away, if its last frame is
    /// whole: in the middle of one it could not tell that from the payload.
    async fn carry(
        mut self,
        ending: impl Future<Output = Ending>,
        limit: Duration,
        carried: &Carried,
        websocket: bool,
    ) -> io::Result<()> {
        let moved = AtomicU64::new(coarse_now());
        let (mut frames_up, mut frames_down) = (Follow::default(), Follow::default());
        let up =
            one_way(&mut self.client.0, &mut self.backend.1, &moved, &carried.up, &mut frames_up);
        let down = one_way(
            &mut self.backend.0,
            &mut self.client.1,
            &moved,
            &carried.down,
            &mut frames_down,
        );
        tokio::select! {
            ended = async { tokio::try_join!(up, down) } => return ended.map(|_| ()),
            () = silence(&moved, limit) => return Err(io::ErrorKind::TimedOut.into()),
            _ = ending => {}
        }
        if websocket && frames_down.is_whole() {
            self.client.1.write_all(&GOING_AWAY).await?;
            self.client.1.flush().await?;
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

/// What one direction of a tunnel has passed on.
#[derive(Debug, Default)]
struct Follow {
    frames: Frames,
    /// A write is under way, so nobody knows how much of it is there.
    writing: bool,
}

impl Follow {
    fn is_whole(&self) -> bool {
        !self.writing && self.frames.may_close()
    }
}

async fn one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    moved: &AtomicU64,
    count: &AtomicU64,
    follow: &mut Follow,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            follow.writing = true;
            return to.shutdown().await;
        }
        moved.store(coarse_now(), Ordering::Relaxed);
        follow.writing = true;
        pass(to, &chunk[..length], moved).await?;
        follow.writing = false;
        follow.frames.pass(&chunk[..length]);
        count.fetch_add(length as u64, Ordering::Relaxed);
    }
}
