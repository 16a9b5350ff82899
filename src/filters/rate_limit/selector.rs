//! Selectors: the requests that a limit counts, and the values that have a limit of their own.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Method, request};

use crate::filters::exchange::path_of;
use crate::filters::{PathMatch, ValueMatch, query};
use crate::net::Cidr;

/// One condition of a limit. A request must meet all of them.
#[derive(Clone, Debug)]
pub(crate) enum Selector {
    /// The client's address is in the range.
    Client { range: Cidr, invert: bool },
    /// Each address of the range has a limit of its own.
    EachClient { range: Cidr, invert: bool },
    /// Each value of the header has a limit of its own. The header must be there.
    EachHeader(HeaderName),
    /// Each value of the query parameter has a limit of its own. The parameter must be there.
    EachQuery(Box<str>),
    /// The lines of a header, joined by commas.
    Header { name: HeaderName, value: ValueMatch, invert: bool },
    /// The method is one of these; `true` for one that it must not be.
    Methods(Box<[(Method, bool)]>),
    /// The path without the query.
    Path { path: PathMatch, invert: bool },
    /// The first value of a query parameter.
    Query { name: Box<str>, value: ValueMatch, invert: bool },
}

impl Selector {
    /// Returns true if each value has a limit of its own.
    pub(crate) fn is_each(&self) -> bool {
        matches!(self, Self::EachClient { .. } | Self::EachHeader(_) | Self::EachQuery(_))
    }

    /// Checks whether a request meets the condition. A value with a limit of its own is added to
    /// `key`. An inverted condition holds for a request without the header or parameter.
    pub(crate) fn accepts(
        &self,
        client: IpAddr,
        head: &request::Parts,
        key: &mut impl Hasher,
    ) -> bool {
        match self {
            Self::Client { range, invert } => range.contains(client) != *invert,
            Self::EachClient { range, invert } => {
                client.hash(key);
                range.contains(client) != *invert
            }
            Self::EachHeader(name) => {
                let mut values = head.headers.get_all(name).iter().peekable();
                let is_there = values.peek().is_some();
                values.for_each(|value| value.as_bytes().hash(key));
                is_there
            }
            Self::EachQuery(name) => {
                let value = query::first(head.uri.query(), name);
                value.inspect(|value| value.hash(key)).is_some()
            }
            Self::Header { name, value, invert } => {
                let written = joined(&head.headers, name);
                written.is_some_and(|written| value.accepts(&written)) != *invert
            }
            Self::Methods(methods) => {
                methods.iter().any(|(method, invert)| (head.method == *method) != *invert)
            }
            Self::Path { path, invert } => path.accepts(path_of(&head.uri)) != *invert,
            Self::Query { name, value, invert } => {
                let written = query::first(head.uri.query(), name);
                written.is_some_and(|written| value.accepts(&written)) != *invert
            }
        }
    }
}

/// Returns the lines of a header as one value; bytes that are not text are replaced.
fn joined<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Cow<'h, str>> {
    let mut values = headers.get_all(name).iter();
    let mut joined = String::from_utf8_lossy(values.next()?.as_bytes());
    for value in values {
        let joined = joined.to_mut();
        joined.push(',');
        joined.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    Some(joined)
}

impl Display for Selector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let not = |invert: &bool| if *invert { "not " } else { "" };
        match self {
            Self::Client { range, invert } => write!(f, "clients {}of {range}", not(invert)),
            Self::EachClient { range, invert } => {
                write!(f, "each client {}of {range}", not(invert))
            }
            Self::EachHeader(name) => write!(f, "each value of header {name}"),
            Self::EachQuery(name) => write!(f, "each value of query parameter {name}"),
            Self::Header { name, value, invert } => {
                write!(f, "header {name} {}{value}", not(invert))
            }
            Self::Methods(methods) => {
                let names =
                    methods.iter().map(|(method, invert)| format!("{}{method}", not(invert)));
                write!(f, "method {}", names.collect::<Vec<_>>().join(" or "))
            }
            Self::Path { path, invert } => write!(f, "path {}{path}", not(invert)),
            Self::Query { name, value, invert } => {
                write!(f, "query parameter {name} {}{value}", not(invert))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use http::HeaderValue;
    use regex::Regex;

    use super::*;

    fn regex(pattern: &str) -> Regex {
        Regex::new(&format!("^(?:{pattern})$")).unwrap()
    }

    /// Whether the selector accepts a request, and the key that it makes.
    fn judged(selector: &Selector, client: &str, head: &request::Parts) -> Option<u64> {
        let mut key = DefaultHasher::new();
        let accepts = selector.accepts(client.parse().unwrap(), head, &mut key);
        accepts.then(|| key.finish())
    }

    fn head(method: Method, target: &str, headers: &[(&'static str, &str)]) -> request::Parts {
        let (mut head, ()) = http::Request::get(target).body(()).unwrap().into_parts();
        head.method = method;
        for (name, value) in headers {
            head.headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        head
    }

    #[test]
    fn a_selector_accepts_what_it_names_and_its_inverse_the_rest() {
        let name = HeaderName::from_static("x-plan");
        let range = || "10.0.0.0/8".parse().unwrap();
        let exact = |text: &str| ValueMatch::Exact(text.into());
        type Make<'m> = &'m dyn Fn(bool) -> Selector;
        let header: Make<'_> =
            &|invert| Selector::Header { name: name.clone(), value: exact("free"), invert };
        let pattern: Make<'_> = &|invert| Selector::Header {
            name: name.clone(),
            value: ValueMatch::Regex(regex("fr.*")),
            invert,
        };
        let query: Make<'_> =
            &|invert| Selector::Query { name: "k".into(), value: exact("a b"), invert };
        let client: Make<'_> = &|invert| Selector::Client { range: range(), invert };
        let each_client: Make<'_> = &|invert| Selector::EachClient { range: range(), invert };
        let path = |path: PathMatch| move |invert| Selector::Path { path: path.clone(), invert };
        let exactly = path(PathMatch::Exact("/a".into()));
        let below = path(PathMatch::Prefix("/a/".into()));
        let all = path(PathMatch::Prefix("/".into()));
        let like = path(PathMatch::Regex(regex("/a.")));
        // (selector, whether it accepts; the request is `GET TARGET` of a client with `x-plan: PLAN`)
        let table: [(Make<'_>, &str, &str, &[&str], bool); 22] = [
            (header, "10.0.0.1", "/", &["free"], true),
            (header, "10.0.0.1", "/", &["paid"], false),
            (header, "10.0.0.1", "/", &[], false),
            (header, "10.0.0.1", "/", &["free", "free"], false),
            (pattern, "10.0.0.1", "/", &["free", "paid"], true),
            (pattern, "10.0.0.1", "/", &["for free"], false),
            (query, "10.0.0.1", "/?k=a+b", &[], true),
            (query, "10.0.0.1", "/?j=1&k=a%20b&k=c", &[], true),
            (query, "10.0.0.1", "/?k=c&k=a%20b", &[], false),
            (query, "10.0.0.1", "/", &[], false),
            (client, "10.9.9.9", "/", &[], true),
            (client, "11.0.0.1", "/", &[], false),
            (each_client, "10.9.9.9", "/", &[], true),
            (each_client, "2001:db8::1", "/", &[], false),
            (&exactly, "10.0.0.1", "/a?b", &[], true),
            (&exactly, "10.0.0.1", "/a/", &[], false),
            (&below, "10.0.0.1", "/a", &[], true),
            (&below, "10.0.0.1", "/a/b?c", &[], true),
            (&below, "10.0.0.1", "/ab", &[], false),
            (&all, "10.0.0.1", "/ab", &[], true),
            (&like, "10.0.0.1", "/ab?c", &[], true),
            (&like, "10.0.0.1", "/abc", &[], false),
        ];
        for (make, client, target, plans, want) in table {
            let headers: Vec<_> = plans.iter().map(|plan| ("x-plan", *plan)).collect();
            let head = head(Method::GET, target, &headers);
            for invert in [false, true] {
                let selector = make(invert);
                let got = judged(&selector, client, &head).is_some();
                assert_eq!(got, want != invert, "{selector} {client} {target} {plans:?}");
            }
        }
    }

    #[test]
    fn of_several_methods_one_must_be_the_request_s() {
        let methods = Selector::Methods([(Method::GET, false), (Method::HEAD, false)].into());
        let others = Selector::Methods([(Method::GET, true)].into());
        for (method, of_methods, of_others) in
            [(Method::GET, true, false), (Method::HEAD, true, true), (Method::POST, false, true)]
        {
            let head = head(method, "/", &[]);
            assert_eq!(judged(&methods, "10.0.0.1", &head).is_some(), of_methods, "{head:?}");
            assert_eq!(judged(&others, "10.0.0.1", &head).is_some(), of_others, "{head:?}");
        }
    }

    #[test]
    fn each_value_has_a_key_of_its_own_and_no_value_none() {
        let user = Selector::EachHeader(HeaderName::from_static("x-user"));
        let page = Selector::EachQuery("page".into());
        let of = |selector: &Selector, target: &str, users: &[&str]| {
            let headers: Vec<_> = users.iter().map(|user| ("x-user", *user)).collect();
            judged(selector, "10.0.0.1", &head(Method::GET, target, &headers))
        };
        assert_eq!(of(&user, "/", &["a"]), of(&user, "/b", &["a"]));
        assert_ne!(of(&user, "/", &["a"]), of(&user, "/", &["b"]));
        assert_ne!(of(&user, "/", &["a", "b"]), of(&user, "/", &["ab"]));
        assert_eq!(of(&user, "/", &[]), None);
        assert_eq!(of(&page, "/?page=1", &[]), of(&page, "/?a&page=1&page=2", &[]));
        assert_ne!(of(&page, "/?page=1", &[]), of(&page, "/?page=2", &[]));
        assert_eq!(of(&page, "/", &[]), None);
        let each = Selector::EachClient { range: "::/0".parse().unwrap(), invert: false };
        let head = head(Method::GET, "/", &[]);
        assert_ne!(judged(&each, "2001:db8::1", &head), judged(&each, "2001:db8::2", &head));
    }
}
