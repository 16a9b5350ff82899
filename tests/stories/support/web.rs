//! A client of HTTP/2, with bodies that stream and requests that upgrade.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::soon;
use super::wire::Stream;

pub(crate) type SendBody = UnsyncBoxBody<Bytes, Infallible>;

pub(crate) fn empty() -> SendBody {
    Empty::new().boxed_unsync()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> SendBody {
    Full::new(bytes.into()).boxed_unsync()
}

/// A body that is written while it is sent; it ends when the sender is dropped.
pub(crate) fn channel() -> (mpsc::Sender<Frame<Bytes>>, SendBody) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
        let frame = receiver.recv().await?;
        Some((Ok(frame), receiver))
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}

/// A response that was read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Fetched {
    /// Reads `response` to its end.
    ///
    /// # Errors
    ///
    /// The stream was reset, or the connection ended, before that.
    pub(crate) async fn read(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        let (head, body) = response.into_parts();
        let collected = soon("the body ends", body.collect()).await?;
        let trailers = collected.trailers().cloned();
        let (status, headers) = (head.status.as_u16(), head.headers);
        Ok(Self { status, headers, body: collected.to_bytes(), trailers })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A connection of HTTP/2.
#[derive(Debug)]
pub(crate) struct Http2 {
    sender: SendRequest<SendBody>,
    connection: JoinSet<Result<(), hyper::Error>>,
}

impl Http2 {
    pub(crate) async fn over(stream: impl Stream + 'static) -> Self {
        let io = TokioIo::new(stream);
        let (sender, driver) = handshake(TokioExecutor::new(), io).await.unwrap();
        let mut connection = JoinSet::new();
        connection.spawn(driver);
        Self { sender, connection }
    }

    /// Sends `request` and waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// The stream was refused or reset, or the connection is gone.
    pub(crate) async fn send(
        &mut self,
        request: Request<SendBody>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        soon("room for a stream", self.sender.ready()).await?;
        soon("an answer", self.sender.send_request(request)).await
    }

    /// A sender of its own, for requests side by side.
    pub(crate) fn sender(&self) -> SendRequest<SendBody> {
        self.sender.clone()
    }

    /// Sends `request` and reads the answer to its end.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub(crate) async fn fetch(
        &mut self,
        request: Request<SendBody>,
    ) -> Result<Fetched, hyper::Error> {
        let response = self.send(request).await?;
        Fetched::read(response).await
    }

    /// GET, which must succeed.
    pub(crate) async fn get(&mut self, url: &str) -> Fetched {
        self.fetch(Request::get(url).body(empty()).unwrap()).await.unwrap()
    }

    /// How the connection ended, once it has.
    ///
    /// # Errors
    ///
    /// Not in order.
    pub(crate) async fn end(&mut self) -> Result<(), hyper::Error> {
        soon("the connection ends", self.connection.join_next()).await.unwrap().unwrap()
    }
}
