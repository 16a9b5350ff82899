//! HTTP/2 over cleartext, to backends that are known to speak it (RFC 9113 section 3.3).
//!
//! hyper does the protocol. What is ours: a few connections for each worker and address, shared by
//! their streams; a new one when all are full; and the knowledge of when a request may be sent
//! again.
//!
//! Deliberately absent: upgrades (RFC 8441 towards the backend). A WebSocket needs an HTTP/1.1
//! backend.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Uri, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Mutex;

use crate::body::{Body, BodyError, Request, Response};
use crate::clock;
use crate::upstream::balance::Candidates;
use crate::upstream::cluster::{Answer, Cluster};
use crate::upstream::connect::{Stream, connect};
use crate::upstream::endpoint::Address;
use crate::upstream::failure::{BodyFault, FailureKind, SendFailure};
use crate::upstream::h1::{Mismatch, RequestFraming};
use crate::upstream::pool::Key;

/// Bytes in flight on one connection, all streams together.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bytes in flight on one stream.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Bytes of a request body that wait for the peer's window.
const SEND_BUFFER: usize = 256 * 1024;

/// Most bytes of a response head, as HPACK counts them.
const MAX_HEAD: u32 = 64 * 1024;

/// How often a peer with open streams is asked whether it lives, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);

/// Streams a peer is taken to allow until it says (RFC 9113 section 6.5.2 advises at least this).
const FIRST_LIMIT: usize = 100;

thread_local! {
    static SHARED: RefCell<Shared> = RefCell::default();
}

/// [`Cluster::send`] for HTTP/2.
pub(super) async fn send(cluster: &Arc<Cluster>, request: Request) -> Result<Answer, SendFailure> {
    let (mut request, upload) =
        prepare(request).map_err(|kind| SendFailure::new(kind, "not sent"))?;
    let replayable = request.method().is_idempotent() && request.body().is_end_stream();
    let mut candidates = Candidates::new(cluster);
    let mut failure = SendFailure::new(FailureKind::NoEndpoint, "the cluster has no endpoint");
    let mut again = false;
    while let Some(candidate) = candidates.next().await {
        let address = match candidate {
            Ok(address) => address,
            Err(unresolved) => {
                failure = unresolved;
                continue;
            }
        };
        loop {
            let mut stream = match open_stream(cluster, &address, &upload).await {
                Ok(stream) => stream,
                Err(refused) => {
                    cluster.avoided().add(address, refused.kind, clock::now());
                    failure = refused;
                    break;
                }
            };
            let copy = (replayable && !again && !stream.first).then(|| copy(&request));
            let mut error = match stream.link.sender.try_send_request(request).await {
                Ok(response) => return Ok(stream.answer(response, address)),
                Err(error) => error,
            };
            if upload.broke.load(Ordering::Relaxed) {
                let details = error.into_error().to_string();
                return Err(SendFailure::new(FailureKind::RequestBody, details).at(address));
            }
            let unsent = error.take_message();
            let fault = Fault::of(&error.into_error());
            if fault.link_is_over {
                forget(cluster, &address, &stream.link);
            }
            match unsent.or(copy.filter(|_| fault.may_go_again)) {
                Some(same) if !again => {
                    tracing::debug!(endpoint = %address, "connection was closing, sending again");
                    cluster.counts().resends.fetch_add(1, Ordering::Relaxed);
                    drop(stream);
                    upload.begin_again();
                    request = same;
                    again = true;
                }
                _ => return Err(fault.failure.at(address)),
            }
        }
    }
    Err(failure)
}

type Outgoing = http::Request<RequestBody>;

/// The request as HTTP/2 wants it: `:authority` from `host`, and a body that is held to its length.
fn prepare(request: Request) -> Result<(Outgoing, Arc<Upload>), FailureKind> {
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::CONNECT || parts.headers.contains_key(UPGRADE) {
        return Err(FailureKind::InvalidRequest("an upgrade needs an HTTP/1.1 backend"));
    }
    let left = match RequestFraming::of(&parts.method, &parts.headers, &body)? {
        RequestFraming::Length(length) => {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            Some(length)
        }
        RequestFraming::Absent | RequestFraming::Chunked => None,
    };
    parts.headers.remove(TRANSFER_ENCODING);
    let authority = match parts.headers.remove(HOST) {
        Some(host) => Authority::try_from(host.as_bytes()).ok(),
        None => parts.uri.authority().cloned(),
    };
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority.ok_or(FailureKind::InvalidRequest("host is no authority"))?);
    uri.path_and_query =
        Some(parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
    parts.uri = Uri::from_parts(uri)
        .map_err(|_| FailureKind::InvalidRequest("target has no place in HTTP/2"))?;
    parts.version = Version::HTTP_2;
    let upload = Arc::new(Upload::default());
    let body = RequestBody { body, left, upload: Arc::clone(&upload) };
    Ok((Outgoing::from_parts(parts, body), upload))
}

/// A second copy of a request without body.
fn copy(request: &Outgoing) -> Outgoing {
    let body = RequestBody {
        body: Body::Empty,
        left: request.body().left,
        upload: Arc::clone(&request.body().upload),
    };
    let mut copy = Outgoing::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// What hyper's error means for us.
struct Fault {
    failure: SendFailure,
    /// The peer says, or it is plain, that it did not act on the request; or the connection broke,
    /// which is enough for a request that may be sent twice.
    may_go_again: bool,
    /// The connection takes no more requests.
    link_is_over: bool,
}

impl Fault {
    fn of(error: &hyper::Error) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        let mut protocol = None;
        while let Some(this) = cause {
            protocol = protocol.or(this.downcast_ref::<h2::Error>());
            cause = this.source();
        }
        let reset = |details: String| SendFailure::new(FailureKind::ResetBeforeHead, details);
        match protocol {
            Some(h2) if h2.is_io() || (h2.is_go_away() && h2.is_remote()) => {
                Self { failure: reset(describe(h2)), may_go_again: true, link_is_over: true }
            }
            Some(h2) if h2.is_remote() => Self {
                failure: reset(describe(h2)),
                may_go_again: h2.reason() == Some(h2::Reason::REFUSED_STREAM),
                link_is_over: false,
            },
            Some(h2) => {
                const WHY: &str = "not valid HTTP/2";
                let failure = SendFailure::new(FailureKind::InvalidResponse(WHY), describe(h2));
                Self { failure, may_go_again: false, link_is_over: h2.is_go_away() }
            }
            None => Self {
                failure: reset(error.to_string()),
                may_go_again: error.is_canceled() || error.is_closed(),
                link_is_over: true,
            },
        }
    }
}

/// An error without what a GOAWAY may carry, which is the peer's to choose.
fn describe(error: &h2::Error) -> String {
    match (error.get_io(), error.reason()) {
        (Some(io), _) => io.to_string(),
        (None, Some(reason)) if error.is_go_away() => format!("connection ended: {reason}"),
        (None, Some(reason)) => format!("stream reset: {reason}"),
        (None, None) => error.to_string(),
    }
}

/// The connections of this worker.
#[derive(Debug, Default)]
struct Shared {
    peers: HashMap<Key, Peer>,
    closed: bool,
}

#[derive(Debug)]
struct Peer {
    cluster: Weak<Cluster>,
    idle_timeout: Duration,
    links: Vec<Shelved>,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct Shelved {
    link: Link,
    /// When a sweep last saw it in use; none since it was used.
    used_at: Option<Instant>,
}

/// Held while a connection is opened, so that a hundred first requests open one and not a hundred.
/// Holds when the last attempt failed, and how.
type Gate = Mutex<Option<(Instant, SendFailure)>>;

/// A connection with its streams.
#[derive(Clone, Debug)]
struct Link {
    sender: SendRequest<RequestBody>,
    load: Arc<Load>,
}

#[derive(Debug)]
struct Load {
    streams: AtomicUsize,
    /// What the peer allows, as far as is known.
    limit: AtomicUsize,
    /// The limit was asked for after the peer's first words.
    settled: AtomicBool,
    driver: AtomicWaker,
}

impl Link {
    fn has_room(&self) -> bool {
        !self.sender.is_closed()
            && self.load.streams.load(Ordering::Relaxed) < self.load.limit.load(Ordering::Relaxed)
    }
}

/// A stream that is open or about to be; dropping it makes room on its link and ends the upload.
#[derive(Debug)]
struct OpenStream {
    link: Link,
    /// The connection was opened for it.
    first: bool,
    upload: Arc<Upload>,
}

impl OpenStream {
    fn new(link: &Link, first: bool, upload: &Arc<Upload>) -> Self {
        link.load.streams.fetch_add(1, Ordering::Relaxed);
        Self { link: link.clone(), first, upload: Arc::clone(upload) }
    }

    fn answer(self, incoming: http::Response<Incoming>, address: Address) -> Answer {
        if !self.link.load.settled.swap(true, Ordering::Relaxed) {
            self.link.load.driver.wake();
        }
        let (parts, body) = incoming.into_parts();
        let mut response = Response::default();
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        if !body.is_end_stream() {
            *response.body_mut() = Body::boxed(ResponseBody { body, _stream: self });
        }
        Answer { response, endpoint: address.into(), tunnel: None }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.link.load.streams.fetch_sub(1, Ordering::Relaxed);
        self.upload.unwanted.store(true, Ordering::Relaxed);
        self.upload.pipe.wake();
    }
}

/// Room for a stream to `address`: on a connection that has some, else on a new one.
async fn open_stream(
    cluster: &Arc<Cluster>,
    address: &Address,
    upload: &Arc<Upload>,
) -> Result<OpenStream, SendFailure> {
    let gate = match find(cluster, address, upload) {
        Ok(stream) => return Ok(stream),
        Err(gate) => gate,
    };
    let asked = clock::now();
    let mut last_failure = gate.lock().await;
    if let Ok(stream) = find(cluster, address, upload) {
        return Ok(stream);
    }
    if let Some((at, failure)) = &*last_failure
        && *at >= asked
    {
        return Err(failure.clone());
    }
    match open_link(cluster, address).await {
        Ok(link) => {
            let stream = OpenStream::new(&link, true, upload);
            shelve(cluster, address, link);
            Ok(stream)
        }
        Err(failure) => {
            *last_failure = Some((clock::now(), failure.clone()));
            Err(failure)
        }
    }
}

fn find(
    cluster: &Arc<Cluster>,
    address: &Address,
    upload: &Arc<Upload>,
) -> Result<OpenStream, Arc<Gate>> {
    SHARED.with_borrow_mut(|shared| {
        let peer = shared.peer(cluster, address);
        match peer.links.iter_mut().find(|shelved| shelved.link.has_room()) {
            Some(shelved) => {
                shelved.used_at = None;
                Ok(OpenStream::new(&shelved.link, false, upload))
            }
            None => Err(Arc::clone(&peer.gate)),
        }
    })
}

fn shelve(cluster: &Arc<Cluster>, address: &Address, link: Link) {
    SHARED.with_borrow_mut(|shared| {
        if !shared.closed {
            let peer = shared.peer(cluster, address);
            peer.links.push(Shelved { link, used_at: None });
        }
    });
}

fn forget(cluster: &Arc<Cluster>, address: &Address, link: &Link) {
    SHARED.with_borrow_mut(|shared| {
        let peer = shared.peer(cluster, address);
        peer.links.retain(|shelved| !Arc::ptr_eq(&shelved.link.load, &link.load));
    });
}

pub(super) fn sweep(now: Instant) {
    SHARED.with_borrow_mut(|shared| shared.sweep(now));
}

pub(super) fn drain() {
    SHARED.with_borrow_mut(|shared| {
        shared.closed = true;
        shared.peers.clear();
    });
}

impl Shared {
    fn peer(&mut self, cluster: &Arc<Cluster>, address: &Address) -> &mut Peer {
        self.peers.entry((cluster.id(), address.clone())).or_insert_with(|| Peer {
            cluster: Arc::downgrade(cluster),
            idle_timeout: cluster.settings().idle_timeout,
            links: Vec::new(),
            gate: Arc::default(),
        })
    }

    fn sweep(&mut self, now: Instant) {
        self.peers.retain(|_, peer| {
            let limit = peer.idle_timeout;
            peer.links.retain_mut(|shelved| {
                if shelved.link.load.streams.load(Ordering::Relaxed) > 0 {
                    shelved.used_at = None;
                }
                let since = *shelved.used_at.get_or_insert(now);
                !shelved.link.sender.is_closed() && now.saturating_duration_since(since) < limit
            });
            // One who waits at the gate still needs its peer.
            peer.cluster.strong_count() > 0
                && (!peer.links.is_empty() || Arc::strong_count(&peer.gate) > 1)
        });
    }
}

async fn open_link(cluster: &Arc<Cluster>, address: &Address) -> Result<Link, SendFailure> {
    let patience = cluster.settings().connect_timeout;
    let stream = connect(address, patience, cluster.counts()).await?;
    let (sender, connection) = Builder::new(Worker)
        .timer(TokioTimer::new())
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_max_send_streams(FIRST_LIMIT)
        .max_header_list_size(MAX_HEAD)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .keep_alive_while_idle(false)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| {
            SendFailure::new(FailureKind::ConnectRefused, error.to_string()).at(address.clone())
        })?;
    let load = Arc::new(Load {
        streams: AtomicUsize::new(0),
        limit: AtomicUsize::new(FIRST_LIMIT),
        settled: AtomicBool::new(false),
        driver: AtomicWaker::new(),
    });
    hyper::rt::Executor::execute(&Worker, Driver { connection, load: Arc::clone(&load) });
    Ok(Link { sender, load })
}

/// The tasks of a connection, on the worker that opened it. They end when its last sender and its
/// last stream are gone.
#[derive(Clone, Copy, Debug)]
struct Worker;

impl<F> hyper::rt::Executor<F> for Worker
where
    F: Future<Output = ()> + Send + 'static,
{
    #[allow(
        clippy::disallowed_methods,
        reason = "hyper drives an HTTP/2 connection in tasks of its own; the connection owns them"
    )]
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

/// Drives a connection, and reads its limit of streams when it is woken.
struct Driver {
    connection: Connection<TokioIo<Stream>, RequestBody, Worker>,
    load: Arc<Load>,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.load.driver.register(cx.waker());
        let outcome = Pin::new(&mut self.connection).poll(cx);
        match outcome {
            Poll::Pending => {
                let limit = self.connection.current_max_send_streams();
                self.load.limit.store(limit, Ordering::Relaxed);
                Poll::Pending
            }
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "HTTP/2 connection ended");
                Poll::Ready(())
            }
        }
    }
}

/// What both ends of an exchange know of its request body, which hyper pipes in a task of its own.
#[derive(Debug, Default)]
struct Upload {
    /// The client's doing: cut off, or not as long as promised.
    broke: AtomicBool,
    /// The response has ended or nobody waits for it.
    unwanted: AtomicBool,
    pipe: AtomicWaker,
}

impl Upload {
    /// Before the request goes on another stream.
    fn begin_again(&self) {
        self.unwanted.store(false, Ordering::Relaxed);
    }
}

/// A request body that must be as long as its head promised, or the stream is reset.
struct RequestBody {
    body: Body,
    /// Bytes still to come, where their number was promised.
    left: Option<u64>,
    upload: Arc<Upload>,
}

impl RequestBody {
    fn check(&mut self, frame: Option<&Frame<Bytes>>) -> Result<(), Mismatch> {
        let Some(left) = &mut self.left else { return Ok(()) };
        match frame.map(Frame::data_ref) {
            Some(Some(data)) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Mismatch::Long)?;
                Ok(())
            }
            // Trailers, or the end.
            Some(None) | None if *left > 0 => Err(Mismatch::Short),
            Some(None) | None => Ok(()),
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.upload.pipe.register(cx.waker());
        if self.upload.unwanted.load(Ordering::Relaxed) {
            return Poll::Ready(Some(Err("nobody waits for the response".into())));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose();
        let checked = frame.and_then(|frame| {
            self.check(frame.as_ref())?;
            Ok(frame)
        });
        if checked.is_err() {
            self.upload.broke.store(true, Ordering::Relaxed);
        }
        Poll::Ready(checked.transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_none_or(|left| left == 0) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").field("left", &self.left).finish_non_exhaustive()
    }
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

#[cfg(test)]
mod tests;
