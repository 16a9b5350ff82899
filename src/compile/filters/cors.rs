//! CORS filters, from `cors` of a filter or policy (GEP-1767).

use http::{HeaderName, HeaderValue, Method};

use crate::api;
use crate::api::envoy::PolicyCors;
use crate::filters::cors::{AllowList, OriginPattern};
use crate::filters::{Broken, Cors, Filter};

use crate::compile::misfit::Misfit;
use crate::config::{self, field_path};

use super::invalid::InvalidFilter;

pub(super) fn cors(raw: &api::CorsFilter) -> Result<Cors, Misfit> {
    let origins = raw.allow_origins.iter().enumerate().map(|(place, text)| match origin(text) {
        Some(origin) => Ok(origin),
        None if !config::is_origin(text) => Err(Misfit::Reported),
        None => {
            let at = field_path!(cors.allowOrigins[place]);
            Err(InvalidFilter::Origin(text.clone()).at(at))
        }
    });
    let origins: Box<[OriginPattern]> = origins.collect::<Result<_, _>>()?;
    if origins.len() > 1 && origins.contains(&OriginPattern::Any) {
        return Err(Misfit::Reported);
    }
    let is_method = |text: &str| {
        let method = Method::from_bytes(text.as_bytes()).is_ok();
        method && text.bytes().all(|b| !b.is_ascii_lowercase())
    };
    let is_name = |text: &str| HeaderName::from_bytes(text.as_bytes()).is_ok();
    let any_beside_others = || Misfit::Reported;
    // No rule of the kind requires `*` to be alone in this list, unlike the other lists.
    let any_exposed = || InvalidFilter::AnyBesideOthers.at(field_path!(cors.exposeHeaders));
    Ok(Cors {
        origins,
        credentials: raw.allow_credentials(),
        methods: list(&raw.allow_methods, is_method, any_beside_others)?,
        headers: list(&raw.allow_headers, is_name, any_beside_others)?,
        expose: list(&raw.expose_headers, is_name, any_exposed)?,
        max_age: Some(HeaderValue::from(raw.max_age())),
    })
}

/// Compiles `spec.cors` of a SecurityPolicy, whose rules have been checked. If it still cannot run,
/// requests are refused.
pub(super) fn of_policy(raw: &PolicyCors) -> Filter {
    let origins: Option<Box<[_]>> = raw.allow_origins.iter().map(|text| origin(text)).collect();
    let list = |names: &[String]| match names {
        [] => Some(AllowList::Nothing),
        _ if names.iter().any(|name| name == "*") => Some(AllowList::Any),
        _ => HeaderValue::from_str(&names.join(", ")).ok().map(AllowList::These),
    };
    let cors = || {
        Some(Cors {
            origins: origins?,
            credentials: raw.allow_credentials.unwrap_or(false),
            methods: list(&raw.allow_methods)?,
            headers: list(&raw.allow_headers)?,
            expose: list(&raw.expose_headers)?,
            max_age: raw.max_age.map(|age| HeaderValue::from(age.get().as_secs())),
        })
    };
    cors().map_or(Filter::Broken(Broken), Filter::Cors)
}

fn list(
    names: &[String],
    is_one: impl Fn(&str) -> bool,
    any_beside_others: impl FnOnce() -> Misfit,
) -> Result<AllowList, Misfit> {
    match names {
        [] => return Ok(AllowList::Nothing),
        [any] if any == "*" => return Ok(AllowList::Any),
        _ => {}
    }
    if names.iter().any(|name| name == "*") {
        return Err(any_beside_others());
    }
    if !names.iter().all(|name| is_one(name)) {
        return Err(Misfit::Reported);
    }
    let value = HeaderValue::from_str(&names.join(", "));
    value.map(AllowList::These).map_err(|_| Misfit::Reported)
}

/// Parses `*`, `https://host`, `https://host:8443`, `https://*.host` and `https://*`. The default
/// port of the scheme is left out, as browsers leave it out.
fn origin(text: &str) -> Option<OriginPattern> {
    if text == "*" {
        return Some(OriginPattern::Any);
    }
    let lower = text.to_ascii_lowercase();
    let (scheme, authority) = lower.split_once("://")?;
    let well_known = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse::<u16>().ok().filter(|port| *port > 0)?)),
        None => (authority, None),
    };
    let port =
        port.filter(|port| *port != well_known).map_or_else(String::new, |p| format!(":{p}"));
    let is_name = |name: &str| {
        let label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        name.split('.').all(label)
    };
    if host == "*" {
        return Some(OriginPattern::Wildcard {
            before: format!("{scheme}://").into(),
            after: port.into(),
        });
    }
    match host.strip_prefix('*') {
        Some(suffix) if suffix.strip_prefix('.').is_some_and(is_name) => {
            Some(OriginPattern::Wildcard {
                before: format!("{scheme}://").into(),
                after: format!("{suffix}{port}").into(),
            })
        }
        None if is_name(host) => {
            Some(OriginPattern::Exact(format!("{scheme}://{host}{port}").into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_a_host_and_perhaps_a_port() {
        let exact = |text: &str| Some(OriginPattern::Exact(text.into()));
        let wildcard = |before: &str, after: &str| {
            Some(OriginPattern::Wildcard { before: before.into(), after: after.into() })
        };
        // (as written, as compared)
        let table = [
            ("*", Some(OriginPattern::Any)),
            ("https://www.foo.com", exact("https://www.foo.com")),
            ("HTTPS://WWW.foo.com", exact("https://www.foo.com")),
            ("https://foo.com:443", exact("https://foo.com")),
            ("http://foo.com:443", exact("http://foo.com:443")),
            ("http://foo.com:80", exact("http://foo.com")),
            ("https://foo.com:8443", exact("https://foo.com:8443")),
            ("http://127.0.0.1:3000", exact("http://127.0.0.1:3000")),
            ("https://*.bar.com", wildcard("https://", ".bar.com")),
            ("https://*.bar.com:12345", wildcard("https://", ".bar.com:12345")),
            ("https://*", wildcard("https://", "")),
            ("ftp://foo.com", None),
            ("foo.com", None),
            ("https://", None),
            ("https://foo.com/path", None),
            ("https://foo.*", None),
            ("https://a*.foo.com", None),
            ("https://foo.com:0", None),
            ("https://foo.com:", None),
            ("https://user@foo.com", None),
        ];
        for (text, want) in table {
            assert_eq!(origin(text), want, "{text}");
        }
    }
}
