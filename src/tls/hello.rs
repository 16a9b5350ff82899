//! Reader of the ClientHello, before the TLS settings are selected.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::Acceptor;
use rustls::{AlertDescription, InvalidMessage, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

/// Limit on the bytes read for a ClientHello: 16 KiB of message, in the records of 16 KiB that it
/// takes. Post-quantum key shares and a full list of extensions take 2 to 4 KiB.
const MAX_HELLO_BYTES: usize = 16 * 1024 + 4 + 2 * 5;

/// Reads the ClientHello from a fresh connection.
///
/// The caller sets the deadline, which also covers [`Hello::finish`].
///
/// # Errors
///
/// There is no valid ClientHello. Before `io` is closed, plain HTTP gets a 400 response, and an
/// invalid or too large ClientHello gets an alert.
pub(crate) async fn accept_hello<IO>(io: IO) -> Result<Hello<IO>, HelloError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let opening = Opening { io, first: None, left: MAX_HELLO_BYTES };
    let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), opening);
    let error = match (&mut acceptor).await {
        Ok(StartHandshake { accepted, io: opening, .. }) => {
            return Ok(Hello::new(StartHandshake::from_parts(accepted, opening.io)));
        }
        Err(error) => error,
    };
    let Some(mut opening) = acceptor.take_io() else { return Err(HelloError::Io(error)) };
    let error = HelloError::new(error, &opening);
    // Errors are ignored: the peer may be gone.
    let _ = match error {
        HelloError::PlainHttp => opening.io.write_all(PLAIN_HTTP).await,
        HelloError::TooLarge => opening.io.write_all(&fatal(AlertDescription::DecodeError)).await,
        _ => Ok(()),
    };
    let _ = opening.io.shutdown().await;
    Err(error)
}

/// A ClientHello and its connection: either finish the handshake, or refuse it.
#[derive(Debug)]
pub(crate) struct Hello<IO> {
    start: StartHandshake<IO>,
    sni: Option<Box<str>>,
}

impl<IO> Hello<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    fn new(start: StartHandshake<IO>) -> Self {
        let hello = start.client_hello();
        let sni = hello.server_name().map(|name| name.strip_suffix('.').unwrap_or(name).into());
        Self { start, sni }
    }

    /// Returns the server name, lower case, without a trailing dot. `None` if the client sent none,
    /// or an IP address, which RFC 6066 section 3 does not allow.
    pub(crate) fn sni(&self) -> Option<&str> {
        self.sni.as_deref()
    }

    /// Returns the protocols that the client offers by ALPN, most preferred first; none if it does
    /// not use ALPN.
    pub(crate) fn alpn(&self) -> impl Iterator<Item = &[u8]> {
        self.start.client_hello().alpn().into_iter().flatten()
    }

    /// Completes the handshake.
    ///
    /// # Errors
    ///
    /// The handshake failed. If TLS failed, an alert was sent to the client. The cause is an inner
    /// [`rustls::Error`].
    pub(crate) async fn finish(self, config: Arc<ServerConfig>) -> io::Result<TlsStream<IO>> {
        self.start.into_stream(config).await
    }

    /// Returns the connection, without an answer to the client. The bytes that were read are lost.
    pub(crate) fn into_stream(self) -> IO {
        self.start.io
    }

    /// Ends the connection with the fatal alert `unrecognized_name` (RFC 6066 section 3).
    pub(crate) async fn refuse_unrecognized_name(self) {
        let mut io = self.start.io;
        // Fails if the client has closed the connection already.
        if io.write_all(&fatal(AlertDescription::UnrecognisedName)).await.is_ok() {
            let _ = io.shutdown().await;
        }
    }
}

/// The reason why there is no ClientHello.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloError {
    /// Health checks and port scans do this; it is not an error.
    #[error("closed before the first byte")]
    Closed,
    #[error("closed in the middle of the ClientHello")]
    CutShort,
    #[error("the ClientHello is not valid")]
    Invalid(#[source] rustls::Error),
    #[error("connection failed")]
    Io(#[source] io::Error),
    #[error("plain HTTP on a TLS port")]
    PlainHttp,
    #[error("the ClientHello is larger than 16 KiB")]
    TooLarge,
}

impl HelloError {
    fn new<IO>(error: io::Error, opening: &Opening<IO>) -> Self {
        let error = match error.downcast::<rustls::Error>() {
            // The message claims more than 64 KiB. For this error alone rustls sends no alert.
            Ok(rustls::Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge)) => {
                return Self::TooLarge;
            }
            Ok(error) => return Self::Invalid(error),
            Err(error) => error,
        };
        match (opening.first, error.kind()) {
            (Some(first), _) if first.is_ascii_uppercase() => Self::PlainHttp,
            (None, io::ErrorKind::UnexpectedEof) => Self::Closed,
            (Some(_), io::ErrorKind::UnexpectedEof) => Self::CutShort,
            _ if opening.left == 0 => Self::TooLarge,
            _ => Self::Io(error),
        }
    }

    /// Returns a short name, for a metric.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::CutShort => "cut_short",
            Self::Invalid(_) => "invalid_hello",
            Self::Io(_) => "io",
            Self::PlainHttp => "plain_http",
            Self::TooLarge => "hello_too_large",
        }
    }
}

/// The response to plain HTTP, for a person who left out the `s` of `https`.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Connection: close\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 44\r\n\
    \r\n\
    this port speaks TLS: ask for https instead\n";

/// Returns a record with one fatal alert in the clear, which is allowed until the ServerHello.
fn fatal(alert: AlertDescription) -> [u8; 7] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    [ALERT, 3, 3, 0, 2, FATAL, alert.into()]
}

/// A connection of which at most `left` bytes are read, and none after a first byte that is an
/// upper-case letter: every HTTP method begins with one, and no TLS record does.
#[derive(Debug)]
struct Opening<IO> {
    io: IO,
    first: Option<u8>,
    left: usize,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Opening<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let room = buffer.remaining().min(self.left);
        let mut limited = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut limited))?;
        let read = limited.filled().len();
        let first = limited.filled().first().copied();
        buffer.advance(read);
        self.left -= read;
        self.first = self.first.or(first);
        if self.first.is_some_and(|first| first.is_ascii_uppercase()) {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Opening<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
