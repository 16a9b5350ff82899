//! The rules of SecurityPolicy: those of Envoy Gateway's CRD for the supported fields.

use std::net::Ipv6Addr;

use http::Method;

use crate::api::envoy::{AuthorizationAction, PolicyAuthorization, PolicyCors, SecurityPolicy};
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
        let principal = at.field("principal");
        let (at, ranges) = (principal.field("clientCIDRs"), &rule.principal.client_cidrs);
        // A rule may be complete by a field that is not supported; that field has its own fault.
        let below = format!("spec.authorization.rules[{index}].");
        let is_complete = unsupported.iter().any(|field| field.starts_with(&below));
        let problem = "a rule must say which clients it is for; write at least one address range";
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
