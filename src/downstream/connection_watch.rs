//! The state of one downstream connection: its activity, the times of it, and how it is to end.
//!
//! A connection sets no timer of its own. It records the time of each event, and a sweep over all
//! connections of a worker, ten times a second, finds those that have exceeded a limit. This costs
//! a few stores per request instead of arming and disarming timers, and one list serves the
//! timeouts, the limit on connections and draining.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use crate::clock::coarse_now;
use crate::downstream::parking::Parking;
use crate::downstream::task_waker::TaskWaker;
use crate::snapshot::ClientLimits;

/// Milliseconds since a moment before the first connection; never 0.
pub(crate) type Millis = u64;

/// The state of a connection, shared by its socket, its requests and the sweep.
#[derive(Debug)]
pub(crate) struct Watch {
    pub peer: SocketAddr,
    /// The limits of the bind. They apply until the listener is known.
    bind_limits: Arc<ClientLimits>,
    listener_limits: OnceLock<Arc<ClientLimits>>,
    /// Time at which the connection began to wait for a request head or to receive one; 0 if it
    /// does neither.
    head_since: AtomicU64,
    /// Time at which the last open exchange ended.
    idle_since: AtomicU64,
    /// Time at which the client sent its last byte.
    read_at: AtomicU64,
    /// Time at which the gateway sent its last byte.
    wrote_at: AtomicU64,
    /// Time at which a write first blocked; 0 if the last write succeeded.
    write_stuck_since: AtomicU64,
    /// Number of open exchanges.
    open: AtomicU32,
    /// Number of exchanges opened so far, and of those that the client abandoned.
    opened: AtomicU32,
    abandoned: AtomicU32,
    /// Number of request bodies that wait for the client.
    awaited_bodies: AtomicU32,
    /// Number of response bodies that wait for the client's flow-control window, and the time at
    /// which that number last changed.
    owed_bodies: AtomicU32,
    room_at: AtomicU64,
    /// HTTP/1: request bytes have arrived, or may still arrive, that were not read to their end.
    unread: AtomicBool,
    /// Number of request bodies that are read and discarded after their requests were answered.
    drained_bodies: AtomicU32,
    /// Time at which the gateway sent its final byte and began to wait for the client to read it; 0
    /// before.
    lingers_since: AtomicU64,
    /// The number of the first request with both `Content-Length` and `Transfer-Encoding`; 0 if
    /// none.
    twofold: AtomicU32,
    /// The number of the request whose target is too long; 0 if none.
    long_target: AtomicU32,
    /// The client speaks HTTP/2. Some limits do not apply: a stream may be idle, and frames between
    /// requests are not a request head.
    http2: AtomicBool,
    /// A TLS handshake is in progress. It has its own timeout.
    handshake: AtomicBool,
    ending: AtomicU8,
    /// See [`cut`](Self::cut) and [`cut_unless_finished`](Self::cut_unless_finished).
    cut: AtomicU8,
    /// Time at which the first ending was requested.
    ending_since: AtomicU64,
    pub parking: Parking,
    task: TaskWaker,
}

/// Time without a request after which an HTTP/1 connection is parked, in milliseconds: parking and
/// its end cost a few microseconds, so a client with a request every second pays little for it.
const PARKED_AFTER: Millis = 1000;

/// Maximum time for a connection without an exchange to close after it was asked to: HTTP/2 needs a
/// round trip for it.
const FAREWELL: Duration = Duration::from_secs(1);

/// Limits on reading after the last response of a connection: `LINGER` for a client that keeps
/// sending, `SILENCE` for one that sends nothing. They match nginx's `lingering_time` and
/// `lingering_timeout`.
pub(crate) const LINGER: Duration = Duration::from_secs(30);
pub(crate) const SILENCE: Duration = Duration::from_secs(5);

/// Time that a connection without a request is kept after it was asked to end: the client may
/// already have sent the first bytes of a request.
pub(crate) const GRACE: Duration = Duration::from_millis(200);

/// Number of abandoned exchanges on a connection from which their share of all is limited.
const MOST_ABANDONED: u32 = 200;

/// The way in which a connection is to end. Later variants outrank earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// After the open exchanges: with GOAWAY or `Connection: close`.
    Gracefully = 1,
    /// At once, because a limit was exceeded.
    AtOnce = 2,
    /// At once, because the process ends.
    Shutdown = 3,
}

/// What the task of an HTTP/1 connection is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    End(Ending),
    Park,
}

impl Watch {
    pub(crate) fn new(peer: SocketAddr, limits: Arc<ClientLimits>, now: Millis) -> Self {
        Self {
            peer,
            bind_limits: limits,
            listener_limits: OnceLock::new(),
            head_since: now.into(),
            idle_since: now.into(),
            read_at: now.into(),
            wrote_at: now.into(),
            write_stuck_since: 0.into(),
            open: 0.into(),
            opened: 0.into(),
            abandoned: 0.into(),
            awaited_bodies: 0.into(),
            owed_bodies: 0.into(),
            room_at: now.into(),
            unread: false.into(),
            drained_bodies: 0.into(),
            lingers_since: 0.into(),
            twofold: 0.into(),
            long_target: 0.into(),
            http2: false.into(),
            handshake: false.into(),
            ending: 0.into(),
            cut: 0.into(),
            ending_since: 0.into(),
            parking: Parking::new(),
            task: TaskWaker::default(),
        }
    }

    /// Sets the limits of the connection's listener, once it is known. They apply to the end.
    pub(crate) fn limited_by(&self, limits: &Arc<ClientLimits>) {
        let _ = self.listener_limits.set(Arc::clone(limits));
    }

    /// Returns the limits of this connection: those of its listener, or of its bind while the
    /// listener is not known.
    pub(crate) fn limits(&self) -> &ClientLimits {
        self.listener_limits.get().unwrap_or(&self.bind_limits)
    }

    pub(crate) fn speaks_http2(&self) {
        self.http2.store(true, Ordering::Relaxed);
    }

    /// Records that a TLS handshake begins. The connection's task enforces its timeout.
    pub(crate) fn begins_handshake(&self) {
        self.handshake.store(true, Ordering::Relaxed);
    }

    /// Records the end of the handshake: from now on the connection waits for a request head.
    pub(crate) fn ends_handshake(&self, now: Millis) {
        self.head_since.store(now, Ordering::Relaxed);
        self.idle_since.store(now, Ordering::Relaxed);
        self.handshake.store(false, Ordering::Relaxed);
    }

    /// Records that bytes were received.
    pub(crate) fn read(&self, now: Millis) {
        self.read_at.store(now, Ordering::Relaxed);
        if !self.is_busy() && !self.http2.load(Ordering::Relaxed) {
            self.unread.store(true, Ordering::Relaxed);
            if self.head_since.load(Ordering::Relaxed) == 0 {
                self.head_since.store(now, Ordering::Relaxed);
            }
        }
    }

    /// Returns true if received bytes belong to a request whose head was already read.
    pub(crate) fn is_busy(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0 || self.drained_bodies.load(Ordering::Relaxed) > 0
    }

    /// Records, for HTTP/1, whether the body of the current request has bytes left to arrive.
    pub(crate) fn leaves_unread(&self, unread: bool) {
        self.unread.store(unread, Ordering::Relaxed);
    }

    /// Returns true if an HTTP/1 client may still be sending bytes that are not read.
    pub(crate) fn has_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Counts a request body as read and discarded until the guard drops.
    pub(crate) fn drains(self: &Arc<Self>) -> DrainedBody {
        self.drained_bodies.fetch_add(1, Ordering::Relaxed);
        DrainedBody(Arc::clone(self))
    }

    /// Records that the gateway has sent its final byte; bytes that still arrive are discarded for
    /// a while.
    pub(crate) fn lingers(&self, now: Millis) {
        if self.lingers_since.load(Ordering::Relaxed) == 0 {
            self.lingers_since.store(now, Ordering::Relaxed);
        }
    }

    /// Records that bytes were sent.
    pub(crate) fn sent(&self, now: Millis) {
        self.wrote_at.store(now, Ordering::Relaxed);
    }

    /// Records that the head of request number `request`, counted from 1, has both `Content-Length`
    /// and `Transfer-Encoding`. The head may be read while an earlier request is served.
    pub(crate) fn is_twofold(&self, request: u32) {
        let order = Ordering::Relaxed;
        let _ = self.twofold.compare_exchange(0, request, order, order);
    }

    /// Returns true if the request of the newest exchange has both fields. That exchange is the
    /// last one of its connection.
    pub(crate) fn opened_twofold(&self) -> bool {
        self.has_just_opened(self.twofold.load(Ordering::Relaxed))
    }

    /// Records that the target of request number `request`, counted from 1, is too long and was
    /// truncated.
    pub(crate) fn has_long_target(&self, request: u32) {
        self.long_target.store(request, Ordering::Relaxed);
    }

    /// Returns true if the target of the newest exchange was truncated. The connection ends with
    /// that exchange.
    pub(crate) fn opened_with_long_target(&self) -> bool {
        self.has_just_opened(self.long_target.load(Ordering::Relaxed))
    }

    /// Returns true if the newest exchange is that of request number `request`.
    fn has_just_opened(&self, request: u32) -> bool {
        request != 0 && request == self.opened.load(Ordering::Relaxed)
    }

    /// Records that a write succeeded or, if `stuck`, that it blocked.
    pub(crate) fn wrote(&self, now: Millis, stuck: bool) {
        if !stuck {
            if self.write_stuck_since.load(Ordering::Relaxed) != 0 {
                self.write_stuck_since.store(0, Ordering::Relaxed);
            }
        } else if self.write_stuck_since.load(Ordering::Relaxed) == 0 {
            self.write_stuck_since.store(now, Ordering::Relaxed);
        }
    }

    /// Records a complete request head: an exchange is open until the guard drops.
    pub(crate) fn open(self: &Arc<Self>) -> OpenExchange {
        self.head_since.store(0, Ordering::Relaxed);
        self.unread.store(false, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        let opened = 1 + self.opened.fetch_add(1, Ordering::Relaxed);
        if self.limits().connection_requests.is_some_and(|most| opened >= most) {
            self.end(Ending::Gracefully);
        }
        OpenExchange(Arc::clone(self))
    }

    /// Records that the client abandoned an exchange before its end.
    ///
    /// Over HTTP/2 that costs the client a dozen bytes and a backend a request (CVE-2023-44487). A
    /// connection that abandons more than half of its exchanges is closed, once their number
    /// exceeds what a person's clicks may reach. Envoy does the same.
    pub(crate) fn abandoned(&self) {
        let abandoned = 1 + self.abandoned.fetch_add(1, Ordering::Relaxed);
        if abandoned >= MOST_ABANDONED && abandoned > self.opened.load(Ordering::Relaxed) / 2 {
            self.end(Ending::AtOnce);
        }
    }

    /// Records that a request body begins or ceases to wait for the client.
    pub(crate) fn awaits_body(&self, waits: bool, now: Millis) {
        if waits {
            // The timeout of a stalled body starts when the gateway begins to wait, not at the last
            // byte.
            self.read_at.fetch_max(now, Ordering::Relaxed);
            self.awaited_bodies.fetch_add(1, Ordering::Relaxed);
        } else {
            self.awaited_bodies.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Records that the response body of an HTTP/2 stream begins or ceases to wait for the client's
    /// window.
    ///
    /// Only the stream is stuck then, not the connection: writes succeed, and a client that opens
    /// no window could keep its stream and a backend forever (CVE-2019-9517).
    pub(crate) fn owes_body(&self, owes: bool, now: Millis) {
        self.room_at.store(now, Ordering::Relaxed);
        if owes {
            self.owed_bodies.fetch_add(1, Ordering::Relaxed);
        } else {
            self.owed_bodies.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Returns the ending that is due at `now` by the limits, if any.
    pub(crate) fn overdue(&self, now: Millis) -> Option<Ending> {
        let limits = self.limits();
        let over = |since: Millis, limit: Duration| {
            since != 0 && u128::from(now.saturating_sub(since)) > limit.as_millis()
        };
        if self.handshake.load(Ordering::Relaxed) {
            return None;
        }
        let (read_at, wrote_at) =
            (self.read_at.load(Ordering::Relaxed), self.wrote_at.load(Ordering::Relaxed));
        let http2 = self.http2.load(Ordering::Relaxed);
        let stuck = self.write_stuck_since.load(Ordering::Relaxed);
        // Over HTTP/1 a client may send its whole request before it reads. Over HTTP/2 it has to
        // read in between, and received bytes may belong to any stream or to none.
        let stuck = if stuck == 0 || http2 { stuck } else { stuck.max(read_at) };
        if over(stuck, limits.send_timeout) {
            return Some(Ending::AtOnce);
        }
        if self.open.load(Ordering::Relaxed) == 0 {
            let lingers = self.lingers_since.load(Ordering::Relaxed);
            if lingers != 0 {
                let (all, silent) = if http2 { (FAREWELL, FAREWELL) } else { (LINGER, SILENCE) };
                let late = over(lingers, all) || over(lingers.max(read_at), silent);
                return late.then_some(Ending::AtOnce);
            }
            // The task that discards the body enforces its timeout.
            if self.drained_bodies.load(Ordering::Relaxed) > 0 {
                return None;
            }
            if over(self.head_since.load(Ordering::Relaxed), limits.head_timeout) {
                return Some(Ending::AtOnce);
            }
            let idle = self.idle_since.load(Ordering::Relaxed);
            // A client without an open exchange has had time to read the request to close.
            let ending = self.ending_since.load(Ordering::Relaxed);
            if ending != 0 && over(ending.max(idle), FAREWELL) {
                return Some(Ending::AtOnce);
            }
            // GOAWAY is only a request. A peer that ignores it gets no more time than it needs to
            // read it.
            if over(idle, limits.idle_timeout + limits.send_timeout) {
                return Some(Ending::AtOnce);
            }
            return over(idle, limits.idle_timeout).then_some(Ending::Gracefully);
        }
        let quiet_since = read_at.max(wrote_at);
        let gone = match http2 {
            // The gateway has sent a PING in the meantime (`proxy/speak.rs`), which a live client
            // answers.
            true => over(quiet_since, limits.quiet_timeout()),
            // The request body may be idle while the response makes progress.
            false => {
                self.awaited_bodies.load(Ordering::Relaxed) > 0
                    && over(quiet_since, limits.body_timeout)
            }
        };
        gone.then_some(Ending::AtOnce)
    }

    /// Returns the number of open exchanges.
    pub(crate) fn open_exchanges(&self) -> usize {
        self.open.load(Ordering::Relaxed) as usize
    }

    /// Returns true if the connection has had no exchange for `patience`.
    pub(crate) fn rests(&self, now: Millis, patience: Millis) -> bool {
        !self.handshake.load(Ordering::Relaxed)
            && self.idle_since().is_some_and(|since| now.saturating_sub(since) > patience)
    }

    /// Returns true if data for the client has been blocked for `patience`.
    pub(crate) fn is_stuck(&self, now: Millis, patience: Millis) -> bool {
        let over = |since: Millis| since != 0 && now.saturating_sub(since) > patience;
        over(self.write_stuck_since.load(Ordering::Relaxed))
            || (self.owed_bodies.load(Ordering::Relaxed) > 0
                && over(self.room_at.load(Ordering::Relaxed)))
    }

    /// Returns the time since which no exchange is open; `None` if one is.
    pub(crate) fn idle_since(&self) -> Option<Millis> {
        (self.open.load(Ordering::Relaxed) == 0).then(|| self.idle_since.load(Ordering::Relaxed))
    }

    /// Returns true once the connection is to end. An HTTP/1 response must announce it.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed) != 0
    }

    /// Returns true if the process ends without any further wait.
    pub(crate) fn is_shut_down(&self) -> bool {
        self.ending.load(Ordering::Relaxed) == Ending::Shutdown as u8
    }

    /// Marks a connection whose end delimits its response (HTTP/1.0): if the response is not
    /// complete, the connection must end with a reset.
    pub(crate) fn cut_unless_finished(&self) {
        self.cut.fetch_max(1, Ordering::Relaxed);
    }

    /// Records that a response or tunnel was cut short: the connection must end with a reset.
    pub(crate) fn cut(&self) {
        self.cut.store(2, Ordering::Relaxed);
    }

    /// Returns true if the socket must be closed with RST. `finished` is true if all data and the
    /// end of the stream were written.
    pub(crate) fn is_cut(&self, finished: bool) -> bool {
        self.cut.load(Ordering::Relaxed) > u8::from(finished)
    }

    /// Asks the connection to end.
    pub(crate) fn end(&self, ending: Ending) {
        if self.ending.fetch_max(ending as u8, Ordering::Relaxed) < ending as u8 {
            let _ = self.ending_since.compare_exchange(
                0,
                coarse_now(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            self.task.wake();
        }
    }

    /// Asks for the connection to be parked if it has been at rest for a while. The task of the
    /// connection decides, because a request may arrive meanwhile.
    pub(crate) fn park_if_at_rest(&self, now: Millis) {
        let rests = self.is_at_rest() && self.rests(now, PARKED_AFTER) && !self.is_ending();
        if rests && self.parking.ask() {
            self.task.wake();
        }
    }

    /// Parks the connection, as asked. Returns false if it is not at rest any more.
    ///
    /// hyper must have been polled just before, so that nothing is left for it to do.
    pub(crate) fn parks(&self) -> bool {
        let parks = self.is_at_rest();
        self.parking.park(parks);
        parks
    }

    /// Records that the connection is no longer parked.
    pub(crate) fn unparks(&self) {
        self.parking.park(false);
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.parking.is_parked()
    }

    /// Returns true if this is an HTTP/1 connection between two requests: no byte of the next one
    /// has arrived, and all bytes of the last response are with the kernel.
    fn is_at_rest(&self) -> bool {
        let is_set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        !self.is_busy()
            && !is_set(&self.http2)
            && !is_set(&self.unread)
            && self.lingers_since.load(Ordering::Relaxed) == 0
            && self.parking.is_quiet(self.opened.load(Ordering::Relaxed))
    }

    /// Resolves when an ending that outranks `known` is requested. One task at a time may wait.
    pub(crate) async fn ending(&self, known: Option<Ending>) -> Ending {
        self.asked(|| self.asked_ending().filter(|ending| Some(*ending) > known)).await
    }

    /// Resolves when an ending that outranks `known` is requested, or when the connection is to be
    /// parked. One task at a time may wait.
    pub(crate) async fn signal(&self, known: Option<Ending>) -> Signal {
        self.asked(|| match self.asked_ending() {
            Some(ending) if Some(ending) > known => Some(Signal::End(ending)),
            _ => self.parking.is_asked().then_some(Signal::Park),
        })
        .await
    }

    /// Resolves when `look` finds something. A request polls this twice, so it costs no more than
    /// two loads once the task is known.
    async fn asked<T>(&self, look: impl Fn() -> Option<T>) -> T {
        let mut known = None;
        poll_fn(|cx| {
            self.task.is(cx.waker(), &mut known);
            look().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Returns the ending that was asked for.
    pub(crate) fn asked_ending(&self) -> Option<Ending> {
        match self.ending.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Ending::Gracefully),
            2 => Some(Ending::AtOnce),
            _ => Some(Ending::Shutdown),
        }
    }
}

/// A guard for a request body that is read and discarded. Dropping it ends the drain.
#[derive(Debug)]
#[must_use = "the body counts as drained only while this guard lives"]
pub(crate) struct DrainedBody(Arc<Watch>);

impl Drop for DrainedBody {
    fn drop(&mut self) {
        self.0.drained_bodies.fetch_sub(1, Ordering::Relaxed);
        self.0.idle_since.store(coarse_now(), Ordering::Relaxed);
    }
}

/// A guard for one open exchange. Dropping it, by return, `?`, cancellation or panic, closes the
/// exchange.
#[derive(Debug)]
#[must_use = "the exchange counts as open only while this guard lives"]
pub(crate) struct OpenExchange(Arc<Watch>);

impl OpenExchange {
    pub(crate) fn watch(&self) -> &Watch {
        &self.0
    }
}

impl Drop for OpenExchange {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle_since.store(coarse_now(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
