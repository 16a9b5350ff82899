//! A response from an HTTP/2 backend, with the stream that it comes from.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use crate::body::{Body, Response};
use crate::upstream::failure::BodyFault;
use crate::upstream::h2::link::OpenStream;

/// The response as every room speaks it. Its stream lives as long as its body.
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
        Pin::new(&mut self.body)
            .poll_frame(cx)
            .map_err(|error| BodyFault::Reset(io::Error::other(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
