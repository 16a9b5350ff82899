//! Parser of response heads.
//!
//! It uses `httparse` in its strict configuration: no obs-fold, no space before the colon, no
//! control byte in a value, only HTTP/1.0 or 1.1. A lone LF ends a line (RFC 9112 section 2.2); it
//! is never forwarded.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};

/// Maximum size of a response head in bytes.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// Maximum number of fields of a response head.
pub(super) const MAX_FIELDS: usize = 256;

/// Status line of a head; the fields are in the caller's map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub status: StatusCode,
    pub version: Version,
}

/// Takes heads from a buffer that fills incrementally.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    /// Length of the prefix that was parsed without finding a complete head.
    seen: usize,
}

impl HeadReader {
    /// Takes one head from the front of `input`; `None` if it is incomplete. Replaces the contents
    /// of `headers` with the fields, as slices of `input`; `fields` is scratch memory.
    ///
    /// Parsing starts over each time, but only when a line was completed, and the number of lines
    /// is limited: for a peer that sends byte by byte, there are at most [`MAX_FIELDS`] passes.
    ///
    /// # Errors
    ///
    /// The reason why the head is invalid or must not be forwarded.
    pub(super) fn take(
        &mut self,
        input: &mut BytesMut,
        fields: &mut Vec<(HeaderName, Range<usize>)>,
        headers: &mut HeaderMap,
    ) -> Result<Option<Head>, &'static str> {
        match input.first() {
            None => return Ok(None),
            // The parser would skip empty lines, and wait for more of an invalid head.
            Some(b'H') => {}
            Some(_) => return Err("not HTTP"),
        }
        if self.seen > 0 && !input[self.seen..].contains(&b'\n') {
            return self.partial(input.len());
        }
        let mut slots = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let length = match httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            &input[..],
            &mut slots,
        ) {
            Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
            Ok(httparse::Status::Complete(_)) => return Err("head larger than 64 KiB"),
            Ok(httparse::Status::Partial) => return self.partial(input.len()),
            Err(error) => return Err(explain(error)),
        };
        let status = response
            .code
            .filter(|code| (100..=599).contains(code))
            .and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or("status is not within 100..=599")?;
        let version = match response.version {
            Some(1) => Version::HTTP_11,
            _ => Version::HTTP_10,
        };

        // The values are slices of one frozen buffer, so that none is copied. The buffer can be
        // frozen only after the parser has released it: first record the ranges, then slice.
        fields.clear();
        let start = input.as_ptr().addr();
        for field in response.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes())
                .map_err(|_| "a field name is no token")?;
            let at = if field.value.is_empty() { 0 } else { field.value.as_ptr().addr() - start };
            fields.push((name, at..at + field.value.len()));
        }
        let head = input.split_to(length).freeze();
        headers.clear();
        for (name, at) in fields.drain(..) {
            let value = HeaderValue::from_maybe_shared(head.slice(at))
                .map_err(|_| "a field value has a control byte")?;
            headers.append(name, value);
        }
        self.seen = 0;
        Ok(Some(Head { status, version }))
    }

    fn partial(&mut self, length: usize) -> Result<Option<Head>, &'static str> {
        if length >= MAX_HEAD {
            return Err("head larger than 64 KiB");
        }
        self.seen = length;
        Ok(None)
    }
}

pub(super) fn explain(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a field name is no token",
        httparse::Error::HeaderValue => "a field value has a control byte",
        httparse::Error::NewLine => "a lone CR",
        httparse::Error::Status => "status is not three digits",
        httparse::Error::Token => "not HTTP",
        httparse::Error::TooManyHeaders => "more than 256 fields",
        httparse::Error::Version => "not HTTP/1.0 or 1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::testing::Fields;

    fn read(bytes: &[u8]) -> Result<Option<(Head, HeaderMap)>, &'static str> {
        let mut headers = HeaderMap::new();
        let mut input = BytesMut::from(bytes);
        let head = HeadReader::default().take(&mut input, &mut Vec::new(), &mut headers)?;
        Ok(head.map(|head| (head, headers)))
    }

    #[test]
    fn what_may_not_be_passed_on_is_no_head() {
        // (bytes, part of the message)
        let table = [
            ("garbage", "not HTTP"),
            ("\r\nHTTP/1.1 200 OK\r\n\r\n", "not HTTP"),
            ("<html>HTTP/0.9</html>", "not HTTP"),
            ("HTTP/0.9 200 OK\r\n\r\n", "1.0 or 1.1"),
            ("HTTP/2.0 200 OK\r\n\r\n", "1.0 or 1.1"),
            ("HTTP/1.10 200 OK\r\n\r\n", "1.0 or 1.1"),
            ("HTTP/1.1 abc OK\r\n\r\n", "three digits"),
            ("HTTP/1.1 20 OK\r\n\r\n", "three digits"),
            ("HTTP/1.1 2000 OK\r\n\r\n", "three digits"),
            ("HTTP/1.1 099 OK\r\n\r\n", "100..=599"),
            ("HTTP/1.1 600 OK\r\n\r\n", "100..=599"),
            ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "no token"),
            ("HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n", "control byte"),
            ("HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", "control byte"),
            ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "no token"),
            ("HTTP/1.1 200 OK\r\n: b\r\n\r\n", "no token"),
            ("HTTP/1.1 200 OK\r\nnocolon\r\n\r\n", "no token"),
            ("HTTP/1.1 200 OK\r\nA\u{e9}: b\r\n\r\n", "no token"),
        ];
        for (bytes, want) in table {
            match read(bytes.as_bytes()) {
                Err(message) => assert!(message.contains(want), "{bytes:?}: {message}"),
                Ok(head) => panic!("{bytes:?}: {head:?}"),
            }
        }
    }

    #[test]
    fn a_head_may_be_plain_or_odd() {
        // (bytes, status, fields)
        let table: [(&str, u16, &Fields); 5] = [
            ("HTTP/1.1 200 OK\r\nA: b\r\nX-C:  d \r\n\r\n", 200, &[("a", "b"), ("x-c", "d")]),
            ("HTTP/1.1 204\r\n\r\n", 204, &[]),
            ("HTTP/1.0 404 \r\nA:\r\n\r\n", 404, &[("a", "")]),
            ("HTTP/1.1 200 OK\nA: b\n\n", 200, &[("a", "b")]),
            ("HTTP/1.1 599 \u{e9}\r\nA: 1\r\nA: 2\r\n\r\n", 599, &[("a", "1"), ("a", "2")]),
        ];
        for (bytes, status, want) in table {
            let (head, headers) = read(bytes.as_bytes()).unwrap().expect(bytes);
            assert_eq!(head.status, status, "{bytes:?}");
            let fields: Vec<_> =
                headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
            assert_eq!(fields, want, "{bytes:?}");
        }
    }

    #[test]
    fn a_head_byte_by_byte_is_the_same_head() {
        let whole = b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\n\r\nhi";
        let (mut reader, mut headers) = (HeadReader::default(), HeaderMap::new());
        let mut input = BytesMut::new();
        for (byte, left) in whole.iter().zip((0..whole.len()).rev()) {
            input.extend_from_slice(&[*byte]);
            let head = reader.take(&mut input, &mut Vec::new(), &mut headers).unwrap();
            assert_eq!(head.is_some(), left == 2, "{left} bytes left");
            if head.is_some() {
                break;
            }
        }
        assert_eq!(headers["a"], "b");
        assert!(input.is_empty());
    }

    #[test]
    fn heads_have_limits() {
        let fields = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert!(read(fields(MAX_FIELDS).as_bytes()).is_ok());
        assert!(read(fields(MAX_FIELDS + 1).as_bytes()).unwrap_err().contains("256"));

        let long = |size| format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(size));
        assert!(read(long(60_000).as_bytes()).unwrap().is_none());
        assert!(read(long(MAX_HEAD).as_bytes()).unwrap_err().contains("64 KiB"));
        let whole = long(MAX_HEAD) + "\r\n\r\n";
        assert!(read(whole.as_bytes()).unwrap_err().contains("64 KiB"));
    }
}
