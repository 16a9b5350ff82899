//! gRPC-Web: translation of calls from browsers, which cannot read trailers, for gRPC backends.
//!
//! A browser sends `application/grpc-web`, or `application/grpc-web-text` with the whole body in
//! base64. The backend gets `application/grpc`. In the response, the trailers become the last
//! message of the body, marked by the highest bit of its first byte (grpc/doc/PROTOCOL-WEB.md). As
//! with Envoy's filter of that name, the translation happens right before the request is forwarded,
//! so every other filter sees what the client sent.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, TE, TRAILER};
use http::{HeaderMap, HeaderValue, Method, request};
use http_body::{Body as HttpBody, Frame};

use crate::body::{Body, BodyError, Response};
use crate::snapshot::matcher::{GrpcWeb, grpc_web, is_grpc};

/// The highest bit of a message's first byte: the message contains trailers.
const TRAILERS: u8 = 0x80;

/// A call that arrived as gRPC-Web and is forwarded as gRPC.
#[derive(Clone, Copy, Debug)]
pub(super) struct GrpcWebCall {
    request: GrpcWeb,
    response: GrpcWeb,
}

impl GrpcWebCall {
    /// Converts the head of a gRPC-Web call to that of a gRPC call. Returns `None` for any other
    /// request, which stays unchanged.
    pub(super) fn translate(head: &mut request::Parts) -> Option<Self> {
        if head.method != Method::POST {
            return None;
        }
        let (request, suffix) = grpc_web(head.headers.get(CONTENT_TYPE)?)?;
        let content_type = HeaderValue::from_str(&format!("application/grpc{suffix}")).ok()?;
        // A client that accepts no form of gRPC-Web explicitly gets the form that it used.
        let accepted = head.headers.get(ACCEPT).and_then(grpc_web).map(|(form, _)| form);
        let headers = &mut head.headers;
        headers.insert(CONTENT_TYPE, content_type);
        headers.insert(TE, HeaderValue::from_static("trailers"));
        // gRPC-Web clients support no compression.
        headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
        if request == GrpcWeb::Text {
            headers.remove(CONTENT_LENGTH);
        }
        Some(Self { request, response: accepted.unwrap_or(request) })
    }

    /// Returns the request body in the form that the backend gets.
    pub(super) fn request_body(self, body: Body) -> Body {
        match self.request {
            GrpcWeb::Text if !body.is_end_stream() => {
                Body::boxed(DecodedBody { body, rest: BytesMut::new(), ended: false })
            }
            GrpcWeb::Text | GrpcWeb::Binary => body,
        }
    }

    /// Converts the response of a backend to the form that the client gets. A response that is not
    /// gRPC stays unchanged: the client reads its HTTP status.
    pub(super) fn response(self, mut response: Response) -> Response {
        if !is_grpc(response.headers()) {
            return response;
        }
        let content_type = self.content_type(response.headers());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, content_type);
        headers.remove(CONTENT_LENGTH);
        headers.remove(TRAILER);
        // A response without a body has its status in its head, where the client reads it.
        if response.body().is_end_stream() {
            return response;
        }
        let text = self.response == GrpcWeb::Text;
        response.map(|body| Body::boxed(EncodedBody { body, text, ended: false }))
    }

    /// Returns the content type of the response, with the suffix that the backend used.
    fn content_type(self, headers: &HeaderMap) -> HeaderValue {
        let backend = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let suffix = backend.and_then(|value| value.get("application/grpc".len()..));
        let suffix = suffix.filter(|suffix| suffix.starts_with('+')).unwrap_or("+proto");
        let form = match self.response {
            GrpcWeb::Binary => "application/grpc-web",
            GrpcWeb::Text => "application/grpc-web-text",
        };
        let value = HeaderValue::from_str(&format!("{form}{suffix}"));
        value.unwrap_or(HeaderValue::from_static("application/grpc-web+proto"))
    }
}

/// A request body decoded from base64. Its buffer is bounded by one of the client's frames.
struct DecodedBody {
    body: Body,
    /// Up to three characters of an incomplete group of four.
    rest: BytesMut,
    ended: bool,
}

impl HttpBody for DecodedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while !self.ended {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()? else {
                self.ended = true;
                if !self.rest.is_empty() {
                    return Poll::Ready(Some(Err("the base64 of the request is cut off".into())));
                }
                break;
            };
            let Ok(data) = frame.into_data() else { continue };
            self.rest.extend_from_slice(&data);
            let whole = self.rest.len() / 4 * 4;
            let groups = self.rest.split_to(whole);
            match decode(&groups) {
                Some(decoded) if decoded.is_empty() => {}
                Some(decoded) => return Poll::Ready(Some(Ok(Frame::data(decoded)))),
                None => {
                    self.ended = true;
                    return Poll::Ready(Some(Err("the request is not base64".into())));
                }
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// Decodes complete groups of four characters. A client may pad wherever it flushed its buffer, so
/// padding ends a piece and not the body.
fn decode(mut groups: &[u8]) -> Option<Bytes> {
    let mut decoded = Vec::with_capacity(groups.len() / 4 * 3);
    while !groups.is_empty() {
        let padding = memchr::memchr(b'=', groups);
        let end = padding.map_or(groups.len(), |at| (at / 4 + 1) * 4);
        let (piece, others) = groups.split_at(end);
        STANDARD.decode_vec(piece, &mut decoded).ok()?;
        groups = others;
    }
    Some(decoded.into())
}

/// A response body with its trailers as the last message, in base64 if the client requested text.
struct EncodedBody {
    body: Body,
    text: bool,
    ended: bool,
}

impl HttpBody for EncodedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?;
        let Some(frame) = polled else {
            self.ended = true;
            return Poll::Ready(None);
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                self.ended = true;
                message_of(&frame.into_trailers().unwrap_or_default())
            }
        };
        // Each frame is padded separately, so that a client can read it at once.
        let data = if self.text { STANDARD.encode(&data).into() } else { data };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// Encodes trailers as a message: the mark, the length, and one line per field, each ending in
/// CRLF.
fn message_of(trailers: &HeaderMap) -> Bytes {
    let mut lines = BytesMut::new();
    for (name, value) in trailers {
        lines.put_slice(name.as_str().as_bytes());
        lines.put_u8(b':');
        lines.put_slice(value.as_bytes());
        lines.put_slice(b"\r\n");
    }
    // An HTTP/2 field section is bounded far below 4 GiB.
    let length = u32::try_from(lines.len()).unwrap_or(u32::MAX);
    let mut message = BytesMut::with_capacity(5 + lines.len());
    message.put_u8(TRAILERS);
    message.put_u32(length);
    message.put_slice(&lines);
    message.freeze()
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn head(method: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::builder().method(method);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn stream(frames: Vec<Frame<Bytes>>) -> Body {
        let frames = frames.into_iter().map(Ok::<_, BodyError>);
        Body::boxed(StreamBody::new(futures_util::stream::iter(frames)))
    }

    fn call(request: GrpcWeb, response: GrpcWeb) -> GrpcWebCall {
        GrpcWebCall { request, response }
    }

    #[test]
    fn a_call_reaches_the_backend_as_grpc() {
        // (method, content-type, accept, content-type at the backend and form of the response)
        let table = [
            ("POST", "application/grpc-web", "*/*", Some(("application/grpc", GrpcWeb::Binary))),
            (
                "POST",
                "application/grpc-web+proto",
                "",
                Some(("application/grpc+proto", GrpcWeb::Binary)),
            ),
            ("POST", "application/grpc-web-text", "", Some(("application/grpc", GrpcWeb::Text))),
            (
                "POST",
                "application/grpc-web-text+proto",
                "application/grpc-web",
                Some(("application/grpc+proto", GrpcWeb::Binary)),
            ),
            (
                "POST",
                "application/grpc-web",
                "application/grpc-web-text",
                Some(("application/grpc", GrpcWeb::Text)),
            ),
            ("GET", "application/grpc-web", "*/*", None),
            ("POST", "application/grpc", "*/*", None),
            ("POST", "application/grpc-webs", "*/*", None),
        ];
        for (method, content_type, accept, want) in table {
            let fields =
                [("content-type", content_type), ("accept", accept), ("content-length", "8")];
            let mut head = head(method, &fields);
            let call = GrpcWebCall::translate(&mut head);
            let case = format!("{method} {content_type} {accept}");
            let got =
                call.map(|call| (head.headers[CONTENT_TYPE].to_str().unwrap(), call.response));
            assert_eq!(got, want, "{case}");
            let Some(call) = call else { continue };
            assert_eq!(head.headers[TE], "trailers", "{case}");
            let has_length = head.headers.contains_key(CONTENT_LENGTH);
            assert_eq!(has_length, call.request == GrpcWeb::Binary, "{case}");
        }
    }

    #[tokio::test]
    async fn text_is_decoded_wherever_it_was_cut_or_padded() {
        // (frames, bytes, or `None` for a broken body)
        let table: [(&[&str], Option<&[u8]>); 8] = [
            (&["AAAAAAA="], Some(b"\0\0\0\0\0")),
            (&["AAAA", "AAA="], Some(b"\0\0\0\0\0")),
            (&["A", "AAAA", "A", "A="], Some(b"\0\0\0\0\0")),
            (&["YQ==Yg==YWJj"], Some(b"ababc")),
            (&[], Some(b"")),
            (&["AAAAAAA"], None),
            (&["AA!A"], None),
            (&["AA=A"], None),
        ];
        for (frames, want) in table {
            let data = |text: &&str| Frame::data(Bytes::copy_from_slice(text.as_bytes()));
            let body = stream(frames.iter().map(data).collect());
            let body = call(GrpcWeb::Text, GrpcWeb::Text).request_body(body);
            let got = body.collect().await.ok().map(http_body_util::Collected::to_bytes);
            assert_eq!(got.as_deref(), want, "{frames:?}");
        }
    }

    #[tokio::test]
    async fn trailers_become_the_last_message() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("5"));
        trailers.insert("grpc-message", HeaderValue::from_static("gone"));
        let message = b"\x80\0\0\0\x22grpc-status:5\r\ngrpc-message:gone\r\n";
        // (form of the response, body)
        let table = [
            (GrpcWeb::Binary, [&b"data"[..], message].concat()),
            (GrpcWeb::Text, [STANDARD.encode("data"), STANDARD.encode(message)].concat().into()),
        ];
        for (form, want) in table {
            let frames =
                vec![Frame::data(Bytes::from_static(b"data")), Frame::trailers(trailers.clone())];
            let response = http::Response::builder()
                .header(CONTENT_TYPE, "application/grpc")
                .header(CONTENT_LENGTH, "4")
                .body(stream(frames))
                .unwrap();
            let response = call(form, form).response(response);
            assert!(!response.headers().contains_key(CONTENT_LENGTH), "{form:?}");
            let body = response.into_body().collect().await.unwrap();
            assert!(body.trailers().is_none(), "{form:?}");
            assert_eq!(body.to_bytes(), want, "{form:?}");
        }
    }

    #[test]
    fn a_response_names_its_form_and_other_answers_stay() {
        // (content-type of the backend, form, content-type of the response)
        let table = [
            ("application/grpc", GrpcWeb::Binary, "application/grpc-web+proto"),
            ("application/grpc+json", GrpcWeb::Text, "application/grpc-web-text+json"),
            ("text/html", GrpcWeb::Binary, "text/html"),
        ];
        for (backend, form, want) in table {
            let response = http::Response::builder().header(CONTENT_TYPE, backend);
            let response = call(form, form).response(response.body(Body::Empty).unwrap());
            assert_eq!(response.headers()[CONTENT_TYPE], want, "{backend}");
        }
    }
}
