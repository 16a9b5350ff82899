//! The decoder of a header that a peer sends.

use std::net::{IpAddr, SocketAddr};

use super::header::{Addresses, LOCAL, PROXY, TCP4, TCP6, V2};

/// A complete header, except for the extensions of version 2, which may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The length in bytes, with the extensions.
    pub length: usize,
    /// `None` if the header names no client: command LOCAL, protocol UNKNOWN, Unix sockets. The
    /// addresses are then those of the connection.
    pub addresses: Option<Addresses>,
}

/// The reason why bytes are not the beginning of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAHeader {
    /// Another protocol: the bytes do not begin as either version does.
    #[error("no PROXY header")]
    Absent,
    #[error("invalid PROXY header")]
    Invalid,
    /// Version 2, and more than [`MAX_LENGTH`] bytes.
    #[error("the PROXY header is larger than 8 KiB")]
    TooLarge,
}

/// Limit on the length of a header in bytes. The addresses take 52; extensions that carry the
/// certificate of a client take some KiB.
const MAX_LENGTH: usize = 8 << 10;

/// The number of bytes from which every header can be decoded: the longest of version 1, CR LF
/// included.
pub(crate) const ENOUGH: usize = 107;

/// How a header of version 1 begins.
const V1: &[u8] = b"PROXY ";

/// The length of the fixed part of version 2: signature, command, family, length.
const FIXED: usize = 16;

/// Decodes the header at the beginning of `bytes`; `None` while it is incomplete, which it never is
/// with [`ENOUGH`] bytes.
///
/// # Errors
///
/// The bytes do not begin a header, whatever follows them.
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Header>, NotAHeader> {
    if begins(bytes, V1) {
        return decode_v1(bytes);
    }
    if begins(bytes, V2) {
        return decode_v2(bytes);
    }
    Err(NotAHeader::Absent)
}

/// Returns true if `bytes` begin with `with`, as far as they go.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let length = bytes.len().min(with.len());
    bytes[..length] == with[..length]
}

fn decode_v1(bytes: &[u8]) -> Result<Option<Header>, NotAHeader> {
    let searched = &bytes[..bytes.len().min(ENOUGH)];
    let Some(end) = searched.windows(2).position(|pair| pair == b"\r\n") else {
        return if searched.len() == ENOUGH { Err(NotAHeader::Invalid) } else { Ok(None) };
    };
    let line = std::str::from_utf8(&bytes[V1.len()..end]).map_err(|_| NotAHeader::Invalid)?;
    let mut words = line.split(' ');
    let addresses = match words.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => None,
        Some(family @ ("TCP4" | "TCP6")) => {
            let addresses = words_to_addresses(words, family == "TCP6");
            Some(addresses.ok_or(NotAHeader::Invalid)?)
        }
        _ => return Err(NotAHeader::Invalid),
    };
    Ok(Some(Header { length: end + 2, addresses }))
}

fn words_to_addresses<'w>(
    mut words: impl Iterator<Item = &'w str>,
    is_v6: bool,
) -> Option<Addresses> {
    let mut address = || words.next()?.parse().ok().filter(|of: &IpAddr| of.is_ipv6() == is_v6);
    let [from, to] = [address()?, address()?];
    let mut port = || words.next().and_then(port);
    let (source, destination) = (SocketAddr::new(from, port()?), SocketAddr::new(to, port()?));
    words.next().is_none().then_some(Addresses { source, destination })
}

/// Parses a port: digits, without a sign or leading zeros.
fn port(word: &str) -> Option<u16> {
    let port: u16 = word.parse().ok()?;
    (port.to_string() == word).then_some(port)
}

fn decode_v2(bytes: &[u8]) -> Result<Option<Header>, NotAHeader> {
    let Some([command, kind, high, low]) = bytes.get(V2.len()..FIXED) else {
        // The version is known before the length.
        return match bytes.get(V2.len()) {
            None | Some(&(LOCAL | PROXY)) => Ok(None),
            Some(_) => Err(NotAHeader::Invalid),
        };
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let whole = FIXED + length;
    if whole > MAX_LENGTH {
        return Err(NotAHeader::TooLarge);
    }
    let header = |addresses| Header { length: whole, addresses };
    // Unspecified, Unix stream.
    const WITHOUT_IP: [u8; 2] = [0x00, 0x31];
    let size = match (*command, *kind) {
        (LOCAL, _) => return Ok(Some(header(None))),
        (PROXY, kind) if WITHOUT_IP.contains(&kind) => return Ok(Some(header(None))),
        (PROXY, TCP4) => 4,
        (PROXY, TCP6) => 16,
        _ => return Err(NotAHeader::Invalid),
    };
    if length < 2 * size + 4 {
        return Err(NotAHeader::Invalid);
    }
    let Some(block) = bytes.get(FIXED..FIXED + 2 * size + 4) else { return Ok(None) };
    let end = |at: usize, port: usize| {
        let address = &block[at..at + size];
        let address = match <[u8; 4]>::try_from(address) {
            Ok(v4) => Some(IpAddr::from(v4)),
            Err(_) => <[u8; 16]>::try_from(address).ok().map(IpAddr::from),
        };
        let port = u16::from_be_bytes([block[port], block[port + 1]]);
        address.map(|address| SocketAddr::new(address, port)).ok_or(NotAHeader::Invalid)
    };
    let (source, destination) = (end(0, 2 * size)?, end(size, 2 * size + 2)?);
    Ok(Some(header(Some(Addresses { source, destination }))))
}

#[cfg(test)]
mod tests {
    use super::super::header::Version;
    use super::*;

    fn addresses(source: &str, destination: &str) -> Addresses {
        Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    /// A header of version 2 with this block after the fixed part.
    fn made(command: u8, kind: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&V2[..], &[command, kind], &length, block].concat()
    }

    #[test]
    fn a_header_is_written_as_the_specification_has_it_and_read_again() {
        let (v4, v6) = (("192.0.2.1:56324", "192.0.2.2:443"), ("[2001:db8::1]:5", "[::1]:80"));
        let mixed = ("[::ffff:192.0.2.1]:7", "[2001:db8::2]:8");
        // (source and destination, version 1, length of version 2, read as)
        let table = [
            (v4, "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", 28, v4),
            (v6, "PROXY TCP6 2001:db8::1 ::1 5 80\r\n", 52, v6),
            (mixed, "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 7 8\r\n", 52, mixed),
            (
                ("[::ffff:192.0.2.1]:7", "192.0.2.9:8"),
                "PROXY TCP4 192.0.2.1 192.0.2.9 7 8\r\n",
                28,
                ("192.0.2.1:7", "192.0.2.9:8"),
            ),
        ];
        for ((source, destination), line, length, read) in table {
            let of = addresses(source, destination);
            let v1 = Version::V1.header(Some(&of));
            assert_eq!(String::from_utf8(v1.clone()).unwrap(), line);
            let v2 = Version::V2.header(Some(&of));
            assert_eq!(v2.len(), length, "{of:?}");
            let want = Some(addresses(read.0, read.1));
            for bytes in [v1, v2] {
                let length = bytes.len();
                let header = Header { length, addresses: want };
                assert_eq!(decode(&[&bytes[..], b"GET /"].concat()), Ok(Some(header)), "{line}");
                for cut in 0..length {
                    assert_eq!(decode(&bytes[..cut]), Ok(None), "{cut} bytes of {line}");
                }
            }
        }
        let nobody = |version: Version| decode(&version.header(None)).unwrap().unwrap();
        assert_eq!(Version::V1.header(None), b"PROXY UNKNOWN\r\n");
        assert_eq!(nobody(Version::V1).addresses, None);
        assert_eq!(nobody(Version::V2).addresses, None);
        assert_eq!(nobody(Version::V2).length, 16);
    }

    #[test]
    fn what_names_no_client_is_valid_and_what_is_not_in_the_specification_is_not() {
        let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(93));
        let unix = made(PROXY, 0x31, &[7; 216]);
        // (bytes, the length of the header without addresses)
        let table: [(&[u8], Result<usize, NotAHeader>); 24] = [
            (b"PROXY UNKNOWN ffff::1 whatever 1\r\n", Ok(34)),
            (long.as_bytes(), Err(NotAHeader::Invalid)),
            (&long.as_bytes()[1..], Err(NotAHeader::Absent)),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", Err(NotAHeader::Invalid)),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", Err(NotAHeader::Invalid)),
            (b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n", Err(NotAHeader::Invalid)),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", Err(NotAHeader::Invalid)),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", Err(NotAHeader::Invalid)),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", Err(NotAHeader::Invalid)),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n", Err(NotAHeader::Invalid)),
            (b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", Err(NotAHeader::Invalid)),
            (b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n", Err(NotAHeader::Invalid)),
            (b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", Err(NotAHeader::Invalid)),
            (b"PROXY \xff\r\n", Err(NotAHeader::Invalid)),
            (b"PROXY \r\n", Err(NotAHeader::Invalid)),
            (b"PROPFIND / HTTP/1.1\r\n", Err(NotAHeader::Absent)),
            (b"GET / HTTP/1.1\r\n", Err(NotAHeader::Absent)),
            (&made(LOCAL, 0xff, &[0; 100]), Ok(116)),
            (&made(PROXY, 0x00, &[0; 20]), Ok(36)),
            (&unix, Ok(232)),
            (&made(PROXY, 0x12, &[0; 12]), Err(NotAHeader::Invalid)),
            (&made(PROXY, TCP4, &[0; 11]), Err(NotAHeader::Invalid)),
            (&made(0x11, TCP4, &[0; 12]), Err(NotAHeader::Invalid)),
            (&made(PROXY, TCP6, &[0; MAX_LENGTH])[..20], Err(NotAHeader::TooLarge)),
        ];
        for (bytes, want) in table {
            let read = decode(bytes).map(|header| header.unwrap());
            assert!(read.is_err() || read.unwrap().addresses.is_none(), "{bytes:?}");
            assert_eq!(read.map(|header| header.length), want, "{bytes:?}");
        }
        assert_eq!(decode(&[&V2[..], &[0x31]].concat()), Err(NotAHeader::Invalid), "version 3");
    }

    /// The reader looks at the first bytes only; the length says where the extensions end.
    #[test]
    fn extensions_are_part_of_the_length() {
        let of = addresses("192.0.2.1:1", "192.0.2.2:2");
        let mut bytes = Version::V2.header(Some(&of));
        bytes[14..16].copy_from_slice(&(12 + 1000_u16).to_be_bytes());
        let header = Header { length: 1028, addresses: Some(of) };
        assert_eq!(decode(&bytes), Ok(Some(header)));
    }

    #[test]
    fn enough_bytes_always_decide() {
        let mut bytes = vec![b'x'; ENOUGH];
        bytes[..6].copy_from_slice(V1);
        assert_eq!(decode(&bytes), Err(NotAHeader::Invalid));
        assert_eq!(decode(&bytes[..ENOUGH - 1]), Ok(None));
        let v2 = made(PROXY, TCP6, &[1; 200]);
        assert!(decode(&v2[..ENOUGH]).unwrap().is_some());
        assert_eq!(decode(b""), Ok(None));
    }
}
