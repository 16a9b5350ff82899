//! Response bodies on their way to the client.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use crate::body::{Body, BodyError, Response};
use crate::clock::coarse_now;
use crate::downstream::Millis;
use crate::failure::Failure;
use crate::proxy::exchange_record::Record;
use crate::proxy::response_window::{self, Pieces};
use crate::proxy::stall::Stall;

/// The body of a response to the client. The exchange ends when it is dropped.
#[derive(Debug)]
pub(super) struct TrackedBody {
    body: Body,
    /// `None` for the response that begins a tunnel: the tunnel owns the record.
    record: Option<Box<Record>>,
    /// The limit on the whole exchange continues to apply while the body is sent.
    deadline: Option<Pin<Box<Sleep>>>,
    /// The last frame was sent, or the body broke off.
    ended: bool,
    /// HTTP/2: the client's window must open before the next poll.
    owed: bool,
    pieces: Pieces,
    /// The timeout of silence in both directions, of gRPC or of the rule.
    idle: Option<Stall>,
    /// Time at which the last frame arrived from the backend.
    came_at: Millis,
    /// An error to be returned at the next poll only: hyper ends an HTTP/1 connection on an error
    /// without sending the data that it holds, and the client should get the part of the response
    /// that has arrived.
    broken: Option<BodyError>,
}

impl TrackedBody {
    pub(super) fn response(
        response: Response,
        mut record: Box<Record>,
        deadline: Option<Pin<Box<Sleep>>>,
    ) -> http::Response<Self> {
        record.respond(response.status());
        record.told(response.headers());
        let owed = record.protocol.has_streams() && !response.body().is_end_stream();
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

    /// Builds the response after which the connection is a tunnel. It has no body.
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

    /// Counts the data that hyper is given, and starts the wait for the client's window.
    fn gives(&mut self, data: Bytes) -> Bytes {
        if let Some(record) = &mut self.record {
            record.response_bytes += data.len() as u64;
            if record.protocol.has_streams() {
                self.owes(true);
                response_window::is_owed();
            }
        }
        data
    }

    /// Records that a frame arrived from the backend.
    fn moves(&mut self, now: Millis) {
        self.came_at = now;
        let received = self.record.as_ref().and_then(|record| record.received.as_ref());
        if let Some(received) = received {
            received.moved.store(now, Ordering::Relaxed);
        }
    }

    /// Returns true if nothing has moved in either direction for the limit, if there is one.
    fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(idle) = &mut self.idle else { return false };
        let received = self.record.as_ref().and_then(|record| record.received.as_ref());
        let moved = received.map_or(0, |received| received.moved.load(Ordering::Relaxed));
        idle.poll(self.came_at.max(moved), cx)
    }

    /// Ends the body with `error` at the next poll.
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

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.owes(false);
        response_window::is_given();
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            let failure = self
                .record
                .as_ref()
                .map_or(Failure::RequestTimeout, |of| of.too_long(of.awaits_body()));
            self.broke(failure);
            return self.break_off(failure.text().into(), cx);
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
                let cut = self.record.as_ref().is_some_and(|record| record.protocol.has_streams());
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
            // The cause is left out: hyper would reset the stream with the code that the backend
            // gave, and to a client NO_ERROR or REFUSED_STREAM do not mean that the response broke
            // off.
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

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.owes(false);
        if !self.ended && !self.is_end_stream() {
            self.broke(Failure::ClientGone);
        }
    }
}
