//! HTTP/1.1 to backends: a codec that is driven by the future of the exchange itself.
//!
//! There is no task and no channel: [`send`] writes and reads while it waits for the head, and the
//! response body goes on with both whenever it is polled. So a stalled client stops the backend, a
//! stalled backend stops the client, and dropping either future closes the connection.
//!
//! The parts: [`request`] says how a request is delimited and writes its head, [`pump`] writes it;
//! [`response`] parses heads, [`framing`] says where a response ends, [`chunks`] decodes, [`body`]
//! streams; [`connection`] has the buffers, [`tunnel`] is what is left of it after a 101.

mod body;
mod chunks;
mod connection;
mod framing;
mod pump;
mod request;
mod response;
mod tunnel;

use std::future::poll_fn;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body::Body as _;

use crate::body::{Request, Response};
use crate::clock;
use crate::upstream::balance::Candidates;
use crate::upstream::cluster::{Answer, Cluster};
use crate::upstream::connect::{Look, connect};
use crate::upstream::endpoint::Address;
use crate::upstream::failure::{FailureKind, SendFailure};
use crate::upstream::pool;

use body::Flow;
use framing::{has_token, is_kept_alive, settle};
use pump::{Pump, PumpFault};
use request::write_head;
use response::{Head, HeadReader};

pub(super) use connection::Connection;
pub(super) use pump::Mismatch;
pub(super) use request::RequestFraming;
pub(crate) use tunnel::Tunnel;

/// Most interim responses (1xx) before the final one.
const MAX_INTERIM: usize = 8;

/// [`Cluster::send`] for HTTP/1.1.
pub(super) async fn send(cluster: &Arc<Cluster>, request: Request) -> Result<Answer, SendFailure> {
    let mut sending = Sending::new(request).map_err(|kind| SendFailure::new(kind, "not sent"))?;
    let mut candidates = Candidates::new(cluster);
    let mut failure = SendFailure::new(FailureKind::NoEndpoint, "the cluster has no endpoint");
    while let Some(candidate) = candidates.next().await {
        let address = match candidate {
            Ok(address) => address,
            Err(unresolved) => {
                failure = unresolved;
                continue;
            }
        };
        if let Some(mut connection) = pool::take(cluster, &address, sending.look()) {
            match sending.exchange(&mut connection).await {
                Ok(head) => return sending.answer(head, connection, cluster, address),
                Err(broken) if sending.may_go_again(&broken) => {
                    cluster.counts().resends.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(endpoint = %address, "pooled connection was dead, sending again");
                    sending.rewind();
                }
                Err(broken) => return Err(broken.into_failure().at(address)),
            }
        }
        match connect(&address, cluster.settings().connect_timeout, cluster.counts()).await {
            Ok(stream) => {
                let mut connection = Box::new(Connection::new(stream));
                return match sending.exchange(&mut connection).await {
                    Ok(head) => sending.answer(head, connection, cluster, address),
                    Err(broken) => Err(broken.into_failure().at(address)),
                };
            }
            Err(refused) => {
                cluster.avoided().add(address, refused.kind, clock::now());
                failure = refused;
            }
        }
    }
    Err(failure)
}

/// A request on its way and what must be remembered of it.
#[derive(Debug)]
struct Sending {
    method: Method,
    uri: Uri,
    /// The request's until they are written; then memory for the response's.
    headers: HeaderMap,
    framing: RequestFraming,
    pump: Pump,
    pump_state: PumpState,
    /// Idempotent and without a body: the backend may see it twice.
    replayable: bool,
    /// The protocol that the request wants to change to.
    upgrade: Option<HeaderValue>,
}

#[derive(Debug)]
enum PumpState {
    Running,
    Done,
    /// The backend takes no more; it may have answered before.
    Refused,
}

/// Why there is no head.
#[derive(Debug)]
enum Broken {
    /// The connection ended, before any byte of a response or after some.
    Ended {
        heard: bool,
        error: Option<io::Error>,
    },
    Invalid(&'static str),
    Request(crate::body::BodyError),
}

impl Sending {
    fn new(request: Request) -> Result<Self, FailureKind> {
        let (parts, body) = request.into_parts();
        if parts.method == Method::CONNECT {
            return Err(FailureKind::InvalidRequest("CONNECT has no place at a backend"));
        }
        let framing = RequestFraming::of(&parts.method, &parts.headers, &body)?;
        let upgrade = parts
            .headers
            .get(UPGRADE)
            .filter(|_| {
                parts.headers.get_all(CONNECTION).iter().any(|value| has_token(value, "upgrade"))
            })
            .cloned();
        Ok(Self {
            replayable: parts.method.is_idempotent() && body.is_end_stream(),
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            framing,
            pump: Pump::new(body, framing),
            pump_state: PumpState::Running,
            upgrade,
        })
    }

    fn look(&self) -> Look {
        if self.replayable { Look::Seen } else { Look::Now }
    }

    /// True if the request may be sent on another connection after it failed on a pooled one.
    fn may_go_again(&self, broken: &Broken) -> bool {
        matches!(broken, Broken::Ended { heard: false, .. })
            && (self.replayable || !self.pump.has_started())
    }

    fn rewind(&mut self) {
        self.pump.rewind();
        self.pump_state = PumpState::Running;
    }

    /// Sends and waits for the final head.
    async fn exchange(&mut self, connection: &mut Connection) -> Result<Head, Broken> {
        if self.pump.output.is_empty() {
            let mut output = mem::take(&mut connection.output);
            output.clear();
            write_head(&mut output, &self.method, &self.uri, &self.headers, self.framing);
            self.pump.output = output;
        }
        let mut reader = HeadReader::default();
        let mut interim = 0;
        loop {
            let head = match poll_fn(|cx| self.poll_head(cx, connection, &mut reader)).await {
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
    ) -> Poll<Result<Head, Broken>> {
        if matches!(self.pump_state, PumpState::Running) {
            match self.pump.poll(cx, &mut connection.stream) {
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
                Ok(_) => continue,
                Err(error) => Some(error),
            };
            let heard = !connection.input.is_empty();
            return Poll::Ready(Err(Broken::Ended { heard, error }));
        }
    }

    /// RFC 9110 section 7.8: only what was asked for may be switched to.
    fn check_upgrade(&self) -> Result<(), &'static str> {
        let Some(asked) = &self.upgrade else { return Err("101 that nobody asked for") };
        match self.headers.get(UPGRADE) {
            Some(got) if got.as_bytes().eq_ignore_ascii_case(asked.as_bytes()) => Ok(()),
            _ => Err("101 to another protocol"),
        }
    }

    /// The answer from its head on. What is complete already gives its connection back at once.
    fn answer(
        self,
        head: Head,
        mut connection: Box<Connection>,
        cluster: &Arc<Cluster>,
        address: Address,
    ) -> Result<Answer, SendFailure> {
        let Self { mut headers, mut pump, pump_state, .. } = self;
        let endpoint = address.clone().into();
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
        let flow = Flow { connection, pump, keep, cluster: Arc::clone(cluster), address };
        *response.body_mut() = flow.into_body(framing);
        Ok(Answer { response, endpoint, tunnel: None })
    }
}

impl Broken {
    fn into_failure(self) -> SendFailure {
        match self {
            Self::Ended { error: Some(error), .. } => {
                SendFailure::new(FailureKind::ResetBeforeHead, error.to_string())
            }
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

#[cfg(test)]
mod tests;
