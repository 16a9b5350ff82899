//! CSRF filters, from `csrf` of a SecurityPolicy.

use crate::api;
use crate::filters::csrf::{Csrf, SourcePattern, written};
use crate::filters::{Broken, Filter};

/// Compiles `spec.csrf`, whose rules have been checked. If it still cannot run, requests are refused.
pub(super) fn csrf(raw: &api::envoy::Csrf) -> Filter {
    let additional = raw.additional_origins.iter().map(|origin| pattern(origin));
    let additional = additional.collect::<Option<_>>();
    additional.map_or(Filter::Broken(Broken), |additional| Filter::Csrf(Csrf { additional }))
}

/// Parses `*`, `scheme://host`, `scheme://host:8443`, `scheme://*.host` and `scheme://*`.
fn pattern(origin: &str) -> Option<SourcePattern> {
    if origin == "*" {
        return Some(SourcePattern::Any);
    }
    let authority = origin.split_once("://")?.1.to_ascii_lowercase();
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (&*authority, None),
    };
    let named = written(host, port);
    Some(match named.strip_prefix('*') {
        Some("") => SourcePattern::Any,
        Some(end) => SourcePattern::Below(end.into()),
        None => SourcePattern::Exact(named.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_of_an_origin_does_not_count() {
        let exact = |text: &str| Some(SourcePattern::Exact(text.into()));
        let below = |text: &str| Some(SourcePattern::Below(text.into()));
        let table = [
            ("*", Some(SourcePattern::Any)),
            ("https://*", Some(SourcePattern::Any)),
            ("https://*:8443", below(":8443")),
            ("https://Pay.test", exact("pay.test")),
            ("https://pay.test:443", exact("pay.test")),
            ("http://pay.test:8080", exact("pay.test:8080")),
            ("moz-extension://pay.test", exact("pay.test")),
            ("https://*.shop.test", below(".shop.test")),
            ("https://*.shop.test:8443", below(".shop.test:8443")),
            ("https://pay.test:99999", None),
            ("pay.test", None),
        ];
        for (text, want) in table {
            assert_eq!(pattern(text), want, "{text}");
        }
    }
}
