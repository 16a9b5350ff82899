//! Redaction of secrets in request targets before they are logged.

use memchr::{memchr, memrchr};

use super::text::Escape;

/// Query parameters whose values are secrets or stand for one: those of OAuth 2.0, of
/// OpenID Connect and common ones of applications. Lower case.
const SECRET_PARAMETERS: [&[u8]; 13] = [
    b"access_token",
    b"api_key",
    b"client_assertion",
    b"client_secret",
    b"code",
    b"code_verifier",
    b"id_token",
    b"id_token_hint",
    b"password",
    b"refresh_token",
    b"session_state",
    b"state",
    b"token",
];
const LONGEST_PARAMETER: usize = 16;

const REDACTED: &[u8] = b"[redacted]";

/// Returns the first `most` bytes of a request target, its secrets replaced by `[redacted]`.
pub(crate) fn redacted_target(target: &str, most: usize) -> String {
    let mut out = Vec::with_capacity(target.len().min(most));
    let as_it_is: Escape = |out, bytes| out.extend_from_slice(bytes);
    self::target(&mut out, &target.as_bytes()[..target.len().min(most)], as_it_is);
    // The cut may be inside a multi-byte character.
    String::from_utf8_lossy(&out).into_owned()
}

/// Writes a request target; userinfo and the values of secret parameters become `[redacted]`.
pub(super) fn target(out: &mut Vec<u8>, target: &[u8], escape: Escape) {
    // Only the absolute form has userinfo. Its authority ends before the first `/` or `?`.
    let rest = match target.first() {
        Some(b'/') | None => target,
        Some(_) => {
            let scheme = find(target, b"://").map_or(0, |at| at + 3);
            let (before, after) = target.split_at(scheme);
            escape(out, before);
            let end = after.iter().position(|byte| matches!(byte, b'/' | b'?'));
            let (authority, path) = after.split_at(end.unwrap_or(after.len()));
            host(out, authority, escape);
            path
        }
    };
    match memchr(b'?', rest) {
        None => escape(out, rest),
        Some(at) => {
            let (path, query) = rest.split_at(at);
            escape(out, path);
            self::query(out, query, escape);
        }
    }
}

/// Writes a host; everything before the last `@` becomes `[redacted]`.
pub(super) fn host(out: &mut Vec<u8>, host: &[u8], escape: Escape) {
    match memrchr(b'@', host) {
        None => escape(out, host),
        Some(at) => {
            out.extend_from_slice(REDACTED);
            escape(out, &host[at..]);
        }
    }
}

/// Writes a query; the values of secret parameters become `[redacted]`.
///
/// A name may begin after `?`, `&` or `;`, since backends disagree on the separators. A value ends
/// only at `&`: for a backend that does not split at `;`, the text after it is part of the secret.
fn query(out: &mut Vec<u8>, query: &[u8], escape: Escape) {
    let mut rest = query;
    let mut plain_until = 0;
    while let Some(found) = rest[plain_until..].iter().position(|byte| *byte == b'=') {
        let equals = plain_until + found;
        let before = &rest[..equals];
        let name = before.iter().rposition(|byte| matches!(byte, b'?' | b'&' | b';'));
        plain_until = equals + 1;
        if is_secret(&before[name.map_or(0, |at| at + 1)..]) {
            escape(out, &rest[..plain_until]);
            out.extend_from_slice(REDACTED);
            let value = &rest[plain_until..];
            let end = value.iter().position(|byte| *byte == b'&').unwrap_or(value.len());
            rest = &value[end..];
            plain_until = 0;
        }
    }
    escape(out, rest);
}

fn is_secret(name: &[u8]) -> bool {
    let mut decoded = [0; LONGEST_PARAMETER];
    let Some(name) = decode(name, &mut decoded) else { return false };
    SECRET_PARAMETERS.iter().any(|secret| secret.eq_ignore_ascii_case(name))
}

/// Percent-decodes a name, as the backend does. Returns `None` if it is longer than every secret
/// parameter.
fn decode<'a>(name: &[u8], into: &'a mut [u8; LONGEST_PARAMETER]) -> Option<&'a [u8]> {
    let mut length = 0;
    let mut rest = name;
    while let Some((&first, mut after)) = rest.split_first() {
        let mut byte = first;
        if first == b'%'
            && let [high, low, others @ ..] = after
            && let (Some(high), Some(low)) = (nibble(*high), nibble(*low))
        {
            byte = high << 4 | low;
            after = others;
        }
        *into.get_mut(length)? = byte;
        length += 1;
        rest = after;
    }
    Some(&into[..length])
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::text;

    #[test]
    fn no_secret_of_a_target_is_written() {
        // (target, as logged)
        let table = [
            ("/a/b", "/a/b"),
            ("/token=x", "/token=x"),
            ("/a?b=c&d=e", "/a?b=c&d=e"),
            ("/a?", "/a?"),
            ("/cb?code=abc&state=def&x=1", "/cb?code=[redacted]&state=[redacted]&x=1"),
            ("/cb?x=1&access_token=abc", "/cb?x=1&access_token=[redacted]"),
            ("/cb?id_token=a.b.c", "/cb?id_token=[redacted]"),
            ("/cb?token=a&password=b", "/cb?token=[redacted]&password=[redacted]"),
            ("/cb?client_secret=a", "/cb?client_secret=[redacted]"),
            ("/cb?session_state=a", "/cb?session_state=[redacted]"),
            ("/cb?code=", "/cb?code=[redacted]"),
            ("/cb?code", "/cb?code"),
            ("/cb?barcode=7&code2=8", "/cb?barcode=7&code2=8"),
            // Names in another case, percent-encoded, after other separators.
            ("/cb?CODE=abc", "/cb?CODE=[redacted]"),
            ("/cb?c%6Fd%65=abc", "/cb?c%6Fd%65=[redacted]"),
            ("/cb?c%6=abc", "/cb?c%6=abc"),
            ("/cb?x=1;code=abc", "/cb?x=1;code=[redacted]"),
            ("/cb?x?code=abc", "/cb?x?code=[redacted]"),
            ("/cb?a&b&code=x", "/cb?a&b&code=[redacted]"),
            // Values with separators of other backends, and with another `=`.
            ("/cb?code=a;b=c&d=e", "/cb?code=[redacted]&d=e"),
            ("/cb?code=a=b==&d=e", "/cb?code=[redacted]&d=e"),
            ("/cb?x=y=code=a", "/cb?x=y=code=a"),
            // Userinfo.
            ("http://u:p@h.test/a?code=b", "http://[redacted]@h.test/a?code=[redacted]"),
            ("http://h.test/a@b", "http://h.test/a@b"),
            ("http://u:p@h.test?code=b", "http://[redacted]@h.test?code=[redacted]"),
            ("u:p@h.test:443", "[redacted]@h.test:443"),
            ("h.test:443", "h.test:443"),
            ("*", "*"),
            ("", ""),
        ];
        for (given, want) in table {
            let mut out = Vec::new();
            target(&mut out, given.as_bytes(), text::json);
            assert_eq!(String::from_utf8(out).unwrap(), want, "{given}");
        }
    }

    #[test]
    fn the_longest_name_fits_where_names_are_decoded() {
        assert!(SECRET_PARAMETERS.iter().all(|name| name.len() <= LONGEST_PARAMETER));
    }
}
