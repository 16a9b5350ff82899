//! Scanner for HTTP/1 connections, ahead of hyper: it finds requests with both `Content-Length` and
//! `Transfer-Encoding`, and targets that are too long.
//!
//! `Content-Length` beside `Transfer-Encoding` is likely an attack (RFC 9112 section 6.1). hyper
//! uses the coding, drops the length and reports neither; that is safe, but the client should get
//! 400. hyper also buffers a head until it is complete or too large, and answers an oversized head
//! with 431, while a target that is too long is to be answered with 414 (RFC 9110 section 15.5.15).
//!
//! The scanner therefore follows all bytes of a connection: each head and the body after it.

/// Parser that follows the requests of a connection, in pieces of any size.
///
/// It stops at bytes that hyper refuses: hyper reads no more of that connection either.
#[derive(Debug, Default)]
pub(super) struct Http1Scan {
    at: ScanPosition,
    /// The name of the current line so far, while it can still be one of the two.
    name: [u8; LONGEST],
    /// State of the current head, or of the head whose body is being read.
    head: ScannedHead,
    /// Number of heads that have begun.
    heads: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct ScannedHead {
    has_coding: bool,
    has_length: bool,
    length: u64,
}

/// Position of the next byte in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ScanPosition {
    /// Before a request line; empty lines are skipped (RFC 9112 section 2.2).
    #[default]
    Start,
    Method,
    /// In the target, of which this many bytes have arrived.
    Target(usize),
    /// In a line whose rest is ignored.
    Line,
    /// In a field name that may be one of the two, of which this many bytes are known.
    Name(usize),
    /// In the value of `Content-Length`.
    Length {
        number: u64,
        digits: Digits,
    },
    /// In a body, with this many bytes left.
    Body(u64),
    /// In the line before a chunk.
    ChunkSize {
        number: u64,
        digits: Digits,
    },
    /// In a chunk, with this many bytes left.
    Chunk(u64),
    /// After the data of a chunk.
    ChunkEnd,
    /// In a line after the last chunk; an empty line ends the trailers.
    Trailer {
        is_empty: bool,
    },
    /// In bytes that are not a request.
    Nowhere,
}

/// Progress in parsing a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digits {
    Awaited,
    Begun,
    /// Only the end of the line may follow; after a chunk size, anything may.
    Ended,
}

const CODING: &[u8] = b"transfer-encoding";
const LENGTH: &[u8] = b"content-length";
const LONGEST: usize = CODING.len();

/// The findings in a piece of a connection. Requests are identified by their number, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ScanFindings {
    /// The request whose head has both fields.
    pub twofold: Option<u32>,
    /// The request whose target is too long, and the number of bytes up to the limit of the target.
    /// Nothing after it is scanned.
    pub long_target: Option<(u32, usize)>,
}

impl Http1Scan {
    /// Scans `bytes`. A target may have `longest_target` bytes.
    pub(super) fn read(&mut self, bytes: &[u8], longest_target: usize) -> ScanFindings {
        let mut seen = ScanFindings::default();
        let mut rest = bytes;
        while !rest.is_empty() && self.at != ScanPosition::Nowhere {
            if let ScanPosition::Target(length) = self.at {
                let end = memchr::memchr3(b' ', b'\r', b'\n', rest).unwrap_or(rest.len());
                if length + end > longest_target {
                    let within = bytes.len() - rest.len() + longest_target.saturating_sub(length);
                    seen.long_target = Some((self.heads, within));
                    self.at = ScanPosition::Nowhere;
                    break;
                }
                self.at = if end < rest.len() {
                    ScanPosition::Line
                } else {
                    ScanPosition::Target(length + end)
                };
                rest = &rest[end..];
                continue;
            }
            if self.at == ScanPosition::Name(0)
                && let Some(behind) = behind_other_line(rest)
            {
                rest = behind;
                continue;
            }
            let (behind, is_twofold) = self.step(rest);
            if is_twofold {
                seen.twofold.get_or_insert(self.heads);
            }
            rest = behind;
        }
        seen
    }

    /// Returns the number of requests that have arrived as a whole; `None` if the last one has
    /// arrived in part, or cannot be followed.
    pub(super) fn whole(&self) -> Option<u32> {
        (self.at == ScanPosition::Start).then_some(self.heads)
    }

    /// Consumes one step from the front of `bytes`, which must not be empty. Returns the rest, and
    /// true if the current head has just shown the second of the two fields.
    fn step<'b>(&mut self, bytes: &'b [u8]) -> (&'b [u8], bool) {
        let before = self.head;
        let (byte, rest) = (bytes[0], &bytes[1..]);
        let (at, rest) = match self.at {
            ScanPosition::Start => match byte {
                b'\r' | b'\n' => (ScanPosition::Start, rest),
                b'!'..=b'~' => {
                    (self.head, self.heads) =
                        (ScannedHead::default(), self.heads.saturating_add(1));
                    (ScanPosition::Method, rest)
                }
                _ => (ScanPosition::Nowhere, rest),
            },
            ScanPosition::Method => match memchr::memchr2(b' ', b'\n', bytes) {
                Some(end) if bytes[end] == b' ' => (ScanPosition::Target(0), &bytes[end + 1..]),
                Some(end) => (ScanPosition::Name(0), &bytes[end + 1..]),
                None => (ScanPosition::Method, &[][..]),
            },
            ScanPosition::Line => match memchr::memchr(b'\n', bytes) {
                Some(end) => (ScanPosition::Name(0), &bytes[end + 1..]),
                None => (ScanPosition::Line, &[][..]),
            },
            ScanPosition::Name(length) => match byte {
                b'\n' if length == 0 => (self.behind_head(), rest),
                // hyper refuses a line without a colon.
                b'\n' => (ScanPosition::Name(0), rest),
                b'\r' => (ScanPosition::Name(length), rest),
                b':' | b' ' | b'\t' => (self.behind_name(length), rest),
                _ if may_be_at(length, byte) => {
                    self.name[length] = byte;
                    (ScanPosition::Name(length + 1), rest)
                }
                _ => (ScanPosition::Line, rest),
            },
            ScanPosition::Length { number, digits } => match (byte, digits) {
                (b'\n', Digits::Begun | Digits::Ended) => {
                    self.head.length = number;
                    (ScanPosition::Name(0), rest)
                }
                (b'\r', _) | (b' ' | b'\t', Digits::Awaited) => (self.at, rest),
                (b' ' | b'\t', _) => (ScanPosition::Length { number, digits: Digits::Ended }, rest),
                (_, Digits::Ended) => (ScanPosition::Nowhere, rest),
                _ => {
                    let number = digit(byte, 10).and_then(|digit| grown(number, 10, digit));
                    let length = |number| ScanPosition::Length { number, digits: Digits::Begun };
                    (number.map_or(ScanPosition::Nowhere, length), rest)
                }
            },
            ScanPosition::Body(left) => match skip(bytes, left) {
                (0, rest) => (ScanPosition::Start, rest),
                (left, rest) => (ScanPosition::Body(left), rest),
            },
            ScanPosition::ChunkSize { number, digits } => match (byte, digits) {
                (b'\n', Digits::Awaited) => (ScanPosition::Nowhere, rest),
                (b'\n', _) if number == 0 => (ScanPosition::Trailer { is_empty: true }, rest),
                (b'\n', _) => (ScanPosition::Chunk(number), rest),
                (b'\r', _) => (self.at, rest),
                (_, Digits::Ended) => match memchr::memchr(b'\n', bytes) {
                    Some(end) => (self.at, &bytes[end..]),
                    None => (self.at, &[][..]),
                },
                (b';' | b' ' | b'\t', Digits::Begun) => {
                    (ScanPosition::ChunkSize { number, digits: Digits::Ended }, rest)
                }
                _ => {
                    let number = digit(byte, 16).and_then(|digit| grown(number, 16, digit));
                    let size = |number| ScanPosition::ChunkSize { number, digits: Digits::Begun };
                    (number.map_or(ScanPosition::Nowhere, size), rest)
                }
            },
            ScanPosition::Chunk(left) => match skip(bytes, left) {
                (0, rest) => (ScanPosition::ChunkEnd, rest),
                (left, rest) => (ScanPosition::Chunk(left), rest),
            },
            ScanPosition::ChunkEnd => match byte {
                b'\r' => (ScanPosition::ChunkEnd, rest),
                b'\n' => (CHUNK, rest),
                _ => (ScanPosition::Nowhere, rest),
            },
            ScanPosition::Trailer { is_empty } => match byte {
                b'\n' if is_empty => (ScanPosition::Start, rest),
                b'\n' => (ScanPosition::Trailer { is_empty: true }, rest),
                b'\r' => (self.at, rest),
                _ => (ScanPosition::Trailer { is_empty: false }, rest),
            },
            ScanPosition::Nowhere | ScanPosition::Target(_) => (self.at, &[][..]),
        };
        self.at = at;
        let is_twofold = |head: ScannedHead| head.has_coding && head.has_length;
        (rest, is_twofold(self.head) && !is_twofold(before))
    }

    fn behind_name(&mut self, length: usize) -> ScanPosition {
        let name = &self.name[..length];
        if name.eq_ignore_ascii_case(CODING) {
            self.head.has_coding = true;
        } else if name.eq_ignore_ascii_case(LENGTH) {
            self.head.has_length = true;
            return ScanPosition::Length { number: 0, digits: Digits::Awaited };
        }
        ScanPosition::Line
    }

    /// Returns the position after a head. `Transfer-Encoding` takes precedence; its coding is
    /// `chunked`, or the request is refused (RFC 9112 section 6.3).
    fn behind_head(&self) -> ScanPosition {
        match (self.head.has_coding, self.head.length) {
            (true, _) => CHUNK,
            (false, 0) => ScanPosition::Start,
            (false, length) => ScanPosition::Body(length),
        }
    }
}

/// Skips the line at the start of `bytes` if it is whole and begins like neither of the two names.
fn behind_other_line(bytes: &[u8]) -> Option<&[u8]> {
    if may_be_at(0, bytes[0]) || matches!(bytes[0], b'\r' | b'\n') {
        return None;
    }
    memchr::memchr(b'\n', bytes).map(|end| &bytes[end + 1..])
}

/// Returns true if one of the two names has `byte` at this place.
fn may_be_at(place: usize, byte: u8) -> bool {
    let has = |name: &[u8]| name.get(place).is_some_and(|own| own.eq_ignore_ascii_case(&byte));
    has(CODING) || has(LENGTH)
}

/// Position before a chunk.
const CHUNK: ScanPosition = ScanPosition::ChunkSize { number: 0, digits: Digits::Awaited };

fn digit(byte: u8, base: u32) -> Option<u64> {
    char::from(byte).to_digit(base).map(u64::from)
}

fn grown(number: u64, base: u64, digit: u64) -> Option<u64> {
    number.checked_mul(base)?.checked_add(digit)
}

/// Skips up to `left` bytes. Returns the number of bytes still to skip, and the rest of `bytes`.
fn skip(bytes: &[u8], left: u64) -> (u64, &[u8]) {
    match usize::try_from(left) {
        Ok(count) if count <= bytes.len() => (0, &bytes[count..]),
        _ => (left - bytes.len() as u64, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    const TWOFOLD: &str = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\
                           Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

    #[test]
    fn both_fields_in_one_head_are_seen_however_they_come() {
        let head = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        // (bytes, the request with both fields)
        let table = [
            (TWOFOLD.into(), Some(1)),
            (head("TRANSFER-ENCODING : chunked\r\ncontent-length:5\r\n"), Some(1)),
            (head("Content-Length: 5\n").replace('\r', ""), None),
            (head("Transfer-Encoding: chunked\r\n"), None),
            (head("X-Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), None),
            (head("Transfer-Encoding-X: chunked\r\nContent-Length: 5\r\n"), None),
            (head("X: Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), None),
            (head("Content-Length: 60\r\n") + "a\r\nTransfer-Encoding: chunked\r\n\r\n", None),
            (format!("\r\n\r\n{TWOFOLD}"), Some(1)),
            (format!("{PLAIN}{TWOFOLD}"), Some(2)),
            (format!("{PLAIN}\r\n{PLAIN}{TWOFOLD}{TWOFOLD}"), Some(3)),
            (head("Content-Length: 3\r\n") + "abc" + TWOFOLD, Some(2)),
            (head("Content-Length:  3 \r\n") + "a\nb" + TWOFOLD, Some(2)),
            (head("Content-Length: 0\r\n") + TWOFOLD, Some(2)),
            (head("Content-Length: 3\nContent-Length: 3\n") + "abc" + TWOFOLD, Some(2)),
            // The content of a body is not a head.
            (head(&format!("Content-Length: {}\r\n", TWOFOLD.len())) + TWOFOLD + PLAIN, None),
            (
                head("Transfer-Encoding: chunked\r\n")
                    + &format!(
                        "{:X};a=b\r\n{TWOFOLD}\r\n3 \r\nabc\r\n0\r\nX: y\r\n\r\n{PLAIN}",
                        TWOFOLD.len()
                    ),
                None,
            ),
            (
                head("Transfer-Encoding: chunked\r\n")
                    + &format!("3\r\nabc\r\n0a;x\r\n0123456789\r\n0\r\nX: y\r\n\r\n{TWOFOLD}"),
                Some(2),
            ),
            // The scan ends at bytes that hyper refuses.
            (head("Content-Length: 3, 3\r\n") + "abc" + TWOFOLD, None),
            (head("Content-Length: 99999999999999999999999\r\n") + TWOFOLD, None),
            (head("Transfer-Encoding: chunked\r\n") + "x\r\n\r\n" + TWOFOLD, None),
            (head("Transfer-Encoding: chunked\r\n") + "1\r\nab\r\n" + TWOFOLD, None),
            // A tunnel.
            (PLAIN.to_owned() + "\x01\x05hello\r\n" + TWOFOLD, None),
        ];
        for (bytes, want) in table {
            let seen = Http1Scan::default().read(bytes.as_bytes(), 100);
            assert_eq!(seen, ScanFindings { twofold: want, long_target: None }, "{bytes}");
            let mut scan = Http1Scan::default();
            let found = bytes.as_bytes().chunks(1).fold(None, |found: Option<u32>, byte| {
                let now = scan.read(byte, 100).twofold;
                found.or(now)
            });
            assert_eq!(found, want, "byte by byte: {bytes}");
        }
    }

    /// Reads the head line by line: each line as a whole, and its name as a whole. Returns true for
    /// a head with both fields.
    fn is_twofold(head: &str) -> bool {
        let lines = head.split('\n').skip(1).map(|line| line.replace('\r', ""));
        let names: Vec<String> = lines
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_once(':').map(|(name, _)| name.to_ascii_lowercase()))
            .collect();
        let has = |name: &[u8]| names.iter().any(|one| one.as_bytes() == name);
        has(CODING) && has(LENGTH)
    }

    #[test]
    fn a_head_of_any_lines_in_any_pieces_is_read_as_line_by_line() {
        const NAMES: [&str; 24] = [
            "Content-Length",
            "content-length",
            "CONTENT-LENGTH",
            "Content-\rLength",
            "\rContent-Length",
            "Content-Lengt",
            "Content-Lengths",
            "Content-Length-Of",
            "Tontent-Length",
            "Transfer-Encoding",
            "TRANSFER-ENCODING",
            "tRANSFER-eNCODING\r",
            "\r\rTransfer-Encoding",
            "Transfer-Encodin",
            "Transfer-Encodings",
            "Transfer-Encoding-X",
            "Cransfer-Encoding",
            "Co",
            "T",
            "Cookie",
            "Upgrade-Insecure-Requests",
            "X-Transfer-Encoding",
            "Host",
            "",
        ];
        const VALUES: [&str; 8] = [": 5", ":5 ", ":  5", ": 5\r", ":5\r", ": 5", ":5", ":\t5"];
        const ENDS: [&str; 2] = ["\r\n", "\n"];
        let mut random = fastrand::Rng::with_seed(7);
        let mut twofold = 0;
        for _ in 0..20_000 {
            let mut one = |of: &[&'static str]| of[random.usize(..of.len())];
            let mut head = "POST / HTTP/1.1\r\n".to_owned();
            for _ in 0..8 {
                head = head + one(&NAMES) + one(&VALUES) + one(&ENDS);
            }
            head += "\r\n";
            let (seen, at) = (is_twofold(&head), random.usize(..head.len()));
            let (first, second) = head.as_bytes().split_at(at);
            for pieces in [[head.as_bytes(), b""], [first, second]] {
                let mut scan = Http1Scan::default();
                let found = pieces.map(|piece| scan.read(piece, 100).twofold);
                assert_eq!(found[0].or(found[1]), seen.then_some(1), "{at} of {head:?}");
            }
            twofold += u32::from(seen);
        }
        assert!((5_000..15_000).contains(&twofold), "{twofold}");
    }

    #[test]
    fn a_target_is_counted_however_it_comes() {
        // (bytes, the request whose target exceeds 4 bytes, and the number of bytes within the
        // limit)
        let table = [
            ("GET /abc HTTP/1.1\r\n\r\n".into(), None),
            ("GET /abcd HTTP/1.1\r\n\r\n".into(), Some((1, 8))),
            ("GET /abcdefgh".into(), Some((1, 8))),
            ("GET /abc".into(), None),
            ("\r\n\r\nGET /abcd HTTP/1.1\r\n".into(), Some((1, 12))),
            ("PROPFIND /abcd".into(), Some((1, 13))),
            ("GET /\r\nX: abcdefgh\r\n\r\n".into(), None),
            ("GET / HTTP/1.1\r\nX: a bcdefgh ijklmn\r\n\r\n".into(), None),
            ("A-METHOD-THAT-IS-LONG\r\n\r\n".into(), None),
            (String::new(), None),
            (format!("{PLAIN}GET /abcdefgh"), Some((2, PLAIN.len() + 8))),
            (format!("{TWOFOLD}GET /abcdefgh"), Some((2, TWOFOLD.len() + 8))),
        ];
        for (bytes, want) in table {
            let seen = Http1Scan::default().read(bytes.as_bytes(), 4).long_target;
            assert_eq!(seen, want, "{bytes:?}");
            let mut scan = Http1Scan::default();
            let found = bytes.as_bytes().chunks(1).enumerate().find_map(|(place, byte)| {
                let (request, within) = scan.read(byte, 4).long_target?;
                Some((request, place + within))
            });
            assert_eq!(found, want, "byte by byte: {bytes:?}");
        }
    }
}
