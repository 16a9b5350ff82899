//! Connections to endpoints: opened within a timeout, counted while they are open.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::proxy_protocol::Addresses;
use crate::stats::{Sharded, Upstream};
use crate::tls::{Alpn, TlsFailure};
use crate::upstream::address::Address;
use crate::upstream::breaker::{Breaker, Permit};
use crate::upstream::cluster::Cluster;
use crate::upstream::failure::{FailureKind, SendFailure};
use crate::upstream::holding::Holding;
use crate::upstream::keep_alive::KeepAlive;

/// An open connection to an endpoint, in clear or over TLS.
pub(crate) struct Stream {
    kind: Kind,
    counts: Arc<Sharded<Upstream>>,
    /// The counts of the request that uses the connection.
    holding: Holding,
    permit: Permit,
}

enum Kind {
    Clear(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// A socket of the operating system.
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Time without an acknowledgement from the peer's kernel after which the connection ends.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// Thoroughness of the check that an idle connection is still usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Checks what the event loop has seen so far. Costs no system call, but may miss a very recent
    /// close; so it is only for requests that may be sent again.
    Seen,
    /// Checks the present state of the socket in the kernel.
    Now,
}

impl Stream {
    /// Enables keep-alive probes, by which the kernel detects a dead peer.
    pub(super) fn keep_alive(&self, settings: KeepAlive) {
        if let Socket::Tcp(stream) = self.socket() {
            settings.apply(stream);
        }
    }

    /// Like [`keep_alive`](Self::keep_alive); also ends the connection if the peer's kernel does
    /// not acknowledge sent data for [`UNACKNOWLEDGED`]. Not for connections whose peer may stop
    /// reading: a receive buffer that stays full for that long ends them too.
    pub(super) fn notice_loss(&self, settings: KeepAlive) {
        self.keep_alive(settings);
        if let Socket::Tcp(stream) = self.socket() {
            // By default the kernel retransmits for a quarter of an hour.
            let _ = SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        }
    }

    /// Ends the connection by RST, which cannot be mistaken for an orderly end.
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

    /// Returns true if the peer has neither closed the connection nor sent anything.
    pub(super) fn is_quiet(&mut self, look: Look) -> bool {
        match &mut self.kind {
            Kind::Clear(socket) => socket.is_quiet(look),
            Kind::Tls(stream) => is_tls_quiet(stream, look),
        }
    }

    /// Keeps the counts of a request that uses the connection, until the next call or until the
    /// connection is closed. Returns those of the request before.
    pub(super) fn hold(&mut self, holding: Holding) -> Holding {
        std::mem::replace(&mut self.holding, holding)
    }

    /// Returns the limits of the connection's cluster.
    pub(super) fn breaker(&self) -> &Breaker {
        self.permit.breaker()
    }

    /// Returns the counters of the rule that the connection was opened for.
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

/// Checks an idle TLS connection. A peer may send a session ticket at any time, which is no reason
/// to give up a connection. So data that the event loop has seen is processed by TLS; if the kernel
/// then still has data, its content is unknown and the connection is not quiet.
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

/// Makes the next close of `stream` send RST, so that the peer does not mistake a broken connection
/// for a finished one.
pub(crate) fn cut(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn peek(socket: &SockRef<'_>) -> io::Result<usize> {
    socket.peek(&mut [MaybeUninit::uninit()])
}

/// Opens a connection to `address` within the cluster's connect timeout, including the TLS
/// handshake if the cluster uses TLS; the handshake offers `alpn`. `proxied` is the connection of
/// the client, for the header of a cluster that has one.
///
/// # Errors
///
/// `ConnectTimeout`, `ConnectRefused`, `NoDescriptor` or `Tls`, with the system's message and the
/// endpoint.
pub(super) async fn connect(
    cluster: &Cluster,
    address: &Address,
    alpn: Alpn,
    proxied: Option<&Addresses>,
    counts: &Arc<Sharded<Upstream>>,
    permit: Permit,
) -> Result<Stream, SendFailure> {
    let patience = cluster.settings().connect_timeout;
    counts.here().connects.one_more();
    let failed = match tokio::time::timeout(patience, open(cluster, address, alpn, proxied)).await {
        Ok(Ok(kind)) => {
            counts.here().open.one_more();
            if let Some(hold) = cluster.hold() {
                hold.connects_again();
            }
            let counts = Arc::clone(counts);
            return Ok(Stream { kind, counts, holding: Holding::default(), permit });
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

async fn open(
    cluster: &Cluster,
    address: &Address,
    alpn: Alpn,
    proxied: Option<&Addresses>,
) -> Result<Kind, SendFailure> {
    let unconnected = |error: io::Error| SendFailure::unconnected(&error);
    let mut socket = open_socket(address).await.map_err(unconnected)?;
    if let Some(version) = cluster.settings().proxy_protocol {
        // The buffer of a new socket has room for the header.
        socket.write_all(&version.header(proxied)).await.map_err(unconnected)?;
    }
    let Some(client) = cluster.tls() else { return Ok(Kind::Clear(socket)) };
    // Boxed, so that exchanges in clear do not reserve memory for the handshake.
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

/// Over TLS, written data may stay in the buffer until it is flushed.
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
