//! Reader of the server name that a client asks for. It sends nothing, for connections whose TLS a
//! backend may answer.
//!
//! rustls reads a ClientHello in order to answer it, and sends an alert if it cannot. If the
//! handshake belongs to the backend, the gateway must send nothing and refuse nothing that the
//! backend might accept (an old version, an unknown extension). So this reads the one field it
//! needs, and keeps every byte for the next reader.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Limit on the bytes read, that of [`accept_hello`](super::accept_hello).
const MAX_BYTES: usize = 16 * 1024 + 4 + 2 * 5;
/// Limit on the content of a record, in bytes (RFC 8446 section 5.1).
const MAX_RECORD: usize = 1 << 14;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// The first bytes of a connection, and the server name in them.
#[derive(Debug)]
pub(crate) struct Opening {
    /// Everything that was read, to be passed on.
    pub bytes: Bytes,
    /// The server name: lower case, without a trailing dot; empty if the client sent none.
    pub name: Result<Box<str>, NoHello>,
}

/// The reason why there is no server name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoHello {
    /// The connection ended before the first byte, or within the ClientHello.
    #[error("closed before the end of the ClientHello")]
    Closed,
    #[error("no valid ClientHello")]
    Invalid,
    #[error("the ClientHello is larger than 16 KiB")]
    TooLarge,
}

/// Reads from a fresh connection until the ClientHello is complete, however it is split into
/// segments and records. The caller sets the deadline.
///
/// # Errors
///
/// Errors of the socket.
pub(crate) async fn read_server_name(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Opening> {
    let mut bytes = BytesMut::with_capacity(1024);
    let name = loop {
        match server_name(&bytes) {
            Ok(Some(name)) => break Ok(name),
            Err(fault) => break Err(fault),
            Ok(None) => {}
        }
        let left = MAX_BYTES - bytes.len();
        if left == 0 {
            break Err(NoHello::TooLarge);
        }
        if (&mut *io).take(left as u64).read_buf(&mut bytes).await? == 0 {
            break Err(NoHello::Closed);
        }
    };
    Ok(Opening { bytes: bytes.freeze(), name })
}

/// Returns the server name in the bytes read so far; `None` while the ClientHello is incomplete.
///
/// # Errors
///
/// The bytes do not begin a valid ClientHello, whatever follows.
pub(crate) fn server_name(bytes: &[u8]) -> Result<Option<Box<str>>, NoHello> {
    let Some(message) = message(bytes)? else { return Ok(None) };
    let mut hello = Reader(&message);
    name_of(&mut hello).ok_or(NoHello::Invalid)?.map_or_else(|| Ok(Some("".into())), valid)
}

/// Returns the handshake message at the beginning of `bytes`, without its header and joined from
/// its records.
///
/// The bytes after it are ignored: early data may follow (RFC 8446 section 4.2.10).
fn message(bytes: &[u8]) -> Result<Option<Vec<u8>>, NoHello> {
    // Parse the headers first, without a copy: a client may send byte by byte, and each byte causes
    // another pass.
    let (mut fragments, mut held) = (Vec::new(), 0);
    let mut wanted = None;
    let mut rest = bytes;
    while !rest.is_empty() {
        if rest[0] != HANDSHAKE || rest.get(1).is_some_and(|major| *major != 3) {
            return Err(NoHello::Invalid);
        }
        let [_, _, _, high, low, after @ ..] = rest else { break };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length == 0 || length > MAX_RECORD {
            return Err(NoHello::Invalid);
        }
        let fragment = &after[..length.min(after.len())];
        (held, rest) = (held + fragment.len(), &after[fragment.len()..]);
        fragments.push(fragment);
        if wanted.is_none() {
            wanted = whole_length(fragments.iter().flat_map(|fragment| fragment.iter().copied()))?;
        }
        if let Some(wanted) = wanted.filter(|wanted| held >= *wanted) {
            return Ok(Some(fragments.concat()[4..wanted].to_vec()));
        }
    }
    Ok(None)
}

/// Returns the length of the ClientHello with its header, read from that header.
fn whole_length(mut head: impl Iterator<Item = u8>) -> Result<Option<usize>, NoHello> {
    if head.next().is_some_and(|kind| kind != CLIENT_HELLO) {
        return Err(NoHello::Invalid);
    }
    let (Some(a), Some(b), Some(c)) = (head.next(), head.next(), head.next()) else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, a, b, c]) as usize + 4;
    if length > MAX_BYTES { Err(NoHello::TooLarge) } else { Ok(Some(length)) }
}

/// Returns the `server_name` of a ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3); the
/// inner `None` if it has none, the outer one if it is not a ClientHello.
#[allow(clippy::option_option, reason = "not readable, and readable without a name")]
fn name_of<'a>(hello: &mut Reader<'a>) -> Option<Option<&'a [u8]>> {
    // Version and random, then session id, cipher suites and compression methods.
    hello.take(2 + 32)?;
    let session = hello.u8()?;
    hello.take(session.into())?;
    let suites = hello.u16()?;
    hello.take(suites.into())?;
    let compressions = hello.u8()?;
    hello.take(compressions.into())?;
    if hello.0.is_empty() {
        return Some(None);
    }
    let mut extensions = hello.block()?;
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let mut content = extensions.block()?;
        if kind != SERVER_NAME {
            continue;
        }
        let mut list = content.block()?;
        while !list.0.is_empty() {
            let kind = list.u8()?;
            let name = list.block()?.0;
            // Two names, or two lists of names, are ambiguous: any guess may be wrong.
            if kind == HOST_NAME && found.replace(name).is_some() {
                return None;
            }
        }
    }
    Some(found)
}

/// Returns a name in the form in which names are compared; refuses one that no host can have.
fn valid(name: &[u8]) -> Result<Option<Box<str>>, NoHello> {
    let name = std::str::from_utf8(name).map_err(|_| NoHello::Invalid)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_name = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if !is_name {
        return Err(NoHello::Invalid);
    }
    Ok(Some(name.to_ascii_lowercase().into()))
}

/// The bytes not yet read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Reads a block: its length in two bytes, then its content.
    fn block(&mut self) -> Option<Self> {
        let length = self.u16()?;
        self.take(length.into()).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use rustls::ClientConnection;
    use rustls_pemfile::ServerName;

    use crate::tls::crypto::crypto;

    use super::*;

    /// Returns the ClientHello that rustls sends for `name`.
    fn hello(name: &'static str) -> Vec<u8> {
        let config = rustls::ClientConfig::builder_with_provider(crypto().clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name).unwrap();
        let mut client = ClientConnection::new(config.into(), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// A ClientHello of one cipher suite with these extensions, in one record.
    fn made(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        body.extend(extensions);
        let mut message = vec![1, 0];
        message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        message.extend(body);
        record(&message)
    }

    fn record(content: &[u8]) -> Vec<u8> {
        let mut record = vec![22, 3, 1];
        record.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
        record.extend(content);
        record
    }

    fn sni(names: &[&[u8]]) -> Vec<u8> {
        let mut list = Vec::new();
        for name in names {
            list.push(0);
            list.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
            list.extend(*name);
        }
        let mut extension = vec![0, 0];
        extension.extend(u16::try_from(list.len() + 2).unwrap().to_be_bytes());
        extension.extend(u16::try_from(list.len()).unwrap().to_be_bytes());
        extension.extend(list);
        extension
    }

    #[test]
    fn a_name_is_found_as_soon_as_the_hello_is_whole_however_it_is_cut() {
        let whole = hello("Abc.Example.com");
        for cut in 0..whole.len() {
            assert_eq!(server_name(&whole[..cut]), Ok(None), "{cut} of {}", whole.len());
        }
        assert_eq!(server_name(&whole), Ok(Some("abc.example.com".into())));

        for size in [1, 2, 3, 100] {
            let cut: Vec<u8> = whole[5..].chunks(size).flat_map(record).collect();
            assert_eq!(server_name(&cut[..cut.len() - 1]), Ok(None), "records of {size}");
            assert_eq!(server_name(&cut), Ok(Some("abc.example.com".into())), "records of {size}");
        }
    }

    /// A client that resumes a session may send its request at once.
    #[test]
    fn what_comes_behind_the_hello_is_no_fault() {
        let mut bytes = hello("a.example");
        for early in [&[20, 3, 3, 0, 1, 1][..], &[23, 3, 3, 0, 2, 7, 7], b"or whatever"] {
            bytes.extend(early);
            assert_eq!(server_name(&bytes), Ok(Some("a.example".into())), "{early:?}");
        }
    }

    #[test]
    fn no_name_is_no_fault_and_a_strange_one_is() {
        let grease: &[u8] = &[0x0a, 0x0a, 0, 1, 0];
        let long = [b'a'; 254];
        // (extensions, name)
        let table: [(Vec<u8>, Result<&str, NoHello>); 12] = [
            (vec![], Ok("")),
            (grease.to_vec(), Ok("")),
            (sni(&[b"a.example"]), Ok("a.example")),
            ([grease, &sni(&[b"A.example."])].concat(), Ok("a.example")),
            (sni(&[b"a.example", b"b.example"]), Err(NoHello::Invalid)),
            ([sni(&[b"a.example"]), sni(&[b"b.example"])].concat(), Err(NoHello::Invalid)),
            (sni(&[b""]), Err(NoHello::Invalid)),
            (sni(&[b"."]), Err(NoHello::Invalid)),
            (sni(&[b"a\0b"]), Err(NoHello::Invalid)),
            (sni(&[b"a b"]), Err(NoHello::Invalid)),
            (sni(&[&long]), Err(NoHello::Invalid)),
            (vec![0, 0, 0, 9, 0], Err(NoHello::Invalid)),
        ];
        for (extensions, want) in table {
            let want = want.map(|name| Some(Box::from(name)));
            assert_eq!(server_name(&made(&extensions)), want, "{extensions:?}");
        }
    }

    #[test]
    fn what_is_no_hello_is_known_by_its_first_bytes() {
        // (bytes, what they are)
        let table: [(&[u8], Result<Option<Box<str>>, NoHello>); 9] = [
            (b"", Ok(None)),
            (&[22], Ok(None)),
            (b"GET / HTTP/1.1", Err(NoHello::Invalid)),
            (b"SSH-2.0-x", Err(NoHello::Invalid)),
            (&[0x80, 0x2e, 1, 3, 1], Err(NoHello::Invalid)),
            (&[22, 2, 0], Err(NoHello::Invalid)),
            (&[22, 3, 1, 0, 0], Err(NoHello::Invalid)),
            (&[22, 3, 1, 0, 5, 2], Err(NoHello::Invalid)),
            (&[22, 3, 1, 0, 5, 1, 1, 0, 0], Err(NoHello::TooLarge)),
        ];
        for (bytes, want) in table {
            assert_eq!(server_name(bytes), want, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn no_more_is_read_than_a_hello_may_have() {
        // A message that claims 16,000 bytes, and a stream that never ends.
        let mut endless = tokio::io::join(tokio::io::repeat(22), tokio::io::sink());
        let opening = read_server_name(&mut endless).await.unwrap();
        assert_eq!(opening.name, Err(NoHello::Invalid), "version 22");

        let claim = record(&[&[1, 0, 0x3e, 0x80][..], &[0; 100]].concat());
        let mut stream = &*[claim, vec![0; 100_000]].concat();
        let opening = read_server_name(&mut stream).await.unwrap();
        assert_eq!(opening.name, Err(NoHello::Invalid), "a record of type 0 follows");

        let mut many = record(&[1, 0, 0x3f, 0xff]);
        for _ in 0..10_000 {
            many.extend(record(&[0]));
        }
        let mut stream = &*many;
        let opening = read_server_name(&mut stream).await.unwrap();
        assert_eq!((opening.name, opening.bytes.len()), (Err(NoHello::TooLarge), MAX_BYTES));
        assert_eq!(&*opening.bytes, &many[..MAX_BYTES], "what was read is handed on");
    }
}
