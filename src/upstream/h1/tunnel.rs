//! Upgraded connections: the bytes after a 101.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::upstream::h1::connection::Connection;

/// A connection after an upgrade: raw bytes in both directions, beginning with those that arrived
/// with the head. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Tunnel(Box<Connection>);

impl Tunnel {
    pub(super) fn new(connection: Box<Connection>) -> Self {
        Self(connection)
    }

    /// Ends the connection by RST, which cannot be mistaken for an orderly end.
    pub(crate) fn cut(self) {
        let Connection { stream, .. } = *self.0;
        stream.cut();
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let input = &mut self.0.input;
        if !input.is_empty() {
            let count = input.len().min(buf.remaining());
            buf.put_slice(&input[..count]);
            input.advance(count);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.0.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.stream).poll_shutdown(cx)
    }
}
