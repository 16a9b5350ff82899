//! Streams to endpoints: opened within a limit of time, counted while they live.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::stats::{Sharded, Upstream};
use crate::upstream::endpoint::Address;
use crate::upstream::failure::{FailureKind, SendFailure};

/// An open stream to an endpoint.
pub(super) struct Stream {
    kind: Kind,
    counts: Arc<Sharded<Upstream>>,
}

enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

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
    /// True if the peer has neither closed the stream nor sent anything.
    pub(super) fn is_quiet(&self, look: Look) -> bool {
        let outcome = match (&self.kind, look) {
            (Kind::Tcp(stream), Look::Seen) => stream.try_read(&mut [0]),
            (Kind::Unix(stream), Look::Seen) => stream.try_read(&mut [0]),
            (Kind::Tcp(stream), Look::Now) => peek(&SockRef::from(stream)),
            (Kind::Unix(stream), Look::Now) => peek(&SockRef::from(stream)),
        };
        outcome.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// On whose account it was opened.
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

fn peek(socket: &SockRef<'_>) -> io::Result<usize> {
    socket.peek(&mut [MaybeUninit::uninit()])
}

/// Opens a stream to `address` within `patience`.
///
/// # Errors
///
/// `ConnectTimeout` or `ConnectRefused`, with the system's words and the endpoint.
pub(super) async fn connect(
    address: &Address,
    patience: Duration,
    counts: &Arc<Sharded<Upstream>>,
) -> Result<Stream, SendFailure> {
    counts.here().connects.one_more();
    let failed = match tokio::time::timeout(patience, open(address)).await {
        Ok(Ok(kind)) => {
            counts.here().open.one_more();
            return Ok(Stream { kind, counts: Arc::clone(counts) });
        }
        Ok(Err(error)) => {
            counts.here().connect_failures.one_more();
            SendFailure::new(FailureKind::ConnectRefused, error.to_string())
        }
        Err(_) => {
            counts.here().connect_timeouts.one_more();
            SendFailure::new(FailureKind::ConnectTimeout, format!("no answer in {patience:?}"))
        }
    };
    tracing::debug!(endpoint = %address, failure = %failed, "connect failed");
    Err(failed.at(address.clone()))
}

async fn open(address: &Address) -> io::Result<Kind> {
    Ok(match address {
        Address::Ip(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Kind::Tcp(stream)
        }
        Address::Unix(path) => Kind::Unix(UnixStream::connect(path).await?),
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
            Kind::Tcp(_) => "Stream(tcp)",
            Kind::Unix(_) => "Stream(unix)",
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
            Kind::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Kind::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if outcome.is_ready() {
            let received = (buf.filled().len() - before) as u64;
            self.counts.here().received_bytes.add(received);
        }
        outcome
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = match &mut self.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Kind::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.count_sent(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = match &mut self.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Kind::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.count_sent(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Kind::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
