//! Filters from BackendTrafficPolicies, except rate limits: one function per field. `config` has checked
//! the rules of the kind.

use std::sync::Arc;

use crate::api::ObjectMeta;
use crate::api::envoy::Quantity;
use crate::api::envoy::backend_traffic_policy::{Compression, CompressionType};
use crate::filters::fault_injection::{Share, grpc_abort, http_abort};
use crate::filters::{Broken, Coding, Compressor, FaultInjection, Filter, RequestBuffer, Upgrades};
use crate::graph::AppliedTraffic;
use crate::snapshot::Carried;

/// The least length of a response that is compressed, unless the policy has another.
const LEAST: u64 = 30;

/// Returns the filters that a policy adds to those of a rule.
pub(in crate::compile) fn of_traffic(
    policy: &AppliedTraffic<'_>,
    carried: &Carried,
) -> Vec<Filter> {
    let filters = [
        upgrades(policy).map(Filter::Upgrades),
        fault_injection(policy, carried),
        request_buffer(policy, carried).map(Filter::RequestBuffer),
        compressor(policy, carried).map(Filter::Compressor),
    ];
    filters.into_iter().flatten().collect()
}

/// Returns `namespace/name`.
fn name(author: &ObjectMeta) -> Box<str> {
    format!("{}/{}", author.namespace(), author.name).into()
}

/// A rule whose requests are held takes no upgrades: they would not begin before their end.
fn upgrades(policy: &AppliedTraffic<'_>) -> Option<Upgrades> {
    let spec = policy.spec;
    let author = match (&spec.request_buffer, spec.http_upgrade.is_empty()) {
        (None, true) => return None,
        (_, false) => policy.author(|spec| !spec.http_upgrade.is_empty()),
        (Some(_), true) => policy.author(|spec| spec.request_buffer.is_some()),
    };
    let allowed = spec.http_upgrade.iter().filter(|_| spec.request_buffer.is_none());
    let allowed = allowed.map(|of| of.kind.to_ascii_lowercase().into()).collect();
    Some(Upgrades { allowed, policy: name(author) })
}

fn fault_injection(policy: &AppliedTraffic<'_>, carried: &Carried) -> Option<Filter> {
    let raw = policy.spec.fault_injection.as_ref()?;
    let share = |percent: Option<f64>| Share::of_percent(percent.unwrap_or(100.0));
    let delay = raw.delay.as_ref().map(|of| (of.fixed_delay.get(), share(of.percentage)));
    let abort = match &raw.abort {
        None => None,
        Some(of) => {
            let http = of.http_status.and_then(http_abort);
            match http.or_else(|| of.grpc_status.and_then(grpc_abort)) {
                Some(abort) => Some((abort, share(of.percentage))),
                None => return Some(Filter::Broken(Broken)),
            }
        }
    };
    Some(Filter::FaultInjection(FaultInjection {
        delay: delay.filter(|(delay, _)| !delay.is_zero()),
        abort,
        policy: name(policy.author(|spec| spec.fault_injection.is_some())),
        counts: Arc::clone(&carried.fault_counts),
    }))
}

fn request_buffer(policy: &AppliedTraffic<'_>, carried: &Carried) -> Option<RequestBuffer> {
    let limit = policy.spec.request_buffer.as_ref()?.limit.as_ref()?.bytes()?;
    let author = policy.author(|spec| spec.request_buffer.is_some());
    let memory = Arc::clone(&carried.held_memory);
    Some(RequestBuffer { limit, policy: name(author), memory })
}

fn compressor(policy: &AppliedTraffic<'_>, carried: &Carried) -> Option<Compressor> {
    let (list, author) = match &policy.spec.compressor {
        Some(list) => (list, policy.author(|spec| spec.compressor.is_some())),
        None => {
            (policy.spec.compression.as_ref()?, policy.author(|spec| spec.compression.is_some()))
        }
    };
    let is_deprecated = policy.spec.compressor.is_none();
    let codings = list.iter().filter(|of| is_deprecated || of.has_member()).filter_map(coding);
    let codings: Box<[_]> = codings.collect();
    (!codings.is_empty()).then(|| Compressor {
        codings,
        policy: name(author),
        memory: Arc::clone(&carried.held_memory),
        counts: Arc::clone(&carried.compression_counts),
    })
}

fn coding(raw: &Compression) -> Option<(Coding, u64)> {
    let coding = match raw.kind {
        CompressionType::Brotli => Coding::Brotli,
        CompressionType::Gzip => Coding::Gzip,
        CompressionType::Zstd => Coding::Zstd,
        CompressionType::Unknown(_) => return None,
    };
    let least = raw.min_content_length.as_ref().and_then(Quantity::bytes);
    Some((coding, least.unwrap_or(LEAST)))
}
