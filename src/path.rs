//! Request paths: normalisation, and the other readings of lenient backends.

use std::borrow::Cow;

/// Returns the path in normal form (RFC 3986 section 6.2.2): dot segments resolved, escapes of
/// unreserved characters decoded, the digits of all other escapes in upper case. In addition, `//`
/// is merged, and characters that are invalid in a URI are escaped. A `%2F` inside a segment stays
/// as it is.
///
/// # Errors
///
/// A path that a backend might read differently from the gateway: see [`Ambiguous`].
pub(crate) fn normalise(path: &str) -> Result<Cow<'_, str>, Ambiguous> {
    normalise_with(path, Empty::Merged)
}

/// Returns the path in the same form, but with `//` kept.
///
/// # Errors
///
/// As those of [`normalise`].
pub(crate) fn normalise_keeping_slashes(path: &str) -> Result<Cow<'_, str>, Ambiguous> {
    normalise_with(path, Empty::Kept)
}

/// Returns true if the path has an escaped `/` or `\`.
pub(crate) fn has_escaped_separator(path: &str) -> bool {
    path.as_bytes().windows(3).any(|three| matches!(escaped(three), Some(b'/' | b'\\')))
}

/// Returns the path with `/` in place of every escaped `/` and `\`.
pub(crate) fn unescape_separators(path: &str) -> String {
    let mut read = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        read.push_str(before);
        match escaped(from.as_bytes()) {
            Some(b'/' | b'\\') => {
                read.push('/');
                rest = &from[3..];
            }
            _ => {
                read.push('%');
                rest = &from[1..];
            }
        }
    }
    read.push_str(rest);
    read
}

fn normalise_with(path: &str, empty: Empty) -> Result<Cow<'_, str>, Ambiguous> {
    if is_plain(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let mut spelled = String::with_capacity(path.len());
    for piece in pieces(path) {
        match piece {
            Piece::Byte(b'\\') => return Err(Ambiguous::Backslash),
            Piece::Byte(b'%') => return Err(Ambiguous::BrokenEscape),
            Piece::Byte(..=b' ' | 0x7f) | Piece::Escape(0..=0x1f | 0x7f) => {
                return Err(Ambiguous::Control);
            }
            piece => piece.write(&mut spelled),
        }
    }
    if spelled.split('/').any(hides_dots) {
        return Err(Ambiguous::HiddenDots);
    }
    Ok(Cow::Owned(resolve(&spelled, empty)))
}

/// Returns a configured path in normal form. It may be empty, and `//` is kept. Invalid escapes and
/// invalid characters stay as they are.
pub(crate) fn settle(path: &str) -> String {
    let spelled = spell(path);
    if spelled.is_empty() { spelled } else { resolve(&spelled, Empty::Kept) }
}

/// Normalises escapes and characters of `path`; its segments stay as they are.
pub(crate) fn spell(path: &str) -> String {
    let mut spelled = String::with_capacity(path.len());
    for piece in pieces(path) {
        match piece {
            Piece::Byte(b'%') => spelled.push('%'),
            piece => piece.write(&mut spelled),
        }
    }
    spelled
}

/// The reason why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ambiguous {
    /// Not valid in a URI (RFC 3986), but a slash to browsers and to Windows.
    #[error("backslash")]
    Backslash,
    /// `%` without two hexadecimal digits.
    #[error("broken percent-escape")]
    BrokenEscape,
    /// `%00`, `%0a` and the other control characters, which no file has in its name.
    #[error("escaped control character")]
    Control,
    /// `%2F` or `%5C`, on a listener that refuses them.
    #[error("escaped separator")]
    EscapedSeparator,
    /// `..%2F`, `..\`, `..;`: dots that a backend might resolve though they are not a segment.
    #[error("dot segment beside an escaped separator")]
    HiddenDots,
    /// A different reading of the path by some backends matches another rule: see
    /// [`other_readings`].
    #[error("another rule for another reading")]
    OtherRule,
}

/// Returns the readings of a normalised path by lenient backends that differ from it.
///
/// Such backends drop parameters (`;v=1`, as servlet containers do), decode escapes of `/` and `\`,
/// once or twice, in either order, and merge the empty segments and resolve the dot segments that
/// result. Nothing is allocated for a path without `;` and `%`.
pub(crate) fn other_readings(path: &str) -> Vec<String> {
    let mut found = Vec::new();
    if memchr::memchr2(b';', b'%', path.as_bytes()).is_some() {
        for separators in [&["%2F", "%5C"][..], &["%2F"]] {
            read_on(path, separators, TWICE, true, &mut found);
        }
        found.retain(|reading| reading != path);
    }
    found
}

/// The number of times that a lenient backend decodes.
const TWICE: u8 = 2;

/// Adds the further readings of `path`: decoded up to `decodings` times, and without parameters.
fn read_on(
    path: &str,
    separators: &[&str],
    decodings: u8,
    has_parameters: bool,
    found: &mut Vec<String>,
) {
    let decoded = if decodings > 0 { decode_separators(path, separators) } else { None };
    if let Some(read) = decoded {
        add(&read, found);
        read_on(&read, separators, decodings - 1, has_parameters, found);
    }
    let dropped = if has_parameters { drop_parameters(path) } else { None };
    if let Some(read) = dropped {
        add(&read, found);
        read_on(&read, separators, decodings, false, found);
    }
}

fn add(read: &str, found: &mut Vec<String>) {
    let resolved = resolve(read, Empty::Merged);
    if !found.contains(&resolved) {
        found.push(resolved);
    }
}

/// Decodes escapes of separators, and of dots that were escaped twice; `None` if there are none.
fn decode_separators(path: &str, separators: &[&str]) -> Option<String> {
    let mut decoded = String::with_capacity(path.len());
    let (mut rest, mut changed) = (path, false);
    while let Some(at) = memchr::memchr(b'%', rest.as_bytes()) {
        decoded.push_str(&rest[..at]);
        let (escape, behind) = rest[at..].split_at_checked(3).unwrap_or_else(|| (&rest[at..], ""));
        rest = behind;
        // `%252F` becomes `%2F`.
        let inner = behind.get(..2).filter(|_| escape == "%25").map(str::to_ascii_uppercase);
        match inner.filter(|digits| matches!(&**digits, "2E" | "2F" | "5C")) {
            Some(digits) => {
                decoded.push('%');
                decoded.push_str(&digits);
                rest = &behind[2..];
            }
            None if separators.contains(&escape) => decoded.push('/'),
            None if escape == "%2E" => decoded.push('.'),
            None => {
                decoded.push_str(escape);
                continue;
            }
        }
        changed = true;
    }
    decoded.push_str(rest);
    changed.then_some(decoded)
}

/// Returns the segments without their parameters (from the first `;` on); `None` if there is no
/// `;`.
fn drop_parameters(path: &str) -> Option<String> {
    path.contains(';').then(|| {
        let names = path.split('/').map(|part| part.split(';').next().unwrap_or_default());
        names.collect::<Vec<_>>().join("/")
    })
}

/// True for a path that is already in normal form, which nearly every path is.
fn is_plain(path: &[u8]) -> bool {
    let mut before = b'x';
    for &byte in path {
        if !is_path_byte(byte) || (before == b'/' && matches!(byte, b'/' | b'.')) {
            return false;
        }
        before = byte;
    }
    path.first() == Some(&b'/')
}

/// True for `pchar` of RFC 3986 section 3.3 except for escapes, and for `/`.
fn is_path_byte(byte: u8) -> bool {
    matches!(byte,
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~'
        | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        | b':' | b'@' | b'/')
}

/// A part of a path as written.
#[derive(Clone, Copy, Debug)]
enum Piece {
    /// A literal byte. A `%` does not begin a valid escape.
    Byte(u8),
    /// `%XX`
    Escape(u8),
}

impl Piece {
    /// Writes it in normal form.
    fn write(self, to: &mut String) {
        match self {
            Self::Escape(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                to.push(char::from(byte));
            }
            Self::Byte(byte) if is_path_byte(byte) => to.push(char::from(byte)),
            Self::Byte(byte) | Self::Escape(byte) => escape(byte, to),
        }
    }
}

/// Writes `%XX`.
pub(crate) fn escape(byte: u8, to: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    to.push('%');
    to.push(char::from(HEX[usize::from(byte >> 4)]));
    to.push(char::from(HEX[usize::from(byte & 0xf)]));
}

/// Returns the byte of the escape that `text` begins with.
pub(crate) fn escaped(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(*high)? << 4 | digit(*low)?)
}

fn pieces(path: &str) -> impl Iterator<Item = Piece> {
    let mut rest = path.as_bytes();
    std::iter::from_fn(move || {
        let &first = rest.first()?;
        let (piece, length) = match escaped(rest) {
            Some(byte) => (Piece::Escape(byte), 3),
            None => (Piece::Byte(first), 1),
        };
        rest = &rest[length..];
        Some(piece)
    })
}

/// The treatment of empty segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Empty {
    Kept,
    Merged,
}

/// Resolves dot segments (RFC 3986 section 5.2.4). The result begins with `/`.
fn resolve(path: &str, empty: Empty) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut at_directory = false;
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        at_directory = matches!(segment, "" | "." | "..");
        match segment {
            "." => {}
            "" if empty == Empty::Merged => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    // A kept empty last segment is the slash at the end.
    if at_directory && segments.last() == Some(&"") {
        segments.pop();
    }
    let mut resolved = String::with_capacity(path.len() + 1);
    for segment in &segments {
        resolved.push('/');
        resolved.push_str(segment);
    }
    if at_directory || resolved.is_empty() {
        resolved.push('/');
    }
    resolved
}

/// True if some backend could find a dot segment in `segment`: after `\`, `%2F`, `%5C`, or before a
/// `;` (path parameters, as Tomcat strips them).
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
            ("/a%2fb", "/a%2Fb"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/caf%C3%a9", "/caf%C3%A9"),
            ("/café", "/caf%C3%A9"),
            ("/a%2bb", "/a%2Bb"),
            ("/a+b", "/a+b"),
            ("/a%20b", "/a%20b"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a%5cb", "/a%5Cb"),
            ("/a[1]{b}|\"^`<>", "/a%5B1%5D%7Bb%7D%7C%22%5E%60%3C%3E"),
            ("/a%5b1%5d", "/a%5B1%5D"),
            ("/!$&'()*+,;=:@-._~", "/!$&'()*+,;=:@-._~"),
            ("/%252f", "/%252f"),
        ];
        for (sent, want) in table {
            assert_eq!(normalise(sent).as_deref(), Ok(want), "{sent}");
        }
    }

    #[test]
    fn slashes_are_kept_and_separators_unescaped_on_request() {
        // (as sent, with slashes kept)
        let table = [
            ("/a//b", "/a//b"),
            ("//a/", "//a/"),
            ("/a//../b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../..//a", "//a"),
        ];
        for (sent, want) in table {
            assert_eq!(normalise_keeping_slashes(sent).as_deref(), Ok(want), "{sent}");
        }
        // (as sent, unescaped)
        let table = [
            ("/a%2Fb%2fc", "/a/b/c"),
            ("/a%5Cb%5c", "/a/b/"),
            ("/a%252Fb%20%", "/a%252Fb%20%"),
            ("/caf%C3%A9%2F", "/caf%C3%A9/"),
            ("/é%2F%2", "/é/%2"),
        ];
        for (sent, want) in table {
            assert_eq!(unescape_separators(sent), want, "{sent}");
            assert_eq!(has_escaped_separator(sent), sent != want, "{sent}");
        }
    }

    #[test]
    fn what_a_backend_could_read_otherwise_is_refused() {
        // (path, why)
        let table = [
            ("/a%00b", Ambiguous::Control),
            ("/a%0d%0aX:b", Ambiguous::Control),
            ("/a%7F", Ambiguous::Control),
            ("/a\u{7f}", Ambiguous::Control),
            ("/a b", Ambiguous::Control),
            ("/a%zz", Ambiguous::BrokenEscape),
            ("/a%2", Ambiguous::BrokenEscape),
            ("/a%", Ambiguous::BrokenEscape),
            ("/a%é", Ambiguous::BrokenEscape),
            ("/a%+1", Ambiguous::BrokenEscape),
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

    #[test]
    fn a_configured_path_keeps_its_empty_segments() {
        // (as written, as used)
        let table = [
            ("", ""),
            ("/", "/"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/%7euser", "/~user"),
            ("/café", "/caf%C3%A9"),
            ("/web/2020/http://a.test/", "/web/2020/http://a.test/"),
            ("//a", "//a"),
            ("/a//", "/a//"),
            ("/a/../b/./c", "/b/c"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/..", "/"),
            ("/a%zz%", "/a%zz%"),
            ("/a\\b", "/a%5Cb"),
            ("a/b", "/a/b"),
        ];
        for (written, want) in table {
            assert_eq!(settle(written), want, "{written}");
        }
    }

    #[test]
    fn a_path_may_be_read_in_other_ways() {
        // (path, readings)
        let table: [(&str, &[&str]); 17] = [
            ("/", &[]),
            ("/a/b", &[]),
            ("/a%20b", &[]),
            ("/%C3%A9", &[]),
            ("/%252561", &[]),
            ("/;/a", &["/a"]),
            ("/a;v=1/b", &["/a/b"]),
            ("/a/b;", &["/a/b"]),
            ("/%2Fa", &["/a"]),
            ("/a%2Fb", &["/a/b"]),
            ("/a%5Cb", &["/a/b"]),
            ("/a%252fb", &["/a%2Fb", "/a/b"]),
            ("/a%255Cb", &["/a%5Cb", "/a/b"]),
            ("/x/%252e%252e/a", &["/x/%2E%2E/a", "/a"]),
            ("/a;b%2Fc", &["/a;b/c", "/a/c", "/a"]),
            ("/a%5Cb%2Fc", &["/a/b/c", "/a%5Cb/c"]),
            ("/a%", &[]),
        ];
        for (path, want) in table {
            assert_eq!(other_readings(path), want, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_form_once_found_stays(path in "/([a./;%2fF5cCeEé\\[\\\\]{0,3}/?){0,4}") {
            if let Ok(normal) = normalise(&path) {
                prop_assert!(normal.starts_with('/'), "{}", normal);
                prop_assert!(!normal.contains("//"), "{}", normal);
                prop_assert!(normal.is_ascii(), "{}", normal);
                prop_assert!(normal.split('/').all(|s| s != "." && s != ".."), "{}", normal);
                let again = normalise(&normal);
                prop_assert_eq!(again.as_deref(), Ok(&*normal));
                prop_assert_eq!(settle(&normal), &*normal);
                for reading in other_readings(&normal) {
                    prop_assert!(reading.starts_with('/') && !reading.contains("//"), "{}", reading);
                    prop_assert!(reading != *normal, "{}", reading);
                }
            }
        }

        #[test]
        fn the_case_of_digits_makes_no_difference(path in "/([a%2fF5cCeEé]{0,3}/?){0,4}") {
            let upper = normalise(&path).map(Cow::into_owned);
            let mut other = String::new();
            let mut digits = 0;
            for letter in path.chars() {
                let in_escape = digits > 0;
                digits = if letter == '%' { 2 } else { i32::max(digits - 1, 0) };
                other.push(if in_escape { letter.to_ascii_lowercase() } else { letter });
            }
            prop_assert_eq!(normalise(&other).map(Cow::into_owned), upper);
        }
    }
}
