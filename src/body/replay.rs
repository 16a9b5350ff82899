//! Request bodies that can be sent more than once, as far as they are buffered.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::body::{Body, BodyError};

/// Default of the maximum number of bytes of a body that are buffered for another attempt. A longer
/// body is forwarded normally, but cannot be sent again once more than this was read from it.
const KEPT: usize = 64 << 10;

/// A body for several consecutive attempts. Copies the data that passes, up to a limit.
#[derive(Debug)]
pub(crate) enum Replay {
    /// No body, as in most requests: nothing is buffered.
    Empty,
    Of(Arc<Mutex<Source>>),
}

/// The body as received from the client so far. Only the attempts of one request lock it, and only
/// the last of them may read it, so the lock is uncontended.
#[derive(Debug)]
pub(crate) struct Source {
    body: Body,
    kept: Vec<u8>,
    /// Maximum length of `kept`.
    most: usize,
    trailers: Option<HeaderMap>,
    /// The body exceeded the buffer or broke, or no other attempt is needed.
    lost: bool,
    ended: bool,
    /// Number of the attempt that may read.
    reader: u32,
}

impl Replay {
    /// Buffers up to 64 KiB.
    pub(crate) fn new(body: Body) -> Self {
        Self::keeping(body, None)
    }

    /// Buffers up to `most` bytes; 64 KiB if it is `None`.
    pub(crate) fn keeping(body: Body, most: Option<usize>) -> Self {
        if body.is_end_stream() {
            return Self::Empty;
        }
        let source = Source {
            body,
            kept: Vec::new(),
            most: most.unwrap_or(KEPT),
            trailers: None,
            lost: false,
            ended: false,
            reader: 0,
        };
        Self::Of(Arc::new(Mutex::new(source)))
    }

    /// Returns the body from its beginning. Bodies of previous attempts become invalid.
    pub(crate) fn again(&self) -> Body {
        let Self::Of(source) = self else { return Body::Empty };
        let mut locked = source.lock().unwrap_or_else(PoisonError::into_inner);
        locked.reader += 1;
        let number = locked.reader;
        drop(locked);
        Body::boxed(Try { source: Arc::clone(source), number, at: 0, told_trailers: false })
    }

    /// Declares that there will be no other attempt: the buffer is freed as soon as the last
    /// attempt has read it.
    pub(crate) fn settle(&self) {
        let Self::Of(source) = self else { return };
        source.lock().unwrap_or_else(PoisonError::into_inner).lost = true;
    }

    /// Returns true if another attempt can send the whole body.
    pub(crate) fn is_whole(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Of(source) => !source.lock().unwrap_or_else(PoisonError::into_inner).lost,
        }
    }
}

impl Source {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => {
                self.lost |= self.kept.len() + data.len() > self.most;
                if !self.lost {
                    self.kept.extend_from_slice(data);
                }
            }
            (None, Some(trailers)) => self.trailers = Some(trailers.clone()),
            (None, None) => {}
        }
    }

    /// Frees the buffer if no other attempt can use it. Only for an attempt that has read all of
    /// it.
    fn forget(&mut self) {
        if self.lost && !self.kept.is_empty() {
            self.kept = Vec::new();
        }
    }
}

/// The body of one attempt: the buffered part, then the rest of the stream.
struct Try {
    source: Arc<Mutex<Source>>,
    number: u32,
    /// Number of buffered bytes that this attempt has read.
    at: usize,
    told_trailers: bool,
}

impl HttpBody for Try {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let mut source = this.source.lock().unwrap_or_else(PoisonError::into_inner);
        if source.reader != this.number {
            return Poll::Ready(Some(Err("another try has the body".into())));
        }
        if this.at < source.kept.len() {
            let data = Bytes::copy_from_slice(&source.kept[this.at..]);
            source.forget();
            this.at = source.kept.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if source.ended {
            let trailers = source.trailers.clone().filter(|_| !this.told_trailers);
            this.told_trailers = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let polled = Pin::new(&mut source.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                source.keep(frame);
                source.forget();
                this.at = source.kept.len();
                this.told_trailers |= frame.is_trailers();
                source.ended = source.body.is_end_stream();
            }
            Poll::Ready(Some(Err(_))) => source.lost = true,
            Poll::Ready(None) => source.ended = true,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let has_trailers = source.trailers.is_some() && !self.told_trailers;
        self.at == source.kept.len()
            && !has_trailers
            && (source.ended || source.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = (source.kept.len() - self.at.min(source.kept.len())) as u64;
        let rest = source.body.size_hint();
        let mut hint = SizeHint::new();
        // Set the upper bound first: the lower one must never exceed it.
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(kept));
        }
        hint.set_lower(rest.lower().saturating_add(kept));
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};

    fn frames(frames: Vec<Result<Frame<Bytes>, BodyError>>) -> Body {
        Body::boxed(StreamBody::new(futures_util::stream::iter(frames)))
    }

    fn data(length: usize) -> Result<Frame<Bytes>, BodyError> {
        Ok(Frame::data(Bytes::from(vec![b'a'; length])))
    }

    fn trailers() -> Result<Frame<Bytes>, BodyError> {
        Ok(Frame::trailers(HeaderMap::from_iter([(
            http::HeaderName::from_static("x-sum"),
            http::HeaderValue::from_static("1"),
        )])))
    }

    /// Returns the length of the rest of a body, and true if it has trailers.
    async fn read(body: Body) -> (usize, bool) {
        let all = body.collect().await.unwrap();
        let has_trailers = all.trailers().is_some();
        (all.to_bytes().len(), has_trailers)
    }

    #[tokio::test]
    async fn every_try_has_all_of_a_short_body() {
        let replay = Replay::new(frames(vec![data(10), data(20), trailers()]));
        let mut first = replay.again();
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap().len(), 10);
        assert_eq!(read(replay.again()).await, (30, true));
        assert!(replay.is_whole());
        assert_eq!(read(replay.again()).await, (30, true));
        assert!(first.frame().await.unwrap().is_err(), "a try that was given up gets nothing more");
    }

    #[tokio::test]
    async fn what_is_kept_has_a_limit() {
        // (frames, whole after the first attempt)
        let table = [
            (vec![KEPT], true),
            (vec![KEPT, 1], false),
            (vec![KEPT + 1], false),
            (vec![1; 1000], true),
        ];
        for (lengths, whole) in table {
            let sum = lengths.iter().sum();
            let replay = Replay::new(frames(lengths.iter().map(|length| data(*length)).collect()));
            assert_eq!(read(replay.again()).await, (sum, false));
            assert_eq!(replay.is_whole(), whole, "{} frames of {sum} bytes", lengths.len());
        }
    }

    #[tokio::test]
    async fn a_body_that_is_settled_is_passed_on_and_not_kept() {
        let kept = |replay: &Replay| match replay {
            Replay::Of(source) => source.lock().unwrap().kept.len(),
            Replay::Empty => 0,
        };
        let replay = Replay::new(frames(vec![data(10), data(20), data(30), trailers()]));
        let mut first = replay.again();
        first.frame().await.unwrap().unwrap();
        first.frame().await.unwrap().unwrap();
        assert_eq!(kept(&replay), 30);
        // The last attempt has begun, and has not read the buffered part when `settle` is called.
        let last = replay.again();
        replay.settle();
        assert!(!replay.is_whole());
        assert_eq!(kept(&replay), 30);
        assert_eq!(read(last).await, (60, true));
        assert_eq!(kept(&replay), 0);
    }

    #[tokio::test]
    async fn a_body_that_broke_has_no_other_try() {
        let replay = Replay::new(frames(vec![data(1), Err("gone".into())]));
        assert!(replay.again().collect().await.is_err());
        assert!(!replay.is_whole());
    }

    #[tokio::test]
    async fn a_length_is_told_to_every_try() {
        let replay = Replay::new(Body::from_bytes("hello"));
        for _ in 0..2 {
            let body = replay.again();
            assert_eq!(body.size_hint().exact(), Some(5));
            assert!(!body.is_end_stream());
            assert_eq!(read(body).await, (5, false));
        }
        assert!(Replay::new(Body::Empty).again().is_end_stream());
    }
}
