//! Which requests say their length twice.
//!
//! RFC 9112 section 6.1: `Content-Length` beside `Transfer-Encoding` is likely an attack. hyper
//! takes the coding, drops the length and shows neither; that is safe, but the client should hear
//! 400 and not an answer. So the names of a head's fields are read here too, on their way to hyper.

/// Reads the field names of one head after the other, in whatever pieces they come.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// The line's name so far, where it can still be one of the two.
    name: [u8; LONGEST],
    length: usize,
    /// Behind the name, up to the end of the line.
    in_value: bool,
    has_length: bool,
    has_coding: bool,
    ended: bool,
}

const CODING: &[u8] = b"transfer-encoding";
const LENGTH: &[u8] = b"content-length";
const LONGEST: usize = CODING.len() + 1;

impl HeadScan {
    /// Reads on. True once the head has shown both fields; bytes behind its end are a body's.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> bool {
        while !self.ended {
            if self.in_value {
                let Some(end) = memchr::memchr(b'\n', bytes) else { return false };
                bytes = &bytes[end + 1..];
                (self.in_value, self.length) = (false, 0);
            }
            let Some((&byte, rest)) = bytes.split_first() else { return false };
            bytes = rest;
            match byte {
                b'\n' if self.length == 0 => self.ended = true,
                b'\n' => self.length = 0,
                b'\r' => {}
                b':' | b' ' | b'\t' => self.end_name(),
                _ if self.length == LONGEST => self.in_value = true,
                _ => {
                    self.name[self.length] = byte;
                    self.length += 1;
                }
            }
        }
        self.has_length && self.has_coding
    }

    fn end_name(&mut self) {
        let name = &self.name[..self.length];
        self.has_coding |= name.eq_ignore_ascii_case(CODING);
        self.has_length |= name.eq_ignore_ascii_case(LENGTH);
        self.in_value = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_fields_in_one_head_are_seen_however_they_come() {
        let head = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        // (bytes, says its length twice)
        let table = [
            (head("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), true),
            (head("TRANSFER-ENCODING : chunked\r\ncontent-length:5\r\n"), true),
            (head("Content-Length: 5\n").replace('\r', ""), false),
            (head("Transfer-Encoding: chunked\r\n"), false),
            (head("X-Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), false),
            (head("Transfer-Encoding-X: chunked\r\nContent-Length: 5\r\n"), false),
            (head("X: Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), false),
            (head("Content-Length: 60\r\n") + "a\r\nTransfer-Encoding: chunked\r\n\r\n", false),
        ];
        for (bytes, want) in table {
            assert_eq!(HeadScan::default().read(bytes.as_bytes()), want, "{bytes}");
            let mut scan = HeadScan::default();
            let found = bytes.as_bytes().chunks(1).fold(false, |_, byte| scan.read(byte));
            assert_eq!(found, want, "byte by byte: {bytes}");
        }
    }
}
