//! Streams to endpoints: opened within a limit of time, counted while they live.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::stats::{Sharded, Upstream};
use crate::tls::{Alpn, TlsFailure};
use crate::upstream::address::Address;
use crate::upstream::breaker::Permit;
use crate::upstream::cluster::Cluster;
use crate::upstream::descriptors::Share;
use crate::upstream::failure::{FailureKind, SendFailure};
use crate::upstream::keep_alive::KeepAlive;

/// An open stream to an endpoint.
pub(crate) struct Stream {
    kind: Kind,
    counts: Arc<Sharded<Upstream>>,
    /// On the account of the client whose request uses it, if it is one.
    share: Option<Share>,
    _permit: Permit,
}

enum Kind {
    Clear(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// A stream of the system's.
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// After this time without a word of its kernel a peer is gone.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// How hard to look whether a resting stream is still good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// What the event loop has seen so far. Costs no system call; a close of the last instant may be
    /// missed, so only for requests that may be sent again.
    Seen,
    /// What the kernel has now.
    Now,
}

impl Stream {
    /// Has the kernel ask a silent peer whether it is still there.
    pub(super) fn keep_alive(&self, settings: KeepAlive) {
        if let Socket::Tcp(stream) = self.socket() {
            settings.apply(stream);
        }
    }

    /// As [`keep_alive`](Self::keep_alive), and ends the stream where the peer's kernel has not
    /// acknowledged what was sent for [`UNACKNOWLEDGED`]. Not for streams whose other end may leave them
    /// unread: a full buffer that long ends them too.
    pub(super) fn notice_loss(&self, settings: KeepAlive) {
        self.keep_alive(settings);
        if let Socket::Tcp(stream) = self.socket() {
            // Without it the kernel tries for a quarter of an hour.
            let _ = SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        }
    }

    /// Ends the stream in a way that cannot be taken for an orderly end: by RST.
    pub(crate) fn cut(self) {
        if let Socket::Tcp(stream) = self.socket() {
            cut(stream);
        }
    }

    fn socket(&self) -> &Socket {
        match &self.kind {
            Kind::Clear(socket) => socket,
            Kind::Tls(stream) => stream.get_ref().0,
        }
    }

    /// True if the peer has neither closed the stream nor sent anything.
    pub(super) fn is_quiet(&mut self, look: Look) -> bool {
        match &mut self.kind {
            Kind::Clear(socket) => socket.is_quiet(look),
            Kind::Tls(stream) => is_tls_quiet(stream, look),
        }
    }

    /// Has it count for a client, until it is taken back or the stream is closed.
    pub(super) fn hold(&mut self, share: Option<Share>) {
        self.share = share;
    }

    pub(super) fn take_share(&mut self) -> Option<Share> {
        self.share.take()
    }

    /// The counters of the rule that it was opened for.
    pub(super) fn counts(&self) -> &Sharded<Upstream> {
        &self.counts
    }

    fn count_sent(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(sent)) = outcome {
            self.counts.here().sent_bytes.add(sent as u64);
        }
        outcome
    }
}

/// A peer may send a session ticket at any time: that is no reason to leave a connection. So what the
/// event loop has seen is read as TLS, and where the kernel then still has something, nobody knows
/// what it is.
fn is_tls_quiet(stream: &mut TlsStream<Socket>, look: Look) -> bool {
    let mut byte = [0];
    let read = Pin::new(&mut *stream)
        .poll_read(&mut Context::from_waker(Waker::noop()), &mut ReadBuf::new(&mut byte));
    read.is_pending() && (look == Look::Seen || stream.get_ref().0.is_quiet(look))
}

impl Socket {
    fn is_quiet(&self, look: Look) -> bool {
        let outcome = match (self, look) {
            (Self::Tcp(stream), Look::Seen) => stream.try_read(&mut [0]),
            (Self::Unix(stream), Look::Seen) => stream.try_read(&mut [0]),
            (Self::Tcp(stream), Look::Now) => peek(&SockRef::from(stream)),
            (Self::Unix(stream), Look::Now) => peek(&SockRef::from(stream)),
        };
        outcome.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// What closes `stream` next does so by RST: its peer must not take a broken connection for a
/// finished one.
pub(crate) fn cut(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn peek(socket: &SockRef<'_>) -> io::Result<usize> {
    socket.peek(&mut [MaybeUninit::uninit()])
}

/// Opens a stream to `address` within the cluster's patience, TLS session included where it has one;
/// such a session is for `alpn`.
///
/// # Errors
///
/// `ConnectTimeout`, `ConnectRefused`, `NoDescriptor` or `Tls`, with the system's words and the
/// endpoint.
pub(super) async fn connect(
    cluster: &Cluster,
    address: &Address,
    alpn: Alpn,
    counts: &Arc<Sharded<Upstream>>,
    permit: Permit,
) -> Result<Stream, SendFailure> {
    let patience = cluster.settings().connect_timeout;
    counts.here().connects.one_more();
    let failed = match tokio::time::timeout(patience, open(cluster, address, alpn)).await {
        Ok(Ok(kind)) => {
            counts.here().open.one_more();
            let counts = Arc::clone(counts);
            return Ok(Stream { kind, counts, share: None, _permit: permit });
        }
        Ok(Err(failed)) => {
            counts.here().connect_failures.one_more();
            failed
        }
        Err(_) => {
            counts.here().connect_timeouts.one_more();
            SendFailure::new(FailureKind::ConnectTimeout, format!("no answer in {patience:?}"))
        }
    };
    tracing::debug!(endpoint = %address, failure = %failed, "connect failed");
    Err(failed.at(address.clone()))
}

async fn open(cluster: &Cluster, address: &Address, alpn: Alpn) -> Result<Kind, SendFailure> {
    let socket = open_socket(address).await.map_err(|error| SendFailure::unconnected(&error))?;
    let Some(client) = cluster.tls() else { return Ok(Kind::Clear(socket)) };
    // Boxed, so that an exchange in clear need not hold the room for it.
    match Box::pin(client.handshake(socket, alpn)).await {
        Ok(stream) => Ok(Kind::Tls(Box::new(stream))),
        Err(TlsFailure { cause, details }) => {
            Err(SendFailure::new(FailureKind::Tls(cause), details))
        }
    }
}

async fn open_socket(address: &Address) -> io::Result<Socket> {
    Ok(match address {
        Address::Ip(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Socket::Tcp(stream)
        }
        Address::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
    })
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.counts.here().open.one_less();
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Clear(Socket::Tcp(_)) => "Stream(tcp)",
            Kind::Clear(Socket::Unix(_)) => "Stream(unix)",
            Kind::Tls(_) => "Stream(tls)",
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = match &mut self.kind {
            Kind::Clear(socket) => Pin::new(socket).poll_read(cx, buf),
            Kind::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if outcome.is_ready() {
            let received = (buf.filled().len() - before) as u64;
            self.counts.here().received_bytes.add(received);
        }
        outcome
    }
}

/// Over TLS what was written may wait here until it is flushed.
impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = match &mut self.kind {
            Kind::Clear(socket) => Pin::new(socket).poll_write(cx, buf),
            Kind::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.count_sent(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = match &mut self.kind {
            Kind::Clear(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Kind::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.count_sent(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Clear(socket) => Pin::new(socket).poll_flush(cx),
            Kind::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Clear(socket) => Pin::new(socket).poll_shutdown(cx),
            Kind::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
