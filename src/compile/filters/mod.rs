//! Route filters, from their written form to filters that run: one small function per filter.
//!
//! A filter that breaks a rule of its kind has already been reported ([`Misfit::Reported`]). The
//! other errors name the problem and the field of the filter; the caller adds the rest of the path.

mod cors;
mod csrf;
mod extension;
mod header_modifier;
mod header_names;
mod invalid;
mod rate_limit;
mod response_override;
mod security_policy;
mod traffic_policy;

use std::num::NonZeroU32;

use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode};

use crate::api;
use crate::config::{self, FieldPath, field_path};
use crate::filters::{
    Broken, Filter, PathModifier, Redirect, RequestHeaders, ResponseHeaders, Scheme, UrlRewrite,
};
use crate::net::HostPattern;
use crate::path;

use super::misfit::Misfit;

pub(super) use self::extension::extension;
use self::header_modifier::header_modifier;
pub(super) use self::header_names::changeable;
use self::invalid::InvalidFilter;
pub(super) use self::rate_limit::rate_limit;
pub(super) use self::response_override::response_overrides;
pub(super) use self::security_policy::{authorization, of_policy};
pub(super) use self::traffic_policy::of_traffic;

/// The compiled form of a `filters[]` entry.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Run(Filter),
    /// `numerator` of `denominator` requests are copied to the backend that the graph resolved.
    Mirror {
        numerator: u32,
        denominator: NonZeroU32,
    },
}

/// Compiles one entry of `spec.rules[].filters[]` of an HTTPRoute.
pub(super) fn http(raw: &api::HttpRouteFilter) -> Result<Step, Misfit> {
    use api::HttpFilterType as Type;

    let kind = &raw.kind;
    Ok(Step::Run(match kind {
        Type::RequestHeaderModifier => {
            let at = field_path!(requestHeaderModifier);
            let modifier = settings(raw.request_header_modifier.as_deref())?;
            Filter::RequestHeaders(RequestHeaders(header_modifier(modifier, &at)?))
        }
        Type::ResponseHeaderModifier => {
            let at = field_path!(responseHeaderModifier);
            let modifier = settings(raw.response_header_modifier.as_deref())?;
            Filter::ResponseHeaders(ResponseHeaders(header_modifier(modifier, &at)?))
        }
        Type::RequestMirror => {
            let mirror = settings(raw.request_mirror.as_deref())?;
            return share(mirror);
        }
        Type::RequestRedirect => {
            Filter::Redirect(redirect(settings(raw.request_redirect.as_deref())?)?)
        }
        Type::UrlRewrite => Filter::UrlRewrite(url_rewrite(settings(raw.url_rewrite.as_deref())?)?),
        Type::Cors => Filter::Cors(cors::cors(settings(raw.cors.as_deref())?)?),
        // A filter that the graph has found is compiled by `extension` instead.
        Type::ExtensionRef => broken(),
        Type::ExternalAuth => {
            return Err(InvalidFilter::Unsupported(kind.to_string()).at(field_path!(type)));
        }
        Type::Unknown(_) => return Err(Misfit::Reported),
    }))
}

/// Compiles one entry of `spec.rules[].filters[]` of a GRPCRoute.
pub(super) fn grpc(raw: &api::GrpcRouteFilter) -> Result<Step, Misfit> {
    use api::GrpcFilterType as Type;

    let kind = &raw.kind;
    Ok(Step::Run(match kind {
        Type::RequestHeaderModifier => {
            let at = field_path!(requestHeaderModifier);
            let modifier = settings(raw.request_header_modifier.as_deref())?;
            Filter::RequestHeaders(RequestHeaders(header_modifier(modifier, &at)?))
        }
        Type::ResponseHeaderModifier => {
            let at = field_path!(responseHeaderModifier);
            let modifier = settings(raw.response_header_modifier.as_deref())?;
            Filter::ResponseHeaders(ResponseHeaders(header_modifier(modifier, &at)?))
        }
        Type::RequestMirror => {
            let mirror = settings(raw.request_mirror.as_deref())?;
            return share(mirror);
        }
        Type::ExtensionRef => broken(),
        Type::Unknown(_) => return Err(Misfit::Reported),
    }))
}

/// Returns the filter that replaces one that cannot run.
pub(super) fn broken() -> Filter {
    Filter::Broken(Broken)
}

/// Returns the filter if it may be used on a backend. Only a filter that changes or answers a
/// single request can wait until a backend is chosen.
pub(super) fn on_backend(step: Step) -> Result<Filter, Misfit> {
    match step {
        Step::Run(Filter::Cors(_)) => {
            Err(InvalidFilter::NotOnBackend("CORS").at(field_path!(type)))
        }
        // Whether one answers is known before a backend is chosen.
        Step::Run(Filter::DirectResponse(_)) => Ok(broken()),
        Step::Run(filter) => Ok(filter),
        Step::Mirror { .. } => {
            Err(InvalidFilter::NotOnBackend("RequestMirror").at(field_path!(type)))
        }
    }
}

/// Returns the settings of the filter's type.
fn settings<T>(raw: Option<&T>) -> Result<&T, Misfit> {
    raw.ok_or(Misfit::Reported)
}

fn redirect(raw: &api::RequestRedirectFilter) -> Result<Redirect, Misfit> {
    let scheme = match &raw.scheme {
        None => None,
        Some(api::Scheme::Http) => Some(Scheme::Http),
        Some(api::Scheme::Https) => Some(Scheme::Https),
        Some(api::Scheme::Unknown(_)) => return Err(Misfit::Reported),
    };
    let status = match raw.status_code() {
        code @ (301 | 302 | 303 | 307 | 308) => StatusCode::from_u16(code).ok(),
        _ => None,
    };
    let status = status.ok_or(Misfit::Reported)?;
    Ok(Redirect {
        hostname: hostname(raw.hostname.as_deref(), &field_path!(requestRedirect.hostname))?
            .map(Into::into),
        path: path_modifier(raw.path.as_ref(), &field_path!(requestRedirect.path))?,
        port: raw.port,
        scheme,
        status,
    })
}

fn url_rewrite(raw: &api::UrlRewriteFilter) -> Result<UrlRewrite, Misfit> {
    let hostname = hostname(raw.hostname.as_deref(), &field_path!(urlRewrite.hostname))?;
    let hostname = hostname.map(|host| HeaderValue::from_str(host).map_err(|_| Misfit::Reported));
    Ok(UrlRewrite {
        hostname: hostname.transpose()?,
        path: path_modifier(raw.path.as_ref(), &field_path!(urlRewrite.path))?,
    })
}

/// Checks a hostname without a wildcard.
fn hostname<'a>(raw: Option<&'a str>, at: &FieldPath) -> Result<Option<&'a str>, Misfit> {
    let Some(host) = raw else { return Ok(None) };
    match HostPattern::parse(host) {
        // A wildcard breaks a rule of the kind.
        Ok(pattern) if pattern.exact().is_none() => Err(Misfit::Reported),
        Ok(_) => Ok(Some(host)),
        Err(_) if !config::is_hostname(host) => Err(Misfit::Reported),
        Err(error) => {
            let why = error.to_string();
            Err(InvalidFilter::Hostname { host: host.into(), why }.at(at.clone()))
        }
    }
}

fn path_modifier(
    raw: Option<&api::HttpPathModifier>,
    at: &FieldPath,
) -> Result<Option<PathModifier>, Misfit> {
    let Some(raw) = raw else { return Ok(None) };
    let checked = |path: Option<&str>, field: &'static str| {
        let path = path.ok_or(Misfit::Reported)?;
        check_path(path).map_err(|error| error.at(at.clone().field(field)))?;
        Ok::<_, Misfit>(path::settle(path).into())
    };
    Ok(Some(match &raw.kind {
        api::PathModifierType::ReplaceFullPath => {
            PathModifier::Full(checked(raw.replace_full_path.as_deref(), "replaceFullPath")?)
        }
        api::PathModifierType::ReplacePrefixMatch => PathModifier::Prefix(checked(
            raw.replace_prefix_match.as_deref(),
            "replacePrefixMatch",
        )?),
        api::PathModifierType::Unknown(_) => return Err(Misfit::Reported),
    }))
}

/// Checks a replacement path. It may be empty, which removes the prefix.
fn check_path(path: &str) -> Result<(), InvalidFilter> {
    let absolute = if path.starts_with('/') { path.into() } else { format!("/{path}") };
    let fits = PathAndQuery::try_from(absolute).is_ok_and(|whole| whole.query().is_none());
    // `PathAndQuery` drops a fragment without an error.
    if fits && !path.contains(['#', '?']) { Ok(()) } else { Err(InvalidFilter::Path(path.into())) }
}

fn share(raw: &api::RequestMirrorFilter) -> Result<Step, Misfit> {
    let of = |numerator, denominator| Step::Mirror { numerator, denominator };
    let percent = NonZeroU32::MIN.saturating_add(99);
    match (raw.percent, raw.fraction) {
        (None, None) => Ok(of(1, NonZeroU32::MIN)),
        (Some(share), None) if share <= 100 => Ok(of(share, percent)),
        (None, Some(fraction)) => match NonZeroU32::new(fraction.denominator()) {
            Some(denominator) if fraction.numerator <= denominator.get() => {
                Ok(of(fraction.numerator, denominator))
            }
            _ => Err(Misfit::Reported),
        },
        _ => Err(Misfit::Reported),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::shared::Fraction;

    #[test]
    fn a_replacement_is_a_path_alone() {
        // (replacement, accepted)
        let table = [
            ("/new", true),
            ("", true),
            ("new", true),
            ("/a%20b", true),
            ("/a b", false),
            ("/a?b", false),
            ("/a#b", false),
            ("/a\nb", false),
        ];
        for (path, want) in table {
            assert_eq!(check_path(path).is_ok(), want, "{path:?}");
        }
    }

    #[test]
    fn a_share_is_a_part_of_all() {
        let mirror = |percent, fraction: Option<(u32, Option<u32>)>| api::RequestMirrorFilter {
            backend_ref: api::BackendObjectReference {
                group: None,
                kind: None,
                name: "x".into(),
                namespace: None,
                port: Some(80),
            },
            percent,
            fraction: fraction.map(|(numerator, denominator)| Fraction { numerator, denominator }),
        };
        // (percent, fraction, share)
        let table = [
            (None, None, Some((1, 1))),
            (Some(20), None, Some((20, 100))),
            (Some(0), None, Some((0, 100))),
            (Some(101), None, None),
            (None, Some((25, Some(50))), Some((25, 50))),
            (None, Some((35, None)), Some((35, 100))),
            (None, Some((2, Some(1))), None),
            (None, Some((0, Some(0))), None),
            (Some(1), Some((1, None)), None),
        ];
        for (percent, fraction, want) in table {
            let got = share(&mirror(percent, fraction)).ok().map(|step| match step {
                Step::Mirror { numerator, denominator } => (numerator, denominator.get()),
                Step::Run(filter) => panic!("{filter:?}"),
            });
            assert_eq!(got, want, "{percent:?} {fraction:?}");
        }
    }
}
