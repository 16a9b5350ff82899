//! The rules of `loadBalancer`, which several kinds embed.

use http::HeaderName;

use crate::api::envoy::load_balancer::{
    BackendUtilization, ConsistentHash, ConsistentHashType, HashCookie, LoadBalancer,
    LoadBalancerModule, LoadBalancerType, ZoneAware,
};
use crate::config::path::Path;
use crate::config::scalar::shown;

use super::violations::Violations;

pub(super) fn load_balancer(of: &LoadBalancer, at: Path<'_>, found: &mut Violations) {
    use LoadBalancerType::{BackendUtilization, ConsistentHash, DynamicModule, Random, Unknown};

    found.word(at.field("type"), of.kind.unknown(), LoadBalancerType::WORDS);
    if matches!(of.kind, Unknown(_)) {
        return;
    }
    let is = |kind: &LoadBalancerType| of.kind == *kind;
    for (kind, name, field, is_set) in [
        (ConsistentHash, "consistentHash", "consistentHash", of.consistent_hash.is_some()),
        (
            BackendUtilization,
            "BackendUtilization",
            "backendUtilization",
            of.backend_utilization.is_some(),
        ),
        (DynamicModule, "DynamicModule", "dynamicModule", of.dynamic_module.is_some()),
    ] {
        let problem = format!("If LoadBalancer type is {name}, {field} field needs to be set.");
        found.require(is(&kind) == is_set, at, &problem);
    }
    let problem = "DynamicModule is not supported; use another type of load balancer";
    found.require(!is(&DynamicModule), at.field("type"), problem);
    let problem = "Currently SlowStart is only supported for RoundRobin, LeastRequest, and \
                   BackendUtilization load balancers.";
    let has_no_slow_start = [Random, ConsistentHash, DynamicModule].iter().any(is);
    found.require(of.slow_start.is_none() || !has_no_slow_start, at, problem);
    if let Some(zones) = &of.zone_aware {
        zone_aware(zones, &of.kind, at, found);
    }
    if let Some(overriding) = &of.endpoint_override {
        let problem = "EndpointOverride is not supported for DynamicModule load balancers.";
        found.require(!is(&DynamicModule), at, problem);
        let at = at.field("endpointOverride");
        found.count(at.field("extractFrom"), overriding.extract_from.len(), 1..=10);
        for (index, source) in overriding.extract_from.iter().enumerate() {
            if let Some(header) = &source.header {
                found.header_name(at.field("extractFrom").item(index).field("header"), header);
            }
        }
    }
    if let Some(hash) = &of.consistent_hash {
        consistent_hash(hash, at.field("consistentHash"), found);
    }
    if let Some(utilization) = &of.backend_utilization {
        backend_utilization(utilization, at.field("backendUtilization"), found);
    }
    if let Some(of) = &of.dynamic_module {
        module(of, at.field("dynamicModule"), found);
    }
}

fn zone_aware(zones: &ZoneAware, kind: &LoadBalancerType, at: Path<'_>, found: &mut Violations) {
    use LoadBalancerType::{BackendUtilization, ConsistentHash, DynamicModule};

    let prefers_local = zones.prefer_local.is_some();
    let problem = "PreferLocal zone-aware routing is not supported for ConsistentHash load \
                   balancers. Use weightedZones instead.";
    found.require(*kind != ConsistentHash || !prefers_local, at, problem);
    let problem = "PreferLocal zone-aware routing is not currently supported for BackendUtilization \
                   load balancers. Only WeightedZones can be used with BackendUtilization.";
    found.require(*kind != BackendUtilization || !prefers_local, at, problem);
    let problem = "ZoneAware routing is not supported for DynamicModule load balancers.";
    found.require(*kind != DynamicModule, at, problem);
    let problem = "ZoneAware PreferLocal and WeightedZones cannot be specified together.";
    found.require(!prefers_local || zones.weighted_zones.is_none(), at, problem);
    let at = at.field("zoneAware");
    if let Some(local) = &zones.prefer_local {
        let at = at.field("preferLocal");
        found.optional(at.field("percentageEnabled"), local.percentage_enabled, 0..=100);
    }
    let names = zones.weighted_zones.iter().flatten().map(|zone| &zone.zone);
    found.unique(at.field("weightedZones"), names, "duplicate zone; remove one");
}

fn consistent_hash(hash: &ConsistentHash, at: Path<'_>, found: &mut Violations) {
    use ConsistentHashType::{Cookie, Header, Headers, QueryParams};

    found.word(at.field("type"), hash.kind.unknown(), ConsistentHashType::WORDS);
    found.optional(at.field("tableSize"), hash.table_size, 2..=5_000_011);
    if hash.kind.unknown().is_some() {
        return;
    }
    for (kind, field, is_set) in [
        (Header, "header", hash.header.is_some()),
        (Headers, "headers", hash.headers.is_some()),
        (Cookie, "cookie", hash.cookie.is_some()),
        (QueryParams, "queryParams", hash.query_params.is_some()),
    ] {
        let problem = format!("If consistent hash type is {field}, the {field} field must be set.");
        found.require((hash.kind == kind) == is_set, at, &problem);
    }
    if let Some(size) = hash.table_size.filter(|size| (2..=5_000_011).contains(size)) {
        let problem = format!("`{size}` is not a prime number; use one, like 65537");
        found.require(is_prime(size), at.field("tableSize"), &problem);
    }
    if let Some(header) = &hash.header {
        hash_header(&header.name, at.field("header"), found);
    }
    for (index, header) in hash.headers.iter().flatten().enumerate() {
        hash_header(&header.name, at.field("headers").item(index), found);
    }
    if let Some(cookie) = &hash.cookie {
        hash_cookie(cookie, at.field("cookie"), found);
    }
}

fn is_prime(number: i64) -> bool {
    (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| number % divisor != 0)
}

fn hash_header(name: &str, at: Path<'_>, found: &mut Violations) {
    if name != ":authority" {
        found.header_name(at.field("name"), name);
    }
}

fn hash_cookie(cookie: &HashCookie, at: Path<'_>, found: &mut Violations) {
    let is_token = HeaderName::try_from(&*cookie.name).is_ok();
    let name = shown(&cookie.name);
    let problem = format!("`{name}` is not the name of a cookie; use letters and digits");
    found.require(is_token, at.field("name"), &problem);
    let at = at.field("attributes");
    for (name, value) in &cookie.attributes {
        let problem = format!("`{}` is not an attribute of a cookie", shown(name));
        found.require(HeaderName::try_from(&**name).is_ok(), at, &problem);
        let is_value = |c: char| (' '..='~').contains(&c) && c != ';';
        let problem = format!(
            "`{}` is not the value of an attribute; use printable ASCII without `;`",
            shown(value)
        );
        found.require(value.chars().all(is_value), at, &problem);
    }
}

fn backend_utilization(of: &BackendUtilization, at: Path<'_>, found: &mut Violations) {
    let penalty = at.field("errorUtilizationPenaltyPercent");
    found.optional(penalty, of.error_utilization_penalty_percent, 0..=i32::MAX);
    let Some(reports) = &of.out_of_band else { return };
    let at = at.field("outOfBand");
    if let Some(period) = reports.reporting_period {
        let problem = "reportingPeriod must be greater than 0";
        found.require(!period.get().is_zero(), at.field("reportingPeriod"), problem);
    }
    if let Some(port) = reports.port {
        found.port(at.field("port"), port);
    }
    if let Some(authority) = &reports.authority {
        let at = at.field("authority");
        found.length(at, authority, 1..=259);
        let problem = "the authority has a line break or a NUL; write it without";
        found.require(!authority.contains(['\r', '\n', '\0']), at, problem);
    }
}

fn module(module: &LoadBalancerModule, at: Path<'_>, found: &mut Violations) {
    found.length(at.field("name"), &module.name, 1..=253);
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
    let is_outer = |c: char| is_inner(c) && !".-".contains(c);
    let (first, last) = (module.name.chars().next(), module.name.chars().last());
    let holds = module.name.chars().all(is_inner)
        && first.is_none_or(is_outer)
        && last.is_none_or(is_outer);
    let problem = format!(
        "`{}` is not a name of a module; use lower-case letters, digits, `.` and `-`",
        shown(&module.name)
    );
    found.require(holds, at.field("name"), &problem);
    found.length(at.field("lbPolicyName"), &module.lb_policy_name, 1..=253);
}
