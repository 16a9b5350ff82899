//! HTTP/1 on one downstream connection.
//!
//! hyper keeps two buffers of 8 KiB for a connection, also between requests. A connection that
//! rests is therefore parked: its stream is taken back from hyper, and the next byte from the
//! client starts a new hyper connection on it. The client notices nothing.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1::{self, Parts, UpgradeableConnection};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;

use crate::downstream::{ClientStream, Ending, GRACE, Signal, Watch};
use crate::failure::Failure;
use crate::proxy::client_connection::ClientConnection;
use crate::proxy::downstream_body::DownstreamBody;
use crate::proxy::http_ended::HttpEnded;
use crate::proxy::metered::MeteredStream;
use crate::proxy::request_line::target_length;
use crate::proxy::response_body::TrackedBody;
use crate::proxy::{exchange_record, http};

/// The longest URI that the `http` crate accepts, in bytes. hyper itself answers a longer one with
/// 414.
pub(super) const LONGEST_URI: usize = u16::MAX as usize - 1;

/// Serves HTTP/1 until the client disconnects, a limit passes or a drain ends the connection.
pub(super) fn speak_http1<S>(
    connection: Arc<ClientConnection>,
    stream: MeteredStream<S>,
) -> impl Future<Output = Result<(), HttpEnded>> + Send
where
    S: ClientStream + 'static,
{
    let mut conn = serve(&connection, stream);
    async move {
        let watch = &*connection.watch;
        // The ending that the connection was asked for, and whether a request may still begin.
        let (mut known, mut has_grace) = (None, true);
        loop {
            let ended = loop {
                if known.is_some() {
                    // A request that arrives within the grace period is answered with
                    // `Connection: close`.
                    if has_grace
                        && watch.idle_since().is_some()
                        && let Ok(ended) = timeout(GRACE, conn.as_mut()).await
                    {
                        break Some(ended);
                    }
                    conn.as_mut().graceful_shutdown();
                }
                tokio::select! {
                    // Afterwards hyper has done what there was to do, as `is_at_rest` requires.
                    biased;
                    ended = conn.as_mut() => break Some(ended),
                    signal = watch.signal(known) => match signal {
                        Signal::End(Ending::Gracefully) => known = Some(Ending::Gracefully),
                        Signal::End(_) => return Err(HttpEnded::Late),
                        Signal::Park => if watch.parks() {
                            break None;
                        }
                    }
                }
            };
            if let Some(Ok(())) = ended {
                return Ok(());
            }
            let mut stream = match (ended, Pin::into_inner(conn).into_parts()) {
                (None, Some(parts)) => take_back(parts)?,
                (Some(Err(error)), parts) => {
                    let unread = parts.map(|parts| parts.read_buf).unwrap_or_default();
                    return Err(refused(&connection, error, &unread));
                }
                _ => return Ok(()),
            };
            (known, has_grace) = park(&mut stream, watch).await?;
            watch.unparks();
            conn = serve(&connection, *stream);
        }
    }
}

/// The service of a hyper connection.
trait Http1Service:
    HttpService<Incoming, ResBody = TrackedBody, Error = Infallible, Future: Send> + Send + Unpin
{
}

impl<T> Http1Service for T where
    T: HttpService<Incoming, ResBody = TrackedBody, Error = Infallible, Future: Send>
        + Send
        + Unpin
{
}

/// Starts a hyper connection on the stream.
fn serve<S>(
    connection: &Arc<ClientConnection>,
    stream: MeteredStream<S>,
) -> Pin<Box<UpgradeableConnection<TokioIo<MeteredStream<S>>, impl Http1Service + use<S>>>>
where
    S: ClientStream + 'static,
{
    let limits = connection.watch.limits();
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The sweep enforces the timeout; see `downstream/connection_watch.rs`.
        .header_read_timeout(None)
        .max_header_size(limits.head_bytes)
        .max_buf_size((limits.head_bytes * 2).max(64 << 10));
    if limits.head_fields != 100 {
        builder.max_headers(limits.head_fields);
    }
    let connection = Arc::clone(connection);
    // Boxed, because hyper's connection always reserves space for the request's future.
    let service = service_fn(move |request: ::http::Request<Incoming>| {
        Box::pin(http::serve(Arc::clone(&connection), request.map(DownstreamBody::http1)))
    });
    Box::pin(builder.serve_connection(TokioIo::new(stream), service).with_upgrades())
}

/// Takes the stream back from a hyper connection at rest, whose buffers are freed.
fn take_back<S: ClientStream, V>(
    parts: Parts<TokioIo<MeteredStream<S>>, V>,
) -> Result<Box<MeteredStream<S>>, HttpEnded> {
    let mut stream = Box::new(parts.io.into_inner());
    let unread = &*parts.read_buf;
    if unread.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
        // Read again, bytes that belong to an earlier request could become one of their own.
        tracing::error!(bytes = unread.len(), "connection at rest has unread bytes");
        return Err(HttpEnded::Late);
    }
    // Empty lines are skipped before a request line (RFC 9112 section 2.2). They are copied, because
    // the original is a part of hyper's buffer.
    stream.replay_scanned(Bytes::copy_from_slice(unread));
    Ok(stream)
}

/// Waits until there is something to read, or until the connection is to end. Returns the ending,
/// if one was requested, and true if a request may still begin.
async fn park<S: ClientStream>(
    stream: &mut MeteredStream<S>,
    watch: &Watch,
) -> Result<(Option<Ending>, bool), HttpEnded> {
    tokio::select! {
        biased;
        () = poll_fn(|cx| stream.poll_first(cx)) => return Ok((None, true)),
        ending = watch.ending(None) => if ending > Ending::Gracefully {
            return Err(HttpEnded::Late);
        }
    }
    // Without hyper, whose buffers would all be needed at once when a drain begins.
    let came = timeout(GRACE, poll_fn(|cx| stream.poll_first(cx))).await;
    Ok((Some(Ending::Gracefully), came.is_ok()))
}

/// Writes the log line of a request whose head hyper has refused itself. `unread` holds the bytes
/// of it that hyper had buffered.
fn refused(connection: &ClientConnection, error: hyper::Error, unread: &[u8]) -> HttpEnded {
    if error.is_parse() {
        // hyper reports one error for an oversized head and for an oversized target. The bytes show
        // which status it sent.
        let failure = match error.is_parse_too_large() {
            true if target_length(unread).is_some_and(|length| length > LONGEST_URI) => {
                Failure::TargetTooLong
            }
            true => Failure::HeadTooLarge,
            false => Failure::HeadMalformed,
        };
        exchange_record::refused(connection, failure);
    }
    HttpEnded::Http(error)
}
