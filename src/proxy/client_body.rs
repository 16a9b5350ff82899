//! Request bodies on their way to the backend.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use crate::body::{Body, BodyError, settle_trailers};
use crate::clock::coarse_now;
use crate::downstream::{Ending, Millis, Watch};
use crate::failure::Failure;
use crate::proxy::body_progress::BodyProgress;
use crate::proxy::downstream_body::DownstreamBody;
use crate::proxy::exchange_record::Record;
use crate::proxy::linger;
use crate::proxy::noted_fields::{Noted, NotedFields};
use crate::proxy::stall::Stall;

/// The body of a request. It counts its bytes and detects a client that stalls.
///
/// If it is dropped before its end, [`linger`] reads and discards the rest.
#[derive(Debug)]
pub(super) struct ClientBody {
    /// `None` after the drop.
    incoming: Option<DownstreamBody>,
    watch: Arc<Watch>,
    received: Arc<BodyProgress>,
    /// See [`ClientProtocol::has_streams`](crate::proxy::client_protocol::ClientProtocol).
    has_stream: bool,
    waiting: bool,
    /// Time at which the present wait began.
    waits_since: Millis,
    /// HTTP/2: each stream of a connection stalls separately, so the times of the connection do not
    /// show it. `None` for HTTP/1, and for gRPC, whose streams may be silent.
    stall: Option<Stall>,
    /// The rule has a limit of its own for silence, which [`attempt`](crate::proxy::attempt) and the
    /// response body enforce.
    timed_elsewhere: bool,
    /// The client waits for `100 Continue`, which hyper sends at the first poll, before it sends
    /// the body.
    is_announced: bool,
    /// The body has ended or broken off.
    ended: bool,
}

impl ClientBody {
    /// Returns the body of a request; `None` if it has none.
    pub(super) fn of(
        incoming: DownstreamBody,
        fields: NotedFields,
        record: &mut Record,
    ) -> Option<Self> {
        if incoming.is_end_stream() {
            return None;
        }
        let received = Arc::<BodyProgress>::default();
        record.received = Some(Arc::clone(&received));
        let watch = Arc::clone(&record.connection.watch);
        let has_stream = record.protocol.has_streams();
        if !has_stream {
            watch.leaves_unread(true);
        }
        Some(Self {
            incoming: Some(incoming),
            watch,
            received,
            has_stream,
            waiting: false,
            waits_since: 0,
            stall: None,
            timed_elsewhere: false,
            is_announced: fields.has(Noted::Expect),
            ended: false,
        })
    }

    /// Returns the body to forward.
    pub(super) fn forward(mut self, record: &Record) -> Body {
        let limits = record.connection.watch.limits();
        let limit = limits.body_timeout;
        self.timed_elsewhere = record.has_own_idle_limit();
        let stalls = self.has_stream && !record.is_grpc() && !self.timed_elsewhere;
        self.stall = stalls.then(|| Stall::new(limit));
        match limits.request_timeout {
            None => Body::boxed(self),
            Some(limit) => Body::boxed(TimedBody {
                body: self,
                deadline: Box::pin(tokio::time::sleep_until((record.started() + limit).into())),
            }),
        }
    }

    /// Leaves the rest of the body to be discarded with the connection, unless other requests share
    /// the connection.
    pub(super) fn leave(mut self) {
        if !self.has_stream {
            self.incoming = None;
            self.received.left.store(true, Ordering::Relaxed);
        }
    }

    fn waits(&mut self, waiting: bool) {
        if self.waiting != waiting {
            self.waiting = waiting;
            let now = coarse_now();
            if !self.timed_elsewhere {
                self.watch.awaits_body(waiting, now);
            }
            self.received.awaited.store(waiting, Ordering::Relaxed);
            self.waits_since = now;
        }
    }

    /// Returns true if no byte was received from the client, or sent to it, for longer than the
    /// timeout.
    fn is_stalled(&mut self, cx: &mut Context<'_>) -> bool {
        let since = self.waits_since.max(self.received.moved.load(Ordering::Relaxed));
        let stalled =
            self.waiting && self.stall.as_mut().is_some_and(|stall| stall.poll(since, cx));
        if stalled {
            self.received.stalled.store(true, Ordering::Relaxed);
        }
        stalled
    }

    /// Marks the body as broken off. Over HTTP/1 the rest cannot be distinguished from the next
    /// request.
    fn breaks(&mut self) {
        self.ended = true;
        self.received.abandoned.fetch_or(self.has_stream, Ordering::Relaxed);
    }

    /// Abandons a body that is not complete by its deadline. Over HTTP/1 its connection ends.
    fn is_late(&mut self) {
        self.ended = true;
        self.received.late.store(true, Ordering::Relaxed);
        self.received.left.fetch_or(!self.has_stream, Ordering::Relaxed);
    }

    fn ends(&mut self) {
        self.ended = true;
        if !self.has_stream {
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
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                self.ends();
                return Poll::Ready(None);
            }
        };
        self.received.moved.store(coarse_now(), Ordering::Relaxed);
        match frame.into_trailers() {
            Ok(trailers) => {
                // In trailers, other servers accept a bare LF as the end of a line and hyper does
                // not. Bytes that they read as the next request, hyper would read as more trailers.
                // The connection is therefore closed after trailers.
                if !self.has_stream {
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

/// A request body that must be complete by a deadline.
#[derive(Debug)]
struct TimedBody {
    body: ClientBody,
    deadline: Pin<Box<Sleep>>,
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // A client that sends byte by byte is late, too.
        let has_ended = matches!(polled, Poll::Ready(None | Some(Err(_))));
        if has_ended || self.deadline.as_mut().poll(cx).is_pending() {
            return polled;
        }
        self.body.is_late();
        Poll::Ready(Some(Err(Failure::RequestBodyLate.text().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
        } else if self.is_announced && !self.has_stream {
            // Reading the rest would make hyper send `100 Continue`, which asks the client for the
            // body.
            self.received.left.store(true, Ordering::Relaxed);
        } else {
            linger::drain(incoming, &self.watch, Arc::clone(&self.received));
        }
    }
}
