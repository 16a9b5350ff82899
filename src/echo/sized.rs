//! A body of a given size, generated as it is read.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

const CHUNK: usize = 16 << 10;
static FILLING: [u8; CHUNK] = [b'x'; CHUNK];

/// A body of `size` bytes of `x`, none of them stored.
#[derive(Debug)]
pub(super) struct Sized(u64);

impl Sized {
    pub(super) fn new(size: u64) -> Self {
        Self(size)
    }
}

impl Body for Sized {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        let next = usize::try_from(self.0).map_or(CHUNK, |left| left.min(CHUNK));
        self.0 -= next as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&FILLING[..next])))))
    }

    fn is_end_stream(&self) -> bool {
        self.0 == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn it_is_as_long_as_it_says() {
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let body = Sized::new(size as u64);
            assert_eq!(body.size_hint().exact(), Some(size as u64));
            assert_eq!(body.collect().await.unwrap().to_bytes().len(), size);
        }
    }
}
