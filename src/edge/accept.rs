//! Accepted connections, from the socket to the protocol: the TLS handshake, the listener, HTTP/1
//! or HTTP/2.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use crate::clock::coarse_now;
use crate::downstream::{
    BindCounts, ClientStream, Ending, Process, Registration, Rewound, Watch, coarse_timer,
};
use crate::edge::connection_error::{ConnectionError, unless_ending};
use crate::edge::proxy_header::receive;
use crate::failure::Failure;
use crate::filters::Scheme;
use crate::proxy::{ClientConnection, ConnectionOrigin, Speaking, SpokenHttp, speak};
use crate::snapshot::{Bind, BindKey, ClientLimits, ConnectionLimit, Traffic};
use crate::stats::Tunnel;
use crate::streams::tcp::{self, AcceptedStream};
use crate::streams::{Destination, StreamRecord, choose_destination};
use crate::tls::{self, Hello};

/// The client preface of HTTP/2 over cleartext (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection to its end.
///
/// The futures of the handshake, of the protocols and of the request are boxed separately, so that
/// a connection uses the memory of its present state and not of the largest one. The task of a
/// connection holds no more than a pointer to one of them.
pub(super) async fn serve(
    process: Arc<Process>,
    bind: BindKey,
    stream: TcpStream,
    watch: Arc<Watch>,
    registration: Registration,
) {
    let peer = watch.peer;
    let begun = Box::pin(begin(process, bind, stream, watch, registration)).await;
    let ended = match begun {
        Ok(Some(speaking)) => speaking.await.map_err(Into::into),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    match ended {
        Ok(()) => {}
        Err(ConnectionError::Tls(error)) => {
            tracing::debug!(%peer, %error, reason = error.reason(), "no TLS session");
        }
        Err(error) => tracing::debug!(%peer, %error, "connection ended"),
    }
}

/// Finds the protocol of a connection, and does its TLS handshake. Returns what is to be served on
/// it; `None` if its bytes went to a backend and it has ended.
async fn begin(
    process: Arc<Process>,
    bind: BindKey,
    mut stream: TcpStream,
    mut watch: Arc<Watch>,
    mut registration: Registration,
) -> Result<Option<Speaking>, ConnectionError> {
    stream.set_nodelay(true)?;
    let accepted_at = stream.local_addr()?;
    let (port, mut local) = (accepted_at.port(), accepted_at);
    let snapshot = process.snapshot.load();
    // A reload may have removed the bind since the connection was accepted.
    let Some(served) = snapshot.bind(bind) else { return Ok(None) };
    let counts = BindCounts::new(&served.counts);
    if let Some(header) = served.proxy_header {
        let limits = Arc::clone(&served.limits);
        let receiving = receive(&process, header, &mut stream, watch, limits, &mut registration);
        let received = Box::pin(receiving).await.inspect_err(|error| {
            if error.is_of_header() {
                counts.here().proxy_header_errors.one_more();
            }
        })?;
        watch = received.watch;
        local = received.local.unwrap_or(local);
    }
    if let Some(keep_alive) = served.keep_alive {
        keep_alive.apply(&stream);
    }
    let facts = SocketFacts { local, keeps_alive: served.keep_alive.is_some() };
    if let Err(delay) = count(served.connection_limit.as_ref(), &registration) {
        return Box::pin(turn_away(stream, delay, &watch, &counts)).await;
    }
    if let Some((listener, forwards)) = served.forwards() {
        watch.limited_by(&listener.limits);
        let mut record = StreamRecord::begin(Arc::clone(&process), watch.peer, "TCP");
        record.by(listener);
        let destination = choose_destination(forwards.best(""), &mut record);
        drop(snapshot);
        let route = StreamRoute { tunnel: Some(Tunnel::Tcp), record, destination };
        forward(route, counts, watch, registration, facts, stream).await?;
        return Ok(None);
    }
    if !served.tls {
        drop(snapshot);
        let sniffed = timeout(watch.limits().head_timeout, sniff(stream));
        let (spoken, replay, stream) =
            unless_ending(&watch, sniffed).await?.map_err(|_| ConnectionError::Late)??;
        let origin =
            ConnectionOrigin::new(watch.peer, Scheme::Http, port, &process.trusted_proxies);
        let age = age(&watch);
        let connection = ClientConnection {
            process,
            bind,
            origin,
            watch,
            local,
            sni: None,
            tls: None,
            cipher: "",
            counts,
            registration,
            listener: OnceLock::new(),
        };
        return Ok(Some(aging(age, speak(connection, spoken, stream, replay))));
    }

    watch.begins_handshake();
    let handshake = handshake(&process, served, &watch, &registration, accepted_at.ip(), stream);
    let shaken =
        Box::pin(unless_ending(&watch, timeout(watch.limits().handshake_timeout, handshake))).await;
    let shaken = shaken.and_then(|shaken| shaken.map_err(|_| ConnectionError::Late)?);
    let met = shaken.inspect_err(|ended| {
        counts.here().handshakes_failed.one_more();
        if matches!(ended, ConnectionError::UnknownName) {
            counts.here().unmatched.one_more();
        }
    })?;
    drop(snapshot);
    watch.ends_handshake(coarse_now());
    let (sni, stream) = match met {
        HandshakeOutcome::Http { sni, stream } => (sni, stream),
        HandshakeOutcome::Full { delay, stream } => {
            return Box::pin(turn_away(stream, delay, &watch, &counts)).await;
        }
        HandshakeOutcome::Passthrough { route, stream } => {
            forward(route, counts, watch, registration, facts, stream).await?;
            return Ok(None);
        }
        HandshakeOutcome::Terminated { mut route, stream } => {
            let (_, session) = stream.get_ref();
            let version = tls::version(session);
            counts.here().negotiated(version, tls::cipher(session));
            route.record.tls = Some(version);
            forward(route, counts, watch, registration, facts, *stream).await?;
            return Ok(None);
        }
    };
    let (_, session) = stream.get_ref();
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let spoken = if is_http2 { SpokenHttp::Http2 } else { SpokenHttp::Http1 };
    let (version, cipher) = (tls::version(session), tls::cipher(session));
    counts.here().negotiated(version, cipher);
    let origin = ConnectionOrigin::new(watch.peer, Scheme::Https, port, &process.trusted_proxies);
    let (sni, tls, age) = (Some(sni), Some(version), age(&watch));
    let connection = ClientConnection {
        process,
        bind,
        origin,
        watch,
        local,
        sni,
        tls,
        cipher,
        counts,
        registration,
        listener: OnceLock::new(),
    };
    Ok(Some(aging(age, speak(connection, spoken, *stream, Bytes::new()))))
}

/// The stream of a connection whose TLS session is terminated here.
type TlsClient = TlsStream<Rewound<TcpStream>>;

/// The result of the handshake of a TLS connection.
enum HandshakeOutcome {
    /// The listener has reached its limit of connections. No handshake was done.
    Full { delay: Duration, stream: Rewound<TcpStream> },
    /// The handshake is done; the connection belongs to an HTTPS listener.
    Http { sni: Box<str>, stream: Box<TlsClient> },
    /// The handshake is done; the decrypted bytes go to a backend.
    Terminated { route: StreamRoute, stream: Box<TlsClient> },
    /// No handshake was done: the bytes go to a backend unchanged, or the connection is closed.
    Passthrough { route: StreamRoute, stream: Rewound<TcpStream> },
}

/// Properties of an accepted connection.
#[derive(Clone, Copy)]
struct SocketFacts {
    /// The address that the client connected to.
    local: SocketAddr,
    /// It has keep-alive probes with settings of a policy.
    keeps_alive: bool,
}

/// A connection that is not HTTP, and its destination.
struct StreamRoute {
    /// `None` if no listener has the name that the client requested.
    tunnel: Option<Tunnel>,
    record: StreamRecord,
    destination: Result<Destination, Failure>,
}

/// Does the TLS handshake, unless the backend terminates TLS.
///
/// If TLS listeners share the port, the server name is read first, and the gateway sends nothing
/// before the listener is known. A connection that matches no listener or route is closed without
/// an alert.
async fn handshake(
    process: &Arc<Process>,
    bind: &Bind,
    watch: &Watch,
    registration: &Registration,
    local: IpAddr,
    mut stream: TcpStream,
) -> Result<HandshakeOutcome, ConnectionError> {
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
            Err(fault) => return Err(ConnectionError::NoHello(*fault)),
        };
        let to = listener.map(|listener| (listener, &listener.traffic));
        if let Some((listener, Traffic::Passthrough(forwards))) = to {
            watch.limited_by(&listener.limits);
            if let Err(delay) = count(listener.connection_limit.as_ref(), registration) {
                return Ok(HandshakeOutcome::Full { delay, stream: Rewound::new(stream, read) });
            }
            let mut record = StreamRecord::begin(Arc::clone(process), watch.peer, "TLS");
            record.by(listener);
            record.sni = name.into();
            let destination = choose_destination(forwards.best(name), &mut record);
            let route = StreamRoute { tunnel: Some(Tunnel::Passthrough), record, destination };
            return Ok(HandshakeOutcome::Passthrough { route, stream: Rewound::new(stream, read) });
        }
        if listener.is_none() && !bind.https {
            let mut record = StreamRecord::begin(Arc::clone(process), watch.peer, "TLS");
            record.by_nobody(bind);
            record.sni = name.into();
            let route = StreamRoute { tunnel: None, record, destination: Err(Failure::NoRoute) };
            return Ok(HandshakeOutcome::Passthrough { route, stream: Rewound::new(stream, read) });
        }
    }
    let hello = tls::accept_hello(Rewound::new(stream, read));
    let hello = match bind.limits.inspection_timeout {
        None => hello.await?,
        Some(limit) => timeout(limit, hello).await.map_err(|_| ConnectionError::Late)??,
    };
    let sni: Box<str> = hello.sni().unwrap_or_default().into();
    let listener = bind.listeners.best(&sni);
    let Some((listener, config)) = listener.and_then(|of| Some((of, of.handshake(&sni, local)?)))
    else {
        hello.refuse_unrecognized_name().await;
        return Err(ConnectionError::UnknownName);
    };
    watch.limited_by(&listener.limits);
    if let Err(delay) = count(listener.connection_limit.as_ref(), registration) {
        return Ok(HandshakeOutcome::Full { delay, stream: hello.into_stream() });
    }
    let Traffic::Forward(forwards) = &listener.traffic else {
        let stream = Box::new(finish(hello, config, bind, &listener.limits).await?);
        return Ok(HandshakeOutcome::Http { sni, stream });
    };
    let mut record = StreamRecord::begin(Arc::clone(process), watch.peer, "TCP");
    record.by(listener);
    record.sni.clone_from(&sni);
    let destination = choose_destination(forwards.best(&sni), &mut record);
    let route = StreamRoute { tunnel: Some(Tunnel::Terminate), record, destination };
    if route.destination.is_err() {
        // Checked before the handshake, so that the client does not take the connection for
        // established.
        return Ok(HandshakeOutcome::Passthrough { route, stream: hello.into_stream() });
    }
    let stream = Box::new(finish(hello, config, bind, &listener.limits).await?);
    Ok(HandshakeOutcome::Terminated { route, stream })
}

/// Ends a handshake within the time of the listener. The caller sees to that of the bind.
async fn finish(
    hello: Hello<Rewound<TcpStream>>,
    config: Arc<ServerConfig>,
    bind: &Bind,
    limits: &ClientLimits,
) -> Result<TlsClient, ConnectionError> {
    if limits.handshake_timeout >= bind.limits.handshake_timeout {
        return Ok(hello.finish(config).await?);
    }
    let finished = timeout(limits.handshake_timeout, hello.finish(config)).await;
    Ok(finished.map_err(|_| ConnectionError::Late)??)
}

/// Counts a connection for the limit of its listener, if it has one.
///
/// # Errors
///
/// The limit is reached. Returns the time for which the connection is to be kept.
fn count(limit: Option<&ConnectionLimit>, registration: &Registration) -> Result<(), Duration> {
    limit.map_or(Ok(()), |limit| limit.take().map(|counted| registration.counts_for(counted)))
}

/// Keeps a connection beyond the limit of its listener for a while, unread, and closes it.
async fn turn_away<S>(
    stream: S,
    delay: Duration,
    watch: &Watch,
    counts: &BindCounts,
) -> Result<Option<Speaking>, ConnectionError> {
    counts.here().limited_connections.one_more();
    if !delay.is_zero() {
        // The timeout of a request head must not end the delay.
        watch.begins_handshake();
        unless_ending(watch, coarse_timer::sleep(delay)).await?;
    }
    drop(stream);
    Ok(None)
}

/// The maximum age of a connection, if it has one.
type Age = Option<(Duration, Arc<Watch>)>;

fn age(watch: &Arc<Watch>) -> Age {
    watch.limits().connection_age.map(|age| (age, Arc::clone(watch)))
}

/// Asks a connection to end when it has reached its age. It ends after the requests that are open; a
/// tunnel is not interrupted.
fn aging(age: Age, mut speaking: Speaking) -> Speaking {
    let Some((age, watch)) = age else { return speaking };
    Box::pin(async move {
        tokio::select! {
            ended = &mut speaking => return ended,
            () = coarse_timer::sleep(age) => watch.end(Ending::Gracefully),
        }
        speaking.await
    })
}

/// Passes a connection to its backend, or closes it if there is none.
async fn forward(
    route: StreamRoute,
    counts: BindCounts,
    watch: Arc<Watch>,
    registration: Registration,
    facts: SocketFacts,
    client: impl ClientStream,
) -> Result<(), ConnectionError> {
    let StreamRoute { tunnel, mut record, destination } = route;
    let SocketFacts { local, keeps_alive } = facts;
    let Some(tunnel) = tunnel else {
        counts.here().unmatched.one_more();
        record.failure = destination.err();
        return Ok(());
    };
    counts.here().tunnels(tunnel).connections.one_more();
    match destination {
        Ok(destination) => {
            let open = watch.open();
            let accepted = AcceptedStream {
                tunnel,
                record,
                open,
                watch,
                local,
                keeps_alive,
                counts,
                registration,
            };
            Box::pin(tcp::serve(accepted, destination, client)).await;
        }
        Err(failure) => {
            counts.here().tunnels(tunnel).without_route.one_more();
            record.failure = Some(failure);
        }
    }
    Ok(())
}

/// Reads just enough bytes to distinguish HTTP/2 with prior knowledge from HTTP/1.
async fn sniff(mut stream: TcpStream) -> io::Result<(SpokenHttp, Bytes, TcpStream)> {
    let mut read = BytesMut::with_capacity(1024);
    loop {
        if read.starts_with(PREFACE) {
            return Ok((SpokenHttp::Http2, read.freeze(), stream));
        }
        if !PREFACE.starts_with(&read) || stream.read_buf(&mut read).await? == 0 {
            return Ok((SpokenHttp::Http1, read.freeze(), stream));
        }
    }
}
