//! Decoder of chunked bodies (RFC 9112 section 7.1). It decodes in place and strictly: any
//! ambiguous framing ends the connection.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::body::settle_trailers;
use crate::upstream::h1::response::explain;

/// Maximum length in bytes of a line with a chunk size and its extensions.
const MAX_LINE: usize = 4 * 1024;

/// Maximum size in bytes of all extensions in one body. They are discarded; the limit bounds that
/// overhead (CVE-2023-39326).
const MAX_EXTENSIONS: usize = 16 * 1024;

/// Maximum size of the trailers in bytes.
const MAX_TRAILERS: usize = 16 * 1024;

/// Maximum number of trailer fields.
const MAX_TRAILER_FIELDS: usize = 64;

/// State of the decoder within a chunked body.
#[derive(Debug)]
pub(super) struct Chunks {
    state: State,
    extension_bytes: usize,
}

#[derive(Debug)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    /// The body has ended; its trailers have not been taken yet.
    Ended(Option<HeaderMap>),
    Broken(&'static str),
}

/// The next element of a body.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Data(Bytes),
    End,
    /// The input is exhausted.
    More,
    Trailers(HeaderMap),
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self { state: State::Size, extension_bytes: 0 }
    }

    /// Takes the next step from the front of `input`. The end is read together with the last data
    /// if it is available, so that [`is_ended`](Self::is_ended) reports it.
    ///
    /// # Errors
    ///
    /// The defect of the framing; all later calls return it again.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Result<Step, &'static str> {
        self.read_framing(input);
        match &mut self.state {
            State::Data(_) if input.is_empty() => Ok(Step::More),
            State::Data(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= take as u64;
                let whole = *left == 0;
                let data = input.split_to(take).freeze();
                if whole {
                    self.state = State::DataEnd;
                    self.read_framing(input);
                }
                Ok(Step::Data(data))
            }
            State::Ended(trailers) => Ok(trailers.take().map_or(Step::End, Step::Trailers)),
            State::Broken(why) => Err(why),
            State::Size | State::DataEnd | State::Trailers => Ok(Step::More),
        }
    }

    /// Returns true if the body has ended and nothing is left to take.
    pub(super) fn is_ended(&self) -> bool {
        matches!(&self.state, State::Ended(None))
    }

    /// Parses framing as far as `input` has it.
    fn read_framing(&mut self, input: &mut BytesMut) {
        loop {
            let next = match self.state {
                State::Size => self.read_size(input),
                State::DataEnd => read_data_end(input),
                State::Trailers => read_trailers(input),
                State::Data(_) | State::Ended(_) | State::Broken(_) => return,
            };
            match next {
                Ok(Some(state)) => self.state = state,
                Ok(None) => return,
                Err(why) => self.state = State::Broken(why),
            }
        }
    }

    fn read_size(&mut self, input: &mut BytesMut) -> Result<Option<State>, &'static str> {
        let Some(end) = input.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
            if input.len() >= MAX_LINE {
                return Err("chunk size line too long");
            }
            return Ok(None);
        };
        let line = input[..end].strip_suffix(b"\r").ok_or("lone LF after a chunk size")?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, rest) = line.split_at(digits);
        let size = match digits.len() {
            0 => return Err("chunk size without digits"),
            1..=16 => {
                str::from_utf8(digits).ok().and_then(|text| u64::from_str_radix(text, 16).ok())
            }
            _ => None,
        }
        .filter(|size| i64::try_from(*size).is_ok())
        .ok_or("chunk size too large")?;
        check_extensions(rest)?;
        self.extension_bytes += rest.len();
        if self.extension_bytes > MAX_EXTENSIONS {
            return Err("too many chunk extensions");
        }
        input.advance(end + 1);
        Ok(Some(if size == 0 { State::Trailers } else { State::Data(size) }))
    }
}

/// Checks the rest of a size line: empty, or blanks and `;` (RFC 9112 section 7.1.1), without
/// control bytes.
fn check_extensions(rest: &[u8]) -> Result<(), &'static str> {
    match rest.trim_ascii_start().first() {
        None | Some(b';') => {}
        Some(_) => return Err("chunk size is not a hexadecimal number"),
    }
    if rest.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err("control byte after a chunk size");
    }
    Ok(())
}

fn read_data_end(input: &mut BytesMut) -> Result<Option<State>, &'static str> {
    match **input {
        [b'\r', b'\n', ..] => {
            input.advance(2);
            Ok(Some(State::Size))
        }
        [] | [b'\r'] => Ok(None),
        _ => Err("chunk longer than its size"),
    }
}

fn read_trailers(input: &mut BytesMut) -> Result<Option<State>, &'static str> {
    match **input {
        [b'\r', b'\n', ..] => {
            input.advance(2);
            return Ok(Some(State::Ended(None)));
        }
        [] | [b'\r'] => return Ok(None),
        _ => {}
    }
    let window = &input[..input.len().min(MAX_TRAILERS)];
    let Some(end) = window.windows(4).position(|four| four == b"\r\n\r\n") else {
        if input.len() >= MAX_TRAILERS {
            return Err("trailers too large");
        }
        return Ok(None);
    };
    let end = end + 4;
    let mut slots = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let fields = match httparse::parse_headers(&input[..end], &mut slots) {
        Ok(httparse::Status::Complete((length, fields))) if length == end => fields,
        Ok(_) => return Err("trailers end twice"),
        Err(httparse::Error::TooManyHeaders) => return Err("too many trailers"),
        Err(error) => return Err(explain(error)),
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| "a trailer name is no token")?;
        let value = HeaderValue::from_bytes(field.value)
            .map_err(|_| "a trailer value has a control byte")?;
        trailers.append(name, value);
    }
    input.advance(end);
    Ok(Some(State::Ended(settle_trailers(trailers))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns all data, the trailers, and the rest, from input in pieces of `size` bytes.
    fn decode(bytes: &[u8], size: usize) -> Result<(Vec<u8>, HeaderMap, Vec<u8>), &'static str> {
        let (mut chunks, mut input) = (Chunks::new(), BytesMut::new());
        let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
        let mut pieces = bytes.chunks(size);
        loop {
            match chunks.next(&mut input)? {
                Step::Data(piece) => data.extend_from_slice(&piece),
                Step::End => break,
                Step::Trailers(map) => trailers = map,
                Step::More => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None => return Err("cut"),
                },
            }
        }
        assert!(chunks.is_ended());
        let rest = [&input[..], &pieces.collect::<Vec<_>>().concat()].concat();
        Ok((data, trailers, rest))
    }

    #[test]
    fn chunks_come_out_whole_however_they_come_in() {
        // (bytes, data, left over)
        let table = [
            ("0\r\n\r\n", "", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello", ""),
            ("5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200", "hello", "HTTP/1.1 200"),
            ("05;a=b\r\nhello\r\n1 ; c\r\n!\r\n0\r\n\r\n", "hello!", ""),
            ("A\r\n0123456789\r\na\r\nabcdefghij\r\n0000\r\n\r\n", "0123456789abcdefghij", ""),
            ("1\t \r\nx\r\n0\r\n\r\n", "x", ""),
        ];
        for (bytes, want, left) in table {
            for size in [1, 2, 3, 7, 100] {
                let (data, trailers, rest) = decode(bytes.as_bytes(), size).expect(bytes);
                assert_eq!(data, want.as_bytes(), "{bytes:?} by {size}");
                assert_eq!(rest, left.as_bytes(), "{bytes:?} by {size}");
                assert!(trailers.is_empty());
            }
        }
    }

    #[test]
    fn framing_that_two_readers_read_in_two_ways_is_refused() {
        // (bytes, part of the message)
        let table = [
            ("0x5\r\nhello\r\n0\r\n\r\n", "hexadecimal"),
            ("+5\r\nhello\r\n0\r\n\r\n", "digits"),
            ("-5\r\nhello\r\n0\r\n\r\n", "digits"),
            ("5_0\r\nhello\r\n0\r\n\r\n", "hexadecimal"),
            (" 5\r\nhello\r\n0\r\n\r\n", "digits"),
            ("\r\nhello\r\n0\r\n\r\n", "digits"),
            ("zz\r\nhello\r\n0\r\n\r\n", "digits"),
            ("5 5\r\nhello\r\n0\r\n\r\n", "hexadecimal"),
            ("8000000000000000\r\n", "too large"),
            ("10000000000000005\r\n", "too large"),
            ("5\nhello\r\n0\r\n\r\n", "lone LF"),
            ("5;a\nhello\r\n0\r\n\r\n", "lone LF"),
            ("5\r\rhello\n", "lone LF"),
            ("5;a\rb\r\nhello\r\n0\r\n\r\n", "control"),
            ("5;a\0b\r\nhello\r\n0\r\n\r\n", "control"),
            ("5\r\nhelloX\r\n0\r\n\r\n", "longer than"),
            ("5\r\nhello\n0\r\n\r\n", "longer than"),
            ("5\r\nhello\rX0\r\n\r\n", "longer than"),
            ("0\r\nXX\r\n\r\n", "no token"),
            ("0\r\na : b\r\n\r\n", "no token"),
            ("0\r\na: b\r\n c\r\n\r\n", "no token"),
            ("0\r\na: b\0\r\n\r\n", "control"),
            ("0\r\na: b\n\nc: d\r\n\r\n", "end twice"),
            ("5\r\nhello\r\n", "cut"),
            ("5\r\nhello\r\n0\r\n", "cut"),
            ("5\r\nhel", "cut"),
        ];
        for (bytes, want) in table {
            for size in [1, 4, 100] {
                let message = decode(bytes.as_bytes(), size).expect_err(bytes);
                assert!(message.contains(want), "{bytes:?} by {size}: {message}");
            }
        }
    }

    #[test]
    fn trailers_pass_but_those_that_frame_route_or_name() {
        let bytes = "0\r\nGrpc-Status: 0\r\nContent-Length: 5\r\nX-Forwarded-For: 1.1.1.1\r\n\
                     Host: a\r\nX-Sum:\r\n\r\nrest";
        for size in [1, 5, 1000] {
            let (_, trailers, rest) = decode(bytes.as_bytes(), size).unwrap();
            let names: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
            assert_eq!(names, ["grpc-status", "x-sum"]);
            assert_eq!(rest, b"rest");
        }
    }

    #[test]
    fn extensions_and_trailers_have_limits() {
        let extension = |size| format!("1;{}\r\nx\r\n", "e".repeat(size));
        let end = "0\r\n\r\n";
        // (bytes, part of the message)
        let table = [
            (extension(MAX_LINE), "too long"),
            (extension(4000).repeat(5) + end, "too many chunk extensions"),
            (
                format!("0\r\n{}\r\n", "a: b\r\n".repeat(MAX_TRAILER_FIELDS + 1)),
                "too many trailers",
            ),
            (format!("0\r\na: {}\r\n\r\n", "b".repeat(MAX_TRAILERS)), "too large"),
        ];
        for (bytes, want) in table {
            let message = decode(bytes.as_bytes(), 1000).unwrap_err();
            assert!(message.contains(want), "{message}");
        }
        assert!(decode((extension(4000).repeat(4) + end).as_bytes(), 1000).is_ok());
        let most = format!("0\r\n{}\r\n", "a: b\r\n".repeat(MAX_TRAILER_FIELDS));
        assert!(decode(most.as_bytes(), 1000).is_ok());
    }
}
