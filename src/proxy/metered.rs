//! The stream between hyper and the socket: it records the client's progress.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::coarse_now;
use crate::downstream::{ClientStream, Watch};
use crate::proxy::http1_scan::Http1Scan;
use crate::stats::{Downstream, Sharded};
use crate::upstream;

/// Bytes that hyper reads instead of the rest of a head whose target is too long.
const END_OF_HEAD: &[u8] = b" HTTP/1.1\r\n\r\n";

/// Size of a read, in bytes, whose data is dropped after a target that is too long.
const DROPPED: usize = 4 << 10;

/// Maximum number of bytes that are read from a parked connection; the parser reads the rest.
const FIRST: usize = 4 << 10;

/// Size of a read, in bytes, whose data is discarded.
const DISCARDED: usize = 4 << 10;

/// A stream that reports its progress to a [`Watch`].
#[derive(Debug)]
pub(super) struct MeteredStream<S: ClientStream> {
    stream: S,
    watch: Arc<Watch>,
    counts: Arc<Sharded<Downstream>>,
    /// Bytes that were read to detect the protocol and are still to be served.
    replay: Bytes,
    /// Bytes that were read and scanned while no parser was there for them.
    scanned: Bytes,
    /// Scans the requests of HTTP/1; `None` for HTTP/2.
    scan: Option<Http1Scan>,
    /// Maximum number of bytes of a target that hyper sees.
    longest_target: usize,
    /// A target was too long: hyper was given an end of the head and gets no further bytes.
    cut: bool,
    /// The end of the stream was written.
    finished: bool,
    /// The gateway continues to read, so that the peer can receive the last bytes sent to it.
    lingers: bool,
}

impl<S: ClientStream> MeteredStream<S> {
    pub(super) fn new(
        stream: S,
        watch: Arc<Watch>,
        counts: Arc<Sharded<Downstream>>,
        replay: Bytes,
        longest_target: usize,
    ) -> Self {
        Self {
            stream,
            watch,
            counts,
            replay,
            scanned: Bytes::new(),
            scan: Some(Http1Scan::default()),
            longest_target,
            cut: false,
            finished: false,
            lingers: false,
        }
    }

    /// Takes the bytes for those of HTTP/2, which are not scanned here.
    pub(super) fn http2(mut self) -> Self {
        self.scan = None;
        self
    }

    /// Records received bytes and scans the heads in them. If a target is too long, returns the
    /// number of its request and the number of bytes up to the limit.
    fn came(&mut self, bytes: &[u8]) -> Option<(u32, usize)> {
        self.watch.read(coarse_now());
        self.counts.here().received_bytes.add(bytes.len() as u64);
        let scan = self.scan.as_mut()?;
        let seen = scan.read(bytes, self.longest_target);
        self.watch.parking.arrived(scan.whole());
        if let Some(request) = seen.twofold {
            self.watch.is_twofold(request);
        }
        seen.long_target
    }

    /// Ends the head, for hyper, at `end` of the bytes in `buffer`, so that `request` is answered:
    /// a target is not buffered for as long as the client keeps sending it.
    fn cut_head(&mut self, buffer: &mut ReadBuf<'_>, request: u32, end: usize) {
        self.watch.has_long_target(request);
        self.cut = true;
        buffer.set_filled(end);
        let fits = END_OF_HEAD.len().min(buffer.remaining());
        buffer.put_slice(&END_OF_HEAD[..fits]);
        self.replay = Bytes::from_static(&END_OF_HEAD[fits..]);
    }
}

impl<S: ClientStream> AsyncRead for MeteredStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.scanned.is_empty() {
            return this.poll_read_new(cx, buffer);
        }
        let length = this.scanned.len().min(buffer.remaining());
        buffer.put_slice(&this.scanned.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: ClientStream> MeteredStream<S> {
    /// Has `bytes`, which were scanned when they arrived, read again.
    pub(super) fn replay_scanned(&mut self, bytes: Bytes) {
        self.scanned = bytes;
    }

    /// Resolves when there is something to read, and keeps it for the next reader: bytes, the end,
    /// or an error.
    pub(super) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut first = [MaybeUninit::uninit(); FIRST];
        let mut first = ReadBuf::uninit(&mut first);
        let read = ready!(self.poll_read_new(cx, &mut first));
        if read.is_ok() {
            self.scanned = [&self.scanned[..], first.filled()].concat().into();
        }
        Poll::Ready(())
    }

    /// Reads bytes that were not read before.
    fn poll_read_new(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if !self.replay.is_empty() {
            let length = self.replay.len().min(buffer.remaining());
            buffer.put_slice(&self.replay.split_to(length));
            if self.cut {
                return Poll::Ready(Ok(()));
            }
        } else if self.cut {
            let mut dropped = [0; DROPPED];
            loop {
                let mut dropped = ReadBuf::new(&mut dropped);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut dropped))?;
                if dropped.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
        } else {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        }
        if buffer.filled().len() > before
            && let Some((request, within)) = self.came(&buffer.filled()[before..])
        {
            self.cut_head(buffer, request, before + within);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: ClientStream> AsyncWrite for MeteredStream<S> {
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
        let this = self.get_mut();
        let result = match slices {
            [only] => Pin::new(&mut this.stream).poll_write(cx, only),
            _ => Pin::new(&mut this.stream).poll_write_vectored(cx, slices),
        };
        this.watch.wrote(coarse_now(), result.is_pending());
        if let Poll::Ready(Ok(written)) = result {
            this.watch.parking.wrote();
            this.watch.sent(coarse_now());
            this.counts.here().sent_bytes.add(written as u64);
        }
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_flush(cx);
        this.watch.wrote(coarse_now(), result.is_pending());
        if result.is_ready() {
            this.watch.parking.flushed();
        }
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.finished {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.finished = true;
        }
        this.poll_linger(cx)
    }
}

impl<S: ClientStream> MeteredStream<S> {
    /// Continues to read until the client has ended too, if it may still be sending (RFC 9112
    /// section 9.6): bytes that arrive after a close cause a reset, and a reset discards data that
    /// the client has not read yet. The sweep limits the time (see [`Watch::lingers`]).
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.watch.is_busy() {
            // A tunnel of which one direction has ended.
            return Poll::Ready(Ok(()));
        }
        self.lingers |= self.watch.has_unread();
        loop {
            let mut discarded = [MaybeUninit::uninit(); DISCARDED];
            let mut discarded = ReadBuf::uninit(&mut discarded);
            match Pin::new(&mut self.stream).poll_read(cx, &mut discarded) {
                Poll::Pending if self.lingers => {
                    self.watch.lingers(coarse_now());
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) if !discarded.filled().is_empty() => {
                    self.lingers = true;
                    self.watch.lingers(coarse_now());
                    self.watch.read(coarse_now());
                    self.counts.here().received_bytes.add(discarded.filled().len() as u64);
                }
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: ClientStream> Drop for MeteredStream<S> {
    fn drop(&mut self) {
        if self.watch.is_cut(self.finished) {
            upstream::cut(self.stream.socket());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn watch() -> Arc<Watch> {
        Arc::new(Watch::new("192.0.2.1:1000".parse().unwrap(), Arc::default(), 1))
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (ours, listener.accept().await.unwrap().0)
    }

    /// The end that a peer sees: an error if it is not an orderly end.
    #[tokio::test]
    async fn what_breaks_off_is_closed_by_a_reset() {
        // (note on the watch, finished, reset)
        type Note = fn(&Watch);
        let table: [(Note, bool, bool); 6] = [
            (|_| {}, false, false),
            (|_| {}, true, false),
            (Watch::cut_unless_finished, false, true),
            (Watch::cut_unless_finished, true, false),
            (Watch::cut, false, true),
            (Watch::cut, true, true),
        ];
        for (row, (note, finished, reset)) in table.into_iter().enumerate() {
            let (ours, mut theirs) = pair().await;
            let watch = watch();
            let mut stream =
                MeteredStream::new(ours, Arc::clone(&watch), Arc::default(), Bytes::new(), 100);
            stream.write_all(b"so far").await.unwrap();
            note(&watch);
            if finished {
                stream.shutdown().await.unwrap();
            }
            drop(stream);
            let mut all = Vec::new();
            let end = theirs.read_to_end(&mut all).await;
            assert_eq!(all, b"so far", "{row}");
            // A reset after an orderly end is visible only to a writer.
            assert_eq!(end.is_err(), reset && !finished, "{row}: {end:?}");
        }
    }

    #[tokio::test]
    async fn what_was_read_too_early_is_read_again_first() {
        let (ours, mut theirs) = pair().await;
        theirs.write_all(b" / HTTP/1.1").await.unwrap();
        drop(theirs);
        let mut stream =
            MeteredStream::new(ours, watch(), Arc::default(), Bytes::from_static(b"GET"), 100);
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "GET / HTTP/1.1");
    }

    #[tokio::test]
    async fn a_head_ends_where_its_target_is_too_long() {
        for read_early in [&b""[..], b"GET /", b"GET /abcdef"] {
            let (ours, mut theirs) = pair().await;
            theirs.write_all(&b"GET /abcdefgh"[read_early.len()..]).await.unwrap();
            theirs.write_all(&[b'x'; 20_000]).await.unwrap();
            drop(theirs);
            let (watch, replay) = (watch(), Bytes::copy_from_slice(read_early));
            let mut stream =
                MeteredStream::new(ours, Arc::clone(&watch), Arc::default(), replay, 5);
            let mut all = String::new();
            stream.read_to_string(&mut all).await.unwrap();
            assert_eq!(all, "GET /abcd HTTP/1.1\r\n\r\n");
            let _open = watch.open();
            assert!(watch.opened_with_long_target());
        }
    }
}
