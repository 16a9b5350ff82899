//! The two bodies of an exchange, as they pass.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::body::{Body, BodyError, Response, settle_trailers};
use crate::proxy::failure::Failure;
use crate::proxy::linger;
use crate::proxy::received::Received;
use crate::proxy::record::Record;
use crate::proxy::room::{self, Pieces};
use crate::proxy::stall::Stall;
use crate::proxy::watch::{Ending, Millis, Watch, coarse_now};

/// A request's body: counted, and watched for a client that stalls.
///
/// What of it has not come when this is dropped is read and thrown away by [`linger`].
#[derive(Debug)]
pub(super) struct ClientBody {
    /// `None` once it is dropped.
    incoming: Option<Incoming>,
    watch: Arc<Watch>,
    received: Arc<Received>,
    is_http2: bool,
    waiting: bool,
    /// When the present wait began.
    waits_since: Millis,
    /// HTTP/2: the streams of a connection stall each by itself, so the connection's own clock does
    /// not tell. `None` for HTTP/1, and for gRPC, whose streams are silent for as long as they like.
    stall: Option<Stall>,
    /// The client sends nothing before `100 Continue`, which hyper sends at the first poll.
    is_announced: bool,
    /// It has ended, or broke.
    ended: bool,
}

impl ClientBody {
    /// The body of a request; one without costs nothing.
    pub(super) fn of(incoming: Incoming, record: &mut Record, is_announced: bool) -> Option<Self> {
        if incoming.is_end_stream() {
            return None;
        }
        let received = Arc::<Received>::default();
        record.received = Some(Arc::clone(&received));
        let watch = Arc::clone(&record.connection.watch);
        let is_http2 = record.is_http2();
        if !is_http2 {
            watch.leaves_unread(true);
        }
        Some(Self {
            incoming: Some(incoming),
            watch,
            received,
            is_http2,
            waiting: false,
            waits_since: 0,
            stall: None,
            is_announced,
            ended: false,
        })
    }

    /// The body to forward.
    pub(super) fn forward(mut self, record: &Record) -> Body {
        let limit = record.connection.gateway.limits.body_timeout;
        self.stall = (self.is_http2 && !record.is_grpc()).then(|| Stall::new(limit));
        Body::boxed(self)
    }

    /// Leaves the rest to be thrown away with the connection, unless other requests share it.
    pub(super) fn leave(mut self) {
        if !self.is_http2 {
            self.incoming = None;
            self.received.left.store(true, Ordering::Relaxed);
        }
    }

    fn waits(&mut self, waiting: bool) {
        if self.waiting != waiting {
            self.waiting = waiting;
            let now = coarse_now();
            self.watch.awaits_body(waiting, now);
            self.received.awaited.store(waiting, Ordering::Relaxed);
            self.waits_since = now;
        }
    }

    /// True if the client has let the body rest for too long, and nothing has come back to it either.
    fn is_stalled(&mut self, cx: &mut Context<'_>) -> bool {
        let since = self.waits_since.max(self.received.moved.load(Ordering::Relaxed));
        let stalled =
            self.waiting && self.stall.as_mut().is_some_and(|stall| stall.poll(since, cx));
        if stalled {
            self.received.stalled.store(true, Ordering::Relaxed);
        }
        stalled
    }

    /// The rest will not come, or cannot be told from what follows it: over HTTP/1 there is more.
    fn breaks(&mut self) {
        self.ended = true;
        self.received.abandoned.fetch_or(self.is_http2, Ordering::Relaxed);
    }

    fn ends(&mut self) {
        self.ended = true;
        if !self.is_http2 {
            self.watch.leaves_unread(false);
        }
    }
}

impl HttpBody for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(incoming).poll_frame(cx);
        self.is_announced = false;
        self.waits(polled.is_pending());
        if self.is_stalled(cx) {
            return Poll::Ready(Some(Err(Failure::RequestBodyStalled.text().into())));
        }
        let frame = match ready!(polled) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.breaks();
                return Poll::Ready(Some(Err(error.into())));
            }
            // hyper ends a body whose stream is reset with NO_ERROR as if it were whole. Only
            // END_STREAM makes it so (RFC 9113 section 8.1).
            None if self.is_http2 && !self.is_end_stream() => {
                self.breaks();
                return Poll::Ready(Some(Err(Failure::ClientGone.details().into())));
            }
            None => {
                self.ends();
                return Poll::Ready(None);
            }
        };
        self.received.moved.store(coarse_now(), Ordering::Relaxed);
        match frame.into_trailers() {
            Ok(trailers) => {
                // hyper takes a bare LF in trailers for no line end where others do, and what
                // they would read as the next request for more trailers. So nothing follows them.
                if !self.is_http2 {
                    self.watch.end(Ending::Gracefully);
                }
                self.ends();
                Poll::Ready(settle_trailers(trailers).map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(frame) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.received.bytes.fetch_add(length as u64, Ordering::Relaxed);
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        self.waits(false);
        let Some(incoming) = self.incoming.take() else { return };
        if self.ended {
            return;
        }
        if incoming.is_end_stream() {
            self.ends();
        } else if self.is_announced && !self.is_http2 {
            // hyper would ask for it.
            self.received.left.store(true, Ordering::Relaxed);
        } else {
            linger::drain(incoming, &self.watch, Arc::clone(&self.received));
        }
    }
}

/// A response's body on its way to the client. The exchange ends when it does.
#[derive(Debug)]
pub(super) struct Tracked {
    body: Body,
    /// `None` for the answer that begins a tunnel: the record is the tunnel's.
    record: Option<Box<Record>>,
    /// HTTPRoute `timeouts.request` goes on while the body flows.
    deadline: Option<Pin<Box<Sleep>>>,
    /// The last frame went out, or the body broke.
    ended: bool,
    /// HTTP/2: the client's window has to open before the next poll.
    owed: bool,
    pieces: Pieces,
    /// gRPC: how long nothing may move in either direction.
    idle: Option<Stall>,
    /// The last frame came from the backend then.
    came_at: Millis,
    /// An error that is told at the next poll: hyper ends an HTTP/1 connection on it without
    /// sending what it holds, and the client should see how far the response came.
    broken: Option<BodyError>,
}

impl Tracked {
    pub(super) fn response(
        response: Response,
        mut record: Box<Record>,
        deadline: Option<Pin<Box<Sleep>>>,
    ) -> http::Response<Self> {
        record.respond(response.status());
        record.told(response.headers());
        let owed = record.is_http2() && !response.body().is_end_stream();
        let idle = record.idle_limit().map(Stall::new);
        if record.ends_with_its_connection(&response) {
            record.connection.watch.cut_unless_finished();
        }
        let mut response = response.map(|body| Self {
            body,
            record: Some(record),
            deadline,
            ended: false,
            owed: false,
            pieces: Pieces::default(),
            idle,
            came_at: coarse_now(),
            broken: None,
        });
        response.body_mut().owes(owed);
        response
    }

    /// The answer after which the connection is a tunnel. It has no body.
    pub(super) fn switch(response: Response) -> http::Response<Self> {
        response.map(|body| Self {
            body,
            record: None,
            deadline: None,
            ended: true,
            owed: false,
            pieces: Pieces::default(),
            idle: None,
            came_at: 0,
            broken: None,
        })
    }

    fn broke(&mut self, failure: Failure) {
        if let Some(record) = &mut self.record {
            record.broke(failure);
        }
    }

    fn owes(&mut self, owed: bool) {
        if self.owed != owed
            && let Some(record) = &self.record
        {
            self.owed = owed;
            record.connection.watch.owes_body(owed, coarse_now());
        }
    }

    /// Counts what hyper is given, and has it wait for room.
    fn gives(&mut self, data: Bytes) -> Bytes {
        if let Some(record) = &mut self.record {
            record.response_bytes += data.len() as u64;
            if record.is_http2() {
                self.owes(true);
                room::is_owed();
            }
        }
        data
    }

    /// Something came from the backend.
    fn moves(&mut self, now: Millis) {
        self.came_at = now;
        let received = self.record.as_ref().and_then(|record| record.received.as_ref());
        if let Some(received) = received {
            received.moved.store(now, Ordering::Relaxed);
        }
    }

    /// True if nothing has moved in either direction for the limit, where there is one.
    fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(idle) = &mut self.idle else { return false };
        let received = self.record.as_ref().and_then(|record| record.received.as_ref());
        let moved = received.map_or(0, |received| received.moved.load(Ordering::Relaxed));
        idle.poll(self.came_at.max(moved), cx)
    }

    /// Ends the body with `error`, one turn from now.
    fn break_off(
        &mut self,
        error: BodyError,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.ended = true;
        self.broken = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.owes(false);
        room::is_given();
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            self.broke(Failure::RequestTimeout);
            return self.break_off(Failure::RequestTimeout.text().into(), cx);
        }
        let now = coarse_now();
        if let Some(piece) = self.pieces.next(now) {
            return Poll::Ready(Some(Ok(Frame::data(self.gives(piece)))));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(_))) = &polled {
            self.moves(now);
        }
        let polled = match polled {
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                let cut = self.record.as_ref().is_some_and(|record| record.is_http2());
                let piece = |data| if cut { self.pieces.cut(data, now) } else { data };
                let frame = frame.map_data(piece).map_data(|data| self.gives(data));
                return Poll::Ready(Some(Ok(frame)));
            }
            other => other,
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(trailers), Some(record)) = (frame.trailers_ref(), &mut self.record) {
                    record.told(trailers);
                }
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "response broke off");
                let of = |is: fn(&Record) -> bool| self.record.as_deref().is_some_and(is);
                let failure = match (of(Record::is_body_stalled), of(Record::is_abandoned)) {
                    (true, _) => Failure::RequestBodyStalled,
                    (false, true) => Failure::ClientGone,
                    (false, false) => Failure::UpstreamReset,
                };
                self.broke(failure);
            }
            Poll::Ready(None) => self.ended = true,
            Poll::Pending if self.is_idle(cx) => {
                self.broke(Failure::TunnelIdle);
                return self.break_off("nothing moved for the tunnel timeout".into(), cx);
            }
            Poll::Pending => {}
        }
        match polled {
            // Without its cause: hyper would reset the stream with the code that the backend gave,
            // and NO_ERROR or REFUSED_STREAM tell a client something else than that it broke off.
            Poll::Ready(Some(Err(_))) => {
                self.break_off(Failure::UpstreamReset.details().into(), cx)
            }
            polled => polled,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.owes(false);
        if !self.ended && !self.is_end_stream() {
            self.broke(Failure::ClientGone);
        }
    }
}
