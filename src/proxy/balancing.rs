//! The parts of a request that decide on its host: its hash, and the endpoints that it names.

use std::net::IpAddr;

use http::header::{COOKIE, HOST, SET_COOKIE};
use http::{HeaderMap, HeaderValue, request};

use crate::proxy::client_connection::ClientConnection;
use crate::snapshot::{Balancing, HashCookie, HashHeader, HashInput};
use crate::stable_hash::{hash_64, mixed};
use crate::upstream::{EndpointName, hash_of_client};

/// The maximum number of endpoints that one request may name. Each is searched for in all clusters of
/// the rule.
const MOST_NAMED: usize = 16;

/// The hash of a request, and the cookie with which the client comes back.
#[derive(Debug)]
pub(super) struct RequestHash {
    /// `None` if the request does not have what is hashed.
    pub hash: Option<u64>,
    cookie: Option<HeaderValue>,
}

impl RequestHash {
    /// Hashes the head that goes to the backend, which the filters of the rule have changed already.
    /// `client` is the address of the client.
    pub(super) fn new(
        balancing: &Balancing,
        client: IpAddr,
        connection: &ClientConnection,
        head: &request::Parts,
    ) -> Option<Box<Self>> {
        let input = balancing.hash.as_ref()?;
        let hash = hash(input, client, head);
        let HashInput::Cookie(HashCookie { name, ttl: Some(ttl), attributes }) = input else {
            return Some(Box::new(Self { hash, cookie: None }));
        };
        if hash.is_some() {
            return Some(Box::new(Self { hash, cookie: None }));
        }
        // Requests that one client sends at once on one connection get the same value.
        let value =
            format!("{:016x}", hash_64(format!("{client} {}", connection.origin.peer).as_bytes()));
        let lifetime = match ttl.as_secs() {
            0 => String::new(),
            seconds => format!("; Max-Age={seconds}"),
        };
        let cookie = format!("{name}={value}{lifetime}; Path=/{attributes}; HttpOnly");
        let hash = Some(hash_64(value.as_bytes()));
        Some(Box::new(Self { hash, cookie: HeaderValue::try_from(cookie).ok() }))
    }

    /// Adds the cookie to the response, if the client had none.
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        if let Some(cookie) = self.cookie {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

/// Returns the endpoints that a request names, in order.
pub(crate) fn named_endpoints(
    balancing: &Balancing,
    headers: &HeaderMap,
) -> impl Iterator<Item = EndpointName> {
    let values = balancing.overrides.iter().flat_map(|name| headers.get_all(name).iter());
    let names = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    names.take(MOST_NAMED).filter_map(|name| EndpointName::parse(name.trim()))
}

/// Returns the hash of the parts of a request that are there, `None` if none is.
pub(crate) fn hash(input: &HashInput, client: IpAddr, head: &request::Parts) -> Option<u64> {
    match input {
        HashInput::SourceIp => Some(hash_of_client(client)),
        HashInput::Cookie(cookie) => of_cookie(&head.headers, &cookie.name).map(hash_64),
        HashInput::Headers(names) => joined(names.iter().flat_map(|name| {
            let name = match name {
                HashHeader::Authority => &HOST,
                HashHeader::Field(name) => name,
            };
            head.headers.get_all(name).iter().map(|value| hash_64(value.as_bytes()))
        })),
        HashInput::QueryParams(names) => {
            let query = head.uri.query().unwrap_or_default();
            joined(names.iter().filter_map(|name| of_parameter(query, name)).map(hash_64))
        }
    }
}

/// Joins hashes to one, in which their order counts; `None` if there is none.
fn joined(hashes: impl Iterator<Item = u64>) -> Option<u64> {
    hashes.reduce(|one, next| mixed(one.rotate_left(1) ^ next))
}

/// Returns the value of the first cookie of this name, without quotes.
fn of_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs = headers.get_all(COOKIE).iter();
    let mut pairs = pairs.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    let value = pairs
        .find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Some(inner.unwrap_or(value)).filter(|value| !value.is_empty())
}

/// Returns the first value of a parameter of the query, as it is written.
fn of_parameter<'q>(query: &'q str, name: &str) -> Option<&'q [u8]> {
    query.split('&').find_map(|pair| {
        let (of, value) = pair.split_once('=').unwrap_or((pair, ""));
        (of == name).then_some(value.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[(&str, &str)], target: &str) -> request::Parts {
        let mut request = http::Request::get(target);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_is_the_same_has_the_same_hash() {
        let headers = |names: &[&str]| {
            let field = |name: &&str| HashHeader::Field(name.parse().unwrap());
            HashInput::Headers(names.iter().map(field).collect())
        };
        let parameters = |names: &[&str]| {
            HashInput::QueryParams(names.iter().map(|name| (*name).into()).collect())
        };
        let cookie = HashInput::Cookie(HashCookie {
            name: "user".into(),
            ttl: None,
            attributes: Box::default(),
        });
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (a, b) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let none: &[(&str, &str)] = &[];
        // (input, one request, another request, their hashes are the same; `None`: neither has one)
        type Asked<'a> = (IpAddr, &'a [(&'a str, &'a str)], &'a str);
        let table: [(HashInput, Asked<'_>, Asked<'_>, Option<bool>); 15] = [
            (HashInput::SourceIp, (a, none, "/"), (a, none, "/b"), Some(true)),
            (HashInput::SourceIp, (a, none, "/"), (b, none, "/"), Some(false)),
            (HashInput::SourceIp, (a, none, "/"), (ip("::ffff:192.0.2.1"), none, "/"), Some(true)),
            (headers(&["x-a"]), (a, &[("x-a", "1")], "/"), (b, &[("x-a", "1")], "/b"), Some(true)),
            (headers(&["x-a"]), (a, &[("x-a", "1")], "/"), (a, &[("x-a", "2")], "/"), Some(false)),
            (headers(&["x-a"]), (a, &[("x-b", "1")], "/"), (a, none, "/"), None),
            (
                headers(&["x-a", "x-b"]),
                (a, &[("x-a", "1"), ("x-b", "2")], "/"),
                (a, &[("x-a", "2"), ("x-b", "1")], "/"),
                Some(false),
            ),
            (
                headers(&["x-a", "x-b"]),
                (a, &[("x-b", "1")], "/"),
                (a, &[("x-c", "1"), ("x-b", "1")], "/"),
                Some(true),
            ),
            (
                HashInput::Headers([HashHeader::Authority].into()),
                (a, &[("host", "a.test")], "/"),
                (a, &[("host", "b.test")], "/"),
                Some(false),
            ),
            (parameters(&["id"]), (a, none, "/?id=1&x"), (b, none, "/b?x=1&id=1&id=2"), Some(true)),
            (parameters(&["id"]), (a, none, "/?id=1"), (a, none, "/?id=2"), Some(false)),
            (parameters(&["id"]), (a, none, "/?ids=1"), (a, none, "/"), None),
            (
                cookie.clone(),
                (a, &[("cookie", "a=b; user=1")], "/"),
                (b, &[("cookie", "user=\"1\"")], "/"),
                Some(true),
            ),
            (
                cookie.clone(),
                (a, &[("cookie", "user=1")], "/"),
                (a, &[("cookie", "user=2")], "/"),
                Some(false),
            ),
            (cookie, (a, &[("cookie", "users=1; user=")], "/"), (a, none, "/"), None),
        ];
        for (input, one, other, same) in table {
            let hash =
                |(client, lines, target): Asked<'_>| hash(&input, client, &head(lines, target));
            let (first, second) = (hash(one), hash(other));
            let got = first.zip(second).map(|(one, other)| one == other);
            assert_eq!(got, same, "{input:?} {one:?} {other:?}");
            assert_eq!(first.is_some(), second.is_some(), "{input:?} {one:?} {other:?}");
        }
    }
}
