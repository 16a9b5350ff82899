//! The length of a request target in a head that hyper has refused.

/// Returns the length of the target in a request head, if the request line is complete.
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
