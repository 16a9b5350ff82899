//! The length of a request target, before hyper has the whole of it.
//!
//! hyper keeps a head until it is complete or too large, and answers one that is too large with 431,
//! whatever made it so. A target that is too long is to be answered 414 (RFC 9110 section 15.5.15),
//! so its length is counted on its way to hyper.

/// Reads the request line of one head, in whatever pieces it comes.
#[derive(Debug, Default)]
pub(super) struct TargetScan {
    part: Part,
    /// Bytes of the target so far.
    length: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    /// Empty lines before the request line, which hyper passes over.
    #[default]
    Start,
    Method,
    Target,
    Behind,
}

impl TargetScan {
    /// Reads on. `Some` if the target is longer than `limit`: so many of `bytes` are before or within
    /// the limit.
    pub(super) fn read(&mut self, bytes: &[u8], limit: usize) -> Option<usize> {
        let mut at = 0;
        while self.part != Part::Behind && at < bytes.len() {
            let rest = &bytes[at..];
            match (self.part, rest[0]) {
                (Part::Start, b'\r' | b'\n') => at += 1,
                (Part::Start, _) => self.part = Part::Method,
                (Part::Target, _) => {
                    let end = memchr::memchr3(b' ', b'\r', b'\n', rest).unwrap_or(rest.len());
                    if self.length + end > limit {
                        return Some(at + limit.saturating_sub(self.length));
                    }
                    self.length += end;
                    at += end;
                    if end < rest.len() {
                        self.part = Part::Behind;
                    }
                }
                _ => match memchr::memchr2(b' ', b'\n', rest) {
                    Some(end) => {
                        self.part = if rest[end] == b' ' { Part::Target } else { Part::Behind };
                        at += end + 1;
                    }
                    None => at = bytes.len(),
                },
            }
        }
        None
    }
}

/// The length of the target that a head begins with, where its request line is complete.
pub(super) fn target_length(head: &[u8]) -> Option<usize> {
    let start = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let line = head[start..].split(|byte| *byte == b'\n').next()?;
    if start + line.len() == head.len() {
        return None;
    }
    let mut parts = line.split(|byte| *byte == b' ');
    parts.nth(1).map(<[u8]>::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_counted_however_it_comes() {
        // (bytes, how many of them are within a limit of 4)
        let table = [
            ("GET /abc HTTP/1.1\r\n\r\n", None),
            ("GET /abcd HTTP/1.1\r\n\r\n", Some(8)),
            ("GET /abcdefgh", Some(8)),
            ("GET /abc", None),
            ("\r\n\r\nGET /abcd HTTP/1.1\r\n", Some(12)),
            ("PROPFIND /abcd", Some(13)),
            ("GET /\r\nX: abcdefgh\r\n\r\n", None),
            ("GET / HTTP/1.1\r\nX: a bcdefgh ijklmn\r\n\r\n", None),
            ("A-METHOD-THAT-IS-LONG\r\n\r\n", None),
            ("", None),
        ];
        for (bytes, want) in table {
            let bytes = bytes.as_bytes();
            assert_eq!(TargetScan::default().read(bytes, 4), want, "{bytes:?}");
            let mut scan = TargetScan::default();
            let found = bytes
                .chunks(1)
                .enumerate()
                .find_map(|(place, byte)| scan.read(byte, 4).map(|within| place + within));
            assert_eq!(found, want, "byte by byte: {bytes:?}");
        }
    }

    #[test]
    fn only_a_whole_request_line_has_a_length() {
        let table: [(&str, _); 5] = [
            ("GET /abc HTTP/1.1\r\nHost: a", Some(4)),
            ("\r\nGET /abc HTTP/1.1\r\n", Some(4)),
            ("GET /abc", None),
            ("GET\r\n", None),
            ("", None),
        ];
        for (head, want) in table {
            assert_eq!(target_length(head.as_bytes()), want, "{head:?}");
        }
    }
}
