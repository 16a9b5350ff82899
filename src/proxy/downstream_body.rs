//! Request bodies as they come from hyper, independent of the client's protocol.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use crate::body::BodyError;
use crate::failure::Failure;

/// The body of a request over any client protocol.
///
/// Each variant handles the peculiarities of its server. To the reader all bodies are alike: a body
/// that ends without an error is complete.
#[derive(Debug)]
pub(super) enum DownstreamBody {
    Empty,
    Http1(Incoming),
    Http2(Incoming),
}

impl DownstreamBody {
    /// Wraps the body of an HTTP/1 request.
    pub(super) fn http1(incoming: Incoming) -> Self {
        if incoming.is_end_stream() { Self::Empty } else { Self::Http1(incoming) }
    }

    /// Wraps the body of an HTTP/2 request.
    pub(super) fn http2(incoming: Incoming) -> Self {
        if incoming.is_end_stream() { Self::Empty } else { Self::Http2(incoming) }
    }
}

impl HttpBody for DownstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Http1(incoming) => Pin::new(incoming).poll_frame(cx).map_err(Into::into),
            Self::Http2(incoming) => match Pin::new(&mut *incoming).poll_frame(cx) {
                // hyper ends a body whose stream is reset with NO_ERROR as if it were complete.
                // Only END_STREAM marks a complete body (RFC 9113 section 8.1).
                Poll::Ready(None) if !incoming.is_end_stream() => {
                    Poll::Ready(Some(Err(Failure::ClientGone.details().into())))
                }
                polled => polled.map_err(Into::into),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(incoming) | Self::Http2(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1(incoming) | Self::Http2(incoming) => incoming.size_hint(),
        }
    }
}
