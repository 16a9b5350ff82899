//! The rules of BackendTrafficPolicy: those of Envoy Gateway's CRD.

use crate::api::Kind;
use crate::api::envoy::backend_traffic_policy::{
    AdmissionControl, Bandwidth, BandwidthLimit, BandwidthUnit, Compression, CompressionType,
    FaultInjection, GrpcStatus, RouteTracing,
};
use crate::api::envoy::load_balancer::LoadBalancerType;
use crate::api::envoy::{
    BackendTrafficPolicy, BackendTrafficPolicySpec, CustomTagType, EnvoyPolicySpec,
};
use crate::config::path::Path;

use super::violations::Violations;
use super::{
    backend_settings, health_check, load_balancer, policy_targets, rate_limit, response_override,
};

pub(super) fn policy(policy: &BackendTrafficPolicy, at: Path<'_>, found: &mut Violations) {
    let spec = &policy.spec;
    policy_targets::spec(spec, at, found);
    whole(spec, at, found);
    settings(spec, at, found);
    if let Some(limit) = &spec.rate_limit {
        rate_limit::rate_limit(limit, at.field("rateLimit"), found);
    }
    if let Some(limit) = &spec.bandwidth_limit {
        bandwidth_limit(limit, at.field("bandwidthLimit"), found);
    }
    if let Some(faults) = &spec.fault_injection {
        fault_injection(faults, at.field("faultInjection"), found);
    }
    if let Some(control) = &spec.admission_control {
        admission_control(control, at.field("admissionControl"), found);
    }
    for (field, list) in [("compression", &spec.compression), ("compressor", &spec.compressor)] {
        for (index, of) in list.iter().flatten().enumerate() {
            compression(of, at.field(field).item(index), found);
        }
    }
    for (index, of) in spec.response_override.iter().enumerate() {
        response_override::rule(of, at.field("responseOverride").item(index), found);
    }
    for (index, of) in spec.http_upgrade.iter().enumerate() {
        let problem = "The connect configuration is only allowed when the type is CONNECT.";
        let is_connect = of.kind == "CONNECT";
        let at = at.field("httpUpgrade");
        found.require(is_connect || of.connect.is_none(), at.item(index), problem);
    }
    if let Some(buffer) = &spec.request_buffer {
        let at = at.field("requestBuffer");
        match &buffer.limit {
            None => found.add(at, "`limit` is missing; it is required"),
            Some(limit) => {
                found.quantity(at.field("limit"), limit);
                let most = u64::from(u32::MAX);
                if limit.bytes().is_some_and(|bytes| bytes > most) {
                    found.add(at.field("limit"), format!("the limit is too high; at most {most}"));
                }
            }
        }
    }
    if let Some(spec) = spec.telemetry.as_ref().and_then(|telemetry| telemetry.tracing.as_ref()) {
        tracing(spec, at.field("telemetry").field("tracing"), found);
    }
}

/// The rules for several fields of the spec together.
fn whole(spec: &BackendTrafficPolicySpec, at: Path<'_>, found: &mut Violations) {
    let problem = "either compression or compressor can be set, not both";
    found.require(spec.compression.is_none() || spec.compressor.is_none(), at, problem);
    let problem = "requestBuffer cannot be used together with httpUpgrade";
    found.require(spec.request_buffer.is_none() || spec.http_upgrade.is_empty(), at, problem);
    if spec.admission_control.is_some() {
        let one = spec.target_ref().into_iter();
        let named = one.chain(spec.target_refs().into_iter().flatten()).map(|target| &target.kind);
        let mut kinds = named.chain(spec.target_selectors().iter().map(|selector| &selector.kind));
        let has_http = [Kind::Gateway, Kind::ListenerSet, Kind::HttpRoute, Kind::GrpcRoute];
        let holds = kinds.all(|kind| has_http.iter().any(|known| known.as_str() == kind));
        let problem = "admissionControl can only be used with HTTPRoute, GRPCRoute, Gateway, or \
                       ListenerSet targets";
        found.require(holds, at, problem);
    }
    let preconnect = spec.connection.as_ref().and_then(|connection| connection.preconnect.as_ref());
    if preconnect.is_some_and(|preconnect| preconnect.predictive_percent.is_some()) {
        let kind = spec.load_balancer.as_ref().map(|balancer| &balancer.kind);
        let holds = matches!(kind, Some(LoadBalancerType::Random | LoadBalancerType::RoundRobin));
        let problem = "predictivePercent in preconnect policy only works with RoundRobin or Random \
                       load balancers";
        found.require(holds, at, problem);
    }
}

/// The settings that other kinds embed, too.
fn settings(spec: &BackendTrafficPolicySpec, at: Path<'_>, found: &mut Violations) {
    if let Some(of) = &spec.load_balancer {
        load_balancer::load_balancer(of, at.field("loadBalancer"), found);
    }
    if let Some(of) = &spec.retry {
        backend_settings::retry(of, at.field("retry"), found);
    }
    if let Some(of) = &spec.proxy_protocol {
        backend_settings::proxy_protocol(of, at.field("proxyProtocol"), found);
    }
    if let Some(of) = &spec.health_check {
        health_check::health_check(of, at.field("healthCheck"), found);
    }
    if let Some(of) = &spec.circuit_breaker {
        backend_settings::circuit_breaker(of, at.field("circuitBreaker"), found);
    }
    if let Some(of) = &spec.connection {
        backend_settings::connection(of, at.field("connection"), found);
    }
    if let Some(of) = &spec.dns {
        backend_settings::dns(of, at.field("dns"), found);
    }
    if let Some(of) = &spec.http2 {
        backend_settings::http2(of, at.field("http2"), found);
    }
}

fn bandwidth_limit(limit: &BandwidthLimit, at: Path<'_>, found: &mut Violations) {
    let problem = "at least one of request or response must be specified";
    found.require(limit.request.is_some() || limit.response.is_some(), at, problem);
    if let Some(request) = &limit.request {
        bandwidth(&request.limit, at.field("request").field("limit"), found);
    }
    if let Some(response) = &limit.response {
        let at = at.field("response");
        bandwidth(&response.limit, at.field("limit"), found);
        let prefix = response.response_trailers.as_ref().and_then(|of| of.prefix.as_ref());
        if let Some(prefix) = prefix {
            let at = at.field("responseTrailers");
            let problem = "the prefix has a line break or a NUL; write it without";
            found.require(!prefix.contains(['\r', '\n', '\0']), at.field("prefix"), problem);
        }
    }
}

fn bandwidth(limit: &Bandwidth, at: Path<'_>, found: &mut Violations) {
    found.quantity(at.field("value"), &limit.value);
    found.word(at.field("unit"), limit.unit.unknown(), BandwidthUnit::WORDS);
}

fn fault_injection(faults: &FaultInjection, at: Path<'_>, found: &mut Violations) {
    let problem = "Delay and abort faults are set at least one.";
    found.require(faults.delay.is_some() || faults.abort.is_some(), at, problem);
    let Some(abort) = &faults.abort else { return };
    let at = at.field("abort");
    let (http, grpc) = (abort.http_status, abort.grpc_status);
    let problem = "httpStatus and grpcStatus cannot be simultaneously defined.";
    found.require(http.is_none() || grpc.is_none(), at, problem);
    let problem = "httpStatus and grpcStatus are set at least one.";
    found.require(http.is_some() || grpc.is_some(), at, problem);
    found.optional(at.field("httpStatus"), http, 200..=600);
    found.optional(at.field("grpcStatus"), grpc, 0..=16);
}

fn admission_control(control: &AdmissionControl, at: Path<'_>, found: &mut Violations) {
    // Each of these has the limits of the schema, and a rule that says the same.
    for (field, number, allowed) in [
        ("minSuccessRate", control.min_success_rate, 1..=100),
        ("maxRejectionPercent", control.max_rejection_percent, 0..=100),
    ] {
        let problem = format!("{field} must be between {} and {}", allowed.start(), allowed.end());
        let holds = number.is_none_or(|number| allowed.contains(&number));
        found.require(holds, at.field(field), &problem);
    }
    found.optional(at.field("rejectionAggression"), control.rejection_aggression, 1..=i32::MAX);
    found.optional(at.field("minRequestRate"), control.min_request_rate, 0..=i32::MAX);
    if let Some(window) = control.sampling_window {
        let holds = window.get() >= std::time::Duration::from_secs(1);
        let problem = "samplingWindow must be at least 1s";
        found.require(holds, at.field("samplingWindow"), problem);
    }
    let Some(criteria) = &control.success_criteria else { return };
    let at = at.field("successCriteria");
    if let Some(http) = &criteria.http {
        let (of_http, allowed) = (at.field("http"), 100..=599);
        let codes = of_http.field("statusCodes");
        for (index, code) in http.status_codes.iter().enumerate() {
            found.number(codes.item(index), *code, allowed.clone());
        }
    }
    if let Some(grpc) = &criteria.grpc {
        let of_grpc = at.field("grpc");
        let codes = of_grpc.field("statusCodes");
        for (index, code) in grpc.status_codes.iter().enumerate() {
            found.word(codes.item(index), code.unknown(), GrpcStatus::WORDS);
        }
    }
}

fn compression(of: &Compression, at: Path<'_>, found: &mut Violations) {
    found.word(at.field("type"), of.kind.unknown(), CompressionType::WORDS);
    if let Some(least) = &of.min_content_length {
        found.quantity(at.field("minContentLength"), least);
    }
}

fn tracing(tracing: &RouteTracing, at: Path<'_>, found: &mut Violations) {
    for (field, fraction) in [
        ("samplingFraction", tracing.sampling_fraction),
        ("clientSamplingFraction", tracing.client_sampling_fraction),
        ("overallSamplingFraction", tracing.overall_sampling_fraction),
    ] {
        if let Some(fraction) = fraction {
            found.fraction(at.field(field), fraction);
        }
    }
    let tags = at.field("customTags");
    for (name, tag) in &tracing.custom_tags {
        let kind = tag.kind();
        found.word(tags.field(name).field("type"), kind.unknown(), CustomTagType::WORDS);
    }
    if let Some(names) = &tracing.span_name {
        let at = at.field("spanName");
        for (field, name) in [("server", &names.server), ("client", &names.client)] {
            let problem = format!("`{field}` is missing; it is required");
            found.require(name.is_some(), at, &problem);
        }
    }
}
