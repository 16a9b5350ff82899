//! Sending a request to the backend: head, body, framing.

use std::fmt;
use std::io::{IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::Body as _;
use tokio::io::AsyncWrite;

use crate::body::{Body, BodyError};
use crate::upstream::h1::request::RequestFraming;

/// Writes a request as the socket and the body permit.
///
/// Holds at most one frame of the body and polls for the next when it is written, so that a backend
/// that does not read applies backpressure to the client.
pub(super) struct Pump {
    body: Body,
    /// With `Length`, the bytes that remain.
    framing: RequestFraming,
    /// Text of the gateway: the head, then a size before each chunk. Written before `data`.
    pub(super) output: Vec<u8>,
    written: usize,
    data: Bytes,
    /// Text after `data`.
    tail: &'static [u8],
    /// The frame that would complete the promised length. Held until the body has indicated its
    /// end.
    held: Option<Bytes>,
    /// The body must not be polled any more.
    ended: bool,
    /// The request has no body.
    bodiless: bool,
    /// Bytes that the socket has accepted.
    passed: u64,
}

/// The reason why sending the request stopped.
#[derive(Debug)]
pub(super) enum PumpFault {
    /// A failure of the client; the backend must not receive a complete request.
    Body(BodyError),
    /// A failure of the backend. It may have sent its reason before.
    Refused,
}

impl Pump {
    /// Creates a pump; the caller then writes the head into `output`.
    pub(super) fn new(body: Body, framing: RequestFraming) -> Self {
        let ended = body.is_end_stream();
        Self {
            body,
            framing,
            output: Vec::new(),
            written: 0,
            data: Bytes::new(),
            tail: b"",
            held: None,
            ended,
            bodiless: ended,
            passed: 0,
        }
    }

    /// Returns true if the socket has accepted a byte of the request.
    pub(super) fn has_started(&self) -> bool {
        self.passed > 0
    }

    /// Returns the number of bytes that the socket has accepted.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// Returns true if the request has no body.
    pub(super) fn has_no_body(&self) -> bool {
        self.bodiless
    }

    /// Starts over on another connection. Only for requests of which nothing was sent or that have
    /// no body.
    pub(super) fn rewind(&mut self) {
        self.written = 0;
        self.passed = 0;
    }

    /// Ready when the whole request is written and flushed; a stream in clear has nothing to flush.
    pub(super) fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<Result<(), PumpFault>> {
        loop {
            // Gather first, so that the head and the first bytes of the body leave in one write.
            if !self.ended && self.data.is_empty() && self.tail.is_empty() {
                match self.poll_gather(cx) {
                    Poll::Ready(gathered) => gathered.map_err(PumpFault::Body)?,
                    Poll::Pending if self.written == self.output.len() => {
                        // The body may be slow; written data must not wait for it.
                        return match Pin::new(&mut *stream).poll_flush(cx) {
                            Poll::Ready(Err(_)) => Poll::Ready(Err(PumpFault::Refused)),
                            _ => Poll::Pending,
                        };
                    }
                    Poll::Pending => {}
                }
            }
            let text = &self.output[self.written..];
            let count = if self.data.is_empty() && self.tail.is_empty() {
                if text.is_empty() {
                    debug_assert!(self.ended, "gathering yields something to write or the end");
                    let flushed = ready!(Pin::new(&mut *stream).poll_flush(cx));
                    return Poll::Ready(flushed.map_err(|_| PumpFault::Refused));
                }
                ready!(Pin::new(&mut *stream).poll_write(cx, text))
            } else {
                let slices =
                    [IoSlice::new(text), IoSlice::new(&self.data), IoSlice::new(self.tail)];
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices))
            };
            match count {
                Ok(count @ 1..) => self.advance(count),
                Ok(0) | Err(_) => return Poll::Ready(Err(PumpFault::Refused)),
            }
        }
    }

    fn advance(&mut self, mut count: usize) {
        self.passed += count as u64;
        let text = count.min(self.output.len() - self.written);
        self.written += text;
        count -= text;
        let data = count.min(self.data.len());
        self.data.advance(data);
        count -= data;
        self.tail = &self.tail[count..];
    }

    /// Polls the body for its next frame or its end.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(frame) => frame?.into_data(),
                None => return Poll::Ready(self.end()),
            };
            match frame {
                Ok(data) if !data.is_empty() => {
                    if self.accept(data)? {
                        return Poll::Ready(Ok(()));
                    }
                }
                // An empty chunk would end a chunked body; trailers were not announced to the
                // backend.
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Takes a frame. Returns true if there is something to write now.
    fn accept(&mut self, data: Bytes) -> Result<bool, BodyError> {
        match &mut self.framing {
            RequestFraming::Absent => return Err(Mismatch::Long.into()),
            RequestFraming::Length(left) => {
                let length = data.len() as u64;
                if length > *left || self.held.is_some() {
                    return Err(Mismatch::Long.into());
                }
                if length == *left && !self.body.is_end_stream() {
                    self.held = Some(data);
                    return Ok(false);
                }
                *left -= length;
                self.ended = *left == 0;
            }
            RequestFraming::Chunked => {
                if self.written == self.output.len() {
                    self.output.clear();
                    self.written = 0;
                }
                write!(self.output, "{:x}\r\n", data.len())?;
                self.ended = self.body.is_end_stream();
                self.tail = if self.ended { b"\r\n0\r\n\r\n" } else { b"\r\n" };
            }
        }
        self.data = data;
        Ok(true)
    }

    fn end(&mut self) -> Result<(), BodyError> {
        self.ended = true;
        match &mut self.framing {
            RequestFraming::Absent => {}
            RequestFraming::Length(left) => match self.held.take() {
                Some(data) => {
                    *left = 0;
                    self.data = data;
                }
                None if *left > 0 => return Err(Mismatch::Short.into()),
                None => {}
            },
            RequestFraming::Chunked => self.tail = b"0\r\n\r\n",
        }
        Ok(())
    }
}

impl fmt::Debug for Pump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pump")
            .field("framing", &self.framing)
            .field("passed", &self.passed)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// A body whose length differs from its head.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::upstream) enum Mismatch {
    #[error("request body longer than its content-length")]
    Long,
    #[error("request body shorter than its content-length")]
    Short,
}
