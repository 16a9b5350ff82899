//! Response bodies, with the connection that they are read from.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::body::Body;
use crate::upstream::failure::BodyFault;
use crate::upstream::h1::chunks::{Chunks, Step};
use crate::upstream::h1::connection::Connection;
use crate::upstream::h1::framing::ResponseFraming;
use crate::upstream::h1::pump::{Pump, PumpFault};
use crate::upstream::pool;

/// The state of an exchange after the head.
#[derive(Debug)]
pub(super) struct Flow {
    pub connection: Box<Connection>,
    /// The rest of the request, if it is not sent completely.
    pub pump: Option<Pump>,
    /// The backend accepts another request on the connection.
    pub keep: bool,
}

impl Flow {
    /// Returns the body according to `framing`. A body that is completely buffered costs no
    /// allocation, and its connection returns to the pool before the client has received a byte.
    pub(super) fn into_body(mut self, framing: ResponseFraming) -> Body {
        let decoder = match framing {
            ResponseFraming::Absent | ResponseFraming::Length(0) => {
                self.end();
                return Body::Empty;
            }
            ResponseFraming::Length(length) => match usize::try_from(length) {
                Ok(length) if self.pump.is_none() && length <= self.connection.input.len() => {
                    let data = self.connection.input.split_to(length).freeze();
                    self.end();
                    return Body::from_bytes(data);
                }
                _ => {
                    self.connection.expect(length);
                    Decoder::Length(length)
                }
            },
            ResponseFraming::Chunked => Decoder::Chunked(Chunks::new()),
            ResponseFraming::UntilClose => Decoder::UntilClose,
        };
        Body::boxed(ResponseBody { flow: Some(self), decoder })
    }

    /// Handles a complete response: the connection returns to the pool if it is reusable.
    fn end(self) {
        if !self.connection.input.is_empty() {
            self.connection.stream.counts().here().leftovers.one_more();
            let connection = &self.connection;
            let (cluster, endpoint) = (connection.cluster_name(), connection.address());
            tracing::debug!(cluster, %endpoint, "more than one response");
            return;
        }
        if self.keep && self.pump.is_none() {
            pool::put(self.connection);
        }
    }

    /// Continues sending the request.
    fn poll_pump(&mut self, cx: &mut Context<'_>) -> Result<(), BodyFault> {
        let Some(pump) = &mut self.pump else { return Ok(()) };
        match pump.poll(cx, &mut self.connection.stream) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => self.connection.output = mem::take(&mut pump.output),
            // The backend accepts no more of the request, but the response may still be complete.
            Poll::Ready(Err(PumpFault::Refused)) => self.keep = false,
            Poll::Ready(Err(PumpFault::Body(error))) => return Err(BodyFault::Request(error)),
        }
        self.pump = None;
        Ok(())
    }
}

/// The body of a response, read only when it is polled.
///
/// Returns the connection to the pool with its last frame, not at the poll after it: the server
/// stops polling when it has the promised length. Dropping the body earlier closes the connection.
#[derive(Debug)]
struct ResponseBody {
    /// `None` when the body has ended, successfully or not.
    flow: Option<Flow>,
    decoder: Decoder,
}

#[derive(Debug)]
enum Decoder {
    Chunked(Chunks),
    /// Bytes that remain.
    Length(u64),
    UntilClose,
}

impl Decoder {
    fn next(&mut self, input: &mut BytesMut) -> Result<Step, &'static str> {
        Ok(match self {
            Self::Chunked(chunks) => return chunks.next(input),
            Self::Length(0) => Step::End,
            Self::Length(_) | Self::UntilClose if input.is_empty() => Step::More,
            Self::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= take as u64;
                Step::Data(input.split_to(take).freeze())
            }
            Self::UntilClose => Step::Data(input.split().freeze()),
        })
    }

    fn is_ended(&self) -> bool {
        match self {
            Self::Chunked(chunks) => chunks.is_ended(),
            Self::Length(left) => *left == 0,
            Self::UntilClose => false,
        }
    }
}

impl ResponseBody {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, BodyFault>> {
        let Some(flow) = &mut self.flow else { return Poll::Ready(Ok(None)) };
        flow.poll_pump(cx)?;
        loop {
            let step = self.decoder.next(&mut flow.connection.input).map_err(BodyFault::Invalid)?;
            let frame = match step {
                Step::Data(data) => Some(Frame::data(data)),
                Step::Trailers(trailers) => Some(Frame::trailers(trailers)),
                Step::End => None,
                Step::More => match ready!(flow.connection.poll_fill(cx)) {
                    Ok(0) if matches!(self.decoder, Decoder::UntilClose) => {
                        self.flow = None;
                        return Poll::Ready(Ok(None));
                    }
                    Ok(0) => return Poll::Ready(Err(BodyFault::Truncated)),
                    Ok(_) => continue,
                    Err(error) => return Poll::Ready(Err(BodyFault::Reset(error))),
                },
            };
            if self.decoder.is_ended()
                && let Some(flow) = self.flow.take()
            {
                flow.end();
            }
            return Poll::Ready(Ok(frame));
        }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let step = ready!(self.poll_step(cx));
        if let Err(fault) = &step
            && let Some(Flow { connection, .. }) = self.flow.take()
        {
            let (cluster, endpoint) = (connection.cluster_name(), connection.address());
            tracing::debug!(cluster, %endpoint, %fault, "response cut");
        }
        Poll::Ready(step.transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.flow.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.flow, &self.decoder) {
            (None, _) => SizeHint::with_exact(0),
            (Some(_), Decoder::Length(left)) => SizeHint::with_exact(*left),
            (Some(_), Decoder::Chunked(_) | Decoder::UntilClose) => SizeHint::default(),
        }
    }
}
