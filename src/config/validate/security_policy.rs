//! The rules of SecurityPolicy: those of Envoy Gateway's CRD for the supported fields.

use std::net::Ipv6Addr;

use http::{HeaderValue, Method};

use crate::api::HttpMethod;
use crate::api::envoy::{
    AuthorizationAction, Csrf, PolicyAuthorization, PolicyCors, SecurityPolicy,
};
use crate::config::path::Path;
use crate::config::scalar::shown;

use super::http_route::is_origin;
use super::policy_targets;
use super::violations::Violations;

pub(super) fn policy(policy: &SecurityPolicy, at: Path<'_>, found: &mut Violations) {
    let SecurityPolicy { spec, unsupported, .. } = policy;
    policy_targets::spec(spec, at, found);
    if let Some(spec) = &spec.cors {
        cors(spec, at.field("cors"), found);
    }
    if let Some(spec) = &spec.csrf {
        csrf(spec, at.field("csrf"), found);
    }
    if let Some(spec) = &spec.authorization {
        authorization(spec, unsupported, at.field("authorization"), found);
    }
}

fn authorization(
    authorization: &PolicyAuthorization,
    unsupported: &[String],
    at: Path<'_>,
    found: &mut Violations,
) {
    let default_action = authorization.default_action.as_ref();
    let unknown = default_action.and_then(AuthorizationAction::unknown);
    found.word(at.field("defaultAction"), unknown, AuthorizationAction::WORDS);
    let rules = at.field("rules");
    for (index, rule) in authorization.rules.iter().enumerate() {
        let at = rules.item(index);
        if let Some(name) = &rule.name {
            found.length(at.field("name"), name, 1..=253);
        }
        found.word(at.field("action"), rule.action.unknown(), AuthorizationAction::WORDS);
        if let Some(operation) = &rule.operation {
            let at = at.field("operation");
            let has_path =
                unsupported.contains(&format!("spec.authorization.rules[{index}].operation.path"));
            let is_written = !operation.methods.is_empty() || has_path;
            found.require(is_written, at, "at least one of methods or path must be specified");
            let at = at.field("methods");
            found.count(at, operation.methods.len(), 0..=16);
            for (index, method) in operation.methods.iter().enumerate() {
                found.word(at.item(index), method.unknown(), HttpMethod::WORDS);
            }
        }
        let principal = at.field("principal");
        let headers = principal.field("headers");
        found.count(headers, rule.principal.headers.len(), 0..=256);
        for (index, header) in rule.principal.headers.iter().enumerate() {
            let at = headers.item(index);
            found.header_name(at.field("name"), &header.name);
            found.length(at.field("name"), &header.name, 1..=256);
            found.count(at.field("values"), header.values.len(), 1..=256);
            for (index, value) in header.values.iter().enumerate() {
                let is_value = HeaderValue::from_str(value).is_ok();
                let problem = "the value has a control character, so no header can have it";
                found.require(is_value, at.field("values").item(index), problem);
            }
        }
        let (at, ranges) = (principal.field("clientCIDRs"), &rule.principal.client_cidrs);
        // A rule may be complete by a field that is not supported; that field has its own fault.
        let below = format!("spec.authorization.rules[{index}].");
        let is_complete = unsupported.iter().any(|field| field.starts_with(&below));
        let problem = "a rule must say which clients it is for; write at least one address range here, \
                       or a header in `headers`";
        let is_complete = is_complete || !rule.principal.headers.is_empty();
        found.require(is_complete || !ranges.is_empty(), at, problem);
        for (index, range) in ranges.iter().enumerate() {
            client_range(at.item(index), range, found);
        }
    }
}

/// Checks a range of client addresses. It must have a prefix length, as in the CRD.
fn client_range(at: Path<'_>, range: &str, found: &mut Violations) {
    if !found.address_range(at, range) {
        return;
    }
    let address = range.split('/').next().unwrap_or(range);
    // A client has an IPv4 address, never its IPv6 form, so that such a range matches no client.
    if address.parse().is_ok_and(|address: Ipv6Addr| address.to_ipv4_mapped().is_some()) {
        found.add(at, "this range matches no client; write it as a range of IPv4 addresses");
    }
}

fn csrf(csrf: &Csrf, at: Path<'_>, found: &mut Violations) {
    let at = at.field("additionalOrigins");
    found.count(at, csrf.additional_origins.len(), 0..=16);
    for (index, origin) in csrf.additional_origins.iter().enumerate() {
        if !is_source(origin) {
            let problem = format!(
                "`{}` is not an origin; write it like `https://shop.example`, \
                 `https://*.shop.example` or `*`",
                shown(origin)
            );
            found.add(at.item(index), problem);
        }
    }
}

/// Checks an origin of any scheme, as Envoy Gateway's CRD does, and that its port is one.
fn is_source(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some((scheme, authority)) = text.split_once("://").filter(|_| text.len() <= 253) else {
        return false;
    };
    let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte);
    let is_scheme = scheme.bytes().all(in_scheme)
        && scheme.bytes().next().is_some_and(|first| first.is_ascii_alphabetic());
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            (host, digits && port.parse::<u16>().is_ok_and(|port| port > 0))
        }
        None => (authority, true),
    };
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        !label.is_empty() && label.bytes().all(allowed)
    };
    let is_host = host == "*" || host.strip_prefix("*.").unwrap_or(host).split('.').all(is_label);
    is_scheme && is_host && port
}

fn cors(cors: &PolicyCors, at: Path<'_>, found: &mut Violations) {
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        let port = origin.rsplit_once(':').and_then(|(_, port)| port.parse::<u32>().ok());
        if !is_origin(origin) || port.is_some_and(|port| port == 0 || port > 65535) {
            let problem = format!(
                "`{}` is not an origin; write it like `https://shop.example`, \
                 `https://*.shop.example` or `*`",
                shown(origin)
            );
            found.add(at.field("allowOrigins").item(index), problem);
        }
    }
    for (index, method) in cors.allow_methods.iter().enumerate() {
        if method != "*" && Method::from_bytes(method.as_bytes()).is_err() {
            let problem = format!("`{}` is not a method", shown(method));
            found.add(at.field("allowMethods").item(index), problem);
        }
    }
    let headers = [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)];
    for (field, headers) in headers {
        for (index, header) in headers.iter().enumerate().filter(|(_, header)| *header != "*") {
            found.header_name(at.field(field).item(index), header);
        }
    }
}
