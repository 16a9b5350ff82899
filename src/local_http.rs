//! HTTP/1.1 servers for programs and people of this host: metrics, the Kubernetes API, the admin
//! address.
//!
//! Every browser of the host reaches these addresses, and so does every web page that is open in
//! one. [`is_own_name`] and [`is_foreign`] recognise the requests of such pages.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Between attempts to listen on a taken address (after a restart the previous process has it until it
/// has drained), and after a failed accept.
const RETRY: Duration = Duration::from_secs(1);

/// Limits on a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub head_bytes: usize,
    pub head_fields: usize,
    /// For the head of a request, and so for a connection without one.
    pub head_time: Duration,
    /// For all of a connection; `None`: as long as requests come.
    pub connection_time: Option<Duration>,
}

/// Listens on `address`. While that is taken, it waits until it is free, and logs so once; the gateway
/// serves meanwhile. `what` and `url` are for the log.
pub(crate) async fn listen(address: SocketAddr, what: &str, url: &str) -> TcpListener {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(server = what, url = %format_args!("http://{address}{url}"), "listening for this host");
                return listener;
            }
            Err(error) if !told => {
                told = true;
                tracing::warn!(server = what, %address, %error, "cannot listen yet; trying again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Accepts for ever, at most so many `connections` at once; others wait in the backlog.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    connections: usize,
    what: &str,
    serve: impl Fn(TcpStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < connections => match accepted {
                Ok((stream, _)) => {
                    open.spawn(serve(stream));
                }
                Err(error) => {
                    tracing::warn!(server = what, %error, "accept failed");
                    // Probably out of descriptors: trying again at once would spin.
                    tokio::time::sleep(RETRY).await;
                }
            },
            Some(_) = open.join_next() => {}
        }
    }
}

/// Answers the requests of one connection.
pub(crate) async fn serve<A, F, B>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    limits: Limits,
    answer: A,
) where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error = Infallible> + 'static,
{
    let service = service_fn(|request| {
        let answered = answer(request);
        async { Ok::<_, Infallible>(answered.await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(limits.head_bytes)
        .max_headers(limits.head_fields)
        .serve_connection(TokioIo::new(stream), service);
    // The peer notices a failure by itself.
    let _ = match limits.connection_time {
        Some(time) => tokio::time::timeout(time, served).await.unwrap_or(Ok(())),
        None => served.await,
    };
}

/// True if `Host` is a name of the loopback address. A web page of another name that resolves to this
/// host (DNS rebinding) gets no answer.
pub(crate) fn is_own_name(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) {
        (Some(host), None) => is_loopback(host),
        _ => false,
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// True if a browser reports that a page of another origin has sent the request or linked to it. Other
/// clients do not send these fields.
pub(crate) fn is_foreign(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).map_or(&b""[..], |host| host.as_bytes());
    let is_ours = |origin: &[u8]| origin.strip_prefix(b"http://") == Some(host);
    headers.get_all(ORIGIN).iter().any(|origin| !is_ours(origin.as_bytes()))
        || headers
            .get_all("sec-fetch-site")
            .iter()
            .any(|site| !matches!(site.as_bytes(), b"none" | b"same-origin"))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn only_names_of_this_host_are_its_own() {
        // (host, is ours)
        let table = [
            ("localhost", true),
            ("LOCALHOST:19001", true),
            ("127.0.0.1:19001", true),
            ("127.1.2.3", true),
            ("[::1]:19001", true),
            ("[::1]", true),
            ("", false),
            ("example.com", false),
            ("example.com:19001", false),
            ("localhost.example.com:6443", false),
            ("192.0.2.1:19001", false),
            ("[::2]", false),
            ("127.0.0.1.example.com", false),
        ];
        for (host, want) in table {
            assert_eq!(is_loopback(host), want, "{host}");
        }
        let mut headers = HeaderMap::new();
        assert!(!is_own_name(&headers), "none");
        headers.append(HOST, HeaderValue::from_static("localhost"));
        assert!(is_own_name(&headers));
        headers.append(HOST, HeaderValue::from_static("localhost"));
        assert!(!is_own_name(&headers), "two");
    }

    #[test]
    fn a_page_of_another_origin_is_foreign() {
        // (fields, is foreign)
        let table: [(&[(&str, &str)], bool); 9] = [
            (&[], false),
            (&[("origin", "http://localhost:19000")], false),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("origin", "http://localhost:8080")], true),
            (&[("origin", "https://example.com")], true),
            (&[("origin", "null")], true),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("origin", "http://localhost:19000"), ("sec-fetch-site", "cross-site")], true),
        ];
        for (fields, want) in table {
            let mut headers = HeaderMap::new();
            headers.append(HOST, HeaderValue::from_static("localhost:19000"));
            for (name, value) in fields {
                let value = HeaderValue::from_static(value);
                headers.append(HeaderName::from_static(name), value);
            }
            assert_eq!(is_foreign(&headers), want, "{fields:?}");
        }
    }
}
