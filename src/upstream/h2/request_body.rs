//! Request bodies for HTTP/2 backends.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::body::{Body, BodyError};
use crate::upstream::h1::Mismatch;

/// State of a request body that the exchange shares with hyper's task for sending it.
#[derive(Debug, Default)]
pub(super) struct Upload {
    broke: AtomicBool,
    /// The response has ended or has been dropped.
    unwanted: AtomicBool,
    pipe: AtomicWaker,
}

impl Upload {
    /// Returns true if the client cut the body off or its length differs from the promised one.
    pub(super) fn is_broken(&self) -> bool {
        self.broke.load(Ordering::Relaxed)
    }

    /// Ends the body: its stream is reset unless the whole body has been sent.
    pub(super) fn end(&self) {
        self.unwanted.store(true, Ordering::Relaxed);
        self.pipe.wake();
    }
}

/// A request body that must have the length that its head promised; otherwise the stream is reset.
/// The error code is CANCEL for every cause: the client's own code could mislead the backend;
/// NO_ERROR would even report success.
pub(super) struct RequestBody {
    body: Body,
    /// Bytes that remain, if the length was promised.
    left: Option<u64>,
    upload: Arc<Upload>,
}

impl RequestBody {
    /// Creates a body; `left` is the length that the head promises, if any.
    pub(super) fn new(body: Body, left: Option<u64>, upload: Arc<Upload>) -> Self {
        Self { body, left, upload }
    }

    fn check(&mut self, frame: Option<&Frame<Bytes>>) -> Result<(), Mismatch> {
        let Some(left) = &mut self.left else { return Ok(()) };
        match frame.map(Frame::data_ref) {
            Some(Some(data)) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Mismatch::Long)?;
                Ok(())
            }
            // Trailers, or the end.
            Some(None) | None if *left > 0 => Err(Mismatch::Short),
            Some(None) | None => Ok(()),
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.upload.pipe.register(cx.waker());
        if self.upload.unwanted.load(Ordering::Relaxed) {
            return Poll::Ready(Some(Err(cancel())));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose();
        let checked = frame.and_then(|frame| {
            self.check(frame.as_ref())?;
            Ok(frame)
        });
        if let Err(error) = &checked {
            tracing::debug!(%error, "request body broke off");
            self.upload.broke.store(true, Ordering::Relaxed);
        }
        Poll::Ready(checked.map_err(|_| cancel()).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_none_or(|left| left == 0) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Returns an error that makes hyper reset the stream with CANCEL.
fn cancel() -> BodyError {
    h2::Error::from(h2::Reason::CANCEL).into()
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").field("left", &self.left).finish_non_exhaustive()
    }
}
