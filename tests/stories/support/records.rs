//! A TCP connection that counts the TLS records that arrive on it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The length of a record's head, and the type of one with data (RFC 8446 section 5.1).
const HEAD: usize = 5;
const APPLICATION_DATA: u8 = 23;

/// The lengths of the records with data that have arrived so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records(Arc<Mutex<Vec<usize>>>);

impl Records {
    /// Counts the records that arrive on `stream`, which is to be used instead of it.
    pub(crate) fn of(stream: TcpStream) -> (Counted, Self) {
        let records = Self::default();
        let counted = Counted { stream, head: Vec::new(), rest: 0, records: records.clone() };
        (counted, records)
    }

    /// The lengths of the records since this was last asked.
    pub(crate) fn take(&self) -> Vec<usize> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// A connection whose records are counted.
#[derive(Debug)]
pub(crate) struct Counted {
    stream: TcpStream,
    /// What has arrived of the head of the next record.
    head: Vec<u8>,
    /// Bytes of the present record that are still to come.
    rest: usize,
    records: Records,
}

impl Counted {
    fn came(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            let missing = (HEAD - self.head.len()).min(bytes.len() - skipped);
            self.head.extend_from_slice(&bytes[skipped..skipped + missing]);
            bytes = &bytes[skipped + missing..];
            if let [kind, _, _, length @ ..] = &self.head[..]
                && let Ok(length) = <[u8; 2]>::try_from(length)
            {
                self.rest = u16::from_be_bytes(length).into();
                if *kind == APPLICATION_DATA {
                    self.records.0.lock().unwrap().push(self.rest);
                }
                self.head.clear();
            }
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.came(&buffer.filled()[before..]);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
