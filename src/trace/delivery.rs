//! OTLP over gRPC: delivers messages of `opentelemetry-otlp` to a collector over a cluster.
//!
//! `opentelemetry-otlp` encodes the message and leaves the transport to an implementation of
//! `HttpClient`. This one makes a gRPC call of it, which needs only five bytes before the message
//! and a status after it. Thus collectors are reached like all other backends: by name or address,
//! over TLS if a policy requires it, with the same limits.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::sync::watch;

use crate::body::{Body, Request};
use crate::trace::collector::CollectorSettings;
use crate::trace::grpc::GrpcStatus;
use crate::upstream::{Cluster, FailureKind};

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Limit on one attempt, including the connection: OTLP's default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Delays between attempts; after the last attempt, the message is dropped.
const WAITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// Maximum size of a collector's answer in bytes.
const ANSWER_BYTES: usize = 64 << 10;
/// Maximum length in bytes of a collector's message in the log.
const WORD_BYTES: usize = 200;

/// Delivers messages to a collector.
pub(super) struct Delivery {
    cluster: Arc<Cluster>,
    headers: HeaderMap,
    /// True when the process is ending: failed attempts are then not repeated.
    ending: watch::Receiver<bool>,
    /// The last message was not delivered, and this was logged.
    failing: AtomicBool,
    /// Number of spans in delivered messages that the collector rejected.
    rejected: Arc<AtomicU64>,
}

/// The reason why a collector did not accept a message.
#[derive(Debug, thiserror::Error)]
enum Undelivered {
    /// A nonzero gRPC `grpc-status`, with `grpc-message`.
    #[error("the collector answered gRPC status {code}: {message:?}")]
    Grpc { code: u8, message: String },
    #[error("the collector answered HTTP {0}")]
    Http(StatusCode),
    #[error("the collector's answer is no gRPC")]
    NoAnswer,
    #[error("{kind}: {details}")]
    Unsent { kind: FailureKind, details: String },
    #[error("the collector did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
}

impl Undelivered {
    /// Returns true if a later attempt may succeed (OTLP specification, "Failures").
    fn may_pass(&self) -> bool {
        match self {
            // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
            Self::Grpc { code, .. } => matches!(code, 1 | 4 | 10 | 11 | 14 | 15),
            Self::Http(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            Self::NoAnswer => false,
            Self::Unsent { kind, .. } => !matches!(kind, FailureKind::InvalidRequest(_)),
            Self::Timeout => true,
        }
    }
}

impl Delivery {
    pub(super) fn new(
        settings: &CollectorSettings,
        cluster: Arc<Cluster>,
        ending: watch::Receiver<bool>,
        rejected: Arc<AtomicU64>,
    ) -> Self {
        let mut headers: HeaderMap = settings.headers.iter().cloned().collect();
        headers.insert(HOST, settings.authority.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        let agent = concat!("edge-gateway/", env!("CARGO_PKG_VERSION"));
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(agent));
        Self { cluster, headers, ending, failing: AtomicBool::new(false), rejected }
    }

    /// Delivers a message with repeated attempts, and returns the collector's answer.
    async fn deliver(&self, message: &Bytes) -> Result<Bytes, Undelivered> {
        let framed = framed(message);
        let mut waits = WAITS.iter();
        loop {
            let undelivered = match self.once(framed.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(undelivered) => undelivered,
            };
            tracing::debug!(collector = %self.cluster.settings().name, "{undelivered}");
            let Some(wait) = waits.next().filter(|_| undelivered.may_pass()) else {
                return Err(undelivered);
            };
            // Jitter, so that gateways that lost the same collector do not reconnect at the same
            // time.
            let wait = wait.mul_f64(1.0 + fastrand::f64() / 2.0);
            let mut ending = self.ending.clone();
            tokio::select! {
                biased;
                _ = ending.wait_for(|ending| *ending) => return Err(undelivered),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Logs the first message that is not delivered, and the first that is delivered after it.
    fn tell(&self, delivered: &Result<Bytes, Undelivered>) {
        let collector = &*self.cluster.settings().name;
        match delivered {
            Ok(_) if self.failing.swap(false, Ordering::Relaxed) => {
                tracing::info!(collector, "traces are exported again");
            }
            Err(error) if !self.failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(collector, %error, "traces cannot be exported and are dropped");
            }
            Ok(_) | Err(_) => {}
        }
    }

    async fn once(&self, framed: Bytes) -> Result<Bytes, Undelivered> {
        let mut request = Request::new(Body::from_bytes(framed));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(METHOD);
        *request.headers_mut() = self.headers.clone();
        match tokio::time::timeout(TIMEOUT, self.call(request)).await {
            Ok(answered) => answered,
            Err(_) => Err(Undelivered::Timeout),
        }
    }

    async fn call(&self, request: Request) -> Result<Bytes, Undelivered> {
        let answer = self.cluster.send(request).await.map_err(|failure| Undelivered::Unsent {
            kind: failure.kind,
            details: failure.details.into_owned(),
        })?;
        let (head, body) = answer.response.into_parts();
        if head.status != StatusCode::OK {
            return Err(Undelivered::Http(head.status));
        }
        let whole = Limited::new(body, ANSWER_BYTES).collect().await;
        let whole = whole.map_err(|_| Undelivered::NoAnswer)?;
        // A trailers-only response has its trailers in the head.
        let status = |headers| GrpcStatus::of(headers, WORD_BYTES);
        match whole.trailers().and_then(status).or_else(|| status(&head.headers)) {
            Some(GrpcStatus { code: 0, .. }) => {
                unframed(whole.to_bytes()).ok_or(Undelivered::NoAnswer)
            }
            Some(GrpcStatus { code, message }) => Err(Undelivered::Grpc { code, message }),
            None => Err(Undelivered::NoAnswer),
        }
    }
}

impl HttpClient for Delivery {
    // The signature that the trait's macro generates.
    fn send_bytes<'s, 'f>(
        &'s self,
        request: http::Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            // Only the body is used: the head is that of OTLP over HTTP.
            let delivered = self.deliver(request.body()).await;
            self.tell(&delivered);
            let answer = delivered?;
            self.rejected.fetch_add(rejected(&answer), Ordering::Relaxed);
            Ok(http::Response::new(answer))
        })
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delivery({})", self.cluster.settings().name)
    }
}

/// Frames a gRPC message: uncompressed flag, length, message.
fn framed(message: &Bytes) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// Returns the only message of an answer; an empty one if there is none.
fn unframed(mut bytes: Bytes) -> Option<Bytes> {
    if bytes.is_empty() {
        return Some(bytes);
    }
    let compressed = bytes.try_get_u8().ok()?;
    let length = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
    (compressed == 0 && bytes.len() == length).then_some(bytes)
}

/// Returns the number of spans that the collector reports as rejected; 0 if the answer is invalid.
fn rejected(answer: &Bytes) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer.clone()).ok();
    let partial = answer.and_then(|answer| answer.partial_success);
    partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    #[test]
    fn a_message_is_taken_whole_or_not_at_all() {
        let message = Bytes::from_static(b"spans");
        assert_eq!(framed(&message), &b"\0\0\0\0\x05spans"[..]);
        assert_eq!(unframed(framed(&message)), Some(message));
        // (answer, message)
        let table: &[(&'static [u8], Option<&'static [u8]>)] = &[
            (b"", Some(b"")),
            (b"\0\0\0\0\0", Some(b"")),
            (b"\0\0\0\0", None),
            (b"\0\0\0\0\x02a", None),
            (b"\0\0\0\0\x01ab", None),
            (b"\0\xff\xff\xff\xffab", None),
            // Compressed, although no encoding was offered.
            (b"\x01\0\0\0\x01a", None),
        ];
        for (answer, message) in table {
            let got = unframed(Bytes::from_static(answer));
            assert_eq!(got.as_deref(), *message, "{answer:?}");
        }
    }

    #[test]
    fn what_is_not_taken_is_counted_as_far_as_it_makes_sense() {
        let answer = |rejected_spans| {
            let error_message = "too many".to_owned();
            let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message });
            Bytes::from(ExportTraceServiceResponse { partial_success }.encode_to_vec())
        };
        let table = [
            (Bytes::new(), 0),
            (answer(7), 7),
            (answer(-7), 0),
            (Bytes::from_static(b"\xff\xff\xff\xff"), 0),
        ];
        for (answer, want) in table {
            assert_eq!(rejected(&answer), want, "{answer:?}");
        }
    }
}
