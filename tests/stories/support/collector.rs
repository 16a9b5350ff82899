//! A collector of traces: OTLP over gRPC, read with the real types of the protocol.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::soon;

/// A span as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub trace: String,
    pub id: String,
    /// Empty for the first one of a trace.
    pub parent: String,
    pub state: String,
    pub name: String,
    pub kind: SpanKind,
    pub failed: bool,
    /// Nanoseconds since 1970.
    pub began: u64,
    pub ended: u64,
    pub attributes: BTreeMap<String, String>,
    pub resource: BTreeMap<String, String>,
}

impl Span {
    /// An attribute; empty where there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// How a collector answers a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Takes {
    /// The spans are taken.
    All,
    /// All spans but so many of each call.
    AllBut(i64),
    /// A status of gRPC other than 0.
    Status(&'static str),
    /// Nothing, for as long as it is waited for.
    Never,
    /// A status of HTTP.
    Http(u16),
    /// Bytes without end in place of a message.
    Flood,
    /// A message that says that it is longer than it is.
    Short,
    /// No status behind an empty answer.
    Silence,
}

#[derive(Debug)]
pub(crate) struct Collector {
    pub address: SocketAddr,
    record: watch::Receiver<Record>,
    connections: Arc<AtomicUsize>,
    _server: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Record {
    /// Of calls that were answered with [`Takes::All`].
    spans: Vec<Span>,
    /// The head of every call.
    calls: Vec<HeaderMap>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::answering(|_| Takes::All).await
    }

    /// Answers call number `n`, from 0, as `script` says.
    pub(crate) async fn answering(script: impl Fn(usize) -> Takes + Send + Sync + 'static) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), script).await
    }

    pub(crate) async fn at(
        address: SocketAddr,
        script: impl Fn(usize) -> Takes + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, record) = watch::channel(Record::default());
        let (sender, script) = (Arc::new(sender), Arc::new(script));
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (sender, script) = (Arc::clone(&sender), Arc::clone(&script));
                let service = service_fn(move |request| {
                    let (sender, script) = (Arc::clone(&sender), Arc::clone(&script));
                    async move { Ok::<_, Infallible>(answer(request, &*script, &sender).await) }
                });
                open.spawn(async move {
                    let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = http2.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, record, connections, _server: server }
    }

    /// The spans that were taken so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.record.borrow().spans.clone()
    }

    /// Waits until `fits` has held for as many spans as that; those spans.
    pub(crate) async fn took(
        &self,
        what: &str,
        count: usize,
        fits: impl Fn(&Span) -> bool,
    ) -> Vec<Span> {
        let mut record = self.record.clone();
        let fitting = |record: &Record| {
            record.spans.iter().filter(|span| fits(span)).cloned().collect::<Vec<_>>()
        };
        let wait = record.wait_for(|record| fitting(record).len() >= count);
        let there = soon(what, wait).await.unwrap();
        fitting(&there)
    }

    /// Waits for the spans of a whole request: its own, and those of its tries in their order.
    pub(crate) async fn trace(&self, id: &str) -> (Span, Vec<Span>) {
        let is_request = |span: &Span| span.trace == id && span.kind == SpanKind::Server;
        let request = self.took("the span of the request", 1, is_request).await.remove(0);
        // That of the request is the last one of it.
        let mut tries: Vec<_> =
            self.spans().into_iter().filter(|span| span.parent == request.id).collect();
        tries.sort_by_key(|span| span.began);
        (request, tries)
    }

    /// The head of every call so far.
    pub(crate) fn calls(&self) -> Vec<HeaderMap> {
        self.record.borrow().calls.clone()
    }

    /// Waits for call number `count`.
    pub(crate) async fn called(&self, count: usize) {
        let mut record = self.record.clone();
        let wait = record.wait_for(|record| record.calls.len() >= count);
        soon("the collector is called", wait).await.unwrap();
    }

    /// Connections there ever were.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

async fn answer(
    request: Request<Incoming>,
    script: &(dyn Fn(usize) -> Takes + Send + Sync),
    record: &watch::Sender<Record>,
) -> Answer {
    let (head, body) = request.into_parts();
    assert_eq!(head.uri.path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    let body = body.collect().await.unwrap().to_bytes();
    let mut number = 0;
    record.send_modify(|record| {
        number = record.calls.len();
        record.calls.push(head.headers);
    });
    let message = |bytes: &[u8], length: usize| {
        let length = u32::try_from(length).unwrap().to_be_bytes();
        Frame::data(Bytes::from([&[0][..], &length, bytes].concat()))
    };
    let status = |code: &'static str| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(code));
        trailers.insert("grpc-message", HeaderValue::from_bytes(b"said \xff so").unwrap());
        Frame::trailers(trailers)
    };
    match script(number) {
        Takes::All => {
            let spans = read(&body);
            record.send_modify(|record| record.spans.extend(spans));
            let taken = ExportTraceServiceResponse::default().encode_to_vec();
            respond(200, vec![message(&taken, taken.len()), status("0")])
        }
        Takes::AllBut(rejected_spans) => {
            let error_message = "full".to_owned();
            let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message });
            let said = ExportTraceServiceResponse { partial_success }.encode_to_vec();
            respond(200, vec![message(&said, said.len()), status("0")])
        }
        Takes::Status(code) => respond(200, vec![status(code)]),
        Takes::Never => std::future::pending().await,
        Takes::Http(code) => respond(code, Vec::new()),
        Takes::Flood => {
            let frames = stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[0; 4096]))));
            grpc(200, StreamBody::new(frames).boxed_unsync())
        }
        Takes::Short => respond(200, vec![message(b"x", 7), status("0")]),
        Takes::Silence => respond(200, Vec::new()),
    }
}

fn respond(status: u16, frames: Vec<Frame<Bytes>>) -> Answer {
    grpc(status, StreamBody::new(stream::iter(frames.into_iter().map(Ok))).boxed_unsync())
}

fn grpc(status: u16, body: UnsyncBoxBody<Bytes, Infallible>) -> Answer {
    let head = Response::builder().status(status).header("content-type", "application/grpc");
    head.body(body).unwrap()
}

/// The spans of a message of gRPC.
fn read(body: &[u8]) -> Vec<Span> {
    let (prefix, message) = body.split_at(5);
    let length = u32::from_be_bytes(prefix[1..].try_into().unwrap());
    assert_eq!((prefix[0], length as usize), (0, message.len()));
    let request = ExportTraceServiceRequest::decode(message).unwrap();
    let mut spans = Vec::new();
    for of_resource in request.resource_spans {
        let resource = texts(&of_resource.resource.unwrap().attributes);
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                state: span.trace_state.clone(),
                name: span.name.clone(),
                kind: span.kind(),
                failed: span.status.is_some_and(|status| status.code() == StatusCode::Error),
                began: span.start_time_unix_nano,
                ended: span.end_time_unix_nano,
                attributes: texts(&span.attributes),
                resource: resource.clone(),
            });
        }
    }
    spans
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let texts = attributes.iter().map(|attribute| {
        let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
        match value {
            Some(any_value::Value::StringValue(text)) => (attribute.key.clone(), text.clone()),
            other => panic!("{} is {other:?}", attribute.key),
        }
    });
    texts.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
