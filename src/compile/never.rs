//! Matches that no request can meet, because the header or method is removed or rewritten before
//! routing.
//!
//! `proxy::guard` and `proxy::forwarded` do that; a test there checks that this file agrees with
//! them.

use http::HeaderName;

use crate::api::{HttpMethod, MatchType};

use super::matches;

/// Header fields that are removed from every request before routing (RFC 9110 section 7.6.1, and
/// `Expect`, which the gateway answers itself).
pub(crate) const REMOVED: [&str; 9] = [
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "trailer",
    "transfer-encoding",
];

/// Header fields of which only one value is kept: the name, that value, and the requests that keep
/// it.
pub(crate) const REDUCED: [(&str, &str, &str); 2] =
    [("connection", "upgrade", "in a WebSocket handshake"), ("te", "trailers", "where it says so")];

/// The `X-Forwarded-*` headers that the gateway sets itself; others are removed unless a trusted
/// proxy sent them.
const FORWARDED: [&str; 4] =
    ["x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto"];

/// Returns the reason why no request meets a header match, if none can. `trusts_proxies` means that
/// some peers may send `X-Forwarded-*` and similar headers.
pub(super) fn header(
    kind: &MatchType,
    name: &str,
    value: &str,
    trusts_proxies: bool,
) -> Option<String> {
    // An invalid name is a fault, reported elsewhere.
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    let name = name.as_str();
    let can_be = |text: &str| match kind {
        MatchType::Exact => value == text,
        MatchType::RegularExpression => {
            matches::whole(value).is_ok_and(|pattern| pattern.is_match(text))
        }
        MatchType::Unknown(_) => true,
    };
    if let Some(why) = field_name(name) {
        return Some(format!("this never matches: {why}"));
    }
    if let Some((_, left, whence)) = REDUCED.iter().find(|(reduced, ..)| *reduced == name) {
        return (!can_be(left)).then(|| {
            format!(
                "this never matches: of `{name}` only `{left}` is left, {whence}, before requests \
                 are routed"
            )
        });
    }
    if *kind == MatchType::Exact && value.trim_matches([' ', '\t']) != value {
        let problem = "this never matches: white space around a value is not part of it; remove it";
        return Some(problem.into());
    }
    if trusts_proxies {
        return None;
    }
    let is_removed = matches!(name, "forwarded" | "x-real-ip")
        || name.starts_with("x-forwarded-") && !FORWARDED.contains(&name);
    if is_removed {
        return Some(format!(
            "this never matches: `{name}` is removed before requests are routed, unless a proxy in \
             `--trusted-proxies` sent it"
        ));
    }
    let is_set_otherwise = match name {
        "x-forwarded-proto" => !can_be("http") && !can_be("https"),
        "x-request-id" => *kind == MatchType::Exact,
        _ => false,
    };
    is_set_otherwise.then(|| {
        format!(
            "this never matches: the gateway sets `{name}` itself, unless a proxy in \
             `--trusted-proxies` sent it"
        )
    })
}

/// Returns the reason why no request has a header field of this name when it is routed.
pub(super) fn field_name(name: &str) -> Option<String> {
    if name.contains('_') {
        return Some(format!(
            "header fields with `_` in their names are removed before requests are routed, since \
             some backends read them as others; use `{}`",
            name.replace('_', "-")
        ));
    }
    REMOVED.contains(&name).then(|| {
        format!("`{name}` is for one connection alone, and removed before requests are routed")
    })
}

/// Returns the reason why no request has this method when it is routed.
pub(super) fn method(method: &HttpMethod) -> Option<&'static str> {
    match method.as_str() {
        "TRACE" => Some("this never matches: TRACE is answered with 405 before routing"),
        "CONNECT" => Some(
            "this never matches: CONNECT is answered with 405 before routing, and a WebSocket over \
             HTTP/2 is routed as GET",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_that_no_request_meets_says_so() {
        let regex = MatchType::RegularExpression;
        let exact = MatchType::Exact;
        // (type, name, value, never, never with trusted proxies)
        let table = [
            (&exact, "api_key", "x", true, true),
            (&exact, "api-key", "x", false, false),
            (&exact, "Keep-Alive", "timeout=5", true, true),
            (&exact, "Transfer-Encoding", "chunked", true, true),
            (&exact, "Expect", "100-continue", true, true),
            (&exact, "Connection", "upgrade", false, false),
            (&exact, "Connection", "Upgrade", true, true),
            (&regex, "Connection", "(?i).*upgrade.*", false, false),
            (&exact, "Upgrade", "websocket", false, false),
            (&exact, "TE", "trailers", false, false),
            (&regex, "TE", "gzip", true, true),
            (&exact, "X-A", " a", true, true),
            (&regex, "X-A", " a", false, false),
            (&exact, "Host", "a.test", false, false),
            (&exact, "Forwarded", "for=x", true, false),
            (&regex, "X-Real-IP", ".*", true, false),
            (&exact, "X-Forwarded-Proto", "https", false, false),
            (&exact, "X-Forwarded-Proto", "HTTPS", true, false),
            (&exact, "X-Forwarded-For", "192.0.2.1", false, false),
            (&exact, "X-Forwarded-Prefix", "/a", true, false),
            (&exact, "X-Request-Id", "1", true, false),
            (&regex, "X-Request-Id", "1.*", false, false),
            (&exact, ":path", "/", false, false),
        ];
        for (kind, name, value, never, trusting) in table {
            for (trusts, want) in [(false, never), (true, trusting)] {
                let got = header(kind, name, value, trusts);
                assert_eq!(got.is_some(), want, "{name}: {value}, {trusts}: {got:?}");
            }
        }
        assert!(field_name("api_key").unwrap().ends_with("use `api-key`"));
    }
}
