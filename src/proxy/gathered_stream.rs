//! A stream whose writes are gathered until the task of its connection drains them.
//!
//! h2 flushes after each DATA frame of 256 bytes or more, and an HTTP/2 connection has a frame for
//! each of its streams. If each flush reached the socket, each response would be a TLS record and a
//! system call of its own. Here a flush does nothing. The task of the connection drains the
//! gathered bytes after each poll of hyper's connection, so that everything that became ready in
//! one turn of the event loop leaves together, and nothing waits for longer than that poll.
//!
//! hyper owns the stream and offers no way to reach it, so the stream is shared, under a lock. Only
//! the task of the connection takes that lock, and never twice at once: it is always free. A channel
//! or a second poll of hyper's connection would cost more.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Maximum number of bytes that are gathered: four full TLS records. A writer has to wait while the
/// peer does not take them.
const MOST: usize = 64 << 10;

thread_local! {
    /// The buffer of this worker, for the next stream that gathers. Usually no stream of a worker
    /// keeps its bytes beyond its own turn, so all of them share one buffer.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Splits `stream` into the stream to pass to hyper and the drain for the task that polls hyper.
pub(super) fn gathered<S>(stream: S) -> (GatheredStream<S>, Drain<S>) {
    let shared = Arc::new(Mutex::new(Gathering { stream, buffer: Vec::new(), written: 0 }));
    (GatheredStream(Arc::clone(&shared)), Drain(shared))
}

/// The stream. What is written to it stays in its buffer until the [`Drain`] is polled, the buffer
/// is full or the stream is shut down.
#[derive(Debug)]
pub(super) struct GatheredStream<S>(Arc<Mutex<Gathering<S>>>);

/// Writes the gathered bytes of a [`GatheredStream`].
#[derive(Debug)]
pub(super) struct Drain<S>(Arc<Mutex<Gathering<S>>>);

impl<S: AsyncWrite + Unpin> Drain<S> {
    /// Writes the gathered bytes and flushes. While the peer does not take them, the task is woken
    /// when it does.
    ///
    /// # Errors
    ///
    /// Those of the stream.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        locked(&self.0).poll_drain(cx)
    }
}

#[derive(Debug)]
struct Gathering<S> {
    stream: S,
    buffer: Vec<u8>,
    /// Number of bytes of the buffer that the stream has taken.
    written: usize,
}

fn locked<S>(shared: &Mutex<Gathering<S>>) -> MutexGuard<'_, Gathering<S>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Writes the gathered bytes and gives the buffer back.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.buffer.len() {
            let rest = &self.buffer[self.written..];
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        if !self.buffer.is_empty() {
            self.buffer.clear();
            self.written = 0;
            SPARE.set(std::mem::take(&mut self.buffer));
        }
        Poll::Ready(Ok(()))
    }

    /// Copies as much of `slices` into the buffer as it has room for. Returns the number of bytes.
    fn gather(&mut self, slices: &[IoSlice<'_>]) -> usize {
        if self.buffer.is_empty() {
            self.buffer = SPARE.take();
        }
        let before = self.buffer.len();
        for slice in slices {
            let fits = slice.len().min(MOST - self.buffer.len());
            self.buffer.extend_from_slice(&slice[..fits]);
        }
        self.buffer.len() - before
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GatheredStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut locked(&self.0).stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GatheredStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathering = locked(&self.0);
        if gathering.buffer.len() == MOST {
            ready!(gathering.poll_write_out(cx))?;
        }
        Poll::Ready(Ok(gathering.gather(slices)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: the [`Drain`] flushes.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = locked(&self.0);
        ready!(gathering.poll_write_out(cx))?;
        Pin::new(&mut gathering.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::timeout;

    use super::*;

    const MOMENT: std::time::Duration = std::time::Duration::from_millis(20);

    #[tokio::test]
    async fn what_was_written_leaves_in_order_when_it_is_drained() {
        let (ours, mut theirs) = duplex(1 << 20);
        let (mut stream, drain) = gathered(ours);
        let mut read = [0; 64];
        for text in ["one two", " three"] {
            for word in text.split_inclusive(' ') {
                stream.write_all(word.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
            }
            // Nothing leaves before the drain.
            assert!(timeout(MOMENT, theirs.read(&mut read)).await.is_err());
            poll_fn(|cx| drain.poll(cx)).await.unwrap();
            let length = theirs.read(&mut read).await.unwrap();
            assert_eq!(&read[..length], text.as_bytes());
        }
    }

    #[tokio::test]
    async fn the_end_of_the_stream_follows_what_was_written() {
        let (ours, mut theirs) = duplex(1 << 20);
        let (mut stream, _drain) = gathered(ours);
        stream.write_all(b"farewell").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut all = String::new();
        theirs.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "farewell");
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_stops_the_writer_and_loses_nothing() {
        let (ours, mut theirs) = duplex(1000);
        let (mut stream, drain) = gathered(ours);
        let piece: Vec<u8> = (0..10_007_u32).flat_map(u32::to_be_bytes).collect();
        let mut sent = Vec::new();
        let mut offset = 0;
        while let Ok(written) = timeout(MOMENT, stream.write(&piece[offset..])).await {
            let written = written.unwrap();
            sent.extend_from_slice(&piece[offset..offset + written]);
            offset = (offset + written) % piece.len();
            assert!(sent.len() <= MOST + 1000, "it gathers without bound");
        }
        assert_eq!(sent.len(), MOST, "the writer waits before anything of the buffer is free");

        let (drained, read) = tokio::join!(poll_fn(|cx| drain.poll(cx)), async {
            let mut read = vec![0; MOST];
            theirs.read_exact(&mut read).await.map(|_| read)
        });
        drained.unwrap();
        assert!(read.unwrap() == sent, "bytes were lost or reordered");
        assert_eq!(locked(&drain.0).buffer.capacity(), 0, "an idle stream keeps a buffer");
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_an_error_of_the_drain() {
        let (ours, theirs) = duplex(1000);
        let (mut stream, drain) = gathered(ours);
        drop(theirs);
        stream.write_all(b"for nobody").await.unwrap();
        assert!(poll_fn(|cx| drain.poll(cx)).await.is_err());
    }
}
