//! Regular expressions for paths, in the spelling of the paths of requests.

use std::borrow::Cow;

use crate::path;

/// Returns the pattern with its escapes as [`path::normalise`] writes them: `/caf%c3%a9` and
/// `/café` become `/caf%C3%A9`, `%7e` becomes `~`.
///
/// Only literal characters are respelled. Character classes are left unchanged: `%[a-f0-9]{2}`
/// matches no escape of a request, `%[A-F0-9]{2}` does.
pub(super) fn spelled(pattern: &str) -> Cow<'_, str> {
    if pattern.is_ascii() && !pattern.contains('%') {
        return Cow::Borrowed(pattern);
    }
    let mut spelled = String::with_capacity(pattern.len() + 8);
    let mut depth = 0_u32;
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\\' => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            '%' if depth == 0 => match path::escaped(rest.as_bytes()) {
                Some(byte) => {
                    literal(byte, &mut spelled);
                    rest = &rest[3..];
                    continue;
                }
                None => 1,
            },
            _ if depth == 0 && !first.is_ascii() => {
                // As a group, for a repetition that may follow: `é+`.
                spelled.push_str("(?:");
                first.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| literal(byte, &mut spelled));
                spelled.push(')');
                rest = &rest[first.len_utf8()..];
                continue;
            }
            '[' => {
                depth += 1;
                // A bracket that comes first in a class does not end it.
                let inside = rest[1..].strip_prefix('^').unwrap_or_else(|| &rest[1..]);
                rest.len() - inside.strip_prefix(']').unwrap_or(inside).len()
            }
            ']' => {
                depth = depth.saturating_sub(1);
                1
            }
            _ => first.len_utf8(),
        };
        spelled.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    Cow::Owned(spelled)
}

/// Writes one byte of a path: as a character if normalised paths have it as one, else as an escape.
fn literal(byte: u8, to: &mut String) {
    match byte {
        b'.' => to.push_str("\\."),
        byte if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) => to.push(char::from(byte)),
        byte => path::escape(byte, to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_the_spelling_of_paths() {
        // (as written, as it is compiled)
        let table = [
            ("/a/.*", "/a/.*"),
            ("/caf%c3%a9/.*", "/caf%C3%A9/.*"),
            ("/@[^/]+%2f[^/]+", "/@[^/]+%2F[^/]+"),
            ("/@[^/]+%2[fF][^/]+", "/@[^/]+%2[fF][^/]+"),
            ("/%7euser|/%41", "/~user|/A"),
            ("/a%2eb", "/a\\.b"),
            ("/a\\%2fb", "/a\\%2fb"),
            ("/[%c3]+%c3", "/[%c3]+%C3"),
            ("/[]%c3]%c3", "/[]%c3]%C3"),
            ("/[^]%c3]%c3", "/[^]%c3]%C3"),
            ("/[a[%c3]%c3]%c3", "/[a[%c3]%c3]%C3"),
            ("/\\[%c3]", "/\\[%C3]"),
            ("/100%", "/100%"),
            ("/%zz", "/%zz"),
            ("/café+", "/caf(?:%C3%A9)+"),
            ("/[é]", "/[é]"),
        ];
        for (written, want) in table {
            assert_eq!(spelled(written), want, "{written}");
            assert!(regex::Regex::new(want).is_ok(), "{want}");
        }
    }
}
