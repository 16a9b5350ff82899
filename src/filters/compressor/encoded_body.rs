//! A body that is encoded while it streams.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};

use crate::body::{Body, BodyError, HeldMemory, HeldShare};
use crate::filters::coding::Coding;
use crate::stats::{Compression, Sharded};

use super::encoder::Encoder;

/// Bytes that are encoded at once.
const PIECE: usize = 16 << 10;
/// Encoded bytes that are passed on even though more follow.
const ENOUGH: usize = 16 << 10;
/// Bytes after which other tasks of the worker have their turn: some milliseconds of encoding.
const TURN: usize = 64 << 10;

/// Encodes the frames of a body. Whenever the body has no more at the moment, the encoder is flushed:
/// a client has everything that the backend has sent. Trailers are kept.
pub(super) struct EncodedBody {
    body: Body,
    coding: Coding,
    /// `None` before the first byte and after the last one.
    encoder: Option<Box<Encoder>>,
    /// The memory of the encoder.
    share: Option<HeldShare>,
    /// The rest of the last frame.
    input: Bytes,
    /// There are bytes in the encoder that were not flushed.
    holds_back: bool,
    /// Bytes that were encoded in this turn.
    in_turn: usize,
    /// What follows the last data.
    last: Option<Result<Frame<Bytes>, BodyError>>,
    ended: bool,
    memory: Arc<HeldMemory>,
    counts: Arc<Sharded<Compression>>,
}

type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

impl EncodedBody {
    pub(super) fn new(
        body: Body,
        coding: Coding,
        memory: Arc<HeldMemory>,
        counts: Arc<Sharded<Compression>>,
    ) -> Self {
        Self {
            body,
            coding,
            encoder: None,
            share: None,
            memory,
            input: Bytes::new(),
            holds_back: false,
            in_turn: 0,
            last: None,
            ended: false,
            counts,
        }
    }

    pub(super) fn encoder(&mut self) -> io::Result<&mut Encoder> {
        let encoder = match self.encoder.take() {
            Some(encoder) => encoder,
            None => {
                self.share = Some(HeldShare::of(&self.memory, Encoder::memory(self.coding)));
                Box::new(Encoder::new(self.coding)?)
            }
        };
        Ok(self.encoder.insert(encoder))
    }

    /// Encodes a piece of the input.
    fn encode(&mut self) -> io::Result<()> {
        let piece = self.input.split_to(self.input.len().min(PIECE));
        self.encoder()?.encode(&piece)?;
        self.counts.here().of(self.coding as usize).input_bytes.add(piece.len() as u64);
        self.in_turn += piece.len();
        self.holds_back = true;
        Ok(())
    }

    /// Returns what the encoder has held back.
    fn flush(&mut self) -> io::Result<Bytes> {
        self.holds_back = false;
        let encoder = self.encoder()?;
        encoder.flush()?;
        Ok(encoder.take())
    }

    /// Returns the rest of the encoded body; `last` follows it.
    fn finish(&mut self, last: Option<Result<Frame<Bytes>, BodyError>>) -> io::Result<Bytes> {
        self.encoder()?;
        (self.ended, self.last) = (true, last);
        self.share = None;
        self.encoder.take().map_or_else(|| Ok(Bytes::new()), |encoder| encoder.finish())
    }

    /// Passes encoded bytes on.
    fn give(&self, data: Bytes) -> Polled {
        self.counts.here().of(self.coding as usize).output_bytes.add(data.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> io::Result<Polled> {
        loop {
            if self.ended {
                return Ok(Poll::Ready(self.last.take()));
            }
            if self.in_turn >= TURN {
                self.in_turn = 0;
                cx.waker().wake_by_ref();
                return Ok(Poll::Pending);
            }
            if !self.input.is_empty() {
                self.encode()?;
                let encoder = self.encoder()?;
                if encoder.len() >= ENOUGH {
                    let data = encoder.take();
                    return Ok(self.give(data));
                }
                continue;
            }
            let data = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => {
                    self.in_turn = 0;
                    if !self.holds_back {
                        return Ok(Poll::Pending);
                    }
                    self.flush()?
                }
                Poll::Ready(None) => self.finish(None)?,
                Poll::Ready(Some(Err(error))) => {
                    // What has arrived is passed on. The encoding is not ended: the client must see
                    // that the body is incomplete.
                    let data = if self.holds_back { self.flush()? } else { Bytes::new() };
                    (self.ended, self.last) = (true, Some(Err(error)));
                    data
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.input = data;
                        continue;
                    }
                    Err(trailers) => self.finish(Some(Ok(trailers)))?,
                },
            };
            if !data.is_empty() {
                return Ok(self.give(data));
            }
        }
    }
}

impl HttpBody for EncodedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = self.get_mut();
        this.poll(cx).unwrap_or_else(|error| {
            this.ended = true;
            Poll::Ready(Some(Err(error.into())))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.last.is_none()
    }
}
