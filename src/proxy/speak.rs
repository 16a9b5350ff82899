//! HTTP on one downstream connection, and HTTP/2 in particular.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::downstream::{ClientStream, Ending};
use crate::proxy::client_connection::ClientConnection;
use crate::proxy::downstream_body::DownstreamBody;
use crate::proxy::gathered_stream::gathered;
use crate::proxy::http_ended::HttpEnded;
use crate::proxy::http2_trailers::FrameFilter;
use crate::proxy::metered::MeteredStream;
use crate::proxy::speak_http1::{LONGEST_URI, speak_http1};
use crate::proxy::{http, stream_tasks};
use crate::snapshot::ClientLimits;

/// The time that hyper waits for the answer to a PING. Effectively unlimited: the sweep closes the
/// connection much earlier (see `downstream/connection_watch.rs`).
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// The HTTP version of a downstream connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpokenHttp {
    Http1,
    Http2,
}

/// HTTP on one connection, to its end.
pub(crate) type Speaking = Pin<Box<dyn Future<Output = Result<(), HttpEnded>> + Send>>;

/// Serves HTTP until the client disconnects, a limit passes or a drain ends the connection.
///
/// `replay` holds the bytes that were already read from the stream.
///
/// These functions are not `async fn`: their futures would reserve space for the stream for the
/// whole lifetime of the connection, although it is moved into hyper's connection.
///
/// # Errors
///
/// Returns the reason if the connection did not end by the client's choice.
pub(crate) fn speak<S>(
    connection: ClientConnection,
    spoken: SpokenHttp,
    stream: S,
    replay: Bytes,
) -> Speaking
where
    S: ClientStream + 'static,
{
    let connection = Arc::new(connection);
    let (watch, counts) = (Arc::clone(&connection.watch), connection.counts.of_bind());
    let longest = longest_target(watch.limits());
    let stream = MeteredStream::new(stream, watch, counts, replay, longest);
    match spoken {
        SpokenHttp::Http2 => {
            connection.counts.here().connections_http2.one_more();
            Box::pin(speak_http2(connection, stream))
        }
        SpokenHttp::Http1 => {
            connection.counts.here().connections_http1.one_more();
            Box::pin(speak_http1(connection, stream))
        }
    }
}

fn speak_http2<S>(
    connection: Arc<ClientConnection>,
    stream: MeteredStream<S>,
) -> impl Future<Output = Result<(), HttpEnded>> + Send
where
    S: ClientStream + 'static,
{
    let watch = Arc::clone(&connection.watch);
    watch.speaks_http2();
    let limits = watch.limits();
    let mut builder =
        http2::Builder::new(stream_tasks::StreamExecutor { send_timeout: limits.send_timeout });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(limits.http2_send_buffer)
        .initial_stream_window_size(limits.http2_stream_window.unwrap_or(limits.http2_window / 4))
        .initial_connection_window_size(limits.http2_window)
        .keep_alive_interval(limits.ping_interval())
        // The sweep checks for the answer to a PING: it may have to wait behind a response that a
        // slow client still reads.
        .keep_alive_timeout(PATIENCE)
        .enable_connect_protocol();
    // Boxed, because hyper and tokio move the request's future several times before and after it
    // runs.
    let service = service_fn(move |request: ::http::Request<Incoming>| {
        Box::pin(http::serve(Arc::clone(&connection), request.map(DownstreamBody::http2)))
    });
    let (stream, drain) = gathered(stream.http2());
    let stream = TokioIo::new(FrameFilter::new(stream));
    let mut conn = Box::pin(builder.serve_connection(stream, service));
    async move {
        let mut known = None;
        loop {
            let served = poll_fn(|cx| {
                let served = conn.as_mut().poll(cx).map_err(HttpEnded::Http);
                // All that this poll wrote leaves together.
                match drain.poll(cx) {
                    Poll::Ready(Err(error)) if served.is_pending() => {
                        Poll::Ready(Err(HttpEnded::Write(error)))
                    }
                    _ => served,
                }
            });
            tokio::select! {
                ended = served => return ended,
                ending = watch.ending(known) => match ending {
                    Ending::Gracefully => conn.as_mut().graceful_shutdown(),
                    Ending::AtOnce | Ending::Shutdown => return Err(HttpEnded::Late),
                }
            }
            known = Some(Ending::Gracefully);
        }
    }
}

/// Returns the number of bytes of a target that hyper may see: the configured limit, plus space for
/// the host in absolute-form, and less than the length that hyper refuses itself.
fn longest_target(limits: &ClientLimits) -> usize {
    const HOST: usize = 512;
    (limits.target_bytes + HOST).min(LONGEST_URI - 1)
}
