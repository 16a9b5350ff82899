//! A tunnel: bytes carried in both directions between a client and a backend.
//!
//! One future polls both directions, so that their two streams need no lock. A direction has no
//! buffer while its receiver keeps up: bytes are read into memory of the worker and written at once.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::coarse_now;

/// Maximum number of bytes read at once. It is also the maximum that one direction holds for a
/// receiver that does not keep up.
const READ: usize = 64 << 10;

/// Maximum number of reads of one direction before other tasks of the worker get their turn.
const TURN: usize = 16;

thread_local! {
    /// Memory for the reads of this worker's tunnels; empty before the first read.
    static SCRATCH: Cell<Box<[u8]>> = Cell::default();
}

/// The end of a tunnel that broke.
#[derive(Debug)]
pub(crate) enum BrokenEnd {
    Backend(io::Error),
    Client(io::Error),
}

/// A reason for which [`TwoWay::poll`] is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The client has ended, and the backend is not told before [`TwoWay::end_backend`].
    ClientEnded,
    /// Both ends have ended, and both know it.
    Over,
}

/// The state of a tunnel.
#[derive(Debug)]
pub(crate) struct TwoWay {
    up: OneWay,
    down: OneWay,
}

impl TwoWay {
    /// A tunnel that passes on the end of either side at once.
    pub(crate) fn new() -> Self {
        Self { up: OneWay::new(Phase::Ending), down: OneWay::new(Phase::Ending) }
    }

    /// A tunnel that passes on the end of the client only when [`end_backend`](Self::end_backend)
    /// is called.
    pub(crate) fn with_checked_client() -> Self {
        Self { up: OneWay::new(Phase::Ended), down: OneWay::new(Phase::Ending) }
    }

    /// Carries bytes as far as both sides permit, and sets `moved` to the coarse time whenever bytes
    /// move. `up` gets the bytes that the backend has accepted, `down` those that the client has.
    ///
    /// # Errors
    ///
    /// Returns the end whose stream failed.
    pub(crate) fn poll<C, B>(
        &mut self,
        cx: &mut Context<'_>,
        (client, backend): (&mut C, &mut B),
        moved: &AtomicU64,
        up: impl FnMut(&[u8]),
        down: impl FnMut(&[u8]),
    ) -> Poll<Result<Progress, BrokenEnd>>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        self.up.advance(cx, client, backend, moved, up).map_err(|fault| match fault {
            Fault::Read(error) => BrokenEnd::Client(error),
            Fault::Write(error) => BrokenEnd::Backend(error),
        })?;
        self.down.advance(cx, backend, client, moved, down).map_err(|fault| match fault {
            Fault::Read(error) => BrokenEnd::Backend(error),
            Fault::Write(error) => BrokenEnd::Client(error),
        })?;
        match (self.up.phase, self.down.phase) {
            (Phase::Over, Phase::Over) => Poll::Ready(Ok(Progress::Over)),
            (Phase::Ended, _) => Poll::Ready(Ok(Progress::ClientEnded)),
            _ => Poll::Pending,
        }
    }

    /// Lets the next polls pass the end of the client on to the backend.
    pub(crate) fn end_backend(&mut self) {
        self.up.phase = Phase::Ending;
    }

    /// Returns true if the backend has ended and the client has accepted all of its bytes.
    pub(crate) fn has_backend_ended(&self) -> bool {
        self.down.phase != Phase::Carrying
    }

    /// Returns true if bytes of the backend wait for the client.
    pub(crate) fn holds_for_client(&self) -> bool {
        !self.down.held.is_empty()
    }
}

/// The state of one direction.
#[derive(Debug)]
struct OneWay {
    /// Bytes that were read and are not yet accepted by the receiver, from `sent` on.
    held: Vec<u8>,
    sent: usize,
    /// The receiver has accepted bytes that it may not have passed on.
    unflushed: bool,
    phase: Phase,
    /// The phase that follows the end of the sender.
    after: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Carrying,
    /// The sender has ended; the receiver is not to be told yet.
    Ended,
    /// The receiver is being told of the end.
    Ending,
    Over,
}

/// A stream that failed.
enum Fault {
    Read(io::Error),
    Write(io::Error),
}

impl OneWay {
    fn new(after: Phase) -> Self {
        Self { held: Vec::new(), sent: 0, unflushed: false, phase: Phase::Carrying, after }
    }

    /// Carries bytes and passes on the end, until one side has to be waited for.
    fn advance(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        moved: &AtomicU64,
        passed: impl FnMut(&[u8]),
    ) -> Result<(), Fault> {
        if self.phase == Phase::Carrying {
            let mut scratch = SCRATCH.take();
            if scratch.is_empty() {
                scratch = vec![0; READ].into();
            }
            let carried = self.poll_carry(cx, from, to, moved, passed, &mut scratch);
            SCRATCH.set(scratch);
            let Poll::Ready(carried) = carried else { return Ok(()) };
            carried?;
            self.phase = self.after;
        }
        if self.phase == Phase::Ending
            && let Poll::Ready(told) = Pin::new(to).poll_shutdown(cx)
        {
            self.phase = Phase::Over;
            return match told {
                // A peer that has already disconnected needs no notification.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                told => told.map_err(Fault::Write),
            };
        }
        Ok(())
    }

    /// Ready when the sender has ended and the receiver has everything.
    fn poll_carry(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        moved: &AtomicU64,
        mut passed: impl FnMut(&[u8]),
        scratch: &mut [u8],
    ) -> Poll<Result<(), Fault>> {
        for _ in 0..TURN {
            while self.sent < self.held.len() {
                self.sent +=
                    ready!(poll_pass(cx, to, &self.held[self.sent..], moved, &mut passed))?;
            }
            (self.held, self.sent) = (Vec::new(), 0);
            if self.unflushed {
                ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Fault::Write)?;
                self.unflushed = false;
            }
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer)).map_err(Fault::Read)?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            moved.store(coarse_now(), Ordering::Relaxed);
            self.unflushed = true;
            let written = match poll_pass(cx, to, buffer.filled(), moved, &mut passed) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            self.held.extend_from_slice(&buffer.filled()[written..]);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Writes bytes once. Ready with the number of those that the receiver has accepted.
fn poll_pass(
    cx: &mut Context<'_>,
    to: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    moved: &AtomicU64,
    passed: &mut impl FnMut(&[u8]),
) -> Poll<Result<usize, Fault>> {
    let written = ready!(Pin::new(to).poll_write(cx, bytes)).map_err(Fault::Write)?;
    if written == 0 {
        return Poll::Ready(Err(Fault::Write(io::ErrorKind::WriteZero.into())));
    }
    moved.store(coarse_now(), Ordering::Relaxed);
    passed(&bytes[..written]);
    Poll::Ready(Ok(written))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Runs a tunnel between two streams until it is over. Returns the bytes that were reported.
    async fn run(
        mut client: impl AsyncRead + AsyncWrite + Unpin,
        mut backend: impl AsyncRead + AsyncWrite + Unpin,
    ) -> Result<(usize, usize), BrokenEnd> {
        let mut tunnel = TwoWay::new();
        let (moved, up, down) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let count = |of: &AtomicUsize, bytes: &[u8]| {
            of.fetch_add(bytes.len(), Ordering::Relaxed);
        };
        let ended = poll_fn(|cx| {
            let streams = (&mut client, &mut backend);
            tunnel.poll(cx, streams, &moved, |bytes| count(&up, bytes), |bytes| count(&down, bytes))
        });
        assert_eq!(ended.await?, Progress::Over);
        Ok((up.into_inner(), down.into_inner()))
    }

    /// A megabyte and more each way, over streams of every size, and readers that are slow at first.
    #[tokio::test]
    async fn all_bytes_arrive_in_order_and_each_end_is_passed_on() {
        let sent: Vec<u8> =
            (0..(20 * READ + 7)).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect();
        for size in [1 << 10, READ, 3 * READ + 1] {
            let (mut client, near) = duplex(size);
            let (mut backend, far) = duplex(size * 2);
            let other = async |stream: &mut tokio::io::DuplexStream| {
                let (mut reader, mut writer) = tokio::io::split(stream);
                let write = async {
                    writer.write_all(&sent).await.unwrap();
                    writer.shutdown().await.unwrap();
                };
                let read = async {
                    tokio::task::yield_now().await;
                    let mut read = Vec::new();
                    reader.read_to_end(&mut read).await.unwrap();
                    read
                };
                tokio::join!(write, read).1
            };
            let (counted, up, down) =
                tokio::join!(run(near, far), other(&mut client), other(&mut backend));
            assert!(up == sent && down == sent, "{size}");
            assert_eq!(counted.unwrap(), (sent.len(), sent.len()), "{size}");
        }
    }

    #[tokio::test]
    async fn one_side_may_end_long_before_the_other() {
        let ((mut client, near), (mut backend, far)) = (duplex(100), duplex(100));
        let sides = async {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut read = Vec::new();
            backend.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, b"question");
            backend.write_all(b"answer").await.unwrap();
            backend.shutdown().await.unwrap();
            read.clear();
            client.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, b"answer");
        };
        let (counted, ()) = tokio::join!(run(near, far), sides);
        assert_eq!(counted.unwrap(), (8, 6));
    }

    #[tokio::test]
    async fn the_end_that_failed_is_told() {
        let ((mut client, near), (backend, far)) = (duplex(100), duplex(100));
        drop(backend);
        let sides = async { client.write_all(b"question").await };
        let (broken, _) = tokio::join!(run(near, far), sides);
        assert!(matches!(broken, Err(BrokenEnd::Backend(_))), "{broken:?}");
    }

    #[tokio::test]
    async fn what_waits_for_a_slow_receiver_is_known_and_bounded() {
        let ((mut client, mut near), (mut backend, mut far)) = (duplex(10), duplex(4 * READ));
        backend.write_all(&vec![b'x'; 4 * READ]).await.unwrap();
        let (mut tunnel, moved) = (TwoWay::with_checked_client(), AtomicU64::new(0));
        let mut accepted = 0;
        let polled = poll_fn(|cx| {
            let streams = (&mut near, &mut far);
            let polled = tunnel.poll(cx, streams, &moved, |_| (), |bytes| accepted += bytes.len());
            Poll::Ready(polled.is_pending())
        });
        assert!(polled.await);
        assert_eq!((accepted, tunnel.down.held.len()), (10, READ - 10));
        assert!(tunnel.holds_for_client() && !tunnel.has_backend_ended());

        client.shutdown().await.unwrap();
        let ended = poll_fn(|cx| tunnel.poll(cx, (&mut near, &mut far), &moved, |_| (), |_| ()));
        assert_eq!(ended.await.unwrap(), Progress::ClientEnded);
        tunnel.end_backend();
        let mut over =
            Box::pin(poll_fn(|cx| tunnel.poll(cx, (&mut near, &mut far), &moved, |_| (), |_| ())));
        assert!(futures_util::poll!(over.as_mut()).is_pending());
        assert_eq!(backend.read(&mut [0]).await.unwrap(), 0, "now the backend knows");
    }
}
