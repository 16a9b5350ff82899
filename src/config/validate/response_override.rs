//! The rules of `responseOverride[]` of a BackendTrafficPolicy.

use http::HeaderValue;

use crate::api::envoy::response_override::{
    CustomBody, CustomBodyType, CustomRedirect, CustomResponse, ResponseMatch, ResponseOverride,
    ResponseSource, StatusCodeMatch, StatusCodeMatchType, StringMatchType,
};
use crate::api::{PathModifierType, Scheme};
use crate::config::path::Path;
use crate::config::scalar::shown;
use crate::observe::{Format, Wanted};

use super::violations::{Reference, Violations};
use super::{http_route, route};

pub(super) fn rule(rule: &ResponseOverride, at: Path<'_>, found: &mut Violations) {
    let problem = "exactly one of response or redirect must be specified";
    found.require(rule.response.is_some() != rule.redirect.is_some(), at, problem);
    let unknown = rule.source.as_ref().and_then(ResponseSource::unknown);
    found.word(at.field("source"), unknown, ResponseSource::WORDS);
    matching(&rule.of, at.field("match"), found);
    if let Some(of) = &rule.response {
        response(of, at.field("response"), found);
    }
    if let Some(of) = &rule.redirect {
        redirect(of, at.field("redirect"), found);
    }
}

fn matching(of: &ResponseMatch, at: Path<'_>, found: &mut Violations) {
    let problem = "at least one of statusCodes or responseHeaders must be specified";
    found.require(of.status_codes.is_some() || of.response_headers.is_some(), at, problem);
    if let Some(codes) = &of.status_codes {
        let at = at.field("statusCodes");
        found.count(at, codes.len(), 1..=50);
        for (index, code) in codes.iter().enumerate() {
            status_code(code, at.item(index), found);
        }
    }
    if let Some(headers) = &of.response_headers {
        let at = at.field("responseHeaders");
        found.count(at, headers.len(), 1..=16);
        for (index, header) in headers.iter().enumerate() {
            let at = at.item(index);
            found.header_name(at.field("name"), &header.name);
            let at = at.field("value");
            let unknown = header.value.kind.as_ref().and_then(StringMatchType::unknown);
            found.word(at.field("type"), unknown, StringMatchType::WORDS);
            found.length(at.field("value"), &header.value.value, 1..=1024);
            let is_pattern = header.value.kind == Some(StringMatchType::RegularExpression);
            if is_pattern && regex::Regex::new(&header.value.value).is_err() {
                let problem =
                    format!("`{}` is not a regular expression", shown(&header.value.value));
                found.add(at.field("value"), problem);
            }
        }
    }
}

fn status_code(code: &StatusCodeMatch, at: Path<'_>, found: &mut Violations) {
    let unknown = code.kind.as_ref().and_then(StatusCodeMatchType::unknown);
    found.word(at.field("type"), unknown, StatusCodeMatchType::WORDS);
    let (field, is_set) = match code.kind {
        None | Some(StatusCodeMatchType::Value) => ("value", code.value.is_some()),
        Some(StatusCodeMatchType::Range) => ("range", code.range.is_some()),
        Some(StatusCodeMatchType::Unknown(_)) => ("type", true),
    };
    let kind = if field == "range" { "Range" } else { "Value" };
    found.require(is_set, at, &format!("{field} must be set for type {kind}"));
    if let Some(range) = &code.range {
        let problem = "end must be greater than start";
        found.require(range.end > range.start, at.field("range"), problem);
    }
}

fn response(response: &CustomResponse, at: Path<'_>, found: &mut Violations) {
    if let Some(of) = &response.body {
        body(of, at.field("body"), found);
        let text = of.inline.as_deref().filter(|_| of.kind != Some(CustomBodyType::ValueRef));
        if let Some(text) = text {
            expansion(text, at.field("body").field("inline"), found);
        }
    }
    if let Some(code) = response.status_code
        && !(200..=599).contains(&code)
    {
        let problem = format!("`{code}` is not a status of an answer; use 200 to 599");
        found.add(at.field("statusCode"), problem);
    }
    let kind = response.content_type.as_ref();
    if kind.is_some_and(|kind| HeaderValue::from_str(kind).is_err()) {
        found.add(at.field("contentType"), "the value has a control character");
    }
    if let Some(header) = &response.header {
        let at = at.field("header");
        let problem = "Remove is not supported for header in CustomResponse";
        found.require(header.remove.is_empty(), at, problem);
        route::header_modifier(header, at, found);
    }
}

/// Checks the operators in a body.
fn expansion(text: &str, at: Path<'_>, found: &mut Violations) {
    let mut faults = Vec::new();
    Format::body(text, None, &mut Wanted::default(), &mut faults);
    for fault in faults.into_iter().filter(|fault| fault.is_malformed) {
        found.add(at, format!("the body cannot be expanded: {}", fault.problem));
    }
}

fn body(body: &CustomBody, at: Path<'_>, found: &mut Violations) {
    let unknown = body.kind.as_ref().and_then(CustomBodyType::unknown);
    found.word(at.field("type"), unknown, CustomBodyType::WORDS);
    match body.kind {
        None | Some(CustomBodyType::Inline) => {
            found.require(body.inline.is_some(), at, "inline must be set for type Inline");
        }
        Some(CustomBodyType::ValueRef) => {
            found.require(body.value_ref.is_some(), at, "valueRef must be set for type ValueRef");
        }
        Some(CustomBodyType::Unknown(_)) => {}
    }
    if let Some(to) = &body.value_ref {
        found.require(to.kind == "ConfigMap", at, "only ConfigMap is supported for ValueRef");
        let to = Reference {
            group: Some(&to.group),
            kind: Some(&to.kind),
            name: &to.name,
            namespace: None,
        };
        found.reference(at.field("valueRef"), to);
    }
}

fn redirect(redirect: &CustomRedirect, at: Path<'_>, found: &mut Violations) {
    let unknown = redirect.scheme.as_ref().and_then(Scheme::unknown);
    found.word(at.field("scheme"), unknown, Scheme::WORDS);
    if let Some(hostname) = &redirect.hostname {
        found.precise_hostname(at.field("hostname"), hostname);
    }
    if let Some(path) = &redirect.path {
        let at = at.field("path");
        let problem = "only ReplaceFullPath is supported for path.type";
        found.require(path.kind == PathModifierType::ReplaceFullPath, at, problem);
        http_route::path_modifier(path, at, found);
    }
    if let Some(code) = redirect.status_code {
        let problem = format!("{code} is not supported; use 301 or 302");
        found.require([301, 302].contains(&code), at.field("statusCode"), &problem);
    }
}
