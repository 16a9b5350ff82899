//! One HTTP/1.1 connection: its stream and the buffers that it keeps between exchanges.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, BytesMut};
use http::HeaderName;
use tokio::io::AsyncReadExt;

use crate::upstream::connect::{Look, Stream};
use crate::upstream::descriptors::Share;

/// What the first read asks for; most responses to most requests fit.
const SMALL_READ: usize = 8 * 1024;

/// What a read asks for once the peer fills every buffer it is given.
const LARGE_READ: usize = 64 * 1024;

/// Bytes between the start of a large buffer's memory and its first byte.
const ASIDE: usize = 512;

/// A connection that carries one exchange at a time. Dropping it closes it.
#[derive(Debug)]
pub(in crate::upstream) struct Connection {
    pub(super) stream: Stream,
    /// Received and not yet taken.
    pub(super) input: BytesMut,
    /// Bytes the next read has room for. Follows the peer: doubled when a read filled its room.
    room: usize,
    /// The memory of the last request head, for the next.
    pub(super) output: Vec<u8>,
    /// The memory of the last response's fields, for the next.
    pub(super) fields: Vec<(HeaderName, Range<usize>)>,
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            room: SMALL_READ,
            output: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// Reads once. `Ok(0)` is the end of the stream.
    ///
    /// The buffer is bounded by whoever takes from it: nobody reads on before taking what is there,
    /// but the parser of heads and chunk lines, which have limits of their own.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Half the room will do: it spares a new buffer while slices of this one are in use.
        if self.input.capacity() - self.input.len() < self.room / 2 {
            self.make_room();
        }
        let space = self.input.capacity() - self.input.len();
        let outcome = pin!(self.stream.read_buf(&mut self.input)).poll(cx);
        if let Poll::Ready(Ok(count)) = outcome
            && count == space
        {
            self.room = (self.room * 2).min(LARGE_READ);
        }
        outcome
    }

    /// Room for one more read.
    ///
    /// A buffer for a body begins a little behind the start of its memory. Both it and the TLS
    /// record that its bytes are copied to would otherwise begin a page, the record five bytes
    /// later, and copying forward to an address that ends like the source's and a few bytes more is
    /// slow on some processors (glibc bug 30994: a third of the time of a large download).
    fn make_room(&mut self) {
        if self.room <= SMALL_READ || !self.input.is_empty() {
            self.input.reserve(self.room);
            return;
        }
        self.input = BytesMut::with_capacity(ASIDE + self.room);
        self.input.put_bytes(0, ASIDE);
        self.input.advance(ASIDE);
    }

    /// Makes room for a body of this length, so that it need not grow on the way.
    pub(super) fn expect(&mut self, length: u64) {
        let length = usize::try_from(length).unwrap_or(LARGE_READ);
        self.room = self.room.max(length.min(LARGE_READ));
    }

    /// True if the peer has neither closed the connection nor sent anything since.
    pub(in crate::upstream) fn is_quiet(&mut self, look: Look) -> bool {
        self.stream.is_quiet(look)
    }

    /// Counts for this client as long as the exchange lasts.
    pub(super) fn hold(&mut self, share: Option<Share>) {
        self.stream.hold(share);
    }

    pub(super) fn take_share(&mut self) -> Option<Share> {
        self.stream.take_share()
    }

    /// Gives back the memory that one large exchange needed, and what counted for its client.
    pub(in crate::upstream) fn rest(&mut self) {
        self.stream.hold(None);
        debug_assert!(self.input.is_empty(), "a connection with leftovers must not rest");
        if self.room > SMALL_READ {
            self.input = BytesMut::new();
            self.room = SMALL_READ;
        }
        if self.output.capacity() > SMALL_READ {
            self.output = Vec::new();
        }
    }
}
