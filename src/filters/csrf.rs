//! `csrf` of a SecurityPolicy.

use std::fmt::{self, Display, Formatter};

use http::header::{ORIGIN, REFERER};
use http::{HeaderMap, Method, StatusCode, Uri, request};

use crate::failure::{Denial, Failure};
use crate::filters::{Exchange, HttpFilter, Phase, Stop, Verdict};

/// Refuses requests that pages of other hosts make a browser send (cross-site request forgery).
/// Envoy's CSRF filter.
///
/// A request that may change something (POST, PUT, DELETE, PATCH) must come from a page of its own
/// host and port, or from an additional one. `Origin` says which page that is, or else `Referer`.
/// Schemes are not compared: they differ behind a proxy that terminates TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Csrf {
    /// The pages of other hosts that are accepted.
    pub additional: Box<[SourcePattern]>,
}

/// An entry of `additionalOrigins`, without its scheme. Lower case, without a port that a scheme
/// implies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourcePattern {
    /// `*`: every page.
    Any,
    /// A host, possibly with a port: `www.example.com:8080`.
    Exact(Box<str>),
    /// One label or more before this: `.example.com:8080`.
    Below(Box<str>),
}

impl SourcePattern {
    fn accepts(&self, source: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => **exact == *source,
            Self::Below(end) => source
                .strip_suffix(&**end)
                .is_some_and(|labels| !labels.is_empty() && !labels.contains(':')),
        }
    }
}

impl Csrf {
    pub(crate) const DENIAL: &'static Denial = &Denial {
        status: StatusCode::FORBIDDEN,
        flag: None,
        details: "csrf_origin_mismatch",
        text: "Invalid origin",
        grpc_status: None,
    };

    fn accepts(&self, exchange: &Exchange, headers: &HeaderMap) -> bool {
        let Some(source) = source(headers) else {
            return self.additional.contains(&SourcePattern::Any);
        };
        source == target(exchange) || self.additional.iter().any(|of| of.accepts(&source))
    }
}

/// Returns the host of the page that sent a request; `None` if it is not known.
fn source(headers: &HeaderMap) -> Option<String> {
    let name = if headers.contains_key(ORIGIN) { ORIGIN } else { REFERER };
    let mut values = headers.get_all(name).iter();
    let page: Uri = values.next()?.to_str().ok()?.parse().ok()?;
    // Several values, and `Origin: null` of a sandboxed page, name no page.
    if values.next().is_some() || page.scheme().is_none() {
        return None;
    }
    let authority = page.authority().filter(|authority| !authority.as_str().contains('@'))?;
    Some(written(&authority.host().to_ascii_lowercase(), authority.port_u16()))
}

fn target(exchange: &Exchange) -> String {
    written(exchange.host.as_str(), exchange.host.port())
}

/// Returns a host with its port, which is left out if a scheme implies it.
pub(crate) fn written(host: &str, port: Option<u16>) -> String {
    match port {
        None | Some(80 | 443) => host.to_owned(),
        Some(port) => format!("{host}:{port}"),
    }
}

impl Display for Csrf {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("csrf: changes only from pages of the same host")?;
        self.additional.iter().try_for_each(|source| match source {
            SourcePattern::Any => f.write_str(", of *"),
            SourcePattern::Exact(host) => write!(f, ", of {host}"),
            SourcePattern::Below(end) => write!(f, ", of *{end}"),
        })
    }
}

impl HttpFilter for Csrf {
    fn phase(&self) -> Phase {
        Phase::Authorize
    }

    fn apply(&self, exchange: &mut Exchange, head: &mut request::Parts) -> Verdict {
        let changes = [Method::POST, Method::PUT, Method::DELETE, Method::PATCH];
        if !changes.contains(&head.method) || self.accepts(exchange, &head.headers) {
            return Verdict::Continue(());
        }
        Verdict::Break(Stop::Refuse(Failure::Denied(Self::DENIAL)))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::filters::testing;

    fn is_refused(
        filter: &Csrf,
        method: Method,
        host: &str,
        fields: &[(HeaderName, &str)],
    ) -> bool {
        let (mut exchange, mut head) = (testing::exchange(host), testing::head("/"));
        head.method = method;
        for (name, value) in fields {
            head.headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        match filter.apply(&mut exchange, &mut head) {
            Verdict::Continue(()) => false,
            Verdict::Break(Stop::Refuse(failure)) => {
                assert_eq!((failure.status().as_u16(), failure.text()), (403, "Invalid origin"));
                true
            }
            Verdict::Break(Stop::Answer(answer)) => panic!("{answer:?}"),
        }
    }

    #[test]
    fn a_change_must_come_from_a_page_of_its_host() {
        let filter = Csrf {
            additional: [
                SourcePattern::Exact("pay.test:8443".into()),
                SourcePattern::Below(".shop.test".into()),
            ]
            .into(),
        };
        // (host, Origin, Referer, refused)
        let table: [(_, &[&str], &[&str], _); 24] = [
            ("shop.test", &["https://shop.test"], &[], false),
            ("shop.test", &["https://SHOP.test"], &[], false),
            ("shop.test", &["http://shop.test"], &[], false),
            ("shop.test", &["https://shop.test:443"], &[], false),
            ("shop.test:443", &["https://shop.test"], &[], false),
            ("shop.test:8443", &["https://shop.test:8443"], &[], false),
            ("shop.test:8443", &["https://shop.test"], &[], true),
            ("shop.test", &["https://shop.test:8443"], &[], true),
            ("shop.test", &["https://evil.test"], &[], true),
            ("shop.test", &["https://shop.test.evil.test"], &[], true),
            ("shop.test", &["https://evil.test/shop.test"], &[], true),
            ("shop.test", &["https://shop.test@evil.test"], &[], true),
            ("shop.test", &["null"], &["https://shop.test/"], true),
            ("shop.test", &[""], &["https://shop.test/"], true),
            ("shop.test", &["https://shop.test", "https://evil.test"], &[], true),
            ("shop.test", &[], &[], true),
            ("shop.test", &[], &["https://shop.test/cart?next=https://evil.test"], false),
            ("shop.test", &[], &["https://evil.test/shop.test"], true),
            ("shop.test", &[], &["/cart"], true),
            ("shop.test", &["https://evil.test"], &["https://shop.test/"], true),
            ("shop.test", &["https://pay.test:8443"], &[], false),
            ("shop.test", &["https://pay.test"], &[], true),
            ("shop.test", &["https://a.b.shop.test"], &[], false),
            ("shop.test", &["https://evilshop.test"], &[], true),
        ];
        for (host, origins, referers, want) in table {
            let origins = origins.iter().map(|value| (ORIGIN, *value));
            let fields: Vec<_> =
                origins.chain(referers.iter().map(|value| (REFERER, *value))).collect();
            assert_eq!(is_refused(&filter, Method::POST, host, &fields), want, "{host} {fields:?}");
        }
    }

    #[test]
    fn only_methods_that_change_something_are_refused() {
        let filter = Csrf { additional: [].into() };
        for (method, want) in [
            (Method::GET, false),
            (Method::HEAD, false),
            (Method::OPTIONS, false),
            (Method::POST, true),
            (Method::PUT, true),
            (Method::DELETE, true),
            (Method::PATCH, true),
        ] {
            let fields = [(ORIGIN, "https://evil.test")];
            assert_eq!(is_refused(&filter, method.clone(), "shop.test", &fields), want, "{method}");
        }
    }

    #[test]
    fn a_star_accepts_every_page_and_none() {
        let filter = Csrf { additional: [SourcePattern::Any].into() };
        for fields in [&[][..], &[(ORIGIN, "null")], &[(ORIGIN, "https://evil.test")]] {
            assert!(!is_refused(&filter, Method::POST, "shop.test", fields), "{fields:?}");
        }
    }
}
