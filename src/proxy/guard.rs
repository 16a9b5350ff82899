//! Request validation before routing: refuses requests that the gateway and a backend could
//! interpret differently.
//!
//! hyper has already checked the framing (hyper `proto/h1/role.rs`): it refuses differing or
//! malformed lengths, unknown codings, and `Transfer-Encoding` in HTTP/1.0. If a request has both
//! `Transfer-Encoding` and `Content-Length`, hyper keeps the former and closes the connection. This
//! module checks the rest, field by field.

use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST, TRANSFER_ENCODING};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Method, request};

use crate::failure::Failure;
use crate::filters::HostName;
use crate::filters::exchange::path_of;
use crate::path::{self, Ambiguous};
use crate::proxy::client_protocol::ClientProtocol;
use crate::proxy::hop_by_hop::{Upgrade, settle_connection, tokens};
use crate::proxy::noted_fields::{Noted, NotedFields};
use crate::snapshot::{ClientLimits, ClientPolicy, EscapedSlashes, Underscores};

/// An admitted request's host and upgrade.
#[derive(Debug)]
pub(super) struct Admitted {
    pub host: HostName,
    /// The `Host` field or `:authority` as the client sent it.
    pub host_field: HeaderValue,
    pub upgrade: Option<Upgrade>,
    /// True if escaped separators of the path were read as `/`.
    pub is_unescaped: bool,
}

/// Maximum length of a method in bytes; a longer one is answered with 501 (RFC 9112 section 3). The
/// longest registered method has 17 bytes.
const LONGEST_METHOD: usize = 32;

/// Validates a request head and removes the fields that must not be forwarded. `fields` are the
/// notes of this head; `policy` is that of
/// the listener.
///
/// # Errors
///
/// Returns the failure to answer with. No part of the request may be forwarded then.
pub(super) fn admit(
    head: &mut request::Parts,
    fields: NotedFields,
    limits: &ClientLimits,
    policy: Option<&ClientPolicy>,
) -> Result<Admitted, Failure> {
    let underscores = policy.map_or(Underscores::Dropped, |policy| policy.underscores);
    if underscores == Underscores::Refused && fields.has(Noted::Underscore) {
        return Err(Failure::UnderscoreInName);
    }
    // Done first, so that a `Cookie` that HTTP/2 has split counts as one field.
    if fields.repeats(Noted::Cookie) {
        join_cookies(&mut head.headers);
    }
    if head.headers.len() > limits.head_fields {
        return Err(Failure::TooManyFields);
    }
    if head.method.as_str().len() > LONGEST_METHOD {
        return Err(Failure::MethodTooLong);
    }
    let extended_connect = check_method(head)?;
    check_form(head)?;
    let (host, host_field) = take_host(head, fields)?;
    let is_unescaped = settle_target(head, limits, policy)?;
    if fields.has(Noted::TransferEncoding) {
        check_coding(&head.headers)?;
    }
    if fields.has(Noted::ContentLength) {
        settle_length(&mut head.headers)?;
    }
    let upgrade = settle_connection(head, fields, limits, underscores);
    if fields.has(Noted::Expect) {
        settle_expect(&mut head.headers)?;
    }
    let upgrade = if extended_connect { Some(Upgrade::Http2) } else { upgrade };
    Ok(Admitted { host, host_field, upgrade, is_unescaped })
}

/// Admits a request head, changes it to the form that routes see, and returns its host.
///
/// # Errors
///
/// Returns the reason why no route may see the request.
pub(crate) fn admitted_host(
    head: &mut request::Parts,
    limits: &ClientLimits,
    policy: Option<&ClientPolicy>,
) -> Result<HostName, Failure> {
    admit(head, NotedFields::of(&head.headers), limits, policy).map(|admitted| admitted.host)
}

/// Checks the host and returns it with its field. A request has one `Host`, with a valid host (RFC
/// 9112 section 3.2). If the target has an authority, the authority takes precedence; HTTP/1.1
/// requires `Host` nevertheless, and in HTTP/2 the two must agree (RFC 9113 section 8.3.1).
fn take_host(
    head: &mut request::Parts,
    fields: NotedFields,
) -> Result<(HostName, HeaderValue), Failure> {
    if fields.repeats(Noted::Host) {
        return Err(Failure::BadHost);
    }
    let field = if fields.has(Noted::Host) { head.headers.get(HOST).cloned() } else { None };
    let field = match (head.uri.authority(), field) {
        (Some(authority), field) => {
            let authority =
                HeaderValue::from_str(authority.as_str()).map_err(|_| Failure::BadHost)?;
            let protocol = ClientProtocol::of(head.version);
            let agrees = match &field {
                None => !protocol.needs_host_field(),
                Some(field) if protocol.has_pseudo_fields() => {
                    field.as_bytes().eq_ignore_ascii_case(authority.as_bytes())
                }
                Some(field) => HostName::parse(field).is_some(),
            };
            if !agrees {
                return Err(Failure::BadHost);
            }
            head.headers.insert(HOST, authority.clone());
            authority
        }
        (None, Some(field)) => field,
        (None, None) => return Err(Failure::BadHost),
    };
    let host = HostName::parse(&field).ok_or(Failure::BadHost)?;
    Ok((host, field))
}

/// Checks the form of the target: authority-form is allowed for CONNECT only (RFC 9112 section
/// 3.2.3), and the scheme must be `http` or `https`. `GET abc` has neither a host nor a path,
/// although the URI parser reads `abc` as a host.
fn check_form(head: &request::Parts) -> Result<(), Failure> {
    let (scheme, method) = (head.uri.scheme_str(), &head.method);
    let host_alone = scheme.is_none() && head.uri.authority().is_some();
    if host_alone && method != Method::CONNECT || !matches!(scheme, None | Some("http" | "https")) {
        return Err(Failure::BadTarget);
    }
    Ok(())
}

/// Returns true for an extended CONNECT to WebSocket, the only kind of CONNECT that is served.
fn check_method(head: &request::Parts) -> Result<bool, Failure> {
    if head.method == Method::CONNECT {
        let protocol = head.extensions.get::<hyper::ext::Protocol>();
        return match protocol {
            Some(protocol) if protocol.as_str() == "websocket" => Ok(true),
            _ => Err(Failure::MethodNotServed),
        };
    }
    if head.method == Method::TRACE {
        return Err(Failure::MethodNotServed);
    }
    Ok(false)
}

/// Refuses transfer codings other than `chunked` (RFC 9112 section 7). hyper decodes chunks only
/// and checks the last coding only, so a compressed body would be forwarded as if it were not
/// compressed.
fn check_coding(headers: &HeaderMap) -> Result<(), Failure> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(first) = codings.next() else { return Ok(()) };
    if codings.next().is_none() && first.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let known = ["br", "compress", "deflate", "gzip", "identity", "x-compress", "x-gzip"];
    let is_known =
        |token: &[u8]| known.iter().any(|known| token.eq_ignore_ascii_case(known.as_bytes()));
    Err(if tokens(headers, &TRANSFER_ENCODING).any(is_known) {
        Failure::CodingUnknown
    } else {
        Failure::RequestBodyBroken
    })
}

/// Rewrites the target to origin-form, with its path in the normal form that is routed and
/// forwarded. Returns true if escaped separators were read as `/`.
fn settle_target(
    head: &mut request::Parts,
    limits: &ClientLimits,
    policy: Option<&ClientPolicy>,
) -> Result<bool, Failure> {
    let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if target.len() > limits.target_bytes {
        return Err(Failure::TargetTooLong);
    }
    if target == "*" {
        return if head.method == Method::OPTIONS { Ok(false) } else { Err(Failure::BadTarget) };
    }
    // `:path` begins with `/` (RFC 9113 section 8.3.1). Only a URL may have a query without a path.
    let is_url =
        head.uri.authority().is_some() && !ClientProtocol::of(head.version).has_pseudo_fields();
    if target.starts_with('?') && !is_url {
        return Err(Failure::BadTarget);
    }
    let written = path_of(&head.uri);
    if !written.starts_with('/') {
        return Err(Failure::BadTarget);
    }
    let unescaped = match policy {
        Some(policy) => unescaped(written, policy)?,
        None => None,
    };
    let read = unescaped.as_deref().unwrap_or(written);
    let normal = match policy.is_some_and(|policy| policy.keeps_slashes) {
        true => path::normalise_keeping_slashes(read),
        false => path::normalise(read),
    };
    let normal = normal.map_err(Failure::AmbiguousPath)?;
    if *normal == *written && head.uri.authority().is_none() {
        return Ok(false);
    }
    let target = match head.uri.query() {
        Some(query) => format!("{normal}?{query}"),
        None => normal.into_owned(),
    };
    let target = PathAndQuery::try_from(target).map_err(|_| Failure::BadTarget)?;
    let is_unescaped = unescaped.is_some();
    head.uri = Uri::from(target);
    Ok(is_unescaped)
}

/// Returns the path with `/` for escaped separators; `None` if it has none, or keeps them.
fn unescaped(path: &str, policy: &ClientPolicy) -> Result<Option<String>, Failure> {
    if policy.escaped_slashes == EscapedSlashes::Kept || !path::has_escaped_separator(path) {
        return Ok(None);
    }
    match policy.escaped_slashes {
        EscapedSlashes::Refused => Err(Failure::AmbiguousPath(Ambiguous::EscapedSeparator)),
        _ => Ok(Some(path::unescape_separators(path))),
    }
}

/// Checks `Expect` and removes it. `Expect` is a list, and `100-continue` is its only known member
/// (RFC 9110 section 10.1.1). hyper sends 100 when the body is first read, so the field is not
/// forwarded.
fn settle_expect(headers: &mut HeaderMap) -> Result<(), Failure> {
    let is_known = |expectation: &[u8]| expectation.eq_ignore_ascii_case(b"100-continue");
    if !tokens(headers, &EXPECT).all(is_known) {
        return Err(Failure::ExpectationUnknown);
    }
    headers.remove(EXPECT);
    Ok(())
}

/// Reduces `Content-Length` to one line in canonical form: `007` and a second, equal line become a
/// single `7`.
fn settle_length(headers: &mut HeaderMap) -> Result<(), Failure> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Ok(()) };
    let length = number(first).ok_or(Failure::RequestBodyBroken)?;
    if !lines.all(|line| number(line) == Some(length)) {
        return Err(Failure::RequestBodyBroken);
    }
    let is_canonical = first.len() == 1 || first.as_bytes()[0] != b'0';
    if !is_canonical || headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    Ok(())
}

fn number(value: &HeaderValue) -> Option<u64> {
    let is_number = value.as_bytes().iter().all(u8::is_ascii_digit);
    value.to_str().ok().filter(|_| is_number)?.parse().ok()
}

/// Joins split `Cookie` fields: HTTP/2 may split `Cookie` (RFC 9113 section 8.2.3), HTTP/1 has one
/// (RFC 6265 section 5.4).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let Some(first) = crumbs.next() else { return };
    let Some(second) = crumbs.next() else { return };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use http::header::{CONNECTION, TE, UPGRADE};
    use http::{HeaderName, Version};

    use super::*;

    fn admit(head: &mut request::Parts, limits: &ClientLimits) -> Result<Admitted, Failure> {
        super::admit(head, NotedFields::of(&head.headers), limits, None)
    }

    fn head(build: request::Builder) -> request::Parts {
        build.body(()).unwrap().into_parts().0
    }

    fn get(target: &str) -> request::Builder {
        http::Request::get(target).header(HOST, "shop.test")
    }

    fn refusal(build: request::Builder) -> Option<Failure> {
        admit(&mut head(build), &ClientLimits::default()).err()
    }

    #[test]
    fn what_is_refused_says_why() {
        let method = |method: &str| http::Request::builder().method(method).header(HOST, "a.test");
        let long = format!("/{}", "a".repeat(8192));
        // (request, refusal)
        let table = [
            (get("/"), None),
            (http::Request::get("/"), Some(Failure::BadHost)),
            (get("/").header(HOST, "shop.test"), Some(Failure::BadHost)),
            (http::Request::get("/").header(HOST, "a, b"), Some(Failure::BadHost)),
            (http::Request::get("http://a.test/"), Some(Failure::BadHost)),
            (http::Request::get("http://a.test/").version(Version::HTTP_10), None),
            (http::Request::get("http://a.test/").header(HOST, "a b"), Some(Failure::BadHost)),
            (http::Request::get("http://a.test/").header(HOST, ""), Some(Failure::BadHost)),
            (http::Request::get("http://a.test/").header(HOST, "b.test"), None),
            (get("http://a.test/").header(HOST, "a.test"), Some(Failure::BadHost)),
            (method(&"M".repeat(32)).uri("/"), None),
            (method(&"M".repeat(33)).uri("/"), Some(Failure::MethodTooLong)),
            (http::Request::get("http://a.test?q").header(HOST, "a.test"), None),
            (
                http::Request::get("http://a.test?q").version(Version::HTTP_2),
                Some(Failure::BadTarget),
            ),
            (http::Request::get("http://a.test/?q").version(Version::HTTP_2), None),
            (method("TRACE").uri("/"), Some(Failure::MethodNotServed)),
            (method("CONNECT").uri("a.test:443"), Some(Failure::MethodNotServed)),
            (method("GET").uri("*"), Some(Failure::BadTarget)),
            (method("GET").uri("abc"), Some(Failure::BadTarget)),
            (method("GET").uri("ftp://a.test/"), Some(Failure::BadTarget)),
            (method("POST").uri("/").header(TRANSFER_ENCODING, "Chunked"), None),
            (
                method("POST").uri("/").header(TRANSFER_ENCODING, "gzip, chunked"),
                Some(Failure::CodingUnknown),
            ),
            (
                get("/").header(TRANSFER_ENCODING, "chunked").header(TRANSFER_ENCODING, "chunked"),
                Some(Failure::RequestBodyBroken),
            ),
            (method("OPTIONS").uri("*"), None),
            (get(&long), Some(Failure::TargetTooLong)),
            (get("/a%00"), Some(Failure::AmbiguousPath(Ambiguous::Control))),
            (get("/").header(EXPECT, "y 100-continue"), Some(Failure::ExpectationUnknown)),
            (get("/").header(EXPECT, "100-Continue"), None),
            (get("/").header(EXPECT, "100-continue,").header(EXPECT, "100-continue"), None),
            (
                get("/").header(EXPECT, "100-continue").header(EXPECT, "200-ok"),
                Some(Failure::ExpectationUnknown),
            ),
            (get("/").header(EXPECT, &b"\xff"[..]), Some(Failure::ExpectationUnknown)),
            (
                get("/").header(CONTENT_LENGTH, "5").header(CONTENT_LENGTH, "6"),
                Some(Failure::RequestBodyBroken),
            ),
            (get("/").header(CONTENT_LENGTH, "5, 5"), Some(Failure::RequestBodyBroken)),
            (get("/").header(CONTENT_LENGTH, "+5"), Some(Failure::RequestBodyBroken)),
            (get("/").header(CONTENT_LENGTH, ""), Some(Failure::RequestBodyBroken)),
            (get("http://a.test/").version(Version::HTTP_2), Some(Failure::BadHost)),
        ];
        for (request, want) in table {
            let shown = format!("{request:?}");
            assert_eq!(refusal(request), want, "{shown:.200}");
        }
    }

    #[test]
    fn what_is_for_this_connection_stays_here() {
        let mut head = head(
            get("/")
                .header(CONNECTION, "close, X-Gone, host, authorization, x-forwarded-for")
                .header("x-gone", "1")
                .header("authorization", "secret")
                .header("keep-alive", "5")
                .header("proxy", "http://evil")
                .header("proxy-connection", "close")
                .header("upgrade", "h2c")
                .header("http2-settings", "AAMAAABkAAQAAP__")
                .header("te", "trailers, gzip")
                .header("x_forwarded_for", "1.1.1.1")
                .header("x-kept", "1"),
        );
        let admitted = admit(&mut head, &ClientLimits::default()).unwrap();
        assert_eq!(admitted.upgrade, None);
        let mut names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        // Only the member of `TE` that concerns the backend is kept.
        assert_eq!(names, ["authorization", "host", "te", "x-kept"]);
        assert_eq!(head.headers[TE], "trailers");
    }

    #[test]
    fn a_connection_field_that_is_no_text_counts_all_the_same() {
        let mut head =
            head(get("/").header(CONNECTION, &b"x-gone, \xff"[..]).header("x-gone", "1"));
        admit(&mut head, &ClientLimits::default()).unwrap();
        assert!(!head.headers.contains_key("x-gone"));
    }

    /// `check` warns of matches on fields that are removed before a request is routed.
    #[test]
    fn what_check_calls_removed_is_removed_and_nothing_else() {
        use crate::compile::{REDUCED, REMOVED};

        let common = [
            "accept",
            "accept-encoding",
            "authorization",
            "cache-control",
            "content-type",
            "cookie",
            "from",
            "grpc-timeout",
            "if-match",
            "origin",
            "priority",
            "range",
            "referer",
            "sec-fetch-mode",
            "traceparent",
            "user-agent",
            "via",
            "x-forwarded-for",
            "x-real-ip",
            "x-request-id",
        ];
        let reduced = REDUCED.iter().map(|(name, left, _)| (*name, *left));
        let whole = common.map(|name| (name, "1"));
        for (name, value, left) in REMOVED
            .map(|name| (name, if name == "expect" { "100-continue" } else { "1" }, false))
            .into_iter()
            .chain(reduced.map(|(name, left)| (name, left, name == "te")))
            .chain(whole.map(|(name, value)| (name, value, true)))
        {
            let value = if name == "transfer-encoding" { "chunked" } else { value };
            let mut head = head(get("/").header(name, value));
            admit(&mut head, &ClientLimits::default()).unwrap();
            assert_eq!(head.headers.contains_key(name), left, "{name}");
        }
        let mut head = head(get("/").header(CONNECTION, "Upgrade").header(UPGRADE, "websocket"));
        admit(&mut head, &ClientLimits::default()).unwrap();
        assert!(REDUCED.iter().any(|(name, left, _)| (*name, *left) == ("connection", "upgrade")));
        assert_eq!(head.headers[CONNECTION], "upgrade");
    }

    #[test]
    fn only_an_upgrade_on_the_list_goes_on() {
        // (Connection, Upgrade, method, allowed upgrade)
        let table = [
            ("upgrade", "websocket", "GET", Some("websocket")),
            ("keep-alive, Upgrade", "WebSocket", "GET", Some("WebSocket")),
            ("keep-alive", "websocket", "GET", None),
            ("upgrade", "h2c", "GET", None),
            ("upgrade", "websocket, h2c", "GET", Some("websocket")),
            ("upgrade, http2-settings", "h2c , websocket", "GET", Some("websocket")),
            ("upgrade", "xwebsocket, websocket/13", "GET", None),
            ("upgrade", "websocket", "POST", None),
        ];
        for (connection, upgrade, method, want) in table {
            let mut head = head(
                get("/").method(method).header(CONNECTION, connection).header(UPGRADE, upgrade),
            );
            let admitted = admit(&mut head, &ClientLimits::default()).unwrap();
            let case = format!("{connection} / {upgrade} / {method}");
            assert_eq!(admitted.upgrade.is_some(), want.is_some(), "{case}");
            assert_eq!(
                head.headers.get(UPGRADE).map(HeaderValue::as_bytes),
                want.map(str::as_bytes),
                "{case}"
            );
        }
    }

    #[test]
    fn a_length_of_nothing_is_no_body_before_an_upgrade() {
        // (field, value, upgrade allowed)
        let table = [
            (CONTENT_LENGTH, "0", true),
            (CONTENT_LENGTH, "000", true),
            (CONTENT_LENGTH, "1", false),
            (TRANSFER_ENCODING, "chunked", false),
        ];
        for (name, value, want) in table {
            let mut head = head(
                get("/")
                    .header(CONNECTION, "upgrade")
                    .header(UPGRADE, "websocket")
                    .header(&name, value),
            );
            let admitted = admit(&mut head, &ClientLimits::default()).unwrap();
            assert_eq!(admitted.upgrade.is_some(), want, "{name}: {value}");
            assert!(!want || !head.headers.contains_key(CONTENT_LENGTH), "{name}: {value}");
        }
    }

    #[test]
    fn the_target_is_left_in_origin_form() {
        // (target, Host, resulting target, host)
        let table = [
            ("http://a.test/x/../y?q=1", "b.test", "/y?q=1", "a.test"),
            ("/x/%2e%2e/y", "B.test:8080", "/y", "b.test"),
            ("http://a.test", "b.test", "/", "a.test"),
        ];
        for (target, host, want, want_host) in table {
            let mut head = head(http::Request::get(target).header(HOST, host));
            let admitted = admit(&mut head, &ClientLimits::default()).unwrap();
            assert_eq!(head.uri, want, "{target}");
            assert_eq!(admitted.host.as_str(), want_host, "{target}");
        }
    }

    #[test]
    fn one_cookie_field_and_one_length_travel_on() {
        let mut head = head(
            get("/")
                .version(Version::HTTP_2)
                .header(COOKIE, "a=1")
                .header(COOKIE, "b=2")
                .header(CONTENT_LENGTH, "007"),
        );
        admit(&mut head, &ClientLimits::default()).unwrap();
        assert_eq!(head.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
        assert_eq!(head.headers[CONTENT_LENGTH], "7");
    }

    #[test]
    fn a_cookie_in_crumbs_is_one_field() {
        let limits = ClientLimits { head_fields: 4, ..ClientLimits::default() };
        let fields = |name: &'static str| {
            let build = get("/").version(Version::HTTP_2);
            let mut head = head((0..10).fold(build, |build, _| build.header(name, "a=1")));
            admit(&mut head, &limits).map(|_| head.headers.len())
        };
        assert_eq!(fields("cookie"), Ok(2));
        assert_eq!(fields("x-cookie"), Err(Failure::TooManyFields));
    }
}
