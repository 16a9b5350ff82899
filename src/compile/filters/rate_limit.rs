//! Rate limits, from `rateLimit` of a BackendTrafficPolicy, whose rules have been checked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, Method};
use regex::Regex;

use crate::api::envoy::rate_limit::{
    RateLimitMatch, RateLimitMatchType, RateLimitPath, RateLimitRule, RateLimitSelector,
    RateLimitSource, RateLimitSourceType, RateLimitType, RateLimitUnit, XRateLimitHeaders,
};
use crate::api::{ObjectMeta, PathMatchType};
use crate::compile::matches;
use crate::filters::rate_limit::{Buckets, Limit, Rate, Selector};
use crate::filters::{Broken, Filter, PathMatch, RateLimit, ValueMatch};
use crate::graph::AppliedTraffic;
use crate::snapshot::{Carried, LimitKey};

/// Returns the local rate limit of a policy for the rule `name` of a route, if it has one. Its
/// buckets are those of the running snapshot, if there are any.
///
/// A limit that cannot run as written refuses every request.
pub(in crate::compile) fn rate_limit(
    policy: &AppliedTraffic<'_>,
    name: &Arc<str>,
    carried: &Carried,
    now: Instant,
) -> Option<Filter> {
    let raw = policy.spec.rate_limit.as_ref()?;
    if matches!(raw.kind, Some(RateLimitType::Global | RateLimitType::Unknown(_))) {
        return None;
    }
    let rules = &raw.local.as_ref()?.rules;
    let (mut limits, mut others) = (Vec::new(), None);
    let mut known: HashMap<_, usize> = HashMap::new();
    for rule in rules {
        let author = policy.author(|spec| {
            let own = spec.rate_limit.as_ref().and_then(|limit| limit.local.as_ref());
            own.is_some_and(|own| own.rules.contains(rule))
        });
        let key = key(name, author, rule);
        let number = known.entry(key.clone()).or_default();
        let key = LimitKey { number: *number, ..key };
        *number += 1;
        let Some(limit) = limit(rule, key, carried, now) else {
            return Some(Filter::Broken(Broken));
        };
        match rule.client_selectors.is_empty() {
            // Of two in a merged policy, that of the route comes last.
            true => others = Some(limit),
            false => limits.push(limit),
        }
    }
    (!rules.is_empty()).then(|| {
        let counts = Arc::clone(&carried.limit_counts);
        Filter::RateLimit(RateLimit::new(limits, others, counts))
    })
}

fn key(rule: &Arc<str>, author: &ObjectMeta, raw: &RateLimitRule) -> LimitKey {
    LimitKey {
        rule: Arc::clone(rule),
        policy: (author.namespace().into(), author.name.as_str().into()),
        written: format!("{:?} {:?}", raw.limit, raw.client_selectors).into(),
        number: 0,
    }
}

fn limit(raw: &RateLimitRule, key: LimitKey, carried: &Carried, now: Instant) -> Option<Limit> {
    let mut selectors = Vec::new();
    for of in &raw.client_selectors {
        add(of, &mut selectors)?;
    }
    let cost = raw.cost.as_ref().and_then(|cost| cost.request.as_ref());
    let (namespace, name) = &key.policy;
    let policy = format!("{namespace}/{name}").into();
    let buckets = carried.limits.get_or_make(key, |_| Arc::new(Buckets::new(&selectors, now)));
    Some(Limit {
        selectors: selectors.into(),
        rate: Rate::new(raw.limit.requests, unit(&raw.limit.unit)?),
        unit: raw.limit.unit.as_str().into(),
        policy,
        cost: cost.and_then(|cost| cost.number).unwrap_or(1),
        is_shadow: raw.shadow_mode == Some(true),
        has_headers: raw.x_rate_limit_headers != Some(XRateLimitHeaders::Off),
        buckets,
    })
}

fn unit(unit: &RateLimitUnit) -> Option<Duration> {
    const DAY: u64 = 24 * 3600;
    Some(Duration::from_secs(match unit {
        RateLimitUnit::Second => 1,
        RateLimitUnit::Minute => 60,
        RateLimitUnit::Hour => 3600,
        RateLimitUnit::Day => DAY,
        RateLimitUnit::Week => 7 * DAY,
        RateLimitUnit::Month => 30 * DAY,
        RateLimitUnit::Year => 365 * DAY,
        RateLimitUnit::Unknown(_) => return None,
    }))
}

/// Adds the conditions of a `clientSelectors` entry; `None` if one of them cannot run.
fn add(raw: &RateLimitSelector, to: &mut Vec<Selector>) -> Option<()> {
    for of in raw.headers.iter().flatten() {
        let name = HeaderName::from_bytes(of.name.as_bytes()).ok()?;
        let invert = of.invert == Some(true);
        to.push(match value(of)? {
            Some(value) => Selector::Header { name, value, invert },
            None => Selector::EachHeader(name),
        });
    }
    for of in raw.query_params.iter().flatten() {
        let (name, invert) = (of.name.as_str().into(), of.invert == Some(true));
        to.push(match value(of)? {
            Some(value) => Selector::Query { name, value, invert },
            None => Selector::EachQuery(name),
        });
    }
    let methods = raw.methods.iter().flatten().map(|of| {
        let method = Method::from_bytes(of.value.as_str().as_bytes()).ok()?;
        Some((method, of.invert == Some(true)))
    });
    let methods: Box<[_]> = methods.collect::<Option<_>>()?;
    if !methods.is_empty() {
        to.push(Selector::Methods(methods));
    }
    if let Some(of) = &raw.path {
        to.push(Selector::Path { path: path(of)?, invert: of.invert == Some(true) });
    }
    if let Some(of) = &raw.source_cidr {
        to.push(source(of)?);
    }
    Some(())
}

/// Returns the condition on a value; the inner `None` if each value has a limit of its own.
fn value(raw: &RateLimitMatch) -> Option<Option<ValueMatch>> {
    let written = raw.value.as_deref();
    Some(match raw.kind() {
        RateLimitMatchType::Exact => Some(ValueMatch::Exact(written?.into())),
        RateLimitMatchType::RegularExpression => Some(ValueMatch::Regex(regex(written?)?)),
        RateLimitMatchType::Distinct => None,
        RateLimitMatchType::Unknown(_) => return None,
    })
}

fn regex(pattern: &str) -> Option<Regex> {
    matches::whole(pattern).ok()
}

fn path(raw: &RateLimitPath) -> Option<PathMatch> {
    Some(match raw.kind() {
        PathMatchType::Exact => PathMatch::Exact(raw.value().into()),
        PathMatchType::PathPrefix => PathMatch::Prefix(raw.value().into()),
        PathMatchType::RegularExpression => PathMatch::Regex(regex(raw.value())?),
        PathMatchType::Unknown(_) => return None,
    })
}

fn source(raw: &RateLimitSource) -> Option<Selector> {
    let (range, invert) = (raw.value.parse().ok()?, raw.invert == Some(true));
    match raw.kind() {
        RateLimitSourceType::Exact => Some(Selector::Client { range, invert }),
        RateLimitSourceType::Distinct => Some(Selector::EachClient { range, invert }),
        RateLimitSourceType::Unknown(_) => None,
    }
}
