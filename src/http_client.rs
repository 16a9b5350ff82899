//! HTTP client of commands: one request, answered or failed when the call returns.
//!
//! For the command line and `doctor`, never for a request that the gateway forwards.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

/// Bytes that hyper buffers of an answer, and so the most that a head may have.
const BUFFER: usize = 64 << 10;

/// Where the server listens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Server<'a> {
    Tcp(SocketAddr),
    Unix(&'a Path),
}

/// A request without a body, and the limits of its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub method: &'a str,
    pub host: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Media types that are accepted, `*/*` for any.
    pub accept: &'a str,
    /// Bytes of the answer's body; a longer one is an error.
    pub longest: usize,
    /// For the connection, for the head of the answer, and for each piece of its body.
    pub timeout: Duration,
}

/// An answer, read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: u16,
    /// The field `location`.
    pub location: Option<String>,
    pub body: Vec<u8>,
}

/// Sends a request and reads the answer.
///
/// # Errors
///
/// That of the connection; `TimedOut`; `InvalidData` for an answer that is not HTTP or too long;
/// `UnexpectedEof` for one that ends too early.
pub(crate) fn send(server: Server<'_>, request: &Request<'_>) -> io::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match server {
            Server::Tcp(address) => {
                let stream = within(request.timeout, TcpStream::connect(address)).await?;
                exchange(stream, request).await
            }
            Server::Unix(path) => {
                let stream = within(request.timeout, UnixStream::connect(path)).await?;
                exchange(stream, request).await
            }
        }
    })
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: &Request<'_>,
) -> io::Result<Answer> {
    let mut client = http1::Builder::new();
    let handshake = client.max_buf_size(BUFFER).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(failed)?;
    // Its errors are those of the exchange.
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let head = http::Request::builder()
        .method(request.method)
        .uri(request.target)
        .header(HOST, request.host)
        .header(USER_AGENT, concat!("edge-gateway/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, request.accept)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
    let answer = within(request.timeout, async { sender.send_request(head).await.map_err(failed) });
    let (head, body) = answer.await?.into_parts();
    let location = head.headers.get(LOCATION);
    let location = location.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let mut body = Limited::new(body, request.longest);
    let mut read = Vec::new();
    while let Some(frame) = within(request.timeout, async { Ok(body.frame().await) }).await? {
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            read.extend_from_slice(&data);
        }
    }
    Ok(Answer { status: head.status.as_u16(), location, body: read })
}

async fn within<T>(timeout: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

fn failed(error: hyper::Error) -> io::Error {
    let system = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match system.map(io::Error::kind) {
        Some(kind) => io::Error::new(kind, error),
        None if error.is_incomplete_message() => {
            io::Error::new(ErrorKind::UnexpectedEof, "the answer was cut off")
        }
        None => invalid(format!("the answer is not HTTP: {error}")),
    }
}

fn broken(error: Box<dyn Error + Send + Sync>) -> io::Error {
    match error.downcast::<hyper::Error>() {
        Ok(error) => failed(*error),
        Err(error) if error.is::<LengthLimitError>() => invalid("the answer is too long"),
        Err(error) => io::Error::other(error),
    }
}

fn invalid(problem: impl Display) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, problem.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;

    const LONGEST: usize = 4096;

    /// The answer of a server that says `said` and closes the connection.
    fn answer(said: &'static str) -> io::Result<Answer> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            // A client that has seen enough may be gone.
            let _ = stream.write_all(said.as_bytes());
            String::from_utf8(head).unwrap()
        });
        let answer = send(Server::Tcp(address), &request());
        let head = server.join().unwrap();
        assert!(head.starts_with("GET /a?b HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("host: a.test\r\n"), "{head}");
        answer
    }

    fn request() -> Request<'static> {
        Request {
            method: "GET",
            host: "a.test",
            target: "/a?b",
            accept: "*/*",
            longest: LONGEST,
            timeout: Duration::from_secs(10),
        }
    }

    #[test]
    fn a_body_ends_where_the_head_says() {
        let answered = |body: &str| Ok(Answer { status: 200, location: None, body: body.into() });
        // (what the server says, answer)
        let table = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay", answered("ok")),
            ("HTTP/1.1 200 OK\r\n\r\nto the end", answered("to the end")),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n",
                answered("ok!"),
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", Err(ErrorKind::UnexpectedEof)),
            ("HTTP/1.1 200 OK\r\nConte", Err(ErrorKind::UnexpectedEof)),
            ("", Err(ErrorKind::UnexpectedEof)),
            ("SSH-2.0-OpenSSH_9.2\r\n", Err(ErrorKind::InvalidData)),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Err(ErrorKind::InvalidData)),
        ];
        for (said, want) in table {
            assert_eq!(answer(said).map_err(|error| error.kind()), want, "{said:?}");
        }
    }

    #[test]
    fn a_redirect_says_where_to() {
        let answer = answer("HTTP/1.1 301 Moved\r\nLocation: https://a.test/\r\n\r\n").unwrap();
        assert_eq!((answer.status, answer.location.as_deref()), (301, Some("https://a.test/")));
    }

    #[test]
    fn a_long_answer_is_refused() {
        let body = "x".repeat(LONGEST + 1);
        let said = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let error = answer(said.leak()).unwrap_err();
        assert_eq!(error.to_string(), "the answer is too long");
    }

    #[test]
    fn a_silent_server_is_given_up() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let request = Request { timeout: Duration::from_millis(50), ..request() };
        let error = send(Server::Tcp(address), &request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
