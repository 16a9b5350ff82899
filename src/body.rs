//! The one body type that every room speaks.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Full};

/// A request on its way, head and body.
pub(crate) type Request = http::Request<Body>;

/// A response on its way, head and body.
pub(crate) type Response = http::Response<Body>;

/// Why a body ended before its end.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Drops the trailer fields that must not come behind a body (RFC 9110 section 6.5.1): those that frame
/// or route a message, authenticate or identify its sender, say how its content is to be processed, or
/// belong to one connection. `None` if nothing is left.
pub(crate) fn settle_trailers(mut trailers: HeaderMap) -> Option<HeaderMap> {
    let refused: Vec<HeaderName> =
        trailers.keys().filter(|name| !may_be_trailer(name)).cloned().collect();
    for name in refused {
        trailers.remove(name);
    }
    (!trailers.is_empty()).then_some(trailers)
}

fn may_be_trailer(name: &HeaderName) -> bool {
    const NEVER: [&str; 39] = [
        "age",
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expect",
        "expires",
        "forwarded",
        "host",
        "http2-settings",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "location",
        "max-forwards",
        "pragma",
        "proxy",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "retry-after",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
        "www-authenticate",
        "x-real-ip",
        "x-request-id",
    ];
    let name = name.as_str();
    // A name with `_` is another name to a CGI backend.
    NEVER.binary_search(&name).is_err() && !name.starts_with("x-forwarded-") && !name.contains('_')
}

/// A body: none, bytes at hand, or a stream.
///
/// Streams are handed on frame by frame, so a slow reader slows the writer; nothing is collected.
#[derive(Debug, Default)]
pub(crate) enum Body {
    #[default]
    Empty,
    Full(Full<Bytes>),
    Boxed(BoxedBody),
}

/// A body of any type behind one pointer.
pub(crate) struct BoxedBody(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>);

impl std::fmt::Debug for BoxedBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BoxedBody")
    }
}

impl Body {
    /// A body from bytes at hand.
    pub(crate) fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Self::Empty } else { Self::Full(Full::new(bytes)) }
    }

    /// A body from any stream of frames.
    pub(crate) fn boxed<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        Self::Boxed(BoxedBody(Box::pin(body.map_err(Into::into))))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(full) => Pin::new(full)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never: Infallible| match never {}))),
            Self::Boxed(boxed) => boxed.0.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(full) => full.is_end_stream(),
            Self::Boxed(boxed) => boxed.0.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(full) => full.size_hint(),
            Self::Boxed(boxed) => boxed.0.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn trailers_pass_but_those_that_frame_route_name_or_belong_to_a_connection() {
        // (name, passes)
        let table = [
            ("content-md5", true),
            ("digest", true),
            ("grpc-message", true),
            ("grpc-status", true),
            ("server-timing", true),
            ("x-sum", true),
            ("age", false),
            ("authorization", false),
            ("connection", false),
            ("content-length", false),
            ("content-type", false),
            ("cookie", false),
            ("forwarded", false),
            ("host", false),
            ("http2-settings", false),
            ("keep-alive", false),
            ("proxy-connection", false),
            ("set-cookie", false),
            ("te", false),
            ("trailer", false),
            ("transfer-encoding", false),
            ("upgrade", false),
            ("x-forwarded-for", false),
            ("x-real-ip", false),
            ("x-request-id", false),
            ("content_length", false),
            ("x_sum", false),
        ];
        for (name, passes) in table {
            let map = HeaderMap::from_iter([(
                HeaderName::from_static(name),
                HeaderValue::from_static("1"),
            )]);
            assert_eq!(settle_trailers(map).is_some(), passes, "{name}");
        }
    }
}
