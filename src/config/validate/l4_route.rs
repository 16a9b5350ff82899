//! The rules of TLSRoute, TCPRoute and UDPRoute, which have one rule with backends each.

use std::net::IpAddr;

use crate::api::{
    DefaultScope, ParentReference, PlainBackendRef, TcpRouteSpec, TlsRouteSpec, UdpRouteSpec,
};
use crate::config::names;
use crate::config::path::Path;

use super::route;
use super::violations::Violations;

pub(super) fn tls(spec: &TlsRouteSpec, at: Path<'_>, found: &mut Violations) {
    common(&spec.parent_refs, spec.use_default_gateways.as_ref(), at, found);
    hostnames(&spec.hostnames, at.field("hostnames"), found);
    let rules = spec.rules.iter().map(|rule| (rule.name.as_deref(), &*rule.backend_refs));
    self::rules(rules, at.field("rules"), found);
}

pub(super) fn tcp(spec: &TcpRouteSpec, at: Path<'_>, found: &mut Violations) {
    common(&spec.parent_refs, spec.use_default_gateways.as_ref(), at, found);
    let rules = spec.rules.iter().map(|rule| (rule.name.as_deref(), &*rule.backend_refs));
    self::rules(rules, at.field("rules"), found);
}

pub(super) fn udp(spec: &UdpRouteSpec, at: Path<'_>, found: &mut Violations) {
    common(&spec.parent_refs, spec.use_default_gateways.as_ref(), at, found);
    let rules = spec.rules.iter().map(|rule| (rule.name.as_deref(), &*rule.backend_refs));
    self::rules(rules, at.field("rules"), found);
}

fn common(
    parents: &[ParentReference],
    scope: Option<&DefaultScope>,
    at: Path<'_>,
    found: &mut Violations,
) {
    route::parents(parents, at.field("parentRefs"), found);
    route::default_gateways(scope, at.field("useDefaultGateways"), found);
}

/// Checks hostnames by upstream's rules; [`HostPattern`](crate::net::HostPattern) is stricter and
/// checks them where they are used.
fn hostnames(hostnames: &[String], at: Path<'_>, found: &mut Violations) {
    found.count(at, hostnames.len(), 1..=1024);
    for (index, hostname) in hostnames.iter().enumerate() {
        let problem = if hostname.parse::<IpAddr>().is_ok() {
            "Hostnames cannot contain an IP"
        } else if names::hostname(hostname).is_ok() {
            continue;
        } else if hostname.contains('*') {
            "Wildcards on hostnames must be the first label, and the rest of hostname must be \
             valid based on RFC-1123"
        } else {
            "Hostnames must be valid based on RFC-1123"
        };
        found.add(at.item(index), problem);
    }
}

fn rules<'a>(
    rules: impl ExactSizeIterator<Item = (Option<&'a str>, &'a [PlainBackendRef])>,
    at: Path<'_>,
    found: &mut Violations,
) {
    found.count(at, rules.len(), 1..=1);
    for (index, (name, backends)) in rules.enumerate() {
        let at = at.item(index);
        if let Some(name) = name {
            found.section_name(at.field("name"), name);
        }
        let at = at.field("backendRefs");
        found.count(at, backends.len(), 1..=16);
        for (index, backend) in backends.iter().enumerate() {
            let at = at.item(index);
            route::backend(backend.object(), at, found);
            route::weight(backend.weight(), at.field("weight"), found);
        }
    }
}
