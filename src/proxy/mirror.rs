//! Request mirroring: copies of requests to other clusters, whose responses are ignored.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::body::{Body, BodyError};
use crate::clock::coarse_now;
use crate::downstream::{silence, tasks};
use crate::proxy::client_connection::ClientConnection;
use crate::snapshot::Mirror;
use crate::upstream::Holder;

/// Maximum number of frames that a copy may lag behind. The copy for a slower mirror is broken off;
/// the request itself never waits for it.
const LAG: usize = 16;

/// Time limit of a mirrored request. While the request is still being copied, each of its frames
/// restarts the limit, because the time depends on the client's upload.
const LIMIT: Duration = Duration::from_secs(15);

/// Sends the copies that `mirrors` require, charges their descriptors to `client`, and returns the
/// body to forward. PROXY headers name the client of `connection`.
pub(super) fn copy(
    mirrors: &[Mirror],
    head: &request::Parts,
    mut body: Body,
    client: Option<Holder>,
    connection: &ClientConnection,
) -> Body {
    for mirror in mirrors {
        if !mirror.takes(fastrand::u32(..)) {
            continue;
        }
        let moved = Arc::new(AtomicU64::new(coarse_now()));
        let copied = if body.is_end_stream() { Body::Empty } else { tee(&mut body, &moved) };
        let mut request = http::Request::new(copied);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        *request.headers_mut() = head.headers.clone();
        let cluster = mirror.cluster.clone();
        let proxied = cluster.settings().proxy_protocol.map(|_| connection.addresses());
        tasks::spawn(async move {
            let answered = async {
                let sent = cluster.send_of(client, proxied.as_ref(), request);
                let mut body = sent.await.ok()?.response.into_body();
                while body.frame().await.is_some_and(|frame| frame.is_ok()) {}
                Some(())
            };
            let answered = tokio::select! {
                answered = answered => answered,
                () = silence(&moved, LIMIT) => None,
            };
            if answered.is_none() {
                tracing::debug!(cluster = %cluster.settings().name, "mirrored request failed");
            }
        });
    }
    body
}

/// Inserts a tee into `body` and returns the copy.
///
/// `moved` is updated for each frame that the copy gets.
fn tee(body: &mut Body, moved: &Arc<AtomicU64>) -> Body {
    let (frames, copy) = mpsc::channel(LAG);
    let size = body.size_hint();
    *body = Body::boxed(Tee { body: std::mem::take(body), frames: Some(frames) });
    Body::boxed(Copied { frames: copy, moved: Arc::clone(moved), size, ended: false })
}

/// The forwarded body, whose frames are also passed to a copy.
struct Tee {
    body: Body,
    /// `None` once the copy is lost. If it is dropped without an end mark, the copy breaks off too.
    frames: Option<mpsc::Sender<Option<Bytes>>>,
}

impl HttpBody for Tee {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let passed = match &polled {
            Poll::Ready(Some(Ok(frame))) => frame.data_ref().map(|data| Some(data.clone())),
            Poll::Ready(None) => Some(None),
            Poll::Ready(Some(Err(_))) => {
                self.frames = None;
                None
            }
            Poll::Pending => None,
        };
        if let Some(passed) = passed
            && self.frames.as_ref().is_some_and(|frames| frames.try_send(passed).is_err())
        {
            self.frames = None;
        }
        if self.body.is_end_stream()
            && let Some(frames) = self.frames.take()
        {
            // The reader of a body of known length may not poll for its end.
            let _ = frames.try_send(None);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The copied body: the same frames, or an error if the tee lost frames.
struct Copied {
    frames: mpsc::Receiver<Option<Bytes>>,
    moved: Arc<AtomicU64>,
    size: SizeHint,
    ended: bool,
}

impl HttpBody for Copied {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.frames.poll_recv(cx).map(|received| match received {
            Some(Some(data)) => {
                self.moved.store(coarse_now(), Ordering::Relaxed);
                Some(Ok(Frame::data(data)))
            }
            Some(None) => {
                self.ended = true;
                None
            }
            None => {
                self.ended = true;
                Some(Err("the mirrored request broke off".into()))
            }
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copy_has_what_passed_and_ends_with_it() {
        let mut body = Body::from_bytes("hello");
        let copied = tee(&mut body, &Arc::default());
        assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(copied.collect().await.unwrap().to_bytes(), "hello");
    }

    #[tokio::test]
    async fn a_copy_that_lags_breaks_off_and_holds_nobody_up() {
        let frames =
            (0..LAG + 5).map(|_| Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"x"))));
        let stream = futures_util::stream::iter(frames);
        let mut body = Body::boxed(http_body_util::StreamBody::new(stream));
        let copied = tee(&mut body, &Arc::default());
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), LAG + 5);
        assert!(copied.collect().await.is_err());
    }

    #[tokio::test]
    async fn a_request_cut_short_cuts_its_copy_short() {
        let mut body = Body::from_bytes("hello");
        let copied = tee(&mut body, &Arc::default());
        drop(body);
        assert!(copied.collect().await.is_err());
    }
}
