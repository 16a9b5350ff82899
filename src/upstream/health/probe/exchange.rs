//! One request over a connection of its own, bounded in bytes. The caller bounds its time.

use std::future::{Future, pending};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;

use crate::upstream::connect::Stream;

/// Maximum size of a response head in bytes.
const MAX_HEAD: u32 = 16 * 1024;

/// Number of bytes of a response body that are read. The rest is never received: the connection is
/// closed.
const MAX_BODY: usize = 64 * 1024;

/// The answer to a check.
#[derive(Debug)]
pub(super) struct Received {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// At most the first [`MAX_BODY`] bytes.
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// Sends a request over HTTP/1.1 and returns the response.
///
/// # Errors
///
/// hyper's message: the connection ended, or the response is not HTTP or too large.
pub(super) async fn over_http1(
    stream: Stream,
    request: Request<Full<Bytes>>,
) -> Result<Received, hyper::Error> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD as usize)
        .handshake(TokioIo::new(stream))
        .await?;
    let exchange = async { received(sender.send_request(request).await?).await };
    beside(connection, exchange).await
}

/// Sends a request over HTTP/2 and returns the response.
///
/// # Errors
///
/// See [`over_http1`].
pub(super) async fn over_http2(
    stream: Stream,
    request: Request<Full<Bytes>>,
) -> Result<Received, hyper::Error> {
    let tasks = Tasks::default();
    // Dropped after the exchange, or with this future.
    let _end = EndTasks(&tasks);
    let (mut sender, connection) = http2::Builder::new(tasks.clone())
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await?;
    let exchange = async { received(sender.send_request(request).await?).await };
    beside(connection, exchange).await
}

/// Runs a connection while an exchange on it lasts. After the end of the connection, the rest of the
/// response is still in memory.
async fn beside<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let driver = async {
        connection.await;
        pending().await
    };
    tokio::select! {
        received = exchange => received,
        received = driver => received,
    }
}

async fn received(response: http::Response<Incoming>) -> Result<Received, hyper::Error> {
    let (head, mut body) = response.into_parts();
    let (mut bytes, mut trailers) = (BytesMut::new(), None);
    while !body.is_end_stream() && bytes.len() < MAX_BODY {
        let Some(frame) = body.frame().await else { break };
        match frame?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data[..data.len().min(MAX_BODY - bytes.len())]),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let (status, headers) = (head.status, head.headers);
    Ok(Received { status, headers, body: bytes.freeze(), trailers })
}

/// The tasks of an HTTP/2 connection.
#[derive(Clone, Debug, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spawn(future);
    }
}

/// Ends the tasks when it is dropped. They hold their own executor, so they would not end with it.
struct EndTasks<'a>(&'a Tasks);

impl Drop for EndTasks<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}
