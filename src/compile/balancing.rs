//! Load balancing of a rule: the policy of its clusters and the parts of its requests that decide
//! (`loadBalancer` of a BackendTrafficPolicy), and the priorities of its backends.

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::time::Duration;

use http::HeaderName;

use crate::api;
use crate::api::envoy::BackendTrafficPolicySpec;
use crate::api::envoy::load_balancer::{
    ConsistentHash, ConsistentHashType, LoadBalancer, LoadBalancerType,
};
use crate::graph::{AppliedTraffic, BackendTarget, Resolved};
use crate::snapshot::{Balancing, Choice, HashCookie, HashHeader, HashInput, WeightedClusters};
use crate::upstream::{BalanceKind, BalancePolicy};

/// The size of a Maglev table, if none is written: the default of the CRD.
const TABLE_SIZE: u32 = 65_537;

/// Returns the policy of a cluster.
pub(super) fn policy(load_balancer: &LoadBalancer) -> BalancePolicy {
    let kind = match &load_balancer.kind {
        LoadBalancerType::ConsistentHash => {
            let size = load_balancer.consistent_hash.as_ref().and_then(|hash| hash.table_size);
            let table_size = size.and_then(|size| u32::try_from(size).ok()).unwrap_or(TABLE_SIZE);
            BalanceKind::ConsistentHash { table_size }
        }
        LoadBalancerType::Random => BalanceKind::Random,
        LoadBalancerType::RoundRobin => BalanceKind::RoundRobin,
        // Reported load is not read: the number of requests is the nearest to it.
        LoadBalancerType::LeastRequest | LoadBalancerType::BackendUtilization => {
            BalanceKind::LeastRequest
        }
        // It breaks a rule of the kind.
        LoadBalancerType::DynamicModule | LoadBalancerType::Unknown(_) => BalanceKind::RoundRobin,
    };
    let slow_start = load_balancer.slow_start.as_ref();
    let slow_start = slow_start.map_or(Duration::ZERO, |start| api::Duration::get(start.window));
    BalancePolicy { kind, slow_start }
}

/// Returns the parts of a request that select its endpoint; `None` without a policy.
pub(super) fn of_policy(policy: &AppliedTraffic<'_>) -> Option<Box<Balancing>> {
    let load_balancer = policy.spec.load_balancer.as_ref()?;
    let author = policy.author(|spec: &BackendTrafficPolicySpec| spec.load_balancer.is_some());
    let overriding = load_balancer.endpoint_override.as_ref();
    let names = overriding.iter().flat_map(|of| &of.extract_from);
    let names = names.filter_map(|source| HeaderName::try_from(source.header.as_ref()?).ok());
    Some(Box::new(Balancing {
        policy: format!("{}/{}", author.namespace(), author.name).into(),
        kind: word(&load_balancer.kind),
        hash: load_balancer.consistent_hash.as_ref().and_then(hash_input),
        overrides: names.collect(),
    }))
}

/// Returns true if the connections of a route that is not HTTP are hashed by the address of the
/// client. They have nothing else that could be hashed.
pub(super) fn hashes_clients(load_balancer: &LoadBalancer) -> bool {
    let hash = load_balancer.consistent_hash.as_ref();
    hash.is_some_and(|hash| hash.kind == ConsistentHashType::SourceIp)
}

/// A backend of a rule.
pub(super) struct RuleBackend {
    pub weight: u32,
    pub choice: Choice,
    /// True for a Backend that is a `fallback`.
    pub fallback: bool,
}

pub(super) fn is_fallback(target: &Resolved<'_>) -> bool {
    match target {
        Ok(BackendTarget::Backend { object, .. }) => object.spec.fallback == Some(true),
        Ok(BackendTarget::Service { .. }) | Err(_) => false,
    }
}

/// Returns the backends with a weight: those that are a fallback for the others, unless there are no
/// others.
pub(super) fn by_priority(backends: &[RuleBackend]) -> Option<WeightedClusters> {
    let of =
        |fallback: bool| {
            let backends = backends.iter().filter(|backend| backend.fallback == fallback);
            WeightedClusters::new(backends.filter_map(|backend| {
                Some((NonZeroU32::new(backend.weight)?, backend.choice.clone()))
            }))
        };
    match of(false) {
        Some(first) => Some(first.with_fallback(of(true))),
        None => of(true),
    }
}

fn word(kind: &LoadBalancerType) -> &'static str {
    match kind {
        LoadBalancerType::ConsistentHash => "ConsistentHash",
        LoadBalancerType::LeastRequest => "LeastRequest",
        LoadBalancerType::Random => "Random",
        LoadBalancerType::BackendUtilization => "BackendUtilization, served as LeastRequest",
        LoadBalancerType::RoundRobin
        | LoadBalancerType::DynamicModule
        | LoadBalancerType::Unknown(_) => "RoundRobin",
    }
}

fn hash_input(raw: &ConsistentHash) -> Option<HashInput> {
    let header = |name: &str| match name {
        ":authority" => Some(HashHeader::Authority),
        name => HeaderName::try_from(name).ok().map(HashHeader::Field),
    };
    Some(match &raw.kind {
        ConsistentHashType::SourceIp => HashInput::SourceIp,
        ConsistentHashType::Header => {
            HashInput::Headers(header(&raw.header.as_ref()?.name).into_iter().collect())
        }
        ConsistentHashType::Headers => {
            let names = raw.headers.iter().flatten();
            HashInput::Headers(names.filter_map(|of| header(&of.name)).collect())
        }
        ConsistentHashType::Cookie => {
            let cookie = raw.cookie.as_ref()?;
            let mut attributes = String::new();
            for (name, value) in &cookie.attributes {
                // Writing to a `String` cannot fail.
                let _ = match value.is_empty() {
                    true => write!(attributes, "; {name}"),
                    false => write!(attributes, "; {name}={value}"),
                };
            }
            let ttl = cookie.ttl.map(api::Duration::get);
            let (name, attributes) = (cookie.name.as_str().into(), attributes.into());
            HashInput::Cookie(HashCookie { name, ttl, attributes })
        }
        ConsistentHashType::QueryParams => {
            let names = raw.query_params.iter().flatten();
            HashInput::QueryParams(names.map(|of| of.name.as_str().into()).collect())
        }
        // It breaks a rule of the kind.
        ConsistentHashType::Unknown(_) => return None,
    })
}
