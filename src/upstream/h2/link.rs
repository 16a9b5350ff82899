//! Connections to HTTP/2 backends, shared by their streams. Each worker has its own.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Mutex;

use crate::clock;
use crate::clock::coarse_now;
use crate::proxy_protocol::Addresses;
use crate::stats::{Sharded, Upstream};
use crate::tls::Alpn;
use crate::upstream::breaker::{Breaker, BreakerLimit, Denied, LONGEST_WAIT, Permit, Way};
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::{Stream, connect};
use crate::upstream::descriptors::{Holder, Share};
use crate::upstream::failure::{FailureKind, SendFailure};
use crate::upstream::h2::outlast::Outlast;
use crate::upstream::h2::request_body::{RequestBody, Upload};
use crate::upstream::host::ActiveRequest;
use crate::upstream::lifetime::{Lifetime, Spent};
use crate::upstream::member::{ByMember, Member};

/// Maximum size in bytes of request body data that waits for the peer's window.
const SEND_BUFFER: usize = 256 * 1024;

/// Maximum size of a response head in bytes, as HPACK counts them.
const MAX_HEAD: u32 = 64 * 1024;

/// Assumed limit of streams before the peer's settings arrive (RFC 9113 section 6.5.2 advises at
/// least this).
const FIRST_LIMIT: usize = 100;

thread_local! {
    static SHARED: RefCell<Shared> = RefCell::default();
}

/// The connections of this worker.
#[derive(Debug, Default)]
struct Shared {
    peers: ByMember<Peer>,
    closed: bool,
}

#[derive(Debug)]
struct Peer {
    cluster: Weak<Cluster>,
    cluster_id: u64,
    /// In milliseconds.
    idle_timeout: u64,
    links: Vec<Shelved>,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct Shelved {
    link: Link,
    life: Lifetime,
    /// The connection of the client that its PROXY header names.
    proxied: Option<Box<Addresses>>,
    /// Time at which a sweep first found it unused, in milliseconds; `None` while it is in use.
    used_at: Option<u64>,
}

/// Lock that is held while a connection is opened, so that a hundred first requests open one and
/// not a hundred. Holds the time and the failure of the last failed attempt.
type Gate = Mutex<Option<(Instant, SendFailure)>>;

/// An error that may return a request of which nothing was sent.
pub(super) type Unsent = TrySendError<http::Request<RequestBody>>;

/// A connection with its streams.
#[derive(Clone, Debug)]
struct Link {
    sender: SendRequest<RequestBody>,
    load: Arc<Load>,
}

#[derive(Debug)]
struct Load {
    streams: AtomicUsize,
    /// The peer's limit of streams, as far as it is known.
    limit: AtomicUsize,
    /// The breaker of the connection's cluster.
    breaker: Arc<Breaker>,
    /// The counters of the rule that the connection was opened for.
    counts: Arc<Sharded<Upstream>>,
    /// The limit was read after the first data from the peer.
    settled: AtomicBool,
    driver: AtomicWaker,
}

impl Link {
    fn has_room(&self) -> bool {
        !self.sender.is_closed()
            && self.load.streams.load(Ordering::Relaxed) < self.load.limit.load(Ordering::Relaxed)
    }
}

/// A stream that is open or about to open. Dropping it frees its place on the connection and ends
/// the upload.
#[derive(Debug)]
pub(super) struct OpenStream {
    link: Link,
    /// The connection was opened for this stream.
    first: bool,
    /// This was the only stream of the connection at its start, so the connection counts for its
    /// client.
    alone: bool,
    share: Option<Share>,
    /// The request in progress at the host, if its cluster counts them.
    active: Option<ActiveRequest>,
    upload: Arc<Upload>,
}

impl OpenStream {
    fn new(link: &Link, first: bool, upload: &Arc<Upload>) -> Self {
        let alone = link.load.streams.fetch_add(1, Ordering::Relaxed) == 0;
        let (share, active) = (None, None);
        Self { link: link.clone(), first, alone, share, active, upload: Arc::clone(upload) }
    }

    /// Counts the connection for a client if no other stream uses it.
    fn held_for(mut self, client: Option<Holder>) -> Result<Self, SendFailure> {
        if self.alone
            && let Some(client) = client
        {
            self.share = Some(client.take().ok_or_else(SendFailure::client_share)?);
        }
        Ok(self)
    }

    /// Counts the stream at its host while it is open.
    pub(super) fn counted(mut self, active: Option<ActiveRequest>) -> Self {
        self.active = active;
        self
    }

    /// Sends the request on this stream. Dropping the future resets the stream.
    pub(super) fn send(
        &mut self,
        request: http::Request<RequestBody>,
    ) -> impl Future<Output = Result<http::Response<Incoming>, Unsent>> {
        self.link.sender.try_send_request(request)
    }

    /// Returns true if the connection was opened for this stream.
    pub(super) fn is_first(&self) -> bool {
        self.first
    }

    /// Reports data from the peer. The first call makes the driver read the limit of streams again.
    pub(super) fn heard(&self) {
        if !self.link.load.settled.swap(true, Ordering::Relaxed) {
            self.link.load.driver.wake();
        }
    }

    /// Removes the connection, which has ended, from the pool: no further stream uses it.
    pub(super) fn retire_link(&self, member: &Member) {
        SHARED.with_borrow_mut(|shared| {
            let Some(peer) = shared.peers.get_mut(member.number()) else { return };
            peer.links.retain(|shelved| !Arc::ptr_eq(&shelved.link.load, &self.link.load));
        });
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.link.load.streams.fetch_sub(1, Ordering::Relaxed);
        self.link.load.breaker.offer();
        self.upload.end();
    }
}

/// Returns a stream to `member` for a client: on a connection with a free place, else on a new
/// one.
pub(super) async fn open_stream(
    cluster: &Arc<Cluster>,
    counts: &Arc<Sharded<Upstream>>,
    client: Option<Holder>,
    proxied: Option<&Addresses>,
    member: &Member,
    upload: &Arc<Upload>,
) -> Result<OpenStream, SendFailure> {
    any_stream(cluster, counts, proxied, member, upload).await?.held_for(client)
}

async fn any_stream(
    cluster: &Arc<Cluster>,
    counts: &Arc<Sharded<Upstream>>,
    proxied: Option<&Addresses>,
    member: &Member,
    upload: &Arc<Upload>,
) -> Result<OpenStream, SendFailure> {
    let gate = match find(cluster, proxied, member, upload) {
        Ok(stream) => return Ok(stream),
        Err(gate) => gate,
    };
    let asked = clock::now();
    let pending = cluster.breaker().pend(counts)?;
    // Those that went before may wait for a connection themselves.
    let Ok(mut last_failure) = tokio::time::timeout(LONGEST_WAIT, gate.lock()).await else {
        return Err(Denied::Overflow(BreakerLimit::Connections).into());
    };
    drop(pending);
    if let Ok(stream) = find(cluster, proxied, member, upload) {
        return Ok(stream);
    }
    if let Some((at, failure)) = &*last_failure
        && *at >= asked
    {
        return Err(failure.clone());
    }
    let find = || find(cluster, proxied, member, upload).ok();
    let permit = match cluster.breaker().admit(counts, find).await? {
        Way::Found(stream) => return Ok(stream),
        Way::Open(permit) => permit,
    };
    match open_link(cluster, counts, proxied, member, permit).await {
        Ok(link) => {
            let stream = OpenStream::new(&link, true, upload);
            shelve(cluster, proxied, member, link);
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
    proxied: Option<&Addresses>,
    member: &Member,
    upload: &Arc<Upload>,
) -> Result<OpenStream, Arc<Gate>> {
    SHARED.with_borrow_mut(|shared| {
        let peer = shared.peer(cluster, member);
        let now = coarse_now();
        let has_room = |shelved: &Shelved| {
            shelved.proxied.as_deref() == proxied
                && shelved.link.has_room()
                && shelved.life.spent(now).is_none()
        };
        match peer.links.iter_mut().find(|shelved| has_room(shelved)) {
            Some(shelved) => {
                shelved.life.serves();
                shelved.used_at = None;
                Ok(OpenStream::new(&shelved.link, false, upload))
            }
            None => Err(Arc::clone(&peer.gate)),
        }
    })
}

fn shelve(cluster: &Arc<Cluster>, proxied: Option<&Addresses>, member: &Member, link: Link) {
    SHARED.with_borrow_mut(|shared| {
        if !shared.closed {
            let peer = shared.peer(cluster, member);
            let proxied = proxied.copied().map(Box::new);
            let mut life = Lifetime::begin(cluster.settings().lifetime, coarse_now());
            // The connection was opened for a stream.
            life.serves();
            peer.links.push(Shelved { link, life, proxied, used_at: None });
        }
    });
}

pub(in crate::upstream) fn sweep(now: u64) {
    SHARED.with_borrow_mut(|shared| shared.sweep(now));
}

pub(in crate::upstream) fn drain() {
    SHARED.with_borrow_mut(|shared| {
        shared.closed = true;
        shared.peers.clear();
    });
}

/// Ends a connection of this worker without streams, of one cluster or of all. Its room is free a
/// moment later, when its task has ended.
pub(in crate::upstream) fn end_one(cluster: Option<u64>) {
    SHARED.with_borrow_mut(|shared| {
        let of = shared.peers.values_mut();
        for peer in of.filter(|peer| cluster.is_none_or(|of| of == peer.cluster_id)) {
            let is_idle = |of: &Shelved| of.link.load.streams.load(Ordering::Relaxed) == 0;
            if let Some(idle) = peer.links.iter().position(is_idle) {
                peer.links.remove(idle);
                return;
            }
        }
    });
}

impl Shared {
    fn peer(&mut self, cluster: &Arc<Cluster>, member: &Member) -> &mut Peer {
        let settings = cluster.settings();
        self.peers.of(member, || Peer {
            cluster: Arc::downgrade(cluster),
            cluster_id: cluster.id(),
            idle_timeout: u64::try_from(settings.idle_timeout.as_millis()).unwrap_or(u64::MAX),
            links: Vec::new(),
            gate: Arc::default(),
        })
    }

    fn sweep(&mut self, now: u64) {
        self.peers.retain(|peer| {
            let limit = peer.idle_timeout;
            let cluster = peer.cluster.upgrade();
            let wanted = cluster.is_some_and(|cluster| cluster.breaker().wants_rest());
            peer.links.retain_mut(|shelved| {
                // Its streams go on; it ends with the last one.
                if let Some(spent) = shelved.life.spent(now) {
                    let counts = shelved.link.load.counts.here();
                    match spent {
                        Spent::Age => counts.connections_aged.one_more(),
                        Spent::Requests => counts.connections_used_up.one_more(),
                    }
                    return false;
                }
                if wanted && shelved.link.load.streams.load(Ordering::Relaxed) == 0 {
                    return false;
                }
                if shelved.link.load.streams.load(Ordering::Relaxed) > 0 {
                    shelved.used_at = None;
                }
                let since = *shelved.used_at.get_or_insert(now);
                !shelved.link.sender.is_closed() && now.saturating_sub(since) < limit
            });
            // A request that waits for the gate still needs its peer.
            peer.cluster.strong_count() > 0
                && (!peer.links.is_empty() || Arc::strong_count(&peer.gate) > 1)
        });
    }
}

async fn open_link(
    cluster: &Arc<Cluster>,
    counts: &Arc<Sharded<Upstream>>,
    proxied: Option<&Addresses>,
    member: &Member,
    permit: Permit,
) -> Result<Link, SendFailure> {
    let stream = connect(cluster, member.address(), Alpn::Http2, proxied, counts, permit).await?;
    // By default, TCP keep-alive rather than HTTP/2 PING: the kernel answers even for a busy backend. A backend
    // that had to answer PINGs within a separate limit would lose all its streams regardless of the
    // limits of their requests.
    stream.notice_loss(cluster.settings().keep_alive);
    let settings = cluster.settings().http2;
    let first_limit = FIRST_LIMIT.min(settings.max_streams);
    let mut builder = Builder::new(Worker);
    builder
        .timer(TokioTimer::new())
        .initial_connection_window_size(settings.connection_window)
        .initial_stream_window_size(settings.stream_window)
        .initial_max_send_streams(first_limit)
        .max_header_list_size(MAX_HEAD)
        .max_send_buf_size(SEND_BUFFER);
    if let Some(ping) = settings.ping {
        builder
            .keep_alive_interval(ping.interval_of(fastrand::u32(..)))
            .keep_alive_timeout(ping.timeout)
            .keep_alive_while_idle(true);
    }
    let (sender, connection) =
        builder.handshake(TokioIo::new(Outlast::new(stream))).await.map_err(|error| {
            SendFailure::new(FailureKind::ConnectRefused, error.to_string())
                .at(member.address().clone())
        })?;
    let load = Arc::new(Load {
        streams: AtomicUsize::new(0),
        limit: AtomicUsize::new(first_limit),
        breaker: Arc::clone(cluster.breaker()),
        counts: Arc::clone(counts),
        settled: AtomicBool::new(false),
        driver: AtomicWaker::new(),
    });
    let driver = Driver { connection, load: Arc::clone(&load), max_streams: settings.max_streams };
    hyper::rt::Executor::execute(&Worker, driver);
    Ok(Link { sender, load })
}

/// Executor for the tasks of a connection, on the worker that opened it. They end when its last
/// sender and its last stream are dropped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Worker;

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

/// Drives a connection, and updates its limit of streams whenever it is polled.
struct Driver {
    connection: Connection<TokioIo<Outlast<Stream>>, RequestBody, Worker>,
    load: Arc<Load>,
    /// The cluster's own limit of streams.
    max_streams: usize,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.load.driver.register(cx.waker());
        let outcome = Pin::new(&mut self.connection).poll(cx);
        match outcome {
            Poll::Pending => {
                let limit = self.connection.current_max_send_streams().min(self.max_streams);
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

#[cfg(test)]
pub(super) fn open_streams(cluster: &Cluster) -> usize {
    SHARED.with_borrow(|shared| {
        let peers = shared.peers.values().filter(|peer| peer.cluster_id == cluster.id());
        let links = peers.flat_map(|peer| &peer.links);
        links.map(|shelved| shelved.link.load.streams.load(Ordering::Relaxed)).sum()
    })
}
