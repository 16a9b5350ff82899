//! Responses in place of others, from `responseOverride` of a BackendTrafficPolicy, whose rules have
//! been checked.

use http::{HeaderName, HeaderValue, StatusCode};

use crate::api::envoy::response_override::{
    CustomBodyType, CustomRedirect, CustomResponse, ResponseHeaderMatch, ResponseOverride as Raw,
    ResponseSource, StatusCodeMatch, StringMatchType,
};
use crate::api::{self, Kind, ObjectKey};
use crate::compile::matches;
use crate::config::{Fault, FieldPath, field_path};
use crate::filters::{Broken, HeaderModifier, PathModifier, Redirect, Scheme};
use crate::graph::AppliedTraffic;
use crate::observe::{Format, Wanted};
use crate::snapshot::{
    NewResponse, ReplacedSource, Replacement, ResponseOverride, ResponseOverrides, TextMatch,
};

use super::header_modifier::header_modifier;

/// Compiles the overrides of a policy; `None` if it has none. Operators that bodies cannot expand are
/// reported in `warnings`, once for all rules.
///
/// # Errors
///
/// Fails if one cannot run as written. No request may pass then.
pub(in crate::compile) fn response_overrides(
    policy: &AppliedTraffic<'_>,
    warnings: &mut Vec<Fault>,
) -> Result<Option<Box<ResponseOverrides>>, Broken> {
    let raw = &policy.spec.response_override;
    if raw.is_empty() {
        return Ok(None);
    }
    let author = policy.author(|spec| !spec.response_override.is_empty());
    let (mut wanted, mut unserved) = (Wanted::default(), Vec::new());
    let all = raw.iter().enumerate().map(|(place, raw)| {
        let by = match (&raw.response, &raw.redirect) {
            (Some(of), _) => {
                let text = of.body.as_ref().and_then(|body| match &body.kind {
                    Some(CustomBodyType::ValueRef) => {
                        policy.value(author, &body.value_ref.as_ref()?.name)
                    }
                    _ => body.inline.as_deref(),
                });
                let at = field_path!(spec.responseOverride[place].response);
                Replacement::Response(Box::new(response(of, text, at, &mut wanted, &mut unserved)?))
            }
            (None, redirect) => Replacement::Redirect(self::redirect(redirect.as_ref()?)?),
        };
        let statuses = raw.of.status_codes.iter().flatten().map(status);
        let headers = raw.of.response_headers.iter().flatten().map(header);
        Some(ResponseOverride {
            source: source(raw)?,
            statuses: statuses.collect::<Option<_>>()?,
            headers: headers.collect::<Option<_>>()?,
            by,
        })
    });
    let all = all.collect::<Option<Box<[_]>>>().ok_or(Broken)?;
    let (namespace, name) = (author.namespace(), &author.name);
    let key = ObjectKey::new(Kind::BackendTrafficPolicy, namespace, name);
    for (field, problem) in unserved {
        let fault = Fault::warning(key.clone(), field, problem);
        if !warnings.contains(&fault) {
            warnings.push(fault);
        }
    }
    let policy = format!("{namespace}/{name}").into();
    Ok(Some(Box::new(ResponseOverrides { all, wanted, policy })))
}

fn source(raw: &Raw) -> Option<ReplacedSource> {
    Some(match raw.source {
        None | Some(ResponseSource::All) => ReplacedSource::All,
        Some(ResponseSource::Backend) => ReplacedSource::Backend,
        Some(ResponseSource::Local) => ReplacedSource::Local,
        Some(ResponseSource::Unknown(_)) => return None,
    })
}

fn status(raw: &StatusCodeMatch) -> Option<std::ops::RangeInclusive<u16>> {
    // What no status can be is cut off.
    let code = |code: i64| u16::try_from(code.max(0)).unwrap_or(u16::MAX);
    match (&raw.value, &raw.range, raw.has_range()) {
        (Some(value), _, false) => Some(code(*value)..=code(*value)),
        (_, Some(range), true) => Some(code(range.start)..=code(range.end)),
        _ => None,
    }
}

fn header(raw: &ResponseHeaderMatch) -> Option<(HeaderName, TextMatch)> {
    let name = HeaderName::from_bytes(raw.name.as_bytes()).ok()?;
    let text = raw.value.value.as_str();
    let value = match &raw.value.kind {
        None | Some(StringMatchType::Exact) => TextMatch::Exact(text.into()),
        Some(StringMatchType::Prefix) => TextMatch::Prefix(text.into()),
        Some(StringMatchType::Suffix) => TextMatch::Suffix(text.into()),
        Some(StringMatchType::RegularExpression) => TextMatch::Regex(matches::whole(text).ok()?),
        Some(StringMatchType::Unknown(_)) => return None,
    };
    Some((name, value))
}

fn response(
    raw: &CustomResponse,
    text: Option<&str>,
    at: FieldPath,
    wanted: &mut Wanted,
    unserved: &mut Vec<(FieldPath, String)>,
) -> Option<NewResponse> {
    let kind = raw.content_type.as_deref().filter(|kind| !kind.is_empty());
    let body = match text.filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => {
            let mut faults = Vec::new();
            let body = Format::body(text, kind, wanted, &mut faults);
            let at = at.clone().field("body");
            unserved.extend(faults.into_iter().map(|fault| (at.clone(), fault.problem)));
            Some(body?)
        }
    };
    let headers = match &raw.header {
        Some(raw) => header_modifier(raw, &at.field("header")).ok()?,
        None => HeaderModifier::default(),
    };
    let status = match raw.status_code {
        None => None,
        Some(code) => Some(StatusCode::from_u16(u16::try_from(code).ok()?).ok()?),
    };
    Some(NewResponse {
        status,
        content_type: kind.map(HeaderValue::from_str).transpose().ok()?,
        body,
        headers,
    })
}

fn redirect(raw: &CustomRedirect) -> Option<Redirect> {
    let path = match &raw.path {
        None => None,
        Some(path) => Some(PathModifier::Full(path.replace_full_path.as_deref()?.into())),
    };
    let port = match raw.port {
        None => None,
        Some(port) => Some(u16::try_from(port).ok()?),
    };
    Some(Redirect {
        hostname: raw.hostname.as_deref().map(Into::into),
        path,
        port,
        scheme: match &raw.scheme {
            None => None,
            Some(api::Scheme::Http) => Some(Scheme::Http),
            Some(api::Scheme::Https) => Some(Scheme::Https),
            Some(api::Scheme::Unknown(_)) => return None,
        },
        status: match raw.status_code {
            Some(301) => StatusCode::MOVED_PERMANENTLY,
            _ => StatusCode::FOUND,
        },
    })
}
