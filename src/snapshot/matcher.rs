//! The conditions of a match other than host and path: method, headers, query.

use std::borrow::Cow;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, request};

use crate::filters::{ValueMatch, query};

/// The conditions other than the path, all of which must be met.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions {
    pub method: Option<Method>,
    /// True for GRPCRoutes: `content-type` must be gRPC or gRPC-Web.
    pub grpc: bool,
    /// One per name: of several with one name HTTPRoute uses the first.
    pub headers: Box<[HeaderMatch]>,
    pub query: Box<[QueryMatch]>,
}

/// A header and the condition on its value. Several lines of one name count as one, joined by `,`.
#[derive(Clone, Debug)]
pub(crate) struct HeaderMatch {
    pub name: HeaderName,
    pub value: ValueMatch,
}

/// A query parameter and the condition on its first value. Names and values are compared decoded.
#[derive(Clone, Debug)]
pub(crate) struct QueryMatch {
    pub name: Box<str>,
    pub value: ValueMatch,
}

impl Conditions {
    /// Returns true if the request meets every condition.
    pub(crate) fn accept(&self, head: &request::Parts) -> bool {
        self.method.as_ref().is_none_or(|method| *method == head.method)
            && (!self.grpc || calls_grpc(&head.headers))
            && self.headers.iter().all(|header| accepts_header(header, &head.headers))
            && self.query.iter().all(|query| accepts_query(query, head.uri.query()))
    }

    /// Returns the first condition that the request does not meet, for display.
    pub(crate) fn missed(&self, head: &request::Parts) -> Option<String> {
        if let Some(method) = self.method.as_ref().filter(|method| **method != head.method) {
            return Some(format!("the method is not {method}"));
        }
        if self.grpc && !calls_grpc(&head.headers) {
            return Some("it is not gRPC".into());
        }
        let header = self.headers.iter().find(|header| !accepts_header(header, &head.headers));
        if let Some(HeaderMatch { name, .. }) = header {
            let is = if head.headers.contains_key(name) { "another" } else { "missing" };
            return Some(format!("the header {name} is {is}"));
        }
        let query = self.query.iter().find(|query| !accepts_query(query, head.uri.query()))?;
        Some(format!("the query parameter {} is missing or another", query.name))
    }

    /// Returns the precedence after host and path (HTTPRoute `matches`, GRPCRoute likewise): a
    /// method before none, then more headers, then more query parameters. The greater value wins.
    pub(crate) fn rank(&self) -> (bool, bool, usize, usize) {
        (self.grpc, self.method.is_some(), self.headers.len(), self.query.len())
    }
}

/// Returns true if the message is gRPC: `application/grpc`, alone or with `+proto` or parameters.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| behind(value, "application/grpc").is_some())
}

/// The form of a gRPC-Web body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GrpcWeb {
    /// `application/grpc-web`: messages in binary form.
    Binary,
    /// `application/grpc-web-text`: the whole body in base64.
    Text,
}

/// Returns the gRPC-Web form of a `content-type` or `accept` field, and the suffix of its messages:
/// `+proto`, another one, or nothing. `None` for other media types.
pub(crate) fn grpc_web(field: &HeaderValue) -> Option<(GrpcWeb, &str)> {
    let forms =
        [("application/grpc-web", GrpcWeb::Binary), ("application/grpc-web-text", GrpcWeb::Text)];
    forms.into_iter().find_map(|(name, form)| {
        let rest = std::str::from_utf8(behind(field, name)?).ok()?;
        let suffix = rest.split([';', ' ', ',']).next().unwrap_or_default();
        Some((form, suffix))
    })
}

/// Returns true if a GRPCRoute matches the request: gRPC or gRPC-Web.
fn calls_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        behind(value, "application/grpc").is_some() || grpc_web(value).is_some()
    })
}

/// Returns the text after the media type `name`, in any case, if the field begins with it.
fn behind<'v>(field: &'v HeaderValue, name: &str) -> Option<&'v [u8]> {
    let (begin, rest) = field.as_bytes().split_at_checked(name.len())?;
    let ends = matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b','));
    (ends && begin.eq_ignore_ascii_case(name.as_bytes())).then_some(rest)
}

fn accepts_header(wanted: &HeaderMatch, headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(&wanted.name).iter();
    let Some(first) = values.next() else { return false };
    let Ok(first) = first.to_str() else { return false };
    let mut joined = Cow::Borrowed(first);
    for value in values {
        let Ok(value) = value.to_str() else { return false };
        let joined = joined.to_mut();
        joined.push(',');
        joined.push_str(value);
    }
    wanted.value.accepts(&joined)
}

fn accepts_query(wanted: &QueryMatch, query: Option<&str>) -> bool {
    query::first(query, &wanted.name).is_some_and(|value| wanted.value.accepts(&value))
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    fn head(uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_header_counts_with_all_its_lines() {
        let wanted = |value| Conditions {
            headers: [HeaderMatch { name: HeaderName::from_static("version"), value }].into(),
            ..Conditions::default()
        };
        let exact = |value: &str| ValueMatch::Exact(value.into());
        let regex = |text| ValueMatch::Regex(Regex::new(text).unwrap());

        // (condition, lines of `version`, accepted)
        let table: [(ValueMatch, &[(&str, &str)], bool); 6] = [
            (exact("two"), &[("Version", "two")], true),
            (exact("two"), &[("version", "TWO")], false),
            (exact("two"), &[], false),
            (exact("one,two"), &[("version", "one"), ("version", "two")], true),
            (exact("one"), &[("version", "one"), ("version", "two")], false),
            (regex("^(?:o.e)$"), &[("version", "one")], true),
        ];
        for (value, lines, want) in table {
            let conditions = wanted(value);
            assert_eq!(conditions.accept(&head("/", lines)), want, "{conditions:?} {lines:?}");
        }
    }

    #[test]
    fn of_a_repeated_parameter_the_first_counts() {
        let wanted = |name: &str, value: &str| Conditions {
            query: [QueryMatch { name: name.into(), value: ValueMatch::Exact(value.into()) }]
                .into(),
            ..Conditions::default()
        };
        // (name, value, target, accepted)
        let table = [
            ("animal", "whale", "/?animal=whale", true),
            ("animal", "whale", "/?x=1&animal=whale&animal=dolphin", true),
            ("animal", "dolphin", "/?animal=whale&animal=dolphin", false),
            ("animal", "whale", "/?ANIMAL=whale", false),
            ("animal", "whale", "/?animal=whales", false),
            ("animal", "blue whale", "/?animal=blue+whale", true),
            ("animal", "blue whale", "/?%61nimal=blue%20whale", true),
            ("animal", "", "/?animal", true),
            ("animal", "100%", "/?animal=100%", true),
            ("animal", "whale", "/", false),
        ];
        for (name, value, target, want) in table {
            assert_eq!(wanted(name, value).accept(&head(target, &[])), want, "{name} in {target}");
        }
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        // (content-type, is gRPC)
        let table = [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ];
        for (value, want) in table {
            assert_eq!(is_grpc(&head("/", &[("content-type", value)]).headers), want, "{value}");
        }
    }

    #[test]
    fn grpc_web_is_told_by_its_media_type() {
        // (field, form and suffix)
        let table = [
            ("application/grpc-web", Some((GrpcWeb::Binary, ""))),
            ("application/grpc-web+proto", Some((GrpcWeb::Binary, "+proto"))),
            ("Application/gRPC-Web; charset=utf-8", Some((GrpcWeb::Binary, ""))),
            ("application/grpc-web-text", Some((GrpcWeb::Text, ""))),
            ("application/grpc-web-text+proto; x=y", Some((GrpcWeb::Text, "+proto"))),
            ("application/grpc-web, */*", Some((GrpcWeb::Binary, ""))),
            ("application/grpc", None),
            ("application/grpc-webx", None),
            ("application/grpc-web-texts", None),
        ];
        for (field, want) in table {
            assert_eq!(grpc_web(&HeaderValue::from_static(field)), want, "{field}");
        }
    }
}
