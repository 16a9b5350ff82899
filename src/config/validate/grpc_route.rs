//! The rules of GRPCRoute.

use crate::api::{
    GrpcFilterType, GrpcMethodMatch, GrpcRouteFilter, GrpcRouteMatch, GrpcRouteRule, GrpcRouteSpec,
    MatchType,
};
use crate::config::path::Path;

use super::route;
use super::violations::Violations;

pub(super) fn spec(spec: &GrpcRouteSpec, at: Path<'_>, found: &mut Violations) {
    route::parents(&spec.parent_refs, at.field("parentRefs"), found);
    let scope = spec.use_default_gateways.as_ref();
    route::default_gateways(scope, at.field("useDefaultGateways"), found);
    route::hostnames(&spec.hostnames, at.field("hostnames"), found);

    let at = at.field("rules");
    found.count(at, spec.rules.len(), 0..=16);
    route::rule_names(spec.rules.iter().map(|rule| rule.name.as_deref()), at, found);
    let total = spec.rules.iter().map(|rule| rule.matches.len()).sum();
    route::total_matches(total, at, found);
    for (index, spec) in spec.rules.iter().enumerate() {
        rule(spec, at.item(index), found);
    }
}

fn rule(rule: &GrpcRouteRule, at: Path<'_>, found: &mut Violations) {
    let matches = at.field("matches");
    found.count(matches, rule.matches.len(), 0..=64);
    for (index, spec) in rule.matches.iter().enumerate() {
        route_match(spec, matches.item(index), found);
    }
    filters(&rule.filters, at.field("filters"), found);
    let backends = at.field("backendRefs");
    found.count(backends, rule.backend_refs.len(), 0..=16);
    for (index, backend) in rule.backend_refs.iter().enumerate() {
        let at = backends.item(index);
        route::backend(backend.object(), at, found);
        route::weight(backend.weight(), at.field("weight"), found);
        filters(&backend.filters, at.field("filters"), found);
    }
    if let Some(session) = &rule.session_persistence {
        route::session_persistence(session, at.field("sessionPersistence"), found);
    }
}

fn route_match(spec: &GrpcRouteMatch, at: Path<'_>, found: &mut Violations) {
    if let Some(method) = &spec.method {
        method_match(method, at.field("method"), found);
    }
    let headers = spec.headers.iter().map(|h| (h.kind.as_ref(), h.name.as_str(), h.value.as_str()));
    route::header_matches(headers, at.field("headers"), found);
}

fn method_match(spec: &GrpcMethodMatch, at: Path<'_>, found: &mut Violations) {
    found.word(at.field("type"), spec.kind().unknown(), MatchType::WORDS);
    let is_said = spec.service.is_some() || spec.method.is_some();
    found.require(is_said, at, "One or both of 'service' or 'method' must be specified");
    let is_exact = *spec.kind() == MatchType::Exact;
    if let Some(service) = &spec.service {
        let at = at.field("service");
        found.length(at, service, 0..=1024);
        let words = service.strip_prefix('.').unwrap_or(service);
        let problem = r"service must only contain valid characters (matching ^(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$)";
        found.require(!is_exact || words.split('.').all(is_word), at, problem);
    }
    if let Some(method) = &spec.method {
        let at = at.field("method");
        found.length(at, method, 0..=1024);
        let problem =
            "method must only contain valid characters (matching ^[A-Za-z_][A-Za-z_0-9]*$)";
        found.require(!is_exact || is_word(method), at, problem);
    }
}

/// `^[A-Za-z_][A-Za-z_0-9]*$`
fn is_word(text: &str) -> bool {
    text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn filters(filters: &[GrpcRouteFilter], at: Path<'_>, found: &mut Violations) {
    found.count(at, filters.len(), 0..=16);
    let kinds: Vec<&str> = filters.iter().map(|filter| filter.kind.as_str()).collect();
    let once = ["RequestHeaderModifier", "ResponseHeaderModifier"];
    route::not_repeated(&kinds, &once, at, found);
    for (index, spec) in filters.iter().enumerate() {
        filter(spec, at.item(index), found);
    }
}

fn filter(filter: &GrpcRouteFilter, at: Path<'_>, found: &mut Violations) {
    found.word(at.field("type"), filter.kind.unknown(), GrpcFilterType::WORDS);
    let settings = [
        (
            "RequestHeaderModifier",
            "requestHeaderModifier",
            filter.request_header_modifier.is_some(),
        ),
        (
            "ResponseHeaderModifier",
            "responseHeaderModifier",
            filter.response_header_modifier.is_some(),
        ),
        ("RequestMirror", "requestMirror", filter.request_mirror.is_some()),
        ("ExtensionRef", "extensionRef", filter.extension_ref.is_some()),
    ];
    route::union(filter.kind.as_str(), &settings, at, found);
    if let Some(modifier) = &filter.request_header_modifier {
        route::header_modifier(modifier, at.field("requestHeaderModifier"), found);
    }
    if let Some(modifier) = &filter.response_header_modifier {
        route::header_modifier(modifier, at.field("responseHeaderModifier"), found);
    }
    if let Some(mirror) = &filter.request_mirror {
        route::mirror(mirror, at.field("requestMirror"), found);
    }
    if let Some(reference) = &filter.extension_ref {
        route::extension(reference, at.field("extensionRef"), found);
    }
}
