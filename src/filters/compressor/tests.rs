//! Tests of the compression of responses.

use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};

use super::*;
use crate::body::BodyError;
use crate::filters::testing;

const ALL: [Coding; 3] = [Coding::Brotli, Coding::Gzip, Coding::Zstd];

fn compressor(codings: &[(Coding, u64)]) -> Compressor {
    Compressor {
        codings: codings.into(),
        policy: "a/b".into(),
        memory: Arc::default(),
        counts: Arc::default(),
    }
}

fn decoded(coding: Coding, encoded: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    match coding {
        Coding::Brotli => brotli::Decompressor::new(encoded, 4096).read_to_end(&mut plain)?,
        Coding::Gzip => flate2::read::GzDecoder::new(encoded).read_to_end(&mut plain)?,
        Coding::Zstd => zstd::stream::read::Decoder::new(encoded)?.read_to_end(&mut plain)?,
    };
    Ok(plain)
}

fn encoded_body(coding: Coding, frames: Vec<Result<Frame<Bytes>, BodyError>>) -> EncodedBody {
    let body = Body::boxed(StreamBody::new(futures_util::stream::iter(frames)));
    EncodedBody::new(body, coding, Arc::default(), Arc::default())
}

/// Text that compresses somewhat: the same words in another order.
fn text(length: usize) -> Vec<u8> {
    let words = ["gateway ", "listener ", "route ", "backend ", "policy "];
    let mut random = fastrand::Rng::with_seed(7);
    let mut text = Vec::with_capacity(length + 16);
    while text.len() < length {
        text.extend_from_slice(words[random.usize(..words.len())].as_bytes());
    }
    text.truncate(length);
    text
}

/// The response to a request with these fields.
fn response_to(
    filter: &Compressor,
    request: &[(&'static str, &'static str)],
    status: u16,
    response: &[(&'static str, &'static str)],
    body: Body,
) -> (Response, HeaderMap) {
    let (mut exchange, mut head) = (testing::exchange("a.test"), testing::head("/"));
    for (name, value) in request {
        head.headers.append(*name, HeaderValue::from_static(value));
    }
    assert!(filter.apply(&mut exchange, &mut head).is_continue());
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in response {
        answer.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    filter.on_response(&exchange, &mut answer);
    (answer, head.headers)
}

#[test]
fn a_response_is_compressed_if_all_allows_it() {
    type Fields = &'static [(&'static str, &'static str)];
    let body = || Body::from_bytes(text(100));
    // (status, fields of the response, whether it is compressed, lines of Vary)
    let table: [(u16, Fields, bool, &[&str]); 21] = [
        (200, &[("content-type", "text/html; charset=utf-8")], true, &["Accept-Encoding"]),
        (200, &[("content-type", "Application/JSON")], true, &["Accept-Encoding"]),
        (404, &[("content-type", "text/plain")], true, &["Accept-Encoding"]),
        (200, &[], true, &["Accept-Encoding"]),
        (200, &[("vary", "Origin")], true, &["Origin", "Accept-Encoding"]),
        (200, &[("vary", "accept-encoding, Origin")], true, &["accept-encoding, Origin"]),
        (200, &[("vary", "*")], true, &["*"]),
        (200, &[("content-length", "100")], true, &["Accept-Encoding"]),
        (200, &[("content-length", "29")], false, &[]),
        (200, &[("content-type", "image/png")], false, &[]),
        (200, &[("content-type", "text/event-stream")], false, &[]),
        (200, &[("content-type", "application/grpc")], false, &[]),
        (200, &[("content-type", "application/octet-stream")], false, &[]),
        (200, &[("content-encoding", "br")], false, &[]),
        (200, &[("content-encoding", "identity")], false, &[]),
        (200, &[("cache-control", "max-age=1, No-Transform")], false, &[]),
        (200, &[("cache-control", "no-transformation")], true, &["Accept-Encoding"]),
        (206, &[("content-range", "bytes 0-99/200")], false, &[]),
        (200, &[("content-range", "bytes 0-99/200")], false, &[]),
        (206, &[("content-type", "multipart/byteranges; boundary=x")], false, &[]),
        (101, &[], false, &[]),
    ];
    let filter = compressor(&[(Coding::Gzip, 30)]);
    for (status, fields, want, vary) in table {
        let (answer, sent) =
            response_to(&filter, &[("accept-encoding", "gzip")], status, fields, body());
        let headers = answer.headers();
        let coding = headers.get(CONTENT_ENCODING);
        assert_eq!(coding.is_some_and(|coding| coding == "gzip"), want, "{status} {fields:?}");
        assert!(!headers.contains_key(CONTENT_LENGTH) || !want, "{status} {fields:?}");
        let lines: Vec<_> = headers.get_all(VARY).iter().collect();
        assert_eq!(lines, vary, "{status} {fields:?}");
        assert!(!sent.contains_key(ACCEPT_ENCODING));
    }
}

#[test]
fn fields_that_would_be_wrong_are_removed() {
    // (field, value, whether it is kept)
    let table = [
        ("etag", "\"1\"", false),
        ("etag", "W/\"1\"", true),
        ("accept-ranges", "bytes", false),
        ("content-digest", "sha-256=:eA==:", false),
        ("content-md5", "eA==", false),
        ("last-modified", "Tue, 15 Nov 1994 12:45:26 GMT", true),
        ("set-cookie", "a=b", true),
    ];
    let filter = compressor(&[(Coding::Zstd, 30)]);
    for (name, value, kept) in table {
        for (accepted, changed) in [("zstd", true), ("gzip", false)] {
            let request = [("accept-encoding", accepted)];
            let (answer, _) = response_to(
                &filter,
                &request,
                200,
                &[(name, value)],
                Body::from_bytes("a".repeat(99)),
            );
            assert_eq!(answer.headers().contains_key(CONTENT_ENCODING), changed);
            assert_eq!(answer.headers().contains_key(name), kept || !changed, "{name} {accepted}");
        }
    }
}

#[test]
fn a_response_without_content_keeps_its_fields() {
    let filter = compressor(&[(Coding::Gzip, 30)]);
    // (status, fields): 204, 304 and the response to HEAD.
    for (status, length) in [(204, None), (304, None), (200, Some("5000"))] {
        let fields: Vec<_> = [("etag", "\"1\"")]
            .into_iter()
            .chain(length.map(|length| ("content-length", length)))
            .collect();
        let request = [("accept-encoding", "gzip")];
        let (answer, _) = response_to(&filter, &request, status, &fields, Body::Empty);
        assert!(!answer.headers().contains_key(CONTENT_ENCODING), "{status}");
        assert_eq!(answer.headers()[ETAG], "\"1\"");
        assert_eq!(answer.headers()[VARY], "Accept-Encoding");
        let kept = answer.headers().get(CONTENT_LENGTH).map(|length| length.to_str().unwrap());
        assert_eq!(kept, length);
    }
}

#[test]
fn grpc_has_a_compression_of_its_own() {
    let filter = compressor(&[(Coding::Gzip, 30)]);
    for kind in ["application/grpc", "application/grpc+proto", "application/grpc-web-text"] {
        let request = [("accept-encoding", "gzip"), ("content-type", kind)];
        let (answer, sent) =
            response_to(&filter, &request, 200, &[], Body::from_bytes("a".repeat(99)));
        assert!(!answer.headers().contains_key(CONTENT_ENCODING), "{kind}");
        assert_eq!(sent[ACCEPT_ENCODING], "gzip");
    }
}

#[test]
fn each_coding_has_its_own_least_length() {
    let filter = compressor(&[(Coding::Gzip, 1000), (Coding::Brotli, 30)]);
    // (Accept-Encoding, length, coding)
    let table = [
        ("gzip, br", 1000, Some("gzip")),
        ("gzip, br", 999, None),
        ("gzip;q=0.9, br", 999, Some("br")),
        ("br", 29, None),
    ];
    for (accepted, length, want) in table {
        let request = [("accept-encoding", accepted)];
        let body = Body::from_bytes(text(length));
        let (answer, _) = response_to(&filter, &request, 200, &[], body);
        let got = answer.headers().get(CONTENT_ENCODING).map(|coding| coding.to_str().unwrap());
        assert_eq!(got, want, "{accepted} {length}");
    }
}

#[test]
fn nothing_is_compressed_while_memory_is_short() {
    let filter = compressor(&[(Coding::Gzip, 30)]);
    let mut exchange = testing::exchange("a.test");
    (exchange.coding, exchange.is_memory_short) = (Some(Coding::Gzip), true);
    let mut answer = Response::new(Body::from_bytes(text(100)));
    filter.on_response(&exchange, &mut answer);
    assert_eq!(answer.body().size_hint().exact(), Some(100));
    assert_eq!(answer.headers().len(), 1, "{:?}", answer.headers());
}

#[tokio::test]
async fn every_body_is_decoded_to_itself() {
    let frames = |plain: &[u8], size: usize| {
        let data = |part: &[u8]| Ok(Frame::data(Bytes::copy_from_slice(part)));
        plain.chunks(size).map(data).collect::<Vec<_>>()
    };
    for coding in ALL {
        for (length, size) in [(0, 1), (1, 1), (1000, 7), (300_000, 100_000), (1 << 20, 1 << 20)] {
            let plain = text(length);
            let body = encoded_body(coding, frames(&plain, size));
            let encoded = body.collect().await.unwrap().to_bytes();
            assert!(encoded.len() < length / 2 + 100, "{coding:?} {length} {}", encoded.len());
            assert!(decoded(coding, &encoded).unwrap() == plain, "{coding:?} {length} {size}");
        }
    }
}

#[tokio::test]
async fn trailers_follow_and_an_error_leaves_the_encoding_open() {
    let fields = HeaderMap::from_iter([(ETAG, HeaderValue::from_static("\"1\""))]);
    for coding in ALL {
        let data = || Ok(Frame::data(Bytes::from(text(5000))));
        let body = encoded_body(coding, vec![data(), Ok(Frame::trailers(fields.clone()))]);
        let all = body.collect().await.unwrap();
        assert_eq!(all.trailers(), Some(&fields), "{coding:?}");
        assert_eq!(decoded(coding, &all.to_bytes()).unwrap(), text(5000));

        let mut body = encoded_body(coding, vec![data(), Err("gone".into())]);
        let part = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(decoded(coding, &part).is_err(), "{coding:?}: the client sees the end");
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());
    }
}

/// A body that has one more frame each time that the test says so.
struct Slow(tokio::sync::mpsc::UnboundedReceiver<&'static str>);

impl http_body::Body for Slow {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.poll_recv(cx).map(|text| text.map(|text| Ok(Frame::data(text.into()))))
    }
}

#[test]
fn what_a_slow_backend_has_sent_is_passed_on_at_once() {
    for coding in ALL {
        let (send, receive) = tokio::sync::mpsc::unbounded_channel();
        let mut body =
            EncodedBody::new(Body::boxed(Slow(receive)), coding, Arc::default(), Arc::default());
        let mut poll = || Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
        assert!(poll().is_pending(), "{coding:?}: nothing before the first byte");
        let mut encoded = Vec::new();
        for said in ["a", "one\n", "data: two\n\n"] {
            send.send(said).unwrap();
            let Poll::Ready(Some(Ok(frame))) = poll() else {
                panic!("{coding:?} holds {said} back")
            };
            encoded.extend_from_slice(frame.data_ref().unwrap());
            assert!(poll().is_pending(), "{coding:?}");
        }
        // What has come so far can be decoded, although the end is missing.
        let mut plain = [0; 16];
        let mut read: Box<dyn Read> = match coding {
            Coding::Brotli => Box::new(brotli::Decompressor::new(&encoded[..], 1)),
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(&encoded[..])),
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(&encoded[..]).unwrap()),
        };
        read.read_exact(&mut plain).unwrap();
        assert_eq!(&plain, b"aone\ndata: two\n\n", "{coding:?}");
        drop(send);
        assert!(matches!(poll(), Poll::Ready(Some(Ok(_)))), "{coding:?}: the end of the encoding");
        assert!(matches!(poll(), Poll::Ready(None)), "{coding:?}");
    }
}

#[test]
fn other_tasks_have_their_turn_while_a_large_body_is_encoded() {
    const LENGTH: usize = 1 << 20;
    let mut body = encoded_body(Coding::Gzip, vec![Ok(Frame::data(text(LENGTH).into()))]);
    let mut turns = 0;
    loop {
        match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => turns += 1,
            Poll::Ready(Some(Ok(frame))) => assert!(frame.data_ref().unwrap().len() <= 64 << 10),
            Poll::Ready(Some(Err(error))) => panic!("{error}"),
            Poll::Ready(None) => break,
        }
    }
    assert_eq!(turns, LENGTH >> 16);
}

#[test]
fn the_memory_of_an_encoder_is_counted_while_it_lives() {
    for coding in ALL {
        let memory = Arc::<HeldMemory>::default();
        let body = Body::from_bytes(text(100));
        let mut body = EncodedBody::new(body, coding, Arc::clone(&memory), Arc::default());
        assert_eq!(memory.bytes(), 0, "there is none before the first byte");
        body.encoder().unwrap();
        assert!(memory.bytes() >= 256 << 10, "{coding:?} {}", memory.bytes());
        drop(body);
        assert_eq!(memory.bytes(), 0, "{coding:?}");
    }
}
