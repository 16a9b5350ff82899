//! The rules of Envoy Gateway's cluster settings, which several kinds embed.

use crate::api::envoy::Quantity;
use crate::api::envoy::backend_settings::{
    BackOff, BackendConnection, BackendProxyProtocol, BackendRetry, CircuitBreaker, Dns,
    DnsLookupFamily, Http2Settings, ProxyProtocolVersion, RetryTrigger,
};
use crate::config::path::Path;

use super::violations::Violations;

pub(super) fn circuit_breaker(breaker: &CircuitBreaker, at: Path<'_>, found: &mut Violations) {
    if let Some(budget) = &breaker.retry_budget {
        found.fraction(at.field("retryBudget").field("percent"), budget.percent);
    }
}

pub(super) fn retry(retry: &BackendRetry, at: Path<'_>, found: &mut Violations) {
    found.optional(at.field("numRetries"), retry.num_retries, 0..=i32::MAX);
    if let Some(of) = retry.per_retry.as_ref().and_then(|each| each.back_off.as_ref()) {
        back_off(of, at.field("perRetry").field("backOff"), found);
    }
    let Some(on) = &retry.retry_on else { return };
    let at = at.field("retryOn");
    for (index, trigger) in on.triggers.iter().enumerate() {
        let at = at.field("triggers");
        found.word(at.item(index), trigger.unknown(), RetryTrigger::WORDS);
    }
    for (index, code) in on.http_status_codes.iter().enumerate() {
        let at = at.field("httpStatusCodes");
        found.number(at.item(index), *code, 100..=599);
    }
}

/// Rules of the translator of Envoy Gateway; its CRD has none here.
fn back_off(of: &BackOff, at: Path<'_>, found: &mut Violations) {
    for (field, interval) in [("baseInterval", of.base_interval), ("maxInterval", of.max_interval)]
    {
        let is_zero = interval.is_some_and(|interval| interval.get().is_zero());
        found.require(!is_zero, at.field(field), "an interval cannot be 0s");
    }
    if let (Some(base), Some(max)) = (of.base_interval, of.max_interval) {
        let problem = "maxInterval cannot be less than baseInterval";
        found.require(base <= max, at.field("maxInterval"), problem);
    }
}

pub(super) fn proxy_protocol(of: &BackendProxyProtocol, at: Path<'_>, found: &mut Violations) {
    found.word(at.field("version"), of.version.unknown(), ProxyProtocolVersion::WORDS);
}

pub(super) fn connection(of: &BackendConnection, at: Path<'_>, found: &mut Violations) {
    for (field, limit) in
        [("bufferLimit", &of.buffer_limit), ("socketBufferLimit", &of.socket_buffer_limit)]
    {
        if let Some(limit) = limit {
            found.quantity(at.field(field), limit);
        }
    }
    // Envoy Gateway refuses more when it translates the policy.
    if let Some(bytes) = of.buffer_limit.as_ref().and_then(Quantity::bytes) {
        found.number(at.field("bufferLimit"), bytes, 0..=u64::from(u32::MAX));
    }
    if let Some(of) = &of.preconnect {
        let at = at.field("preconnect");
        found.optional(at.field("perEndpointPercent"), of.per_endpoint_percent, 100..=300);
        found.optional(at.field("predictivePercent"), of.predictive_percent, 100..=i32::MAX);
    }
}

pub(super) fn dns(dns: &Dns, at: Path<'_>, found: &mut Violations) {
    let unknown = dns.lookup_family.as_ref().and_then(DnsLookupFamily::unknown);
    found.word(at.field("lookupFamily"), unknown, DnsLookupFamily::WORDS);
}

pub(super) fn http2(http2: &Http2Settings, at: Path<'_>, found: &mut Violations) {
    for (field, size) in [
        ("initialStreamWindowSize", &http2.initial_stream_window_size),
        ("initialConnectionWindowSize", &http2.initial_connection_window_size),
    ] {
        let Some(size) = size else { continue };
        found.quantity(at.field(field), size);
        // Envoy Gateway refuses others when it translates the policy (RFC 9113 section 6.9.2).
        if let Some(bytes) = size.bytes() {
            found.number(at.field(field), bytes, 65_535..=2_147_483_647);
        }
    }
    let streams = http2.max_concurrent_streams;
    found.optional(at.field("maxConcurrentStreams"), streams, 1..=i32::MAX);
    if let Some(of) = &http2.connection_keepalive {
        let at = at.field("connectionKeepalive");
        found.optional(at.field("intervalJitter"), of.interval_jitter, 0..=100);
        if let (Some(timeout), Some(interval)) = (of.timeout, of.interval) {
            found.require(timeout < interval, at, "timeout must be less than interval");
        }
    }
}
