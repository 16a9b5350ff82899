//! The rules of HTTPRoute.

use crate::api::{
    CorsFilter, ExternalAuthFilter, ExternalAuthProtocol, HttpBackendRef, HttpFilterType,
    HttpMethod, HttpPathMatch, HttpPathModifier, HttpRouteFilter, HttpRouteMatch, HttpRouteRetry,
    HttpRouteRule, HttpRouteSpec, HttpRouteTimeouts, MatchType, PathMatchType, PathModifierType,
    RequestRedirectFilter, Scheme,
};
use crate::config::path::Path;
use crate::config::scalar::shown;

use super::route;
use super::violations::Violations;

pub(super) fn spec(spec: &HttpRouteSpec, at: Path<'_>, found: &mut Violations) {
    route::parents(&spec.parent_refs, at.field("parentRefs"), found);
    let scope = spec.use_default_gateways.as_ref();
    route::default_gateways(scope, at.field("useDefaultGateways"), found);
    route::hostnames(&spec.hostnames, at.field("hostnames"), found);

    let Some(rules) = &spec.rules else { return };
    let at = at.field("rules");
    found.count(at, rules.len(), 1..=16);
    route::rule_names(rules.iter().map(|rule| rule.name.as_deref()), at, found);
    // A rule without matches has one that matches every path.
    let total = rules.iter().map(|rule| rule.matches.len().max(1)).sum();
    route::total_matches(total, at, found);
    for (index, spec) in rules.iter().enumerate() {
        rule(spec, at.item(index), found);
    }
}

fn rule(rule: &HttpRouteRule, at: Path<'_>, found: &mut Violations) {
    let matches = at.field("matches");
    found.count(matches, rule.matches.len(), 0..=64);
    for (index, spec) in rule.matches.iter().enumerate() {
        route_match(spec, matches.item(index), found);
    }
    filters(&rule.filters, at.field("filters"), found);
    let backends = at.field("backendRefs");
    found.count(backends, rule.backend_refs.len(), 0..=16);
    for (index, backend) in rule.backend_refs.iter().enumerate() {
        backend_ref(backend, backends.item(index), found);
    }
    if let Some(spec) = &rule.timeouts {
        timeouts(*spec, at.field("timeouts"), found);
    }
    if let Some(spec) = &rule.retry {
        retry(spec, at.field("retry"), found);
    }
    if let Some(session) = &rule.session_persistence {
        route::session_persistence(session, at.field("sessionPersistence"), found);
    }

    let redirects = rule.filters.iter().any(|filter| filter.request_redirect.is_some());
    let problem = "RequestRedirect filter must not be used together with backendRefs";
    found.require(!redirects || rule.backend_refs.is_empty(), at, problem);
    prefix_replacement(rule, at, found);
}

/// Checks that `ReplacePrefixMatch` is used only in a rule with exactly one prefix.
fn prefix_replacement(rule: &HttpRouteRule, at: Path<'_>, found: &mut Violations) {
    let has_one_prefix = match rule.matches.as_slice() {
        [] => true,
        [one] => one.path.as_ref().is_none_or(|path| *path.kind() == PathMatchType::PathPrefix),
        _ => false,
    };
    if has_one_prefix {
        return;
    }
    let replaces = |path: Option<&HttpPathModifier>| {
        path.is_some_and(|path| path.kind == PathModifierType::ReplacePrefixMatch)
    };
    let redirects = |filter: &HttpRouteFilter| {
        filter.request_redirect.as_ref().is_some_and(|redirect| replaces(redirect.path.as_ref()))
    };
    let rewrites = |filter: &HttpRouteFilter| {
        filter.url_rewrite.as_ref().is_some_and(|rewrite| replaces(rewrite.path.as_ref()))
    };
    let of_backends = || rule.backend_refs.iter().flat_map(|backend| &backend.filters);
    for (breaks, problem) in [
        (
            rule.filters.iter().any(redirects),
            "When using RequestRedirect filter with path.replacePrefixMatch, exactly one PathPrefix \
             match must be specified",
        ),
        (
            rule.filters.iter().any(rewrites),
            "When using URLRewrite filter with path.replacePrefixMatch, exactly one PathPrefix \
             match must be specified",
        ),
        (
            of_backends().any(redirects),
            "Within backendRefs, when using RequestRedirect filter with path.replacePrefixMatch, \
             exactly one PathPrefix match must be specified",
        ),
        (
            of_backends().any(rewrites),
            "Within backendRefs, When using URLRewrite filter with path.replacePrefixMatch, \
             exactly one PathPrefix match must be specified",
        ),
    ] {
        found.require(!breaks, at, problem);
    }
}

fn backend_ref(backend: &HttpBackendRef, at: Path<'_>, found: &mut Violations) {
    route::backend(backend.object(), at, found);
    route::weight(backend.weight(), at.field("weight"), found);
    filters(&backend.filters, at.field("filters"), found);
}

fn route_match(spec: &HttpRouteMatch, at: Path<'_>, found: &mut Violations) {
    if let Some(path) = &spec.path {
        path_match(path, at.field("path"), found);
    }
    let headers = spec.headers.iter().map(|h| (h.kind.as_ref(), h.name.as_str(), h.value.as_str()));
    route::header_matches(headers, at.field("headers"), found);
    let params = at.field("queryParams");
    found.count(params, spec.query_params.len(), 0..=16);
    for (index, param) in spec.query_params.iter().enumerate() {
        let at = params.item(index);
        let unknown = param.kind.as_ref().and_then(MatchType::unknown);
        found.word(at.field("type"), unknown, MatchType::WORDS);
        // The CRD has the pattern of header names here, too.
        found.header_name(at.field("name"), &param.name);
        found.length(at.field("value"), &param.value, 1..=1024);
    }
    let names = spec.query_params.iter().map(|param| &param.name);
    let problem = "duplicate name; the first one counts, remove the other";
    found.unique(params, names, problem);
    if let Some(method) = &spec.method {
        found.word(at.field("method"), method.unknown(), HttpMethod::WORDS);
    }
}

fn path_match(path: &HttpPathMatch, at: Path<'_>, found: &mut Violations) {
    let (kind, value, here) = (path.kind(), path.value(), at.field("value"));
    found.word(at.field("type"), kind.unknown(), PathMatchType::WORDS);
    found.length(here, value, 0..=1024);
    if !matches!(kind, PathMatchType::Exact | PathMatchType::PathPrefix) {
        return;
    }
    let problem = "value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']";
    found.require(value.starts_with('/'), here, problem);
    for part in ["//", "/./", "/../", "%2f", "%2F", "#"] {
        if value.contains(part) {
            let problem =
                format!("must not contain '{part}' when type one of ['Exact', 'PathPrefix']");
            found.add(here, problem);
        }
    }
    for end in ["/..", "/."] {
        if value.ends_with(end) {
            let problem =
                format!("must not end with '{end}' when type one of ['Exact', 'PathPrefix']");
            found.add(here, problem);
        }
    }
    if !is_path(value) {
        let problem = "must only contain valid characters (matching \
                       ^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$) for types ['Exact', \
                       'PathPrefix']";
        found.add(here, problem);
    }
}

/// `^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$`
pub(crate) fn is_path(text: &str) -> bool {
    let bytes = text.as_bytes();
    let allowed = |(index, byte): (usize, &u8)| match byte {
        b'%' => {
            bytes.get(index + 1..index + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
        }
        byte => byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(byte),
    };
    !text.is_empty() && bytes.iter().enumerate().all(allowed)
}

fn filters(filters: &[HttpRouteFilter], at: Path<'_>, found: &mut Violations) {
    found.count(at, filters.len(), 0..=16);
    let kinds: Vec<&str> = filters.iter().map(|filter| filter.kind.as_str()).collect();
    if kinds.contains(&"RequestRedirect") && kinds.contains(&"URLRewrite") {
        let problem = "May specify either httpRouteFilterRequestRedirect or \
                       httpRouteFilterRequestRewrite, but not both";
        found.incompatible(at, problem);
    }
    let once = [
        "CORS",
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestRedirect",
        "URLRewrite",
    ];
    route::not_repeated(&kinds, &once, at, found);
    for (index, spec) in filters.iter().enumerate() {
        filter(spec, at.item(index), found);
    }
}

fn filter(filter: &HttpRouteFilter, at: Path<'_>, found: &mut Violations) {
    found.word(at.field("type"), filter.kind.unknown(), HttpFilterType::WORDS);
    let settings = [
        ("CORS", "cors", filter.cors.is_some()),
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
        ("RequestRedirect", "requestRedirect", filter.request_redirect.is_some()),
        ("URLRewrite", "urlRewrite", filter.url_rewrite.is_some()),
        ("ExternalAuth", "externalAuth", filter.external_auth.is_some()),
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
    if let Some(spec) = &filter.request_redirect {
        redirect(spec, at.field("requestRedirect"), found);
    }
    if let Some(rewrite) = &filter.url_rewrite {
        let at = at.field("urlRewrite");
        if let Some(hostname) = &rewrite.hostname {
            found.precise_hostname(at.field("hostname"), hostname);
        }
        if let Some(path) = &rewrite.path {
            path_modifier(path, at.field("path"), found);
        }
    }
    if let Some(spec) = &filter.cors {
        cors(spec, at.field("cors"), found);
    }
    if let Some(spec) = &filter.external_auth {
        external_auth(spec, at.field("externalAuth"), found);
    }
    if let Some(reference) = &filter.extension_ref {
        route::extension(reference, at.field("extensionRef"), found);
    }
}

fn redirect(redirect: &RequestRedirectFilter, at: Path<'_>, found: &mut Violations) {
    if let Some(scheme) = &redirect.scheme {
        found.word(at.field("scheme"), scheme.unknown(), Scheme::WORDS);
    }
    if let Some(hostname) = &redirect.hostname {
        found.precise_hostname(at.field("hostname"), hostname);
    }
    if let Some(path) = &redirect.path {
        path_modifier(path, at.field("path"), found);
    }
    if let Some(port) = redirect.port {
        found.port(at.field("port"), port);
    }
    if !matches!(redirect.status_code(), 301 | 302 | 303 | 307 | 308) {
        let problem = format!(
            "`{}` is not a redirect status; use 301, 302, 303, 307 or 308",
            redirect.status_code()
        );
        found.add(at.field("statusCode"), problem);
    }
}

pub(super) fn path_modifier(path: &HttpPathModifier, at: Path<'_>, found: &mut Violations) {
    found.word(at.field("type"), path.kind.unknown(), PathModifierType::WORDS);
    for (kind, field, value) in [
        (PathModifierType::ReplaceFullPath, "replaceFullPath", &path.replace_full_path),
        (PathModifierType::ReplacePrefixMatch, "replacePrefixMatch", &path.replace_prefix_match),
    ] {
        match value {
            Some(value) => {
                found.length(at.field(field), value, 0..=1024);
                let problem = format!("type must be '{kind}' when {field} is set");
                found.require(path.kind == kind, at.field(field), &problem);
            }
            None => {
                let problem = format!("{field} must be specified when type is set to '{kind}'");
                found.require(path.kind != kind, at, &problem);
            }
        }
    }
}

fn cors(cors: &CorsFilter, at: Path<'_>, found: &mut Violations) {
    let alone = |list: &[String]| list.len() == 1 || !list.iter().any(|item| item == "*");
    let twice = "duplicate entry; remove one";

    let origins = at.field("allowOrigins");
    found.count(origins, cors.allow_origins.len(), 0..=64);
    found.unique(origins, &cors.allow_origins, twice);
    let problem = "AllowOrigins cannot contain '*' alongside other origins";
    found.require(alone(&cors.allow_origins), origins, problem);
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        if !is_origin(origin) {
            let problem = format!(
                "`{}` is not an origin; write it like `https://shop.example`, \
                 `https://*.shop.example` or `*`",
                shown(origin)
            );
            found.add(origins.item(index), problem);
        }
    }

    let methods = at.field("allowMethods");
    found.count(methods, cors.allow_methods.len(), 0..=9);
    found.unique(methods, &cors.allow_methods, twice);
    let problem = "AllowMethods cannot contain '*' alongside other methods";
    found.require(alone(&cors.allow_methods), methods, problem);
    for (index, method) in cors.allow_methods.iter().enumerate() {
        let known = method == "*" || HttpMethod::WORDS.contains(&method.as_str());
        found.word(
            methods.item(index),
            Some(method.as_str()).filter(|_| !known),
            HttpMethod::WORDS,
        );
    }

    for (field, headers) in
        [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)]
    {
        let at = at.field(field);
        found.count(at, headers.len(), 0..=64);
        found.unique(at, headers, twice);
        for (index, header) in headers.iter().enumerate() {
            found.header_name(at.item(index), header);
        }
    }
    let problem = "AllowHeaders cannot contain '*' alongside other methods";
    found.require(alone(&cors.allow_headers), at.field("allowHeaders"), problem);
    if cors.max_age() == 0 {
        found.add(at.field("maxAge"), "0 is out of range; use 1 or more");
    }
}

/// `(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)`
pub(crate) fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(authority) = rest.filter(|_| text.len() <= 253) else { return false };
    let host = match authority.split_once(':') {
        Some((_, port))
            if !(1..=5).contains(&port.len()) || !port.bytes().all(|b| b.is_ascii_digit()) =>
        {
            return false;
        }
        Some((host, _)) => host,
        None => authority,
    };
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host == "*" || host.strip_prefix("*.").unwrap_or(host).split('.').all(is_label)
}

fn external_auth(auth: &ExternalAuthFilter, at: Path<'_>, found: &mut Violations) {
    found.word(at.field("protocol"), auth.protocol.unknown(), ExternalAuthProtocol::WORDS);
    route::backend(auth.backend_ref.object(), at.field("backendRef"), found);
    for (protocol, field, is_set) in [
        (ExternalAuthProtocol::Grpc, "grpc", auth.grpc.is_some()),
        (ExternalAuthProtocol::Http, "http", auth.http.is_some()),
    ] {
        let is_meant = auth.protocol == protocol;
        let problem = format!("{field} must be specified when protocol is set to '{protocol}'");
        found.require(is_set || !is_meant, at, &problem);
        let problem = format!("protocol must be '{protocol}' when {field} is set");
        found.require(is_meant || !is_set, at.field(field), &problem);
    }
    if let Some(http) = &auth.http {
        let at = at.field("http");
        if let Some(path) = http.path.as_deref().filter(|path| !is_path(path) || path.len() > 1024)
        {
            found.add(at.field("path"), format!("`{}` is not a path", shown(path)));
        }
        found.count(at.field("allowedHeaders"), http.allowed_headers.len(), 0..=64);
        let response = &http.allowed_response_headers;
        found.count(at.field("allowedResponseHeaders"), response.len(), 0..=64);
    }
    if let Some(grpc) = &auth.grpc {
        let at = at.field("grpc");
        found.count(at.field("allowedHeaders"), grpc.allowed_headers.len(), 0..=64);
    }
}

fn timeouts(timeouts: HttpRouteTimeouts, at: Path<'_>, found: &mut Violations) {
    let (Some(request), Some(backend)) = (timeouts.request, timeouts.backend_request) else {
        return;
    };
    let problem = "backendRequest timeout cannot be longer than request timeout";
    let is_off = request.get().is_zero();
    found.require(is_off || backend <= request, at.field("backendRequest"), problem);
}

fn retry(retry: &HttpRouteRetry, at: Path<'_>, found: &mut Violations) {
    let codes = at.field("codes");
    for (index, code) in retry.codes.iter().enumerate() {
        found.number(codes.item(index), *code, 400..=599);
    }
    found.unique(codes, &retry.codes, "duplicate code; remove one");
    if retry.attempts == Some(0) {
        found.add(at.field("attempts"), "0 is out of range; use 1 or more");
    }
}

#[cfg(test)]
mod tests {
    use crate::api::{Kind, ObjectKey};
    use crate::config::fault::Reason;

    use super::*;

    fn found(check: impl FnOnce(&mut Violations)) -> Vec<Reason> {
        let mut found = Violations::of(ObjectKey::new(Kind::HttpRoute, "default", "a"));
        check(&mut found);
        found.into_vec().into_iter().map(|fault| fault.reason).collect()
    }

    #[test]
    fn no_try_may_outlive_the_request() {
        // (request, backendRequest, fits)
        let table = [
            (None, None, true),
            (Some("10s"), None, true),
            (Some("10s"), Some("10s"), true),
            (Some("0s"), Some("10s"), true),
            (Some("10s"), Some("0s"), true),
            (None, Some("1s"), true),
            (Some("1s"), Some("1001ms"), false),
        ];
        for (request, backend, want) in table {
            let parse = |text: &str| text.parse().unwrap();
            let (request, backend_request) = (request.map(parse), backend.map(parse));
            let limits = HttpRouteTimeouts { request, backend_request };
            let found = found(|found| timeouts(limits, Path::Root, found));
            assert_eq!(found.is_empty(), want, "{request:?} {backend_request:?}");
        }
    }

    #[test]
    fn a_rule_redirects_or_rewrites_and_does_either_once() {
        let table: [(&[&str], bool); 5] = [
            (&["RequestRedirect", "RequestHeaderModifier"], true),
            (&["RequestMirror", "RequestMirror", "ExtensionRef", "ExtensionRef"], true),
            (&["RequestRedirect", "URLRewrite"], false),
            (&["CORS", "CORS"], false),
            (&["RequestHeaderModifier", "URLRewrite", "RequestHeaderModifier"], false),
        ];
        for (kinds, want) in table {
            let written = kinds.iter().map(|kind| serde_json::json!({ "type": kind }));
            let written: Vec<HttpRouteFilter> =
                written.map(|one| serde_json::from_value(one).unwrap()).collect();
            let found = found(|found| filters(&written, Path::Root, found));
            let fits = !found.contains(&Reason::IncompatibleFilters);
            assert_eq!(fits, want, "{kinds:?}");
        }
    }
}
