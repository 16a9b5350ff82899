//! The PROXY header that connections of a listener begin with.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::clock::coarse_now;
use crate::downstream::{Process, Registration, Watch};
use crate::edge::connection_error::{ConnectionError, unless_ending};
use crate::net::canonical;
use crate::proxy_protocol::{ENOUGH, Header, NotAHeader, decode};
use crate::snapshot::{ClientLimits, ProxyHeader};

/// Maximum time for the header, unless the policy sets one: Envoy's default.
const PATIENCE: Duration = Duration::from_secs(15);

/// A connection whose client is known.
#[derive(Debug)]
pub(super) struct Received {
    /// Its peer is the client. It takes the place of the one with the sender of the header.
    pub watch: Arc<Watch>,
    /// The address that the client connected to, if the header names it.
    pub local: Option<SocketAddr>,
}

/// Reads the header of a connection within the time for a handshake, and counts the connection for
/// the client that the header names; if it names none, for the peer.
///
/// # Errors
///
/// `NoHeader` if there is no valid header, `TooMany` if the client has reached its limit of
/// connections. The connection must be closed without an answer.
pub(super) async fn receive(
    process: &Process,
    header: ProxyHeader,
    stream: &mut TcpStream,
    watch: Arc<Watch>,
    limits: Arc<ClientLimits>,
    registration: &mut Registration,
) -> Result<Received, ConnectionError> {
    watch.begins_handshake();
    let of_bind = watch.limits();
    let patience = of_bind.inspection_timeout;
    let patience = patience.unwrap_or_else(|| of_bind.handshake_timeout.min(PATIENCE));
    let read = timeout(patience, read(stream, header));
    let read = unless_ending(&watch, read).await?.map_err(|_| ConnectionError::Late)??;
    let named = read.and_then(|header| header.addresses);
    let client = named.map_or(watch.peer, |named| canonical(named.source));
    let peer = process.admit_peer(client.ip()).map_err(|_| ConnectionError::TooMany)?;
    let of_client = Arc::new(Watch::new(client, limits, coarse_now()));
    registration.is_of(peer, &of_client);
    if let Some(ending) = watch.asked_ending() {
        of_client.end(ending);
    }
    Ok(Received { watch: of_client, local: named.map(|named| named.destination) })
}

/// Reads a header, and nothing after it. `None` if it is optional and absent; nothing is read then.
///
/// The kernel keeps the bytes until it is decided what they are, so that no byte that belongs to the
/// next protocol has to be carried along.
async fn read(
    stream: &mut TcpStream,
    expected: ProxyHeader,
) -> Result<Option<Header>, ConnectionError> {
    let header = loop {
        let ready = stream.ready(Interest::READABLE).await?;
        let socket = stream.as_raw_fd();
        let seen = stream.try_io(Interest::READABLE, || {
            let mut bytes = [0; ENOUGH];
            let length = recv(socket, &mut bytes, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?;
            match decode(&bytes[..length]) {
                // More may come, which makes the socket readable again.
                Ok(None) if !ready.is_read_closed() => Err(io::ErrorKind::WouldBlock.into()),
                decoded => Ok(decoded),
            }
        });
        match seen {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
            Ok(Ok(Some(header))) => break header,
            Ok(Ok(None) | Err(NotAHeader::Absent)) if expected == ProxyHeader::Optional => {
                return Ok(None);
            }
            Ok(Ok(None)) => return Err(ConnectionError::CutShort),
            Ok(Err(fault)) => return Err(ConnectionError::NoHeader(fault)),
        }
    };
    let mut left = header.length;
    let mut skipped = [0; 512];
    while left > 0 {
        let room = left.min(skipped.len());
        match stream.read(&mut skipped[..room]).await? {
            0 => return Err(ConnectionError::CutShort),
            count => left -= count,
        }
    }
    Ok(Some(header))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A connection: the client's end, and the gateway's.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    /// The bytes that are left of `sent` after the header, which is sent in pieces of `size`.
    async fn left(sent: &[u8], size: usize, expected: ProxyHeader) -> Option<Vec<u8>> {
        let (mut client, mut accepted) = pair().await;
        let sending = async {
            for piece in sent.chunks(size) {
                client.write_all(piece).await?;
                tokio::task::yield_now().await;
            }
            client.shutdown().await
        };
        let reading = async {
            read(&mut accepted, expected).await.ok()?;
            let mut rest = Vec::new();
            accepted.read_to_end(&mut rest).await.unwrap();
            Some(rest)
        };
        let (sent, rest) = tokio::join!(sending, reading);
        assert!(sent.is_ok() || rest.is_none());
        rest
    }

    #[tokio::test]
    async fn no_byte_after_the_header_is_lost_however_it_arrives() {
        let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec();
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
        let mut extended = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x07\xdc".to_vec();
        extended.resize(16 + 0x7dc, 9);
        let rest = b"GET / HTTP/1.1\r\n".to_vec();
        for size in [1, 2, 5, 13, 100, 5000] {
            for header in [&v1, &local, &extended] {
                for expected in [ProxyHeader::Optional, ProxyHeader::Required] {
                    let sent = [&header[..], &rest].concat();
                    assert_eq!(left(&sent, size, expected).await.as_ref(), Some(&rest), "{size}");
                }
                let cut = &header[..header.len() - 1];
                assert_eq!(left(cut, size, ProxyHeader::Required).await, None, "{size}");
            }
            // (bytes without a header)
            for plain in [&b"GET / HTTP/1.1"[..], b"PROPFIND /", b"PRO", b"\r\n\r\nx", b"\x16\x03"]
            {
                assert_eq!(left(plain, size, ProxyHeader::Required).await, None);
                let rest = left(plain, size, ProxyHeader::Optional).await;
                assert_eq!(rest.as_deref(), Some(plain), "{size}");
            }
        }
    }
}
