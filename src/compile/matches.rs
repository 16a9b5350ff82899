//! Matches of routes, from their written form to matchers that run.

use std::borrow::Cow;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{HeaderName, Method};
use regex::{Regex, RegexBuilder};

use crate::api;
use crate::compile::misfit::Misfit;
use crate::compile::path_pattern;
use crate::config::{self, FieldPath, field_path};
use crate::filters::{PathMatch, ValueMatch};
use crate::path::{self, Ambiguous};
use crate::snapshot::{Conditions, HeaderMatch, QueryMatch};

/// The maximum size of one compiled regular expression, in bytes.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// The reason why a match that keeps the rules of its kind cannot run.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum InvalidMatch {
    #[error("one or both of `service` and `method` must be written")]
    NeitherServiceNorMethod,
    #[error("`{path}` cannot match any path: {why}")]
    Path { path: String, why: &'static str },
    #[error("`{pattern}` is not a regular expression: {why}")]
    Regex { pattern: String, why: String },
}

impl InvalidMatch {
    fn at(&self, field: FieldPath) -> Misfit {
        Misfit::unusable(field, self)
    }
}

/// Returns the match of a rule without matches: every path (HTTPRoute `matches`).
pub(super) fn everything() -> PathMatch {
    PathMatch::Prefix("/".into())
}

/// Compiles one entry of `spec.rules[].matches[]` of an HTTPRoute.
pub(super) fn http(raw: &api::HttpRouteMatch) -> Result<(PathMatch, Conditions), Misfit> {
    let path = raw.path.as_ref().map_or_else(|| Ok(everything()), path)?;
    let method = match &raw.method {
        None => None,
        Some(api::HttpMethod::Unknown(_)) => return Err(Misfit::Reported),
        Some(method) => {
            let parsed = Method::from_bytes(method.as_str().as_bytes());
            Some(parsed.map_err(|_| Misfit::Reported)?)
        }
    };
    let headers = raw.headers.iter().map(|header| (header.kind(), &*header.name, &*header.value));
    let conditions = Conditions {
        method,
        grpc: false,
        headers: headers_of(headers)?,
        query: query(&raw.query_params)?,
    };
    Ok((path, conditions))
}

/// Compiles one entry of `spec.rules[].matches[]` of a GRPCRoute: the method of a service is the
/// path `/service/method` (gRPC over HTTP/2, "Requests").
///
/// A service alone ranks as a prefix. A method alone, and any regular expression, is tried after
/// exact paths and before prefixes; the specification leaves that order to the implementation.
pub(super) fn grpc(raw: &api::GrpcRouteMatch) -> Result<(PathMatch, Conditions), Misfit> {
    let headers = raw.headers.iter().map(|header| (header.kind(), &*header.name, &*header.value));
    let conditions = Conditions {
        method: None,
        grpc: true,
        headers: headers_of(headers)?,
        query: Box::default(),
    };
    let path = raw.method.as_ref().map_or_else(|| Ok(everything()), grpc_path)?;
    Ok((path, conditions))
}

fn path(raw: &api::HttpPathMatch) -> Result<PathMatch, Misfit> {
    let value = raw.value();
    match raw.kind() {
        api::PathMatchType::Exact => spelled(value).map(PathMatch::Exact),
        api::PathMatchType::PathPrefix => spelled(value).map(PathMatch::Prefix),
        api::PathMatchType::RegularExpression => {
            let regex = whole_path(value).map_err(|error| error.at(field_path!(path.value)))?;
            Ok(PathMatch::Regex(regex))
        }
        api::PathMatchType::Unknown(_) => Err(Misfit::Reported),
    }
}

/// Checks that a path can match requests, which are matched with dot segments resolved and slashes
/// merged.
///
/// # Errors
///
/// The reason why the path matches no request.
fn check_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        return Err("it must begin with `/`");
    }
    if path.contains(['#', '?']) {
        return Err("a query or fragment is not part of a path");
    }
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => return Err("it must not have `.` or `..` as a segment"),
            "" if segments.peek().is_some() => return Err("it must not have `//`"),
            _ => {}
        }
    }
    Ok(())
}

/// Returns the path in the spelling in which paths of requests are matched.
fn spelled(value: &str) -> Result<Box<str>, Misfit> {
    // The rules of the kind check the path as written; an escape may hide what they forbid.
    check_path(value).map_err(|_| Misfit::Reported)?;
    let spelled = path::spell(value);
    let unusable = |why| {
        let invalid = InvalidMatch::Path { path: value.into(), why };
        match config::is_path(value) {
            true => invalid.at(field_path!(path.value)),
            false => Misfit::Reported,
        }
    };
    check_path(&spelled).map_err(unusable)?;
    let normal = path::normalise(&spelled);
    normal.map(Into::into).map_err(|ambiguous| unusable(why_refused(ambiguous)))
}

fn why_refused(path: Ambiguous) -> &'static str {
    match path {
        Ambiguous::Backslash | Ambiguous::EscapedSeparator | Ambiguous::OtherRule => {
            "it is ambiguous"
        }
        Ambiguous::BrokenEscape => "a `%` must be followed by two hexadecimal digits",
        Ambiguous::Control => "requests with an escaped control character get 400",
        Ambiguous::HiddenDots => "requests with `.` or `..` beside an escaped separator get 400",
    }
}

fn grpc_path(raw: &api::GrpcMethodMatch) -> Result<PathMatch, Misfit> {
    let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    let (service, method) = (named(&raw.service), named(&raw.method));
    if service.is_none() && method.is_none() {
        let is_absent = raw.service.is_none() && raw.method.is_none();
        // The rules of the kind require one of the two; they require a non-empty one only for the
        // type Exact.
        return match is_absent || *raw.kind() != api::MatchType::RegularExpression {
            true => Err(Misfit::Reported),
            false => Err(InvalidMatch::NeitherServiceNorMethod.at(field_path!(method))),
        };
    }
    match raw.kind() {
        api::MatchType::Exact => {
            if [&service, &method].into_iter().flatten().any(|name| !is_grpc_name(name)) {
                return Err(Misfit::Reported);
            }
            Ok(match (service, method) {
                (Some(service), Some(method)) => {
                    PathMatch::Exact(format!("/{service}/{method}").into())
                }
                (Some(service), None) => PathMatch::Prefix(format!("/{service}").into()),
                (None, method) => {
                    let method = regex::escape(&method.unwrap_or_default());
                    let regex = whole_path(&format!("/[^/]+/{method}"));
                    PathMatch::Regex(regex.map_err(|error| error.at(field_path!(method.method)))?)
                }
            })
        }
        api::MatchType::RegularExpression => {
            // Each pattern is compiled by itself first, so that a bracket of one cannot close in
            // the other.
            for (name, field) in [(&service, "service"), (&method, "method")] {
                if let Some(pattern) = name {
                    let at = || field_path!(method).field(field);
                    whole(pattern).map_err(|error| error.at(at()))?;
                }
            }
            let part = |name: Option<String>| {
                name.map_or_else(|| "[^/]+".to_owned(), |pattern| format!("(?:{pattern})"))
            };
            let pattern = format!("/{}/{}", part(service), part(method));
            Ok(PathMatch::Regex(
                whole_path(&pattern).map_err(|error| error.at(field_path!(method)))?,
            ))
        }
        api::MatchType::Unknown(_) => Err(Misfit::Reported),
    }
}

fn is_grpc_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'))
}

/// Compiles header matches. Of several with one name, in any case, the first counts (HTTPRoute
/// `headers`).
fn headers_of<'a>(
    raw: impl Iterator<Item = (&'a api::MatchType, &'a str, &'a str)>,
) -> Result<Box<[HeaderMatch]>, Misfit> {
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for (place, (kind, name, value)) in raw.enumerate() {
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Misfit::Reported)?;
        let value = value_match(kind, value, || field_path!(headers[place].value))?;
        if !headers.iter().any(|known| known.name == parsed) {
            headers.push(HeaderMatch { name: parsed, value });
        }
    }
    Ok(headers.into())
}

/// Compiles query matches. Of several with one name the first counts (HTTPRoute `queryParams`).
fn query(raw: &[api::HttpQueryParamMatch]) -> Result<Box<[QueryMatch]>, Misfit> {
    let mut query: Vec<QueryMatch> = Vec::new();
    for (place, param) in raw.iter().enumerate() {
        let at = || field_path!(queryParams[place].value);
        let value = value_match(param.kind(), &param.value, at)?;
        if !query.iter().any(|known| *known.name == *param.name) {
            query.push(QueryMatch { name: (*param.name).into(), value });
        }
    }
    Ok(query.into())
}

fn value_match(
    kind: &api::MatchType,
    value: &str,
    at: impl FnOnce() -> FieldPath,
) -> Result<ValueMatch, Misfit> {
    match kind {
        api::MatchType::Exact => Ok(ValueMatch::Exact(value.into())),
        api::MatchType::RegularExpression => {
            whole(value).map(ValueMatch::Regex).map_err(|error| error.at(at()))
        }
        api::MatchType::Unknown(_) => Err(Misfit::Reported),
    }
}

/// Compiles a regular expression that matches a whole text.
pub(super) fn whole(pattern: &str) -> Result<Regex, InvalidMatch> {
    let build = |text: &str| {
        RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).build().map_err(|error| {
            InvalidMatch::Regex { pattern: pattern.into(), why: complaint(&error) }
        })
    };
    // The pattern is compiled by itself first: `a)|(b` is valid only between the brackets, where it
    // is not anchored.
    build(pattern)?;
    build(&format!("^(?:{pattern})$"))
}

/// Compiles a regular expression that matches a whole path in its normalised spelling.
fn whole_path(pattern: &str) -> Result<Regex, InvalidMatch> {
    let regex = whole(pattern)?;
    match path_pattern::spelled(pattern) {
        Cow::Borrowed(_) => Ok(regex),
        Cow::Owned(pattern) => whole(&pattern),
    }
}

/// Returns the last line of the error; the others draw an arrow under the pattern.
fn complaint(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("it takes more than {limit} bytes; repeat less, or use fewer `\\w` and `.`")
        }
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.trim().trim_start_matches("error: ").into()
        }
    }
}

/// Returns the conditions of CORS preflights for requests of `conditions`, if the preflights would
/// not meet the conditions themselves: a browser asks with OPTIONS, and without the headers of the
/// request to come.
///
/// A CORS filter answers for the requests that its rule matches, so the rule has to match these
/// too: first those that ask for the rule's own method, then those that ask for any method, which
/// the filter's `allowMethods` check.
pub(super) fn preflights(conditions: &Conditions) -> Vec<Conditions> {
    // A gRPC-Web call is a POST.
    let own = if conditions.grpc { Some(&Method::POST) } else { conditions.method.as_ref() };
    let is_options = own.is_none_or(|method| *method == Method::OPTIONS);
    if is_options && conditions.headers.is_empty() {
        return Vec::new();
    }
    let anything = || whole(".+").ok().map(ValueMatch::Regex);
    let own = own.map(|method| ValueMatch::Exact(method.as_str().into()));
    let asks = |value| HeaderMatch { name: ACCESS_CONTROL_REQUEST_METHOD, value };
    let from = |value| HeaderMatch { name: ORIGIN, value };
    // More headers rank higher, so the rule whose own method is asked for comes first.
    let for_own = own.zip(anything()).map(|(own, any)| [asks(own), from(any)].into());
    let for_any = anything().map(|any| [asks(any)].into());
    let preflight = |headers| Conditions {
        method: Some(Method::OPTIONS),
        grpc: false,
        headers,
        query: conditions.query.clone(),
    };
    for_own.into_iter().chain(for_any).map(preflight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_expression_is_for_the_whole_text() {
        // (pattern, text, matches)
        let table = [
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/a|/b", "/b", true),
            ("/a|/b", "/bc", false),
            ("(?i)/A", "/a", true),
            (".*", "/a\n", false),
        ];
        for (pattern, text, want) in table {
            assert_eq!(whole(pattern).unwrap().is_match(text), want, "{pattern} on {text:?}");
        }
    }

    #[test]
    fn what_is_no_regular_expression_says_why() {
        // (pattern, part of the message)
        let table = [
            ("a)|(b", "unopened group"),
            ("(", "unclosed group"),
            ("(?=a)", "look-around"),
            ("\\w{1000}{1000}", "more than 1048576 bytes"),
        ];
        for (pattern, want) in table {
            let message = whole(pattern).unwrap_err().to_string();
            assert!(message.contains(want) && !message.contains('\n'), "{pattern}: {message}");
        }
    }

    #[test]
    fn a_path_that_no_request_has_is_refused() {
        // (path, as it is matched if it can be)
        let table = [
            ("/", Some("/")),
            ("/a/b/", Some("/a/b/")),
            ("/a.b/..c", Some("/a.b/..c")),
            ("/.well-known", Some("/.well-known")),
            ("/%7Ea%2fb", Some("/~a%2Fb")),
            ("/caf%c3%a9", Some("/caf%C3%A9")),
            ("/café", Some("/caf%C3%A9")),
            ("/a[1]", Some("/a%5B1%5D")),
            ("a", None),
            ("", None),
            ("/a//b", None),
            ("//", None),
            ("/a/./b", None),
            ("/a/..", None),
            ("/a/%2e%2E/b", None),
            ("/a#b", None),
            ("/a?b", None),
            ("/a%zz", None),
            ("/a%", None),
            ("/a%00", None),
            ("/a/..%2fb", None),
        ];
        for (path, want) in table {
            assert_eq!(spelled(path).ok().as_deref(), want, "{path}");
        }
    }

    #[test]
    fn a_grpc_method_is_a_path() {
        let method = |kind: Option<api::MatchType>, service: &str, method: &str| {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            api::GrpcMethodMatch { kind, service: some(service), method: some(method) }
        };
        let regex = Some(api::MatchType::RegularExpression);
        // (match, path)
        let table = [
            (method(None, "a.Echo", "Say"), "exact /a.Echo/Say"),
            (method(None, "a.Echo", ""), "prefix /a.Echo"),
            (method(None, "", "Say"), "regex ^(?:/[^/]+/Say)$"),
            (method(regex.clone(), "a\\..*", "Say|Go"), "regex ^(?:/(?:a\\..*)/(?:Say|Go))$"),
            (method(regex.clone(), "", "Say"), "regex ^(?:/[^/]+/(?:Say))$"),
            (method(regex, "a)(b", "Say"), "error"),
            (method(None, "a/b", "Say"), "error"),
            (method(None, "", ""), "error"),
        ];
        for (raw, want) in table {
            let got = match grpc_path(&raw) {
                Ok(PathMatch::Exact(path)) => format!("exact {path}"),
                Ok(PathMatch::Prefix(path)) => format!("prefix {path}"),
                Ok(PathMatch::Regex(regex)) => format!("regex {regex}"),
                Err(_) => "error".into(),
            };
            assert_eq!(got, want, "{raw:?}");
        }
    }
}
