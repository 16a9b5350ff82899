//! gRPC echo: returns every message unchanged, for any service and method.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Version};
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;

use crate::body::{Body, Response};

/// True for a gRPC call. It must use HTTP/2, because its trailers need it.
pub(super) fn is_asked_for<B>(request: &http::Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    request.version() == Version::HTTP_2
        && request.method() == Method::POST
        && kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// Streams the messages back while they arrive; a slow reader slows the writer.
pub(super) fn answer(request: http::Request<Incoming>) -> Response {
    let kind = request.headers().get(CONTENT_TYPE).cloned();
    let mut response = Response::new(Body::boxed(Messages { from: Some(request.into_body()) }));
    if let Some(kind) = kind {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

/// The messages of `from`, then `grpc-status: 0` in place of its trailers.
#[derive(Debug)]
struct Messages<B> {
    from: Option<B>,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Messages<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        while let Some(from) = &mut self.from {
            match ready!(Pin::new(from).poll_frame(cx)) {
                // The client's trailers end its own stream, not the response.
                Some(Ok(frame)) if frame.is_trailers() => {}
                Some(frame) => return Poll::Ready(Some(frame)),
                None => {
                    self.from = None;
                    let ok = ("grpc-status", "0");
                    let mut trailers = HeaderMap::new();
                    trailers.insert(ok.0, HeaderValue::from_static(ok.1));
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_post_of_grpc_over_http2_is_a_call() {
        // (method, version, content-type, is it one)
        let table = [
            (Method::POST, Version::HTTP_2, "application/grpc", true),
            (Method::POST, Version::HTTP_2, "application/grpc+proto", true),
            (Method::POST, Version::HTTP_2, "application/json", false),
            (Method::GET, Version::HTTP_2, "application/grpc", false),
            (Method::POST, Version::HTTP_11, "application/grpc", false),
        ];
        for (method, version, kind, want) in table {
            let request = http::Request::builder().method(&method).version(version);
            let request = request.header(CONTENT_TYPE, kind).body(()).unwrap();
            assert_eq!(is_asked_for(&request), want, "{method} {version:?} {kind}");
        }
    }
}
