//! One spelling for every path, so that what a route decides on is what a backend gets.

use std::borrow::Cow;

/// The path in its one form: dot segments resolved, `//` merged, escapes of unreserved characters
/// decoded (RFC 3986 section 6.2.2). A `%2F` inside a segment stays as it is.
///
/// # Errors
///
/// A path that a backend might read otherwise than we do: see [`Ambiguous`].
pub(crate) fn normalise(path: &str) -> Result<Cow<'_, str>, Ambiguous> {
    if is_plain(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode_unreserved(path)?;
    let mut segments: Vec<&str> = Vec::new();
    let mut at_directory = false;
    for segment in decoded.split('/') {
        at_directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ if hides_dots(segment) => return Err(Ambiguous::HiddenDots),
            _ => segments.push(segment),
        }
    }
    let mut normal = String::with_capacity(decoded.len());
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if at_directory || normal.is_empty() {
        normal.push('/');
    }
    Ok(Cow::Owned(normal))
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ambiguous {
    /// No character of a URI (RFC 3986), and a slash to browsers and to Windows.
    #[error("backslash")]
    Backslash,
    /// `%` without two hexadecimal digits.
    #[error("broken percent-escape")]
    BrokenEscape,
    /// `%00`, `%0a` and the other control characters, which no file has in its name.
    #[error("escaped control character")]
    Control,
    /// `..%2F`, `..\`, `..;`: dots that a backend might resolve though they are no segment.
    #[error("dot segment beside an escaped separator")]
    HiddenDots,
}

/// True for a path that is already in its form, which nearly every path is.
fn is_plain(path: &[u8]) -> bool {
    let mut before = b'x';
    for &byte in path {
        if matches!(byte, b'%' | b'\\') || (before == b'/' && matches!(byte, b'/' | b'.')) {
            return false;
        }
        before = byte;
    }
    path.first() == Some(&b'/')
}

fn decode_unreserved(path: &str) -> Result<String, Ambiguous> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    if path.contains('\\') {
        return Err(Ambiguous::Backslash);
    }
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        let hex = rest.get(at + 1..at + 3).ok_or(Ambiguous::BrokenEscape)?;
        if !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(Ambiguous::BrokenEscape);
        }
        match u8::from_str_radix(hex, 16) {
            Ok(0..=0x1f | 0x7f) => return Err(Ambiguous::Control),
            Ok(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                decoded.push(char::from(byte));
            }
            _ => decoded.push_str(&rest[at..at + 3]),
        }
        rest = &rest[at + 3..];
    }
    decoded.push_str(rest);
    Ok(decoded)
}

/// True if some backend could find a dot segment in `segment`: behind `\`, `%2F`, `%5C`, or before
/// a `;` (path parameters, as Tomcat strips them).
fn hides_dots(segment: &str) -> bool {
    if !segment.contains(['\\', '%', ';']) {
        return false;
    }
    let lower = segment.to_ascii_lowercase();
    lower.replace("%2f", "\\").replace("%5c", "\\").split('\\').any(|part| {
        let name = part.split(';').next().unwrap_or_default();
        matches!(name, "." | "..") && (part.contains(';') || lower.contains(['\\', '%']))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_comes_to_one_form() {
        // (as sent, as routed and forwarded)
        let table = [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/a/../b", "/b"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/../../a", "/a"),
            ("/%2e%2e/a", "/a"),
            ("/a/%2E%2e/b", "/b"),
            ("//a///b", "/a/b"),
            ("/a//", "/a/"),
            ("/%61%7Eb", "/a~b"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%20b", "/a%20b"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a%5Cb", "/a%5Cb"),
        ];
        for (sent, want) in table {
            assert_eq!(normalise(sent).as_deref(), Ok(want), "{sent}");
        }
    }

    #[test]
    fn what_a_backend_could_read_otherwise_is_refused() {
        // (path, why)
        let table = [
            ("/a%00b", Ambiguous::Control),
            ("/a%0d%0aX:b", Ambiguous::Control),
            ("/a%7F", Ambiguous::Control),
            ("/a%zz", Ambiguous::BrokenEscape),
            ("/a%2", Ambiguous::BrokenEscape),
            ("/a%", Ambiguous::BrokenEscape),
            ("/..%2fetc", Ambiguous::HiddenDots),
            ("/a/..%5C..%5Cetc", Ambiguous::HiddenDots),
            ("/a/%2e%2e%2fetc", Ambiguous::HiddenDots),
            ("/..\\etc", Ambiguous::Backslash),
            ("/a\\b", Ambiguous::Backslash),
            ("/x%2f..", Ambiguous::HiddenDots),
            ("/..;/admin", Ambiguous::HiddenDots),
            ("/..;v=1/admin", Ambiguous::HiddenDots),
        ];
        for (path, want) in table {
            assert_eq!(normalise(path), Err(want), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_form_once_found_stays(path in "/([a./;%2fF5cCeE\\\\]{0,3}/?){0,4}") {
            if let Ok(normal) = normalise(&path) {
                prop_assert!(normal.starts_with('/'), "{}", normal);
                prop_assert!(!normal.contains("//"), "{}", normal);
                prop_assert!(normal.split('/').all(|s| s != "." && s != ".."), "{}", normal);
                let again = normalise(&normal);
                prop_assert_eq!(again.as_deref(), Ok(&*normal));
            }
        }
    }
}
