//! The rules of `rateLimit` of a BackendTrafficPolicy: those of Envoy Gateway's CRD, and for local
//! rules also those of its translation.

use crate::api::envoy::rate_limit::{
    LocalRateLimit, RateLimit, RateLimitCostFrom, RateLimitCostSource, RateLimitMatch,
    RateLimitMatchType, RateLimitPath, RateLimitRule, RateLimitSelector, RateLimitSourceType,
    RateLimitType, RateLimitUnit, XRateLimitHeaders,
};
use crate::api::{HttpMethod, PathMatchType};
use crate::config::path::Path;

use super::violations::Violations;

pub(super) fn rate_limit(limit: &RateLimit, at: Path<'_>, found: &mut Violations) {
    let unknown = limit.kind.as_ref().and_then(RateLimitType::unknown);
    found.word(at.field("type"), unknown, RateLimitType::WORDS);
    if limit.kind == Some(RateLimitType::Local) && limit.local.is_none() {
        found.add(at, "`local` is missing; `type: Local` requires it");
    }
    if let Some(global) = &limit.global {
        let rules = at.field("global");
        let rules = rules.field("rules");
        found.count(rules, global.rules.len(), 0..=256);
        for (index, of) in global.rules.iter().enumerate() {
            rule(of, rules.item(index), found);
        }
    }
    if let Some(limit) = &limit.local {
        let rules = at.field("local");
        local(limit, rules.field("rules"), found);
    }
}

fn local(limit: &LocalRateLimit, rules: Path<'_>, found: &mut Violations) {
    found.count(rules, limit.rules.len(), 0..=16);
    let mut without_selectors = 0;
    for (index, of) in limit.rules.iter().enumerate() {
        let at = rules.item(index);
        rule(of, at, found);
        let problem = "response cost is not supported for Local Rate Limits";
        let response = of.cost.as_ref().and_then(|cost| cost.response.as_ref());
        found.require(response.is_none(), at.field("cost"), problem);
        let problem = "limit fromMetadata is not supported for Local Rate Limits";
        found.require(of.limit.from_metadata.is_none(), at.field("limit"), problem);
        without_selectors += usize::from(of.client_selectors.is_empty());
        if without_selectors > 1 && of.client_selectors.is_empty() {
            found.add(at, "another rule has no clientSelectors, too; only one may be without");
        }
        let request = of.cost.as_ref().and_then(|cost| cost.request.as_ref());
        if request.is_some_and(|request| request.metadata.is_some()) {
            let problem = "a cost by metadata is not supported; write a `number`";
            found.add(at.field("cost").field("request").field("metadata"), problem);
        }
        for (place, selector) in of.client_selectors.iter().enumerate() {
            served(selector, at.field("clientSelectors").item(place), found);
        }
    }
}

fn rule(rule: &RateLimitRule, at: Path<'_>, found: &mut Violations) {
    let selectors = at.field("clientSelectors");
    found.count(selectors, rule.client_selectors.len(), 0..=8);
    for (index, of) in rule.client_selectors.iter().enumerate() {
        selector(of, selectors.item(index), found);
    }
    let limit = at.field("limit");
    found.word(limit.field("unit"), rule.limit.unit.unknown(), RateLimitUnit::WORDS);
    if let Some(from) = &rule.limit.from_metadata {
        let at = limit.field("fromMetadata");
        found.length(at.field("namespace"), &from.namespace, 1..=usize::MAX);
        found.length(at.field("key"), &from.key, 1..=usize::MAX);
    }
    if let Some(of) = &rule.cost {
        let at = at.field("cost");
        for (field, of) in [("request", &of.request), ("response", &of.response)] {
            if let Some(of) = of {
                cost(of, at.field(field), found);
            }
        }
    }
    let unknown = rule.x_rate_limit_headers.as_ref().and_then(XRateLimitHeaders::unknown);
    found.word(at.field("xRateLimitHeaders"), unknown, XRateLimitHeaders::WORDS);
}

fn cost(cost: &RateLimitCostSource, at: Path<'_>, found: &mut Violations) {
    found.word(at.field("from"), cost.from.unknown(), RateLimitCostFrom::WORDS);
    let problem = "only one of number or metadata can be specified";
    found.require(cost.number.is_none() || cost.metadata.is_none(), at, problem);
}

fn selector(selector: &RateLimitSelector, at: Path<'_>, found: &mut Violations) {
    let RateLimitSelector { headers, methods, path, source_cidr, query_params } = selector;
    let is_any = headers.is_some()
        || methods.is_some()
        || path.is_some()
        || source_cidr.is_some()
        || query_params.is_some();
    let problem =
        "at least one of headers, methods, path, sourceCIDR or queryParams must be specified";
    found.require(is_any, at, problem);
    for (field, list, most) in [("headers", headers, 128), ("queryParams", query_params, 16)] {
        let Some(list) = list else { continue };
        let at = at.field(field);
        found.count(at, list.len(), 0..=most);
        for (index, of) in list.iter().enumerate() {
            let at = at.item(index);
            found.length(at.field("name"), &of.name, 1..=256);
            found.word(at.field("type"), of.kind().unknown(), RateLimitMatchType::WORDS);
            if let Some(value) = &of.value {
                found.length(at.field("value"), value, 0..=1024);
            }
        }
    }
    for (index, method) in methods.iter().flatten().enumerate() {
        let (at, unknown) = (at.field("methods"), method.value.unknown());
        found.word(at.item(index).field("value"), unknown, HttpMethod::WORDS);
    }
    if let Some(path) = path {
        let at = at.field("path");
        found.word(at.field("type"), path.kind().unknown(), PathMatchType::WORDS);
        found.length(at.field("value"), path.value(), 0..=1024);
    }
    if let Some(source) = source_cidr {
        let at = at.field("sourceCIDR");
        found.word(at.field("type"), source.kind().unknown(), RateLimitSourceType::WORDS);
        found.length(at.field("value"), &source.value, 1..=256);
    }
}

/// Checks what Envoy Gateway checks when it translates a selector.
fn served(selector: &RateLimitSelector, at: Path<'_>, found: &mut Violations) {
    for (field, list) in [("headers", &selector.headers), ("queryParams", &selector.query_params)] {
        for (index, of) in list.iter().flatten().enumerate() {
            let at = at.field(field);
            value(of, at.item(index), found);
        }
    }
    for (index, of) in selector.headers.iter().flatten().enumerate() {
        let at = at.field("headers");
        found.header_name(at.item(index).field("name"), &of.name);
    }
    if let Some(of) = &selector.path {
        path(of, at.field("path"), found);
    }
    if let Some(of) = &selector.source_cidr {
        found.address_range(at.field("sourceCIDR").field("value"), &of.value);
    }
}

fn value(of: &RateLimitMatch, at: Path<'_>, found: &mut Violations) {
    match (of.kind(), &of.value) {
        (RateLimitMatchType::Distinct, Some(_)) => {
            found.add(at.field("value"), "a Distinct match has no value; remove it");
        }
        (RateLimitMatchType::Distinct, None) if of.invert == Some(true) => {
            found.add(at.field("invert"), "a Distinct match cannot be inverted");
        }
        (RateLimitMatchType::Exact | RateLimitMatchType::RegularExpression, None) => {
            found.add(at, "`value` is missing; only a Distinct match has none");
        }
        (RateLimitMatchType::RegularExpression, Some(value)) => {
            found.regular_expression(at.field("value"), value);
        }
        _ => {}
    }
}

fn path(path: &RateLimitPath, at: Path<'_>, found: &mut Violations) {
    if *path.kind() == PathMatchType::RegularExpression {
        found.regular_expression(at.field("value"), path.value());
    }
}
