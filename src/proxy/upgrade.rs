//! Protocol upgrades: WebSocket over HTTP/1.1 and over HTTP/2, and other upgrades over HTTP/1.1.

use std::future::{pending, poll_fn};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, request};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::body::Response;
use crate::clock::coarse_now;
use crate::downstream::{BrokenEnd, CarriedBytes, Ending, Progress, TwoWay, silence, tasks};
use crate::failure::Failure;
use crate::proxy::exchange_record::Record;
use crate::proxy::hop_by_hop::{Upgrade, remove_hop_by_hop, tokens};
use crate::proxy::noted_fields::{Noted, NotedFields};
use crate::proxy::stream_tasks::{self, Leash};
use crate::proxy::websocket::{Frames, GOING_AWAY};
use crate::upstream::Tunnel;

/// Returns the client's side of a tunnel, if the request asks for one.
pub(super) fn wanted<B>(request: &mut http::Request<B>, fields: NotedFields) -> Option<OnUpgrade> {
    let asked = fields.has(Noted::Upgrade) || request.method() == Method::CONNECT;
    asked.then(|| hyper::upgrade::on(request))
}

/// Converts an extended CONNECT to the corresponding HTTP/1.1 handshake (RFC 8441 section 5).
pub(super) fn to_http1(head: &mut request::Parts) {
    head.method = Method::GET;
    head.version = Version::HTTP_11;
    head.extensions.remove::<hyper::ext::Protocol>();
    let headers = &mut head.headers;
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_KEY, new_key());
}

/// Returns a new `Sec-WebSocket-Key`: 16 random bytes in base64 (RFC 6455 section 4.1). It protects
/// against caches only.
fn new_key() -> HeaderValue {
    use base64::Engine;
    let random = fastrand::u128(..).to_be_bytes();
    let key = base64::engine::general_purpose::STANDARD.encode(random);
    HeaderValue::from_str(&key).unwrap_or(HeaderValue::from_static(""))
}

/// The WebSocket handshake that the gateway itself does with a backend, for an HTTP/2 client. That
/// client never sees the fields of the backend's response, so the gateway makes the checks that RFC
/// 6455 section 4.1 requires of a client.
#[derive(Debug)]
struct Handshake {
    /// The only valid `Sec-WebSocket-Accept`.
    accept: String,
    protocols: Vec<Vec<u8>>,
    /// Extension names without parameters.
    extensions: Vec<Vec<u8>>,
}

impl Handshake {
    /// `headers` are those of the request that is sent to the backend.
    fn of(headers: &HeaderMap) -> Self {
        let key = headers.get(SEC_WEBSOCKET_KEY).map_or(&b""[..], HeaderValue::as_bytes);
        Self {
            accept: derive_accept_key(key),
            protocols: tokens(headers, &SEC_WEBSOCKET_PROTOCOL).map(<[u8]>::to_vec).collect(),
            extensions: extensions(headers).map(<[u8]>::to_vec).collect(),
        }
    }

    /// Returns true if a 101 with these `headers` completes the handshake. `Upgrade` was already
    /// compared in the exchange with the backend.
    fn is_met_by(&self, headers: &HeaderMap) -> bool {
        let one = |name: HeaderName| {
            let mut values = headers.get_all(name).iter();
            (values.next(), values.next().is_some())
        };
        let (accept, more) = one(SEC_WEBSOCKET_ACCEPT);
        let accepted = !more && accept.is_some_and(|accept| *accept == *self.accept);
        let (protocol, more) = one(SEC_WEBSOCKET_PROTOCOL);
        let offered =
            |protocol: &HeaderValue| self.protocols.iter().any(|one| protocol.as_bytes() == one);
        accepted
            && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"))
            && !more
            && protocol.is_none_or(offered)
            && extensions(headers).all(|name| {
                self.extensions.iter().any(|offered| offered.eq_ignore_ascii_case(name))
            })
    }
}

/// Returns the names in `Sec-WebSocket-Extensions`.
fn extensions(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    tokens(headers, &SEC_WEBSOCKET_EXTENSIONS).map(|extension| {
        extension.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
    })
}

/// Removes the fields of the backend's connection.
fn remove_from(response: &mut Response) {
    let fields = NotedFields::of(response.headers());
    remove_hop_by_hop(response.headers_mut(), fields);
}

/// Converts the backend's 101 to the form of the client's protocol.
fn answer(kind: Upgrade, response: &mut Response) {
    // A 101 has no length (RFC 9110 section 8.6). The bytes after it belong to the tunnel.
    response.headers_mut().remove(CONTENT_LENGTH);
    match kind {
        Upgrade::Http1 => {
            let token = response.headers().get(UPGRADE).cloned();
            remove_from(response);
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, token.unwrap_or(HeaderValue::from_static("websocket")));
        }
        Upgrade::Http2 => {
            remove_from(response);
            response.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
            *response.status_mut() = StatusCode::OK;
        }
    }
}

/// A requested protocol upgrade that the backend has not answered yet.
#[derive(Debug)]
pub(super) struct Switching {
    kind: Upgrade,
    downstream: OnUpgrade,
    /// Set if the gateway itself does the handshake with the backend.
    handshake: Option<Handshake>,
}

impl Switching {
    /// `headers` are those of the request that is sent to the backend.
    pub(super) fn new(kind: Upgrade, downstream: OnUpgrade, headers: &HeaderMap) -> Self {
        let handshake = match kind {
            Upgrade::Http1 => None,
            Upgrade::Http2 => Some(Handshake::of(headers)),
        };
        Self { kind, downstream, handshake }
    }

    /// Returns true if the stream of the request becomes the tunnel, so that its bytes are not a
    /// body.
    pub(super) fn has_stream(&self) -> bool {
        self.kind == Upgrade::Http2
    }

    /// Converts a backend's response to the client's form, and returns the tunnel that begins with
    /// it, if any.
    ///
    /// # Errors
    ///
    /// Fails if the response begins an upgrade that was not requested, or that does not match the
    /// request.
    pub(super) fn finish(
        asked: Option<Self>,
        response: &mut Response,
        upstream: Option<Tunnel>,
    ) -> Result<Option<Switched>, Failure> {
        match (response.status(), asked, upstream) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(asked), Some(upstream)) => {
                let Self { kind, downstream, handshake } = asked;
                if handshake.is_some_and(|handshake| !handshake.is_met_by(response.headers())) {
                    return Err(Failure::ResponseInvalid);
                }
                answer(kind, response);
                let websocket = is_websocket(response);
                Ok(Some(Switched { kind, websocket, downstream, upstream }))
            }
            (StatusCode::SWITCHING_PROTOCOLS, ..) => Err(Failure::ResponseInvalid),
            // Any 2xx response to CONNECT means that there is a tunnel (RFC 9110 section 9.3.6).
            (status, Some(asked), _) if asked.has_stream() && status.is_success() => {
                Err(Failure::ResponseInvalid)
            }
            _ => {
                remove_from(response);
                Ok(None)
            }
        }
    }
}

/// Returns true if the response begins a WebSocket, not another allowed protocol.
fn is_websocket(answer: &Response) -> bool {
    let token = answer.headers().get(UPGRADE);
    token.is_some_and(|token| token.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// An exchange that has become a tunnel, before its response is sent to the client.
#[derive(Debug)]
pub(super) struct Switched {
    kind: Upgrade,
    /// The tunnel carries WebSocket frames over HTTP/1.1.
    websocket: bool,
    downstream: OnUpgrade,
    upstream: Tunnel,
}

/// Carries bytes in both directions until both ends have ended or no byte has moved for the tunnel
/// timeout; then the record writes its line.
///
/// The exchange stays open meanwhile, so that a drain waits for it up to the drain timeout.
pub(super) fn run(mut record: Box<Record>, switched: Switched) {
    let carried = Arc::<CarriedBytes>::default();
    record.carried = Some(Arc::clone(&carried));
    let limits = TunnelLimits::of(&record);
    let Switched { kind, websocket, downstream, upstream: mut backend } = switched;
    let leash = match kind {
        Upgrade::Http1 => None,
        Upgrade::Http2 => Some(stream_tasks::expect_tunnel()),
    };
    tasks::spawn(async move {
        let Ok(downstream) = downstream.await else { return backend.cut() };
        let mut client = TokioIo::new(downstream);
        let watch = Arc::clone(&record.connection.watch);
        let ending = async {
            match leash {
                // The task of the connection has ended, so only this task observes the ending.
                None => watch.ending(Some(Ending::Gracefully)).await,
                // The connection ends, and its streams with it.
                Some(_) => pending().await,
            }
        };
        let tunnel = Tunnelled { leash: leash.as_ref(), limits, carried: &carried, websocket };
        let cause = match tunnel.carry(&mut client, &mut backend, ending).await {
            Ok(()) => return,
            Err(TunnelEnd::Broken(error)) => error.to_string(),
            Err(TunnelEnd::Expired(failure)) => {
                record.broke(failure);
                failure.details().into()
            }
        };
        tracing::debug!(cause, peer = %watch.peer, "tunnel ended");
        // If one side was reset, the other side must see a reset too, not an orderly end.
        match leash {
            None => watch.cut(),
            Some(leash) => leash.end(),
        }
        drop(client);
        backend.cut();
    });
}

/// The time limits of a tunnel.
#[derive(Clone, Copy, Debug)]
struct TunnelLimits {
    /// The time without a byte; `None` for ever.
    idle: Option<Duration>,
    /// The time of its end.
    end: Option<Instant>,
}

impl TunnelLimits {
    fn of(record: &Record) -> Self {
        let idle = match record.has_own_idle_limit() {
            true => record.idle_limit(),
            false => Some(record.connection.watch.limits().tunnel_timeout),
        };
        let stream = record.rule.as_ref().and_then(|rule| rule.timeouts.stream);
        Self { idle, end: stream.map(|limit| record.started() + limit) }
    }

    /// Resolves when a limit is reached. `moved` is the time at which a byte last moved.
    async fn expire(self, moved: &AtomicU64) -> Failure {
        let end = async {
            match self.end {
                Some(end) => tokio::time::sleep_until(end.into()).await,
                None => pending().await,
            }
        };
        let idle = async {
            match self.idle {
                Some(limit) => silence(moved, limit).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = end => Failure::StreamTooLong,
            () = idle => Failure::TunnelIdle,
        }
    }
}

/// The reason why a tunnel ended before both of its ends did.
enum TunnelEnd {
    Broken(io::Error),
    Expired(Failure),
}

impl From<io::Error> for TunnelEnd {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// The parameters of a tunnel.
struct Tunnelled<'a> {
    /// Set if the client's side is an HTTP/2 stream.
    leash: Option<&'a Leash>,
    limits: TunnelLimits,
    carried: &'a CarriedBytes,
    websocket: bool,
}

impl Tunnelled<'_> {
    /// Carries bytes until both ends have ended, a limit is reached, or `ending`
    /// resolves. In the last case, a WebSocket client gets a close frame ("going away"), if its
    /// last frame is complete: in the middle of a frame, the client would take it for payload.
    ///
    /// # Errors
    ///
    /// Fails unless both ends have ended in order, or the close frame was sent.
    async fn carry(
        &self,
        client: &mut (impl AsyncRead + AsyncWrite + Unpin),
        backend: &mut (impl AsyncRead + AsyncWrite + Unpin),
        ending: impl Future<Output = Ending>,
    ) -> Result<(), TunnelEnd> {
        let moved = AtomicU64::new(coarse_now());
        let mut tunnel = TwoWay::with_checked_client();
        let mut frames = Frames::default();
        let carrying = self.carry_all((&mut *client, backend), &moved, &mut tunnel, &mut frames);
        tokio::select! {
            biased;
            ended = carrying => return ended.map_err(TunnelEnd::from),
            failure = self.limits.expire(&moved) => return Err(TunnelEnd::Expired(failure)),
            _ = ending => {}
        }
        let is_whole = frames.may_close() && !tunnel.holds_for_client();
        if !self.websocket || tunnel.has_backend_ended() || !is_whole {
            return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
        }
        client.write_all(&GOING_AWAY).await?;
        Ok(client.flush().await?)
    }

    /// Carries bytes until both ends have ended. `frames` follows those that the client gets.
    async fn carry_all(
        &self,
        (client, backend): (
            &mut (impl AsyncRead + AsyncWrite + Unpin),
            &mut (impl AsyncRead + AsyncWrite + Unpin),
        ),
        moved: &AtomicU64,
        tunnel: &mut TwoWay,
        frames: &mut Frames,
    ) -> io::Result<()> {
        loop {
            let carried = poll_fn(|cx| {
                let count = |count: &AtomicU64, bytes: &[u8]| {
                    count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                };
                let up = |bytes: &[u8]| count(&self.carried.up, bytes);
                let down = |bytes: &[u8]| {
                    count(&self.carried.down, bytes);
                    if self.websocket {
                        frames.pass(bytes);
                    }
                };
                tunnel.poll(cx, (&mut *client, &mut *backend), moved, up, down)
            });
            match carried.await {
                Ok(Progress::Over) => return Ok(()),
                Ok(Progress::ClientEnded) => {}
                Err(BrokenEnd::Backend(error) | BrokenEnd::Client(error)) => return Err(error),
            }
            if let Some(leash) = self.leash {
                // hyper reports a reset with CANCEL or NO_ERROR as an end of the stream. In that
                // case the task that writes to the stream has ended too, once it has been
                // scheduled.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                if leash.has_ended() && !tunnel.has_backend_ended() {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
            }
            tunnel.end_backend();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_websocket_begins_only_as_it_was_asked_for() {
        let asked = Handshake::of(&map(&[
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "chat, superchat"),
            ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
        ]));
        let accept = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let connection = ("connection", "Upgrade");
        // (fields, completes the handshake)
        let table: [(&[(&str, &str)], bool); 15] = [
            (&[connection, accept], true),
            (&[("connection", "keep-alive, upgrade"), accept], true),
            (&[connection, accept, ("sec-websocket-protocol", "superchat")], true),
            (&[connection, accept, ("sec-websocket-extensions", "permessage-deflate")], true),
            (&[], false),
            (&[accept], false),
            (&[("connection", "keep-alive"), accept], false),
            (&[connection], false),
            (&[connection, accept, accept], false),
            (&[connection, ("sec-websocket-accept", "")], false),
            // Base64 is case-sensitive.
            (&[connection, ("sec-websocket-accept", "S3PPLMBITXAQ9KYGZZHZRBK+XOO=")], false),
            (&[connection, accept, ("sec-websocket-protocol", "other")], false),
            (&[connection, accept, ("sec-websocket-protocol", "chat, superchat")], false),
            (
                &[
                    connection,
                    accept,
                    ("sec-websocket-protocol", "chat"),
                    ("sec-websocket-protocol", "chat"),
                ],
                false,
            ),
            (&[connection, accept, ("sec-websocket-extensions", "bbf-usp-protocol")], false),
        ];
        for (fields, begins) in table {
            let headers = fields.iter().fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(
                    HeaderName::try_from(*name).unwrap(),
                    HeaderValue::try_from(*value).unwrap(),
                );
                headers
            });
            assert_eq!(asked.is_met_by(&headers), begins, "{fields:?}");
        }
    }
}
