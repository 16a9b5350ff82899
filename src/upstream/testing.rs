//! Backends for the tests of this module: real sockets, scripted bytes.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::body::{Body, BodyError, Request};
use crate::upstream::cluster::{Cluster, ClusterSettings};
use crate::upstream::endpoint::EndpointSettings;
use crate::upstream::upstreams::Upstreams;

/// Names and values in a table.
pub(super) type Fields = [(&'static str, &'static str)];

/// Limit on each wait of a test.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A backend. Each connection runs the script, with its number from 0.
#[derive(Debug)]
pub(super) struct Origin {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Origin {
    pub(super) async fn new<F, R>(script: F) -> Self
    where
        F: Fn(usize, Peer) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = count.fetch_add(1, Ordering::SeqCst);
                connections.spawn(script(number, Peer(stream)));
            }
        });
        Self { address, accepted, _tasks: tasks }
    }

    /// Returns a backend that answers every request on every connection with the same bytes.
    pub(super) async fn answering(response: &'static str) -> Self {
        Self::new(move |_, mut peer| async move {
            while peer.head().await.is_some() {
                peer.write(response).await;
            }
        })
        .await
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// The backend's side of a connection.
#[derive(Debug)]
pub(super) struct Peer(pub TcpStream);

impl Peer {
    /// Reads one request head, without the bytes after it; `None` at the end of the connection.
    pub(super) async fn head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.ok()?);
        }
        Some(String::from_utf8(head).unwrap())
    }

    pub(super) async fn exactly(&mut self, count: usize) -> String {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Reads everything up to the end of the connection, by close or by reset.
    pub(super) async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = self.0.read(&mut buffer).await {
            bytes.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8(bytes).unwrap()
    }

    /// Writes bytes; a closed connection is not a failure of the script.
    pub(super) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.write_all(bytes.as_ref()).await;
    }
}

/// Returns a channel for reports of scripts to the test.
pub(super) fn reports<T>() -> (mpsc::UnboundedSender<T>, Reports<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Reports(receiver))
}

#[derive(Debug)]
pub(super) struct Reports<T>(mpsc::UnboundedReceiver<T>);

impl<T> Reports<T> {
    pub(super) async fn next(&mut self) -> T {
        soon(self.0.recv()).await.expect("the script has ended")
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Returns the outcome of the future; fails the test after [`PATIENCE`].
pub(super) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("too slow")
}

pub(super) fn cluster(addresses: &[SocketAddr]) -> Arc<Cluster> {
    cluster_with(addresses, |_| {})
}

pub(super) fn cluster_with(
    addresses: &[SocketAddr],
    change: impl FnOnce(&mut ClusterSettings),
) -> Arc<Cluster> {
    let endpoints = addresses.iter().copied().map(EndpointSettings::Address).collect();
    let mut settings = ClusterSettings::new("test", endpoints);
    // Another test may set the coarse clock of the process forward by some seconds.
    settings.idle_timeout = Duration::from_secs(1000);
    change(&mut settings);
    Cluster::new(settings, &Upstreams::new([]))
}

/// Returns an address without a listener.
pub(super) async fn dead() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

pub(super) fn request(method: &str, fields: &[(&str, &str)], body: Body) -> Request {
    let mut request = http::Request::builder().method(method).uri("/").header("host", "a.test");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

pub(super) fn get() -> Request {
    request("GET", &[], Body::Empty)
}

/// Returns a body of these frames. It does not indicate its end in advance.
pub(super) fn frames(
    frames: impl IntoIterator<Item = Result<Frame<Bytes>, BodyError>, IntoIter: Send + 'static>,
) -> Body {
    Body::boxed(StreamBody::new(futures_util::stream::iter(frames)))
}

pub(super) fn data(bytes: &'static str) -> Result<Frame<Bytes>, BodyError> {
    Ok(Frame::data(Bytes::from_static(bytes.as_bytes())))
}

/// Reads the whole body and its trailers.
pub(super) async fn collect(body: Body) -> Result<(String, HeaderMap), BodyError> {
    let collected = soon(body.collect()).await?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Ok((String::from_utf8(collected.to_bytes().into()).unwrap(), trailers))
}
