//! From a socket to requests: limits, TLS, and which HTTP it is.

use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::filters::Scheme;
use crate::proxy::connection::{Connection, Counted};
use crate::proxy::connections::Place;
use crate::proxy::failure::Failure;
use crate::proxy::forwarded::Origin;
use crate::proxy::io::{Client, Metered, Rewound};
use crate::proxy::passage::Passage;
use crate::proxy::request_line::target_length;
use crate::proxy::tcp::{self, Chosen, Held};
use crate::proxy::trailers::Sifted;
use crate::proxy::watch::{Ending, Watch, coarse_now};
use crate::proxy::{Gateway, http, record, tasks};
use crate::snapshot::{Bind, BindKey, Traffic};
use crate::stats::Tunnel;
use crate::tls;

/// What HTTP/2 over cleartext begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest URI of the `http` crate. hyper answers a longer one with 414 by itself.
const LONGEST_URI: usize = u16::MAX as usize - 1;

/// How long a PING may be without an answer. The sweep ends connections long before; see `watch.rs`.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// What a connection without a request is given when it is to end: the first bytes of one may be
/// on their way, sent before the client could know.
const GRACE: Duration = Duration::from_millis(200);

/// Serves a connection to its end.
///
/// The handshake, the protocols and the request are boxed each on its own: a connection holds what it
/// needs now, not what the largest of them needs.
pub(super) async fn serve(
    gateway: Arc<Gateway>,
    bind: BindKey,
    stream: TcpStream,
    watch: Arc<Watch>,
    place: Place,
) {
    let peer = watch.peer;
    match begin(gateway, bind, stream, watch, place).await {
        Ok(()) => {}
        Err(Ended::Tls(error)) => {
            tracing::debug!(%peer, %error, reason = error.reason(), "no TLS session");
        }
        Err(error) => tracing::debug!(%peer, %error, "connection ended"),
    }
}

async fn begin(
    gateway: Arc<Gateway>,
    bind: BindKey,
    stream: TcpStream,
    watch: Arc<Watch>,
    place: Place,
) -> Result<(), Ended> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let port = local.port();
    let snapshot = gateway.snapshot.load();
    // A reload may have taken the bind away between accept and here.
    let Some(served) = snapshot.bind(bind) else { return Ok(()) };
    let counts = Counted::new(&served.counts);
    let limit = gateway.limits.handshake_timeout;
    if let Some((listener, forwards)) = served.forwards() {
        let mut passage = Passage::begin(Arc::clone(&gateway), watch.peer, "TCP");
        passage.by(listener);
        let chosen = tcp::choose(forwards.best(""), &mut passage);
        drop(snapshot);
        let passed = Passed { tunnel: Some(Tunnel::Tcp), passage, chosen };
        return forward(passed, counts, watch, place, stream).await;
    }
    if !served.tls {
        drop(snapshot);
        let sniffed = timeout(gateway.limits.head_timeout, sniff(stream));
        let (http2, replay, stream) =
            unless_ending(&watch, sniffed).await?.map_err(|_| Ended::Late)??;
        let origin = Origin::new(watch.peer, Scheme::Http, port, &gateway.trusted_proxies);
        let longest = longest_target(&gateway);
        let stream = Metered::new(stream, Arc::clone(&watch), counts.of_bind(), replay, longest);
        let connection = Connection {
            gateway,
            bind,
            origin,
            watch,
            local,
            sni: None,
            tls: None,
            cipher: "",
            counts,
            place,
        };
        return speak(Arc::new(connection), http2, stream).await;
    }

    watch.begins_handshake();
    let handshake = handshake(&gateway, served, &watch, local.ip(), stream);
    let shaken = Box::pin(unless_ending(&watch, timeout(limit, handshake))).await;
    let shaken = shaken.and_then(|shaken| shaken.map_err(|_| Ended::Late)?);
    let met = shaken.inspect_err(|ended| {
        counts.here().handshakes_failed.one_more();
        if matches!(ended, Ended::UnknownName) {
            counts.here().unmatched.one_more();
        }
    })?;
    drop(snapshot);
    watch.ends_handshake(coarse_now());
    let (sni, stream) = match met {
        Met::Http { sni, stream } => (sni, stream),
        Met::Passed { passed, stream } => {
            return forward(passed, counts, watch, place, stream).await;
        }
        Met::Ended { mut passed, stream } => {
            let (_, session) = stream.get_ref();
            let version = tls::version(session);
            counts.here().negotiated(version, tls::cipher(session));
            passed.passage.tls = Some(version);
            return forward(passed, counts, watch, place, *stream).await;
        }
    };
    let (_, session) = stream.get_ref();
    let http2 = session.alpn_protocol() == Some(b"h2");
    let (version, cipher) = (tls::version(session), tls::cipher(session));
    counts.here().negotiated(version, cipher);
    let origin = Origin::new(watch.peer, Scheme::Https, port, &gateway.trusted_proxies);
    let longest = longest_target(&gateway);
    let stream = Metered::new(*stream, Arc::clone(&watch), counts.of_bind(), Bytes::new(), longest);
    let (sni, tls) = (Some(sni), Some(version));
    let connection =
        Connection { gateway, bind, origin, watch, local, sni, tls, cipher, counts, place };
    speak(Arc::new(connection), http2, stream).await
}

/// The stream of a connection whose handshake was done here.
type Secured = TlsStream<Rewound<TcpStream>>;

/// Bytes of a target that hyper may see: those that are allowed, with room for the host that the
/// absolute form has before them, and less than hyper answers by itself.
fn longest_target(gateway: &Gateway) -> usize {
    const HOST: usize = 512;
    (gateway.limits.target_bytes + HOST).min(LONGEST_URI - 1)
}

/// What a TLS connection turns out to be.
enum Met {
    /// An HTTPS listener's.
    Http { sni: Box<str>, stream: Box<Secured> },
    /// For a backend, behind a handshake with us.
    Ended { passed: Passed, stream: Box<Secured> },
    /// For a backend, its handshake too; or for nobody.
    Passed { passed: Passed, stream: Rewound<TcpStream> },
}

/// A connection that is not looked into, and where it goes.
struct Passed {
    /// None where no listener has the name that it is for.
    tunnel: Option<Tunnel>,
    passage: Passage,
    chosen: Result<Chosen, Failure>,
}

/// From the ClientHello to the end of the handshake, if it is ours.
///
/// Where TLS listeners share the port, the name is read first and nothing is answered before it is
/// known whose connection it is: what belongs to no listener or route of theirs is closed without
/// an alert.
async fn handshake(
    gateway: &Arc<Gateway>,
    bind: &Bind,
    watch: &Watch,
    local: IpAddr,
    mut stream: TcpStream,
) -> Result<Met, Ended> {
    let mut read = Bytes::new();
    if bind.forwards_tls {
        let opening = tls::read_server_name(&mut stream).await?;
        read = opening.bytes;
        let (listener, name) = match &opening.name {
            Ok(name) => (bind.listeners.best(name), &**name),
            Err(fault) if bind.https => {
                tracing::debug!(peer = %watch.peer, %fault, "no name, so it is for HTTPS");
                (None, "")
            }
            Err(fault) => return Err(Ended::NoHello(*fault)),
        };
        let to = listener.map(|listener| (listener, &listener.traffic));
        if let Some((listener, Traffic::Passthrough(forwards))) = to {
            let mut passage = Passage::begin(Arc::clone(gateway), watch.peer, "TLS");
            passage.by(listener);
            passage.sni = name.into();
            let chosen = tcp::choose(forwards.best(name), &mut passage);
            let passed = Passed { tunnel: Some(Tunnel::Passthrough), passage, chosen };
            return Ok(Met::Passed { passed, stream: Rewound::new(stream, read) });
        }
        if listener.is_none() && !bind.https {
            let mut passage = Passage::begin(Arc::clone(gateway), watch.peer, "TLS");
            passage.by_nobody(bind);
            passage.sni = name.into();
            let passed = Passed { tunnel: None, passage, chosen: Err(Failure::NoRoute) };
            return Ok(Met::Passed { passed, stream: Rewound::new(stream, read) });
        }
    }
    let hello = tls::accept_hello(Rewound::new(stream, read)).await?;
    let sni: Box<str> = hello.sni().unwrap_or_default().into();
    let listener = bind.listeners.best(&sni);
    let Some((listener, config)) = listener.and_then(|of| Some((of, of.handshake(&sni, local)?)))
    else {
        hello.refuse_unrecognized_name().await;
        return Err(Ended::UnknownName);
    };
    let Traffic::Forward(forwards) = &listener.traffic else {
        let stream = Box::new(hello.finish(config).await?);
        return Ok(Met::Http { sni, stream });
    };
    let mut passage = Passage::begin(Arc::clone(gateway), watch.peer, "TCP");
    passage.by(listener);
    passage.sni.clone_from(&sni);
    let chosen = tcp::choose(forwards.best(&sni), &mut passage);
    let passed = Passed { tunnel: Some(Tunnel::Terminate), passage, chosen };
    if passed.chosen.is_err() {
        // Before the handshake, so that nobody thinks it has begun.
        return Ok(Met::Passed { passed, stream: hello.into_stream() });
    }
    let stream = Box::new(hello.finish(config).await?);
    Ok(Met::Ended { passed, stream })
}

/// Hands a connection to its backend, or closes it where there is none.
async fn forward(
    passed: Passed,
    counts: Counted,
    watch: Arc<Watch>,
    place: Place,
    client: impl Client,
) -> Result<(), Ended> {
    let Passed { tunnel, mut passage, chosen } = passed;
    let Some(tunnel) = tunnel else {
        counts.here().unmatched.one_more();
        passage.failure = chosen.err();
        return Ok(());
    };
    counts.here().tunnels(tunnel).connections.one_more();
    match chosen {
        Ok(chosen) => {
            let open = watch.open();
            let held = Held { tunnel, passage, open, watch, counts, place };
            Box::pin(tcp::serve(held, chosen, client)).await;
        }
        Err(failure) => {
            counts.here().tunnels(tunnel).without_route.one_more();
            passage.failure = Some(failure);
        }
    }
    Ok(())
}

/// Does `work`, unless the connection is to end meanwhile and has used up its grace.
async fn unless_ending<T>(watch: &Watch, work: impl Future<Output = T>) -> Result<T, Ended> {
    let mut work = pin!(work);
    tokio::select! {
        done = &mut work => return Ok(done),
        ending = watch.ending(None) => if ending > Ending::Gracefully {
            return Err(Ended::Late);
        }
    }
    timeout(GRACE, work).await.map_err(|_| Ended::Late)
}

/// Reads just enough to tell HTTP/2 with prior knowledge from HTTP/1.
async fn sniff(mut stream: TcpStream) -> io::Result<(bool, Bytes, TcpStream)> {
    let mut read = BytesMut::with_capacity(1024);
    loop {
        if read.starts_with(PREFACE) {
            return Ok((true, read.freeze(), stream));
        }
        if !PREFACE.starts_with(&read) || stream.read_buf(&mut read).await? == 0 {
            return Ok((false, read.freeze(), stream));
        }
    }
}

/// Speaks HTTP until the client leaves, a limit ends it, or a drain does.
///
/// None of this is an `async fn`: that would keep room for the stream beside hyper's connection, into
/// which it is moved, for as long as the connection lives.
fn speak<S>(
    connection: Arc<Connection>,
    http2: bool,
    stream: Metered<S>,
) -> Pin<Box<dyn Future<Output = Result<(), Ended>> + Send>>
where
    S: Client + 'static,
{
    match http2 {
        true => {
            connection.counts.here().connections_http2.one_more();
            Box::pin(speak_http2(connection, stream))
        }
        false => {
            connection.counts.here().connections_http1.one_more();
            Box::pin(speak_http1(connection, stream))
        }
    }
}

fn speak_http2<S>(
    connection: Arc<Connection>,
    stream: Metered<S>,
) -> impl Future<Output = Result<(), Ended>> + Send
where
    S: Client + 'static,
{
    let watch = Arc::clone(&connection.watch);
    watch.speaks_http2();
    let limits = &connection.gateway.limits;
    let mut builder = http2::Builder::new(tasks::Executor { send_timeout: limits.send_timeout });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(limits.http2_send_buffer)
        .initial_stream_window_size(limits.http2_window / 4)
        .initial_connection_window_size(limits.http2_window)
        .keep_alive_interval(limits.idle_timeout / 2)
        // Whether it is answered is for the sweep to see: an answer may have to wait behind a response
        // that a slow client still reads.
        .keep_alive_timeout(PATIENCE)
        .enable_connect_protocol();
    let service = service_fn(move |request| http::serve(Arc::clone(&connection), request));
    let stream = Sifted::new(stream.gathering());
    let mut conn = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
    async move {
        let mut known = None;
        loop {
            tokio::select! {
                ended = conn.as_mut() => return ended.map_err(Ended::Http),
                ending = watch.ending(known) => match ending {
                    Ending::Gracefully => conn.as_mut().graceful_shutdown(),
                    Ending::AtOnce | Ending::Shutdown => return Err(Ended::Late),
                }
            }
            known = Some(Ending::Gracefully);
        }
    }
}

fn speak_http1<S>(
    connection: Arc<Connection>,
    stream: Metered<S>,
) -> impl Future<Output = Result<(), Ended>> + Send
where
    S: Client + 'static,
{
    let watch = Arc::clone(&connection.watch);
    let limits = &connection.gateway.limits;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The sweep keeps time; see `watch.rs`.
        .header_read_timeout(None)
        .max_header_size(limits.head_bytes)
        .max_buf_size((limits.head_bytes * 2).max(64 << 10));
    if limits.head_fields != 100 {
        builder.max_headers(limits.head_fields);
    }
    let refusing = Arc::clone(&connection);
    // hyper has a place for the request's future all the time, and fills it for each request.
    let service =
        service_fn(move |request| Box::pin(http::serve(Arc::clone(&connection), request)));
    let mut conn =
        Box::pin(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    async move {
        let mut known = None;
        let ended = loop {
            tokio::select! {
                ended = conn.as_mut() => break ended,
                ending = watch.ending(known) => if ending > Ending::Gracefully {
                    return Err(Ended::Late);
                },
            }
            known = Some(Ending::Gracefully);
            // A request that comes within the grace is answered with `Connection: close`.
            if watch.idle_since().is_some()
                && let Ok(ended) = timeout(GRACE, conn.as_mut()).await
            {
                break ended;
            }
            conn.as_mut().graceful_shutdown();
        };
        ended.map_err(|error| {
            let unread = Pin::into_inner(conn).into_parts().map(|parts| parts.read_buf);
            refused(&refusing, error, &unread.unwrap_or_default())
        })
    }
}

/// Where hyper has refused a head by itself, that is a request too, and has its line in the log.
/// `unread` is what hyper had of it.
fn refused(connection: &Connection, error: hyper::Error, unread: &[u8]) -> Ended {
    if error.is_parse() {
        // hyper has one question for both of what may be too large; the bytes tell what it answered.
        let failure = match error.is_parse_too_large() {
            true if target_length(unread).is_some_and(|length| length > LONGEST_URI) => {
                Failure::TargetTooLong
            }
            true => Failure::HeadTooLarge,
            false => Failure::HeadMalformed,
        };
        record::refused(connection, failure);
    }
    Ended::Http(error)
}

/// Why a connection ended otherwise than by its client's choice.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("HTTP")]
    Http(#[source] hyper::Error),
    #[error("socket")]
    Io(#[from] io::Error),
    #[error("a time limit passed or a drain ended")]
    Late,
    #[error("TLS")]
    NoHello(#[source] tls::NoHello),
    #[error("TLS")]
    Tls(#[from] tls::HelloError),
    #[error("no listener for the name of the TLS handshake")]
    UnknownName,
}
