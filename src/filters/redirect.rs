//! `requestRedirect`.

use std::fmt::{self, Display, Formatter};

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderValue, StatusCode, request};

use crate::filters::exchange::path_of;
use crate::filters::verdict::answer_to;
use crate::filters::{Exchange, HttpFilter, PathModifier, Phase, Scheme, Stop, Verdict};

/// Sends the client elsewhere. HTTPRoute `HTTPRequestRedirectFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redirect {
    /// The request's host where `None`.
    pub hostname: Option<Box<str>>,
    /// The request's path where `None`.
    pub path: Option<PathModifier>,
    pub port: Option<u16>,
    /// The request's scheme where `None`.
    pub scheme: Option<Scheme>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

impl Display for Redirect {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { hostname, path, port, scheme, status } = self;
        write!(f, "redirect {}", status.as_u16())?;
        if let Some(scheme) = scheme {
            write!(f, " scheme {}", scheme.as_str())?;
        }
        if let Some(hostname) = hostname {
            write!(f, " host {hostname}")?;
        }
        if let Some(port) = port {
            write!(f, " port {port}")?;
        }
        path.iter().try_for_each(|path| write!(f, " {path}"))
    }
}

impl HttpFilter for Redirect {
    fn phase(&self) -> Phase {
        Phase::Answer
    }

    fn apply(&self, exchange: &mut Exchange, head: &mut request::Parts) -> Verdict {
        let location = HeaderValue::try_from(self.location(exchange, &head.uri));
        // The path came from the client and may hold bytes that no header can carry.
        let status = if location.is_ok() { self.status } else { StatusCode::BAD_REQUEST };
        let mut response = answer_to(head, status, Bytes::new());
        if let Ok(location) = location {
            response.headers_mut().insert(LOCATION, location);
        }
        Verdict::Break(Stop::Answer(response))
    }
}

impl Redirect {
    /// The `Location` in place of another response to a request for `uri`: a path of the redirect
    /// stands alone, without the query of the request.
    pub(crate) fn elsewhere(&self, exchange: &Exchange, uri: &http::Uri) -> String {
        match self.path {
            Some(_) => self.location(exchange, &http::Uri::default()),
            None => self.location(exchange, uri),
        }
    }

    /// The `Location`, with whatever the filter does not name taken from the request.
    ///
    /// HTTPRoute `requestRedirect.port`: a named scheme brings its well-known port, otherwise the
    /// port that the client used stays; a port the scheme implies is not written. The host is a
    /// configured one or one that a route matched, and the path begins with one slash only, so
    /// that no request can choose where the client is sent.
    fn location(&self, exchange: &Exchange, uri: &http::Uri) -> String {
        let scheme = self.scheme.unwrap_or(exchange.scheme);
        let port = self.port.unwrap_or_else(|| match self.scheme {
            Some(named) => named.well_known_port(),
            None => exchange.port,
        });
        let host = self.hostname.as_deref().unwrap_or_else(|| exchange.host.as_str());
        let path = path_of(uri);
        let modified = self
            .path
            .as_ref()
            .map(|path_modifier| path_modifier.apply(path, exchange.matched_prefix));
        let path = modified.as_deref().unwrap_or(path);

        let port =
            if port == scheme.well_known_port() { String::new() } else { format!(":{port}") };
        let (mark, query) = uri.query().map_or(("", ""), |query| ("?", query));
        // `concat` allocates exactly what a field needs to take the text over as it is.
        [scheme.as_str(), "://", host, &port, path, mark, query].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filters::testing;

    fn redirect() -> Redirect {
        Redirect { hostname: None, path: None, port: None, scheme: None, status: StatusCode::FOUND }
    }

    #[test]
    fn location_follows_the_port_rules_of_the_spec() {
        let filter = |scheme, port| Redirect { scheme, port, ..redirect() };
        let https = Some(Scheme::Https);

        // (filter, port of the client, Location); the client asked for http://shop.example/a?b=c
        let table = [
            (filter(https, None), 80, "https://shop.example/a?b=c"),
            (filter(https, None), 8080, "https://shop.example/a?b=c"),
            (filter(https, Some(8443)), 80, "https://shop.example:8443/a?b=c"),
            (filter(None, None), 8080, "http://shop.example:8080/a?b=c"),
            (filter(None, None), 80, "http://shop.example/a?b=c"),
            (filter(None, Some(80)), 8080, "http://shop.example/a?b=c"),
        ];
        for (filter, port, want) in table {
            assert_eq!(location(&filter, "/a?b=c", port, 0), want, "{filter:?} on port {port}");
        }
    }

    #[test]
    fn host_and_path_are_replaced_where_the_filter_names_them() {
        let prefix = |to: &str| Some(PathModifier::Prefix(to.into()));
        // (filter, target, matched prefix, Location)
        let table = [
            (
                Redirect { hostname: Some("new.example".into()), ..redirect() },
                "/a",
                0,
                "http://new.example/a",
            ),
            (
                Redirect { path: prefix("/new"), ..redirect() },
                "/old/x?q",
                4,
                "http://shop.example/new/x?q",
            ),
            (
                Redirect { path: Some(PathModifier::Full("/f".into())), ..redirect() },
                "/old/x?q",
                4,
                "http://shop.example/f?q",
            ),
        ];
        for (filter, target, matched, want) in table {
            assert_eq!(location(&filter, target, 80, matched), want, "{filter:?} for {target}");
        }
    }

    fn location(filter: &Redirect, target: &str, port: u16, matched_prefix: usize) -> String {
        let exchange = Exchange {
            scheme: Scheme::Http,
            port,
            matched_prefix,
            ..testing::exchange("Shop.example:81")
        };
        filter.location(&exchange, &target.parse().unwrap())
    }
}
