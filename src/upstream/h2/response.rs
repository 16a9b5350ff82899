//! Responses of HTTP/2 backends, with their streams.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use crate::body::{Body, Response, settle_trailers};
use crate::upstream::failure::BodyFault;
use crate::upstream::h2::link::OpenStream;

/// Converts a response to the gateway's type. Its stream lives as long as its body.
pub(super) fn response(stream: OpenStream, incoming: http::Response<Incoming>) -> Response {
    stream.heard();
    let (parts, body) = incoming.into_parts();
    let mut response = Response::default();
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    if !body.is_end_stream() {
        *response.body_mut() = Body::boxed(ResponseBody { body, _stream: stream });
    }
    response
}

/// A response body with its stream. Dropping it before its end resets the stream.
#[derive(Debug)]
struct ResponseBody {
    body: Incoming,
    _stream: OpenStream,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    return Poll::Ready(Some(Err(BodyFault::Reset(io::Error::other(error)))));
                }
                // hyper ends a body whose stream is reset with NO_ERROR as if it were complete.
                // Only END_STREAM completes it (RFC 9113 section 8.1).
                None if !self.body.is_end_stream() => {
                    return Poll::Ready(Some(Err(BodyFault::Truncated)));
                }
                None => return Poll::Ready(None),
            };
            match frame.into_trailers() {
                Ok(trailers) => {
                    if let Some(trailers) = settle_trailers(trailers) {
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                }
                Err(data) => return Poll::Ready(Some(Ok(data))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
