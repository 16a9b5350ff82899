//! Detection of HTTP/1.1 or HTTP/2 by the first bytes of a connection.

use std::io::{self, Cursor};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, Chain, Join};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The preface of every HTTP/2 connection (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

/// The stream, with the bytes that were read for the detection put back in front.
pub(super) type Sniffed = Join<Chain<Cursor<Bytes>, OwnedReadHalf>, OwnedWriteHalf>;

/// Reads until the protocol is known: one byte is enough for HTTP/1.1, the preface for HTTP/2.
///
/// # Errors
///
/// The client closed the connection, or it failed, before that.
pub(super) async fn sniff(mut stream: TcpStream) -> io::Result<(Spoken, Sniffed)> {
    let mut first = [0; PREFACE.len()];
    let mut read = 0;
    let spoken = loop {
        match stream.read(&mut first[read..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => read += more,
        }
        if !PREFACE.starts_with(&first[..read]) {
            break Spoken::Http1;
        }
        if read == PREFACE.len() {
            break Spoken::Http2;
        }
    };
    let (from, to) = stream.into_split();
    let first = Cursor::new(Bytes::copy_from_slice(&first[..read]));
    Ok((spoken, tokio::io::join(first.chain(from), to)))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn no_byte_is_lost_and_a_preface_in_pieces_is_one() {
        // (pieces as written, protocol)
        let table: [(&[&str], Spoken); 5] = [
            (&["GET / HTTP/1.1\r\n\r\n"], Spoken::Http1),
            (&["P", "OST / HTTP/1.1\r\n\r\n"], Spoken::Http1),
            (&["PRI * HTTP/1.1\r\n\r\n"], Spoken::Http1),
            (&["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nframes"], Spoken::Http2),
            (&["PRI", " * HTTP/2.0\r\n", "\r\nSM\r\n\r\n", "frames"], Spoken::Http2),
        ];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for (pieces, want) in table {
            let client = async {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                for piece in pieces {
                    stream.write_all(piece.as_bytes()).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let server = async {
                let (stream, _) = listener.accept().await.unwrap();
                let (spoken, mut stream) = sniff(stream).await.unwrap();
                let mut all = String::new();
                stream.read_to_string(&mut all).await.unwrap();
                (spoken, all)
            };
            let ((), (spoken, all)) = tokio::join!(client, server);
            assert_eq!((spoken, all), (want, pieces.concat()), "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn a_client_that_leaves_in_the_preface_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"PRI * HTTP").await.unwrap();
        drop(client);
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(sniff(stream).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
