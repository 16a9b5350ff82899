//! An exchange over one connection, up to the response head.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body::Body as _;

use crate::body::{BodyError, Request, Response};
use crate::clock;
use crate::upstream::connect::Look;
use crate::upstream::errand::Answer;
use crate::upstream::failure::{FailureKind, SendFailure};
use crate::upstream::h1::body::Flow;
use crate::upstream::h1::connection::Connection;
use crate::upstream::h1::framing::{has_token, is_kept_alive, settle};
use crate::upstream::h1::pump::{Pump, PumpFault};
use crate::upstream::h1::request::{RequestFraming, write_head};
use crate::upstream::h1::response::{Head, HeadReader};
use crate::upstream::h1::tunnel::Tunnel;

/// Maximum number of interim responses (1xx) before the final one.
const MAX_INTERIM: usize = 8;

/// A request that is being sent, and its state.
#[derive(Debug)]
pub(super) struct Sending {
    method: Method,
    uri: Uri,
    /// First the fields of the request; once they are written, memory for those of the response.
    headers: HeaderMap,
    framing: RequestFraming,
    pump: Pump,
    pump_state: PumpState,
    /// Idempotent and without a body: the backend may receive it twice.
    replayable: bool,
    /// The protocol that the request asks to upgrade to.
    upgrade: Option<HeaderValue>,
}

#[derive(Debug)]
enum PumpState {
    Running,
    Done,
    /// The backend accepts no more data; it may have answered before.
    Refused,
}

/// The reason why there is no response head.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connection ended; `heard` is true if a part of a response had arrived.
    Ended {
        heard: bool,
        error: Option<io::Error>,
    },
    Invalid(&'static str),
    Request(BodyError),
}

impl Sending {
    /// Takes the request's parts out of their place; each moves once.
    pub(super) fn new(request: &mut Request) -> Result<Self, FailureKind> {
        if *request.method() == Method::CONNECT {
            return Err(FailureKind::InvalidRequest("CONNECT has no place at a backend"));
        }
        let framing = RequestFraming::of(request.method(), request.headers(), request.body())?;
        let headers = request.headers();
        let upgrade = headers
            .get(UPGRADE)
            .filter(|_| headers.get_all(CONNECTION).iter().any(|value| has_token(value, "upgrade")))
            .cloned();
        Ok(Self {
            replayable: request.method().is_idempotent() && request.body().is_end_stream(),
            method: mem::take(request.method_mut()),
            uri: mem::take(request.uri_mut()),
            headers: mem::take(request.headers_mut()),
            framing,
            pump: Pump::new(mem::take(request.body_mut()), framing),
            pump_state: PumpState::Running,
            upgrade,
        })
    }

    pub(super) fn look(&self) -> Look {
        if self.replayable { Look::Seen } else { Look::Now }
    }

    /// Returns true if the request may be sent on another connection after it failed on a pooled
    /// one.
    pub(super) fn may_go_again(&self, broken: &Broken) -> bool {
        matches!(broken, Broken::Ended { heard: false, .. })
            && (self.replayable || !self.pump.has_started())
    }

    /// Returns true if the backend closed an idle pooled connection with 408 (RFC 9110 section
    /// 15.5.9): that answer crossed this request, which the backend has not received.
    pub(super) fn was_not_received(&self, head: Head) -> bool {
        head.status == StatusCode::REQUEST_TIMEOUT
            && !is_kept_alive(head, &self.headers)
            && self.pump.has_no_body()
    }

    pub(super) fn rewind(&mut self) {
        self.pump.rewind();
        self.pump_state = PumpState::Running;
    }

    /// Sends the request and waits for the final head. Updates `moved` whenever bytes move.
    pub(super) async fn exchange(
        &mut self,
        connection: &mut Connection,
        moved: &AtomicU64,
    ) -> Result<Head, Broken> {
        if self.pump.output.is_empty() {
            let mut output = mem::take(&mut connection.output);
            output.clear();
            write_head(&mut output, &self.method, &self.uri, &self.headers, self.framing);
            self.pump.output = output;
        }
        let mut reader = HeadReader::default();
        let mut interim = 0;
        loop {
            let head = match poll_fn(|cx| self.poll_head(cx, connection, &mut reader, moved)).await
            {
                Ok(head) => head,
                Err(Broken::Ended { heard, error }) => {
                    return Err(Broken::Ended { heard: heard || interim > 0, error });
                }
                Err(broken) => return Err(broken),
            };
            match head.status {
                StatusCode::SWITCHING_PROTOCOLS => {
                    self.check_upgrade().map_err(Broken::Invalid)?;
                    return Ok(head);
                }
                status if !status.is_informational() => return Ok(head),
                _ if interim == MAX_INTERIM => {
                    return Err(Broken::Invalid("too many interim responses"));
                }
                _ => interim += 1,
            }
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
        reader: &mut HeadReader,
        moved: &AtomicU64,
    ) -> Poll<Result<Head, Broken>> {
        if matches!(self.pump_state, PumpState::Running) {
            let before = self.pump.passed();
            let polled = self.pump.poll(cx, &mut connection.stream);
            if self.pump.passed() != before {
                moved.store(clock::coarse_now(), Ordering::Relaxed);
            }
            match polled {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.pump_state = PumpState::Done,
                Poll::Ready(Err(PumpFault::Body(error))) => {
                    return Poll::Ready(Err(Broken::Request(error)));
                }
                Poll::Ready(Err(PumpFault::Refused)) => self.pump_state = PumpState::Refused,
            }
        }
        loop {
            let Connection { input, fields, .. } = connection;
            match reader.take(input, fields, &mut self.headers) {
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {}
                Err(why) => return Poll::Ready(Err(Broken::Invalid(why))),
            }
            let error = match ready!(connection.poll_fill(cx)) {
                Ok(0) => None,
                Ok(_) => {
                    moved.store(clock::coarse_now(), Ordering::Relaxed);
                    continue;
                }
                Err(error) => Some(error),
            };
            let heard = !connection.input.is_empty();
            return Poll::Ready(Err(Broken::Ended { heard, error }));
        }
    }

    /// Checks the protocol of a 101: it must be the requested one (RFC 9110 section 7.8).
    fn check_upgrade(&self) -> Result<(), &'static str> {
        let Some(asked) = &self.upgrade else { return Err("101 that nobody asked for") };
        match self.headers.get(UPGRADE) {
            Some(got) if got.as_bytes().eq_ignore_ascii_case(asked.as_bytes()) => Ok(()),
            _ => Err("101 to another protocol"),
        }
    }

    /// Returns the fields of the response, after its head has been received.
    pub(super) fn fields(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns the answer with its body. If the response is complete already, the connection
    /// returns to the pool at once.
    pub(super) fn answer(
        self,
        head: Head,
        mut connection: Box<Connection>,
    ) -> Result<Answer, SendFailure> {
        let Self { mut headers, mut pump, pump_state, .. } = self;
        let endpoint = connection.address().clone().into();
        let mut response = Response::default();
        *response.status_mut() = head.status;

        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            *response.headers_mut() = headers;
            return Ok(Answer { response, endpoint, tunnel: Some(Tunnel::new(connection)) });
        }
        let framing = match settle(head, &mut headers, self.method == Method::HEAD) {
            Ok(framing) => framing,
            Err(why) => return Err(Broken::Invalid(why).into_failure().at(endpoint)),
        };
        let keep = is_kept_alive(head, &headers);
        *response.headers_mut() = headers;
        let (pump, keep) = match pump_state {
            PumpState::Running => (Some(pump), keep),
            PumpState::Done => {
                connection.output = mem::take(&mut pump.output);
                (None, keep)
            }
            PumpState::Refused => (None, false),
        };
        let flow = Flow { connection, pump, keep };
        *response.body_mut() = flow.into_body(framing);
        Ok(Answer { response, endpoint, tunnel: None })
    }
}

impl Broken {
    pub(super) fn into_failure(self) -> SendFailure {
        match self {
            Self::Ended { error: Some(error), .. } => SendFailure::reset(&error),
            Self::Ended { heard: true, .. } => {
                SendFailure::new(FailureKind::ResetBeforeHead, "closed within the head")
            }
            Self::Ended { .. } => {
                SendFailure::new(FailureKind::ResetBeforeHead, "closed without a response")
            }
            Self::Invalid(why) => SendFailure::new(FailureKind::InvalidResponse(why), why),
            Self::Request(error) => SendFailure::new(FailureKind::RequestBody, error.to_string()),
        }
    }
}
