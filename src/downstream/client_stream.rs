//! The stream of a downstream connection, with or without TLS.

use std::io::{self, IoSlice};
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A downstream connection, with or without TLS.
pub(crate) trait ClientStream: AsyncRead + AsyncWrite + Send + Unpin {
    fn socket(&self) -> &TcpStream;
}

impl ClientStream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl ClientStream for Rewound<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.stream()
    }
}

impl ClientStream for TlsStream<Rewound<TcpStream>> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0.stream()
    }
}

/// Number of bytes read ahead of TLS, which itself reads 4 KiB at a time: two records.
const READ_AHEAD: usize = 32 << 10;

/// A stream whose first bytes were already consumed: they are returned again first.
///
/// It reads ahead for a client that sends more than its reader takes at once, so that an upload over
/// TLS costs an eighth of the system calls. Nothing is read ahead, and no memory is held, otherwise.
#[derive(Debug)]
pub(crate) struct Rewound<S> {
    stream: S,
    /// Bytes to return first.
    replay: Bytes,
    /// The last read filled its buffer, so that more is likely to be there.
    filled: bool,
}

impl<S> Rewound<S> {
    pub(crate) fn new(stream: S, replay: Bytes) -> Self {
        Self { stream, replay, filled: false }
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.replay.is_empty() {
            let ahead = mem::take(&mut self.filled);
            if !ahead || buffer.remaining() >= READ_AHEAD {
                ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
                self.filled = buffer.remaining() == 0;
                return Poll::Ready(Ok(()));
            }
            let mut ahead = BytesMut::with_capacity(READ_AHEAD);
            let count = ready!(pin!(self.stream.read_buf(&mut ahead)).poll(cx))?;
            self.filled = count > buffer.remaining();
            self.replay = ahead.freeze();
        }
        let length = self.replay.len().min(buffer.remaining());
        buffer.put_slice(&self.replay[..length]);
        self.replay.advance(length);
        if self.replay.is_empty() {
            self.replay = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that counts its reads.
    struct Counted<'a> {
        bytes: &'a [u8],
        reads: usize,
    }

    impl AsyncRead for Counted<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.reads += 1;
            Pin::new(&mut self.bytes).poll_read(cx, buffer)
        }
    }

    #[tokio::test]
    async fn bytes_arrive_in_order_and_many_are_read_at_once() {
        let all: Vec<u8> =
            (0..300_000_usize).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect();
        // (bytes in the stream, size of the reader's buffer, most reads of the stream)
        let table = [
            (0, 4096, 1),
            (100, 4096, 2),
            (4096, 4096, 2),
            (300_000, 4096, 12),
            (300_000, 5, 12),
            (300_000, 64 << 10, 6),
        ];
        for (length, size, most) in table {
            let stream = Counted { bytes: &all[..length], reads: 0 };
            let mut rewound = Rewound::new(stream, Bytes::from_static(b"first"));
            let (mut read, mut buffer) = (Vec::new(), vec![0; size]);
            loop {
                let count = rewound.read(&mut buffer).await.unwrap();
                if count == 0 {
                    break;
                }
                read.extend_from_slice(&buffer[..count]);
            }
            assert_eq!(&read[..5], b"first");
            assert!(read[5..] == all[..length], "{length} by {size}");
            let reads = rewound.stream().reads;
            assert!(reads <= most, "{length} by {size}: {reads} reads");
            assert!(rewound.replay.is_empty());
        }
    }
}
