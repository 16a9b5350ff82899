//! An HTTP/1.1 connection: its stream and its buffers, which are reused between exchanges.

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

/// Size of the first read; most responses fit.
const SMALL_READ: usize = 8 * 1024;

/// Maximum size of a read, for a peer that fills every buffer.
const LARGE_READ: usize = 64 * 1024;

/// Bytes between the start of a large buffer's memory and its first byte.
const ASIDE: usize = 512;

/// A connection that carries one exchange at a time. Dropping it closes the connection.
#[derive(Debug)]
pub(in crate::upstream) struct Connection {
    pub(super) stream: Stream,
    /// Received bytes that are not consumed yet.
    pub(super) input: BytesMut,
    /// Size of the next read; doubled whenever a read fills it.
    room: usize,
    /// Buffer of the last request head, reused for the next.
    pub(super) output: Vec<u8>,
    /// Buffer of the last response's fields, reused for the next.
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
    /// The consumers limit the buffer: they consume its contents before they read again. The
    /// parsers of heads and chunk lines accumulate data, and have limits of their own.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Half the size is sufficient; this avoids a new buffer while slices of the present one are
        // in use.
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

    /// Reserves memory for one more read.
    ///
    /// A buffer for a body begins a little after the start of its memory. Otherwise both this
    /// buffer and the TLS record that its bytes are copied to would begin at the start of a page,
    /// the record five bytes later; copying to an address whose low bits are slightly higher than
    /// the source's is slow on some processors (glibc bug 30994: a third of the time of a large
    /// download).
    fn make_room(&mut self) {
        if self.room <= SMALL_READ || !self.input.is_empty() {
            self.input.reserve(self.room);
            return;
        }
        self.input = BytesMut::with_capacity(ASIDE + self.room);
        self.input.put_bytes(0, ASIDE);
        self.input.advance(ASIDE);
    }

    /// Adapts the read size to a body of this length, so that it need not grow gradually.
    pub(super) fn expect(&mut self, length: u64) {
        let length = usize::try_from(length).unwrap_or(LARGE_READ);
        self.room = self.room.max(length.min(LARGE_READ));
    }

    /// Returns true if the peer has neither closed the connection nor sent anything.
    pub(in crate::upstream) fn is_quiet(&mut self, look: Look) -> bool {
        self.stream.is_quiet(look)
    }

    /// Counts the connection for this client during the exchange.
    pub(super) fn hold(&mut self, share: Option<Share>) {
        self.stream.hold(share);
    }

    pub(super) fn take_share(&mut self) -> Option<Share> {
        self.stream.take_share()
    }

    /// Prepares the connection for the pool: releases the memory of a large exchange and the
    /// client's descriptor.
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
