//! An HTTP/1.1 connection: its stream and its buffers, which are reused between exchanges.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::mem;
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, BytesMut};
use http::HeaderName;
use tokio::io::AsyncReadExt;

use crate::clock::coarse_now;
use crate::proxy_protocol::Addresses;
use crate::upstream::address::Address;
use crate::upstream::breaker::Breaker;
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::{Look, Stream};
use crate::upstream::holding::Holding;
use crate::upstream::lifetime::{Lifetime, Spent};
use crate::upstream::member::{Member, Number};

/// Size of the first read; most responses fit.
const SMALL_READ: usize = 8 * 1024;

/// Maximum size of a read, for a peer that fills every buffer.
const LARGE_READ: usize = 64 * 1024;

/// Bytes between the start of a large buffer's memory and its first byte.
const ASIDE: usize = 512;

thread_local! {
    /// Memory for the small reads of this worker's connections. A connection has it only from a
    /// read that found something until the exchange is over, so that neither idle connections nor
    /// those that wait for a backend keep a buffer.
    static SPARE: Cell<BytesMut> = Cell::default();
}

/// A connection that carries one exchange at a time. Dropping it closes the connection.
#[derive(Debug)]
pub(in crate::upstream) struct Connection {
    pub(super) stream: Stream,
    /// The cluster that the connection belongs to, and the number of its endpoint there. Weak: an
    /// idle connection does not keep its cluster.
    cluster: Weak<Cluster>,
    number: Number,
    address: Address,
    life: Lifetime,
    /// The connection of the client that its PROXY header names.
    proxied: Option<Box<Addresses>>,
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
    pub(super) fn new(
        stream: Stream,
        cluster: &Arc<Cluster>,
        member: &Member,
        proxied: Option<&Addresses>,
    ) -> Self {
        Self {
            stream,
            cluster: Arc::downgrade(cluster),
            number: member.number(),
            address: member.address().clone(),
            life: Lifetime::begin(cluster.settings().lifetime, coarse_now()),
            proxied: proxied.copied().map(Box::new),
            input: BytesMut::new(),
            room: SMALL_READ,
            output: Vec::new(),
            fields: Vec::new(),
        }
    }

    pub(in crate::upstream) fn cluster(&self) -> &Weak<Cluster> {
        &self.cluster
    }

    /// Returns the name of the cluster for the log; `None` if it no longer exists.
    pub(super) fn cluster_name(&self) -> Option<String> {
        self.cluster.upgrade().map(|cluster| cluster.settings().name.to_string())
    }

    pub(in crate::upstream) fn number(&self) -> Number {
        self.number
    }

    /// Returns true if requests of this connection of a client, or of no client, may use it.
    pub(in crate::upstream) fn is_for(&self, proxied: Option<&Addresses>) -> bool {
        self.proxied.as_deref() == proxied
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the limits of the connection's cluster.
    pub(in crate::upstream) fn breaker(&self) -> &Breaker {
        self.stream.breaker()
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
        if outcome.is_pending() {
            self.give_back_spare();
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
            if self.input.capacity() == 0 {
                self.input = SPARE.take();
                if self.input.capacity() >= self.room / 2 {
                    return;
                }
            }
            self.input.reserve(self.room);
            return;
        }
        self.input = BytesMut::with_capacity(ASIDE + self.room);
        self.input.put_bytes(0, ASIDE);
        self.input.advance(ASIDE);
    }

    /// Leaves the memory for small reads to the worker's other connections, unless it holds data.
    fn give_back_spare(&mut self) {
        if self.room <= SMALL_READ && self.input.is_empty() {
            let input = mem::take(&mut self.input);
            let spare = SPARE.take();
            SPARE.set(if spare.capacity() > input.capacity() { spare } else { input });
        }
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

    /// Counts a request that the connection has served.
    pub(in crate::upstream) fn has_served(&mut self) {
        self.life.serves();
    }

    /// Returns true if the connection is to serve no further request because of its age or their
    /// number, and counts it; the caller closes it.
    pub(in crate::upstream) fn retires(&self, now: u64) -> bool {
        let Some(spent) = self.life.spent(now) else { return false };
        let counts = self.stream.counts().here();
        match spent {
            Spent::Age => counts.connections_aged.one_more(),
            Spent::Requests => counts.connections_used_up.one_more(),
        }
        true
    }

    /// Keeps the counts of a request during its exchange. Returns those of the request before.
    pub(super) fn hold(&mut self, holding: Holding) -> Holding {
        self.stream.hold(holding)
    }

    /// Prepares the connection for the pool: releases the memory of a large exchange and the counts
    /// of its request.
    pub(in crate::upstream) fn rest(&mut self) {
        drop(self.stream.hold(Holding::default()));
        debug_assert!(self.input.is_empty(), "a connection with leftovers must not rest");
        self.give_back_spare();
        self.input = BytesMut::new();
        self.room = SMALL_READ;
        if self.output.capacity() > SMALL_READ {
            self.output = Vec::new();
        }
    }
}
