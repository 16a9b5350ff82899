//! The door for scrapers: HTTP/1.1 on an address of its own, never on a listener of the Gateways.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Format, Metrics};

/// Connections at once; others wait in the backlog.
const CONNECTIONS: usize = 16;
const HEAD_BYTES: usize = 8 << 10;
const HEAD_FIELDS: usize = 32;
/// For the head of a request, and so for a connection without one.
const HEAD_TIME: Duration = Duration::from_secs(75);
/// For all of a connection. A scraper that keeps one opens another then.
const CONNECTION_TIME: Duration = Duration::from_secs(3600);
/// Between looks whether an address that somebody else has is free: after a restart it is the
/// process before, which drains.
const RETRY: Duration = Duration::from_secs(1);

/// Answers on `address` for ever. Where that is taken, it says so once and waits until it is free:
/// the gateway serves without.
pub(crate) async fn serve(address: SocketAddr, metrics: Arc<Metrics>) {
    let listener = listen(address).await;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, address, Arc::clone(&metrics)));
                }
                Err(error) => {
                    tracing::warn!(%error, "metrics: no connection is accepted");
                    // Out of descriptors, most likely: trying again at once would spin.
                    tokio::time::sleep(RETRY).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!("metrics are at http://{address}/stats/prometheus");
                return listener;
            }
            Err(error) if !told => {
                told = true;
                let wait = match error.kind() {
                    io::ErrorKind::AddrInUse => "somebody else is there; waiting for it",
                    _ => "trying on",
                };
                tracing::warn!("metrics cannot be had at {address}: {error}; {wait}");
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn connection(stream: TcpStream, address: SocketAddr, metrics: Arc<Metrics>) {
    let service = service_fn(|request: Request<Incoming>| {
        let metrics = Arc::clone(&metrics);
        async move { Ok::<_, Infallible>(answer(&request, address, metrics).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    // Whatever went wrong is the peer's to notice.
    let _ = tokio::time::timeout(CONNECTION_TIME, served).await;
}

async fn answer<B>(
    request: &Request<B>,
    address: SocketAddr,
    metrics: Arc<Metrics>,
) -> Response<Full<Bytes>> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    if address.ip().is_loopback() && !is_loopback(host.unwrap_or_default()) {
        return says(StatusCode::FORBIDDEN, "ask for localhost or 127.0.0.1\n");
    }
    if !matches!(request.uri().path(), "/stats/prometheus" | "/metrics") {
        return says(StatusCode::NOT_FOUND, "metrics are at /stats/prometheus and /metrics\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = says(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::wanted(accept.unwrap_or_default());
    // Ten thousand routes take a while, which the control loop is not to wait for.
    let Ok(text) = tokio::task::spawn_blocking(move || metrics.text(format)).await else {
        return says(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping\n");
    };
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    let form = HeaderValue::from_static(format.content_type());
    answer.headers_mut().insert(CONTENT_TYPE, form);
    answer
}

/// True for the names of this host alone: a page somewhere else, whose name was made to lead here,
/// is told nothing.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn says(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_host_are_its_own() {
        // (host, is ours)
        let table = [
            ("localhost", true),
            ("LOCALHOST:19001", true),
            ("127.0.0.1:19001", true),
            ("127.0.0.2", true),
            ("[::1]:19001", true),
            ("", false),
            ("example.com", false),
            ("example.com:19001", false),
            ("localhost.example.com", false),
            ("10.0.0.1:19001", false),
            ("127.0.0.1.example.com", false),
        ];
        for (host, want) in table {
            assert_eq!(is_loopback(host), want, "{host}");
        }
    }
}
