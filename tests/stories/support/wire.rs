//! One connection, seen as bytes: a client's to the gateway, or the gateway's to a backend.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{ca, soon};

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection and the bytes that were read ahead of their use.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    /// The socket below, to set options of.
    socket: Option<OwnedFd>,
    ahead: Vec<u8>,
    ended: bool,
    /// The peer ended the connection otherwise than in order: by a reset, or without TLS's farewell.
    pub broken: bool,
    /// Every byte that ever came.
    pub received: Vec<u8>,
}

impl Wire {
    pub(crate) fn over(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            socket: None,
            ahead: Vec::new(),
            ended: false,
            broken: false,
            received: Vec::new(),
        }
    }

    pub(crate) fn tcp(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let socket = stream.as_fd().try_clone_to_owned().unwrap();
        Self { socket: Some(socket), ..Self::over(stream) }
    }

    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::tcp(soon("a connection", TcpStream::connect(address)).await.unwrap())
    }

    /// As soon as somebody listens there: the gateway is ready before its admin address is.
    pub(crate) async fn once_there(address: SocketAddr) -> Self {
        let connected = async {
            loop {
                if let Ok(stream) = TcpStream::connect(address).await {
                    return stream;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        Self::tcp(soon("somebody listens", connected).await)
    }

    /// A connection by TLS for `name`, with HTTP/1.1 agreed upon.
    pub(crate) async fn tls(address: SocketAddr, name: &str) -> Self {
        Self::over(Tls::of(name).alpn(&["http/1.1"]).connect(address).await.unwrap())
    }

    /// Sends all of `bytes`, or as many as the peer takes before it closes.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let written = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        let _ = soon("the peer reads", written).await;
    }

    /// As [`send`](Self::send), without a limit on the time it takes.
    ///
    /// # Errors
    ///
    /// The peer has closed.
    pub(crate) async fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Says that no more will be sent; what comes can still be read.
    pub(crate) async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Ends the connection with a reset, as a process that dies does.
    pub(crate) fn reset(self) {
        let socket = self.socket.as_ref().expect("a reset needs a socket of its own");
        SockRef::from(socket).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Limits what the kernel takes in while nobody reads.
    pub(crate) fn set_receive_buffer(&self, bytes: usize) {
        let socket = self.socket.as_ref().expect("a buffer needs a socket of its own");
        SockRef::from(socket).set_recv_buffer_size(bytes).unwrap();
    }

    /// What came and was not asked for yet.
    pub(crate) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Reads more. False at the end, which a reset is too.
    pub(crate) async fn more(&mut self) -> bool {
        if self.ended {
            return false;
        }
        let mut buffer = vec![0; 64 << 10];
        let read = self.stream.read(&mut buffer).await;
        self.broken |= read.is_err();
        let read = read.unwrap_or(0);
        self.ahead.extend_from_slice(&buffer[..read]);
        // A connection that carries a body of any size is not kept as a whole.
        if self.received.len() < 4 << 20 {
            self.received.extend_from_slice(&buffer[..read]);
        }
        self.ended = read == 0;
        read > 0
    }

    /// All that still comes until the peer closes.
    ///
    /// # Panics
    ///
    /// The peer leaves the connection open.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        soon("the peer closes", async { while self.more().await {} }).await;
        std::mem::take(&mut self.ahead)
    }

    /// Exactly `count` bytes, or fewer if the peer closes.
    pub(crate) async fn exactly(&mut self, count: usize) -> Vec<u8> {
        let enough = async { while self.ahead.len() < count && self.more().await {} };
        soon("bytes arrive", enough).await;
        let count = count.min(self.ahead.len());
        self.ahead.drain(..count).collect()
    }

    /// Bytes up to and with `end`; none if the peer closes before.
    pub(crate) async fn through(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let mut searched = 0;
        loop {
            let from = &self.ahead[searched..];
            if let Some(at) = from.windows(end.len()).position(|window| window == end) {
                return Some(self.ahead.drain(..searched + at + end.len()).collect());
            }
            searched = self.ahead.len().saturating_sub(end.len() - 1);
            if !self.more().await {
                return None;
            }
        }
    }

    /// The head of a message, if one comes.
    pub(crate) async fn head(&mut self) -> Option<Head> {
        self.through(b"\r\n\r\n").await.map(Head)
    }

    /// A response to a request of `method`, with its body; interim ones are passed over.
    ///
    /// # Panics
    ///
    /// The peer closes before it has said anything, or says nothing.
    pub(crate) async fn reply_to(&mut self, method: &str) -> Reply {
        let reply = soon("an answer", self.try_reply_to(method)).await;
        reply.expect("an answer before the connection closes")
    }

    /// A response to a GET.
    pub(crate) async fn reply(&mut self) -> Reply {
        self.reply_to("GET").await
    }

    /// As [`reply_to`](Self::reply_to); none if the peer closes instead.
    pub(crate) async fn try_reply_to(&mut self, method: &str) -> Option<Reply> {
        loop {
            let head = self.head().await?;
            let status = head.status();
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let empty = method == "HEAD" || matches!(status, 101 | 204 | 304);
            let (body, trailers, complete) = if empty {
                (Vec::new(), Vec::new(), true)
            } else if head.length().is_none() && !head.is_chunked() {
                while self.more().await {}
                (std::mem::take(&mut self.ahead), Vec::new(), true)
            } else {
                self.body_of(&head).await
            };
            return Some(Reply { head, body, trailers, complete });
        }
    }

    /// The body that `head` announces: its bytes, its trailer lines, and whether it came whole.
    pub(crate) async fn body_of(&mut self, head: &Head) -> (Vec<u8>, Vec<u8>, bool) {
        if !head.is_chunked() {
            let length = head.length().unwrap_or(0);
            while self.ahead.len() < length && self.more().await {}
            let count = length.min(self.ahead.len());
            let body: Vec<u8> = self.ahead.drain(..count).collect();
            return (body, Vec::new(), count == length);
        }
        let mut body = Vec::new();
        loop {
            let Some(line) = self.through(b"\r\n").await else { return (body, Vec::new(), false) };
            let line = String::from_utf8_lossy(&line).into_owned();
            let size = line.trim_end().split(';').next().unwrap_or_default();
            let Ok(size) = usize::from_str_radix(size, 16) else {
                return (body, Vec::new(), false);
            };
            if size == 0 {
                break;
            }
            while self.ahead.len() < size + 2 && self.more().await {}
            if self.ahead.len() < size + 2 {
                body.append(&mut self.ahead);
                return (body, Vec::new(), false);
            }
            body.extend(self.ahead.drain(..size));
            if self.ahead.drain(..2).ne(*b"\r\n") {
                return (body, Vec::new(), false);
            }
        }
        let mut trailers = Vec::new();
        loop {
            let Some(line) = self.through(b"\r\n").await else { return (body, trailers, false) };
            if line == b"\r\n" {
                return (body, trailers, true);
            }
            trailers.extend(line);
        }
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wire({:?})", String::from_utf8_lossy(&self.received))
    }
}

/// The head of a message, byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Head(pub Vec<u8>);

impl Head {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// The request line or status line.
    pub(crate) fn line(&self) -> String {
        self.text().split("\r\n").next().unwrap_or_default().to_owned()
    }

    /// The target of a request line.
    pub(crate) fn target(&self) -> String {
        self.line().split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// The number in a status line; 0 if there is none.
    pub(crate) fn status(&self) -> u16 {
        self.line().split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// Every value of the field `name`, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let text = self.text();
        let fields = text.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        let named = fields.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim().to_owned()).collect()
    }

    /// The value of the field `name`, which is there at most once.
    pub(crate) fn one(&self, name: &str) -> Option<String> {
        let all = self.all(name);
        assert!(all.len() < 2, "`{name}` is there once: {self:?}");
        all.into_iter().next()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    pub(crate) fn length(&self) -> Option<usize> {
        self.all("content-length").first().and_then(|value| value.parse().ok())
    }

    pub(crate) fn is_chunked(&self) -> bool {
        self.all("transfer-encoding").last().is_some_and(|value| {
            value.rsplit(',').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("chunked"))
        })
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.text())
    }
}

/// A response with its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<u8>,
    /// False if the connection ended before the body.
    pub complete: bool,
}

impl Reply {
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.head.one(name)
    }
}

/// A TLS client: what it offers, whom it wants to talk to.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    name: ServerName<'static>,
    config: ClientConfig,
}

impl Tls {
    /// Asks for `name`, which is a host name or an address (then no name is sent), and trusts the
    /// stories' authority.
    pub(crate) fn of(name: &str) -> Self {
        Self::versions(name, rustls::ALL_VERSIONS)
    }

    pub(crate) fn versions(name: &str, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(ca().roots())
            .with_no_client_auth();
        Self { name: ServerName::try_from(name.to_owned()).unwrap(), config }
    }

    pub(crate) fn alpn(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().into()).collect();
        self
    }

    /// Trusts others than the stories' authority.
    pub(crate) fn trusting(mut self, roots: RootCertStore) -> Self {
        let provider = Arc::clone(self.config.crypto_provider());
        self.config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        self
    }

    /// Changes a setting that has no method here.
    pub(crate) fn with(mut self, edit: impl FnOnce(&mut ClientConfig)) -> Self {
        edit(&mut self.config);
        self
    }

    /// # Errors
    ///
    /// The handshake failed: the alert that came, or what was wrong with the certificate.
    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let stream = soon("a connection", TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        self.handshake(stream).await
    }

    pub(crate) async fn handshake<S: Stream>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        soon("a handshake", connector.connect(self.name.clone(), stream)).await
    }

    /// The serial number of the certificate that is shown for this name.
    pub(crate) async fn serial(&self, address: SocketAddr) -> io::Result<u64> {
        let stream = self.connect(address).await?;
        Ok(serial_of(&stream))
    }
}

/// The serial number of the certificate that the server showed.
pub(crate) fn serial_of<S>(stream: &TlsStream<S>) -> u64 {
    let certificates = stream.get_ref().1.peer_certificates().unwrap();
    let (_, certificate) = x509_parser::parse_x509_certificate(&certificates[0]).unwrap();
    certificate.raw_serial().iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
