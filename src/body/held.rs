//! Bodies that are held as a whole, and the memory that filters need for bodies.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::body::{Body, BodyError};

/// The memory that filters hold for bodies, over all workers.
#[derive(Debug, Default)]
pub(crate) struct HeldMemory {
    bytes: AtomicU64,
    is_closed: AtomicBool,
}

impl HeldMemory {
    /// Returns the number of bytes that are held.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Sets whether no more may be held, because memory is short.
    pub(crate) fn close(&self, is_closed: bool) {
        self.is_closed.store(is_closed, Ordering::Relaxed);
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }
}

/// The reason why a body was not held.
#[derive(Debug)]
pub(crate) enum NotHeld {
    /// The body broke off, or its sender stalled.
    Broken,
    /// Memory is short.
    NoMemory,
    TooLong,
}

/// Memory that counts as held while this lives.
#[derive(Debug)]
pub(crate) struct HeldShare {
    memory: Arc<HeldMemory>,
    bytes: u64,
}

impl HeldShare {
    /// Counts `bytes` as held.
    pub(crate) fn of(memory: &Arc<HeldMemory>, bytes: usize) -> Self {
        let mut share = Self { memory: Arc::clone(memory), bytes: 0 };
        share.grow(bytes);
        share
    }

    fn grow(&mut self, to: usize) {
        let to = to as u64;
        if to > self.bytes {
            self.memory.bytes.fetch_add(to - self.bytes, Ordering::Relaxed);
            self.bytes = to;
        }
    }
}

impl Drop for HeldShare {
    fn drop(&mut self) {
        self.memory.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A body that has arrived as a whole.
#[derive(Debug)]
struct HeldBody {
    data: Bytes,
    trailers: Option<HeaderMap>,
    _share: HeldShare,
}

/// Reads all of `body`, at most `limit` bytes. Returns it with its length; the length is `None` if
/// trailers follow, which a message with a length cannot have over HTTP/1.
///
/// The bytes are copied: a frame may be a small part of a buffer that it would keep alive. Memory is taken as
/// bytes arrive, whatever length is announced.
///
/// # Errors
///
/// The reason why the body is not held. What was read of it is lost.
pub(crate) async fn hold(
    mut body: Body,
    limit: u64,
    memory: &Arc<HeldMemory>,
) -> Result<(Body, Option<u64>), NotHeld> {
    let mut share = HeldShare::of(memory, 0);
    let (mut data, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.map_err(|_| NotHeld::Broken)?.into_data() {
            Ok(piece) => {
                if (data.len() + piece.len()) as u64 > limit {
                    return Err(NotHeld::TooLong);
                }
                if memory.is_closed() {
                    return Err(NotHeld::NoMemory);
                }
                data.extend_from_slice(&piece);
                share.grow(data.capacity());
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let length = trailers.is_none().then_some(data.len() as u64);
    Ok((Body::boxed(HeldBody { data: data.into(), trailers, _share: share }), length))
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        /// So that the sender's buffers stay as small as for a body that streams.
        const PIECE: usize = 64 << 10;
        if !self.data.is_empty() {
            let length = self.data.len().min(PIECE);
            return Poll::Ready(Some(Ok(Frame::data(self.data.split_to(length)))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    fn frames(frames: Vec<Result<Frame<Bytes>, BodyError>>) -> Body {
        Body::boxed(StreamBody::new(futures_util::stream::iter(frames)))
    }

    fn data(length: usize) -> Result<Frame<Bytes>, BodyError> {
        Ok(Frame::data(Bytes::from(vec![b'a'; length])))
    }

    #[tokio::test]
    async fn a_body_is_held_up_to_the_limit_and_counted_while_it_lives() {
        let memory = Arc::<HeldMemory>::default();
        // (lengths of frames, length that is held)
        let table: [(&[usize], Option<u64>); 5] = [
            (&[], Some(0)),
            (&[100_000], Some(100_000)),
            (&[60_000, 40_000], Some(100_000)),
            (&[60_000, 40_001], None),
            (&[100_001], None),
        ];
        for (lengths, want) in table {
            let body = frames(lengths.iter().map(|length| data(*length)).collect());
            match (hold(body, 100_000, &memory).await, want) {
                (Ok((held, length)), Some(want)) => {
                    assert_eq!(length, Some(want));
                    assert!(memory.bytes() >= want, "{}", memory.bytes());
                    assert_eq!(held.size_hint().exact(), Some(want));
                    assert_eq!(held.collect().await.unwrap().to_bytes().len() as u64, want);
                }
                (Err(NotHeld::TooLong), None) => {}
                (other, _) => panic!("{lengths:?} {other:?}"),
            }
            assert_eq!(memory.bytes(), 0, "{lengths:?}");
        }
    }

    #[tokio::test]
    async fn trailers_follow_and_leave_the_length_open() {
        let fields = HeaderMap::from_iter([(
            http::HeaderName::from_static("x-sum"),
            http::HeaderValue::from_static("1"),
        )]);
        let body = frames(vec![data(3), Ok(Frame::trailers(fields.clone()))]);
        let (held, length) = hold(body, 10, &Arc::default()).await.unwrap();
        let all = held.collect().await.unwrap();
        assert_eq!((length, all.trailers()), (None, Some(&fields)));
    }

    #[tokio::test]
    async fn nothing_is_held_of_a_body_that_breaks_or_while_memory_is_short() {
        let memory = Arc::<HeldMemory>::default();
        let broken = hold(frames(vec![data(10), Err("gone".into())]), 100, &memory).await;
        assert!(matches!(broken, Err(NotHeld::Broken)), "{broken:?}");
        memory.close(true);
        let short = hold(frames(vec![data(10)]), 100, &memory).await;
        assert!(matches!(short, Err(NotHeld::NoMemory)), "{short:?}");
        memory.close(false);
        assert!(hold(frames(vec![data(10)]), 100, &memory).await.is_ok());
        assert_eq!(memory.bytes(), 0);
    }
}
