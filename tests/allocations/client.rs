//! The client: connections in clear and over TLS, and what is expected of an answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::gateway::Gateway;
use crate::{HOST, PATIENCE};

/// What the gateway does with a request.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Forwarded,
    Redirected,
    /// No rule matches.
    Unknown,
    /// The path is ambiguous. Over HTTP/1.1 the connection ends.
    Ambiguous,
}

impl Kind {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Forwarded => "/forwarded",
            Self::Redirected => "/redirected",
            Self::Unknown => "/unknown",
            Self::Ambiguous => "/a%00b",
        }
    }

    pub(crate) fn status(self) -> &'static str {
        match self {
            Self::Forwarded => "200",
            Self::Redirected => "301",
            Self::Unknown => "404",
            Self::Ambiguous => "400",
        }
    }

    pub(crate) fn body(self) -> &'static [u8] {
        match self {
            Self::Forwarded => b"hello",
            Self::Redirected => b"",
            Self::Unknown => b"no route matches this host and path\n",
            Self::Ambiguous => b"the path is ambiguous\n",
        }
    }
}

/// Sends one request and reads the whole response to it.
pub(crate) trait Client {
    fn exchange(&mut self, kind: Kind);
}

/// A byte stream to the gateway.
pub(crate) trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

pub(crate) fn in_clear(to: SocketAddr) -> Box<dyn Stream> {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Box::new(stream)
}

/// A connection whose handshake is over. `alpn` is the protocol that it offers.
pub(crate) fn over_tls(gateway: &Gateway, alpn: &str) -> Box<dyn Stream> {
    let mut roots = RootCertStore::empty();
    roots.add(gateway.certificate.clone()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let name = ServerName::try_from(HOST).unwrap();
    let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(gateway.tls).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).unwrap();
    }
    Box::new(StreamOwned::new(tls, stream))
}

/// A connection of HTTP/1.1.
pub(crate) struct Http1 {
    stream: Box<dyn Stream>,
    buffer: [u8; 4096],
}

impl Http1 {
    pub(crate) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, buffer: [0; 4096] }
    }
}

impl Client for Http1 {
    fn exchange(&mut self, kind: Kind) {
        let path = kind.path();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\naccept: */*\r\n\r\n");
        self.stream.write_all(request.as_bytes()).unwrap();
        let end = if kind.body().is_empty() { b"\r\n\r\n" } else { kind.body() };
        let mut length = 0;
        while !self.buffer[..length].ends_with(end) {
            let count = self.stream.read(&mut self.buffer[length..]).unwrap();
            assert!(count > 0, "the gateway closed the connection");
            length += count;
        }
        assert!(self.buffer.starts_with(format!("HTTP/1.1 {} ", kind.status()).as_bytes()));
    }
}

/// A connection of HTTP/1.1 for each request.
pub(crate) struct Http1Once(pub SocketAddr);

impl Client for Http1Once {
    fn exchange(&mut self, kind: Kind) {
        let mut connection = Http1::new(in_clear(self.0));
        connection.exchange(kind);
        assert_eq!(
            connection.stream.read(&mut [0]).unwrap(),
            0,
            "the gateway closes the connection"
        );
    }
}
