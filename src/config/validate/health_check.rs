//! The rules of `healthCheck`, which several kinds embed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::uri::PathAndQuery;

use crate::api::envoy::health_check::{
    ActiveHealthCheck, ActiveHealthCheckType, HealthCheck, HealthCheckEvent, HealthCheckLog,
    HealthCheckLogSinkType, HealthCheckPayload, HttpHealthCheck, PassiveHealthCheck, PayloadType,
};
use crate::config::path::Path;

use super::violations::Violations;

pub(super) fn health_check(check: &HealthCheck, at: Path<'_>, found: &mut Violations) {
    found.optional(at.field("panicThreshold"), check.panic_threshold, 0..=100);
    if let Some(check) = &check.active {
        active(check, at.field("active"), found);
    }
    if let Some(check) = &check.passive {
        passive(check, at.field("passive"), found);
    }
}

fn active(check: &ActiveHealthCheck, at: Path<'_>, found: &mut Violations) {
    use ActiveHealthCheckType::{Grpc, Http, Tcp};

    found.word(at.field("type"), check.kind.unknown(), ActiveHealthCheckType::WORDS);
    if check.kind.unknown().is_none() {
        for (kind, field, is_set) in
            [(Http, "http", check.http.is_some()), (Tcp, "tcp", check.tcp.is_some())]
        {
            let problem =
                format!("If Health Checker type is {kind}, {field} field needs to be set.");
            found.require((check.kind == kind) == is_set, at, &problem);
        }
        let problem = "The grpc field can only be set if the Health Checker type is GRPC.";
        found.require(check.grpc.is_none() || check.kind == Grpc, at, problem);
    }
    for (field, number) in [
        ("unhealthyThreshold", check.unhealthy_threshold),
        ("healthyThreshold", check.healthy_threshold),
    ] {
        found.optional(at.field(field), number, 1..=i32::MAX);
    }
    if let Some(check) = &check.http {
        http(check, at.field("http"), found);
    }
    if let Some(check) = &check.tcp {
        let at = at.field("tcp");
        for (field, bytes) in [("send", &check.send), ("receive", &check.receive)] {
            if let Some(bytes) = bytes {
                payload(bytes, at.field(field), found);
            }
        }
    }
    if let Some(port) = check.overrides.as_ref().and_then(|overrides| overrides.port) {
        found.port(at.field("overrides").field("port"), port);
    }
    if let Some(of) = &check.health_check_log {
        log(of, at.field("healthCheckLog"), found);
    }
}

fn http(check: &HttpHealthCheck, at: Path<'_>, found: &mut Violations) {
    if let Some(hostname) = &check.hostname {
        found.precise_hostname(at.field("hostname"), hostname);
    }
    found.length(at.field("path"), &check.path, 1..=1024);
    let is_path = check.path.starts_with('/') && PathAndQuery::try_from(&*check.path).is_ok();
    found.require(is_path, at.field("path"), "expected the path of a request, such as `/health`");
    if let Some(method) = &check.method {
        found.length(at.field("method"), method, 0..=16);
    }
    for (field, codes) in [
        ("expectedStatuses", &check.expected_statuses),
        ("retriableStatuses", &check.retriable_statuses),
    ] {
        for (index, code) in codes.iter().enumerate() {
            found.number(at.field(field).item(index), *code, 100..=599);
        }
    }
    for (field, bytes) in
        [("expectedResponse", &check.expected_response), ("requestBody", &check.request_body)]
    {
        if let Some(bytes) = bytes {
            payload(bytes, at.field(field), found);
        }
    }
    let method = check.method.as_deref().unwrap_or_default();
    let takes_body = ["POST", "PUT"].iter().any(|with| method.eq_ignore_ascii_case(with));
    let problem = "The requestBody field can only be set when method is POST or PUT.";
    found.require(check.request_body.is_none() || takes_body, at, problem);
}

fn payload(payload: &HealthCheckPayload, at: Path<'_>, found: &mut Violations) {
    found.word(at.field("type"), payload.kind.unknown(), PayloadType::WORDS);
    if payload.kind.unknown().is_none() {
        for (kind, field, is_set) in [
            (PayloadType::Text, "text", payload.text.is_some()),
            (PayloadType::Binary, "binary", payload.binary.is_some()),
        ] {
            let problem = format!("If payload type is {kind}, {field} field needs to be set.");
            found.require((payload.kind == kind) == is_set, at, &problem);
        }
    }
    if let Some(text) = &payload.binary {
        let is_base64 = !text.is_empty() && STANDARD.decode(text).is_ok();
        found.require(is_base64, at.field("binary"), "this is not base64");
    }
}

fn log(log: &HealthCheckLog, at: Path<'_>, found: &mut Violations) {
    let sinks = at.field("sinks");
    found.count(sinks, log.sinks.len(), 0..=1);
    for (index, sink) in log.sinks.iter().enumerate() {
        let at = sinks.item(index);
        found.word(at.field("type"), sink.kind.unknown(), HealthCheckLogSinkType::WORDS);
        if sink.kind.unknown().is_none() {
            let problem = "If ProxyHealthCheckLogSink type is File, file field needs to be set.";
            found.require(sink.file.is_some(), at, problem);
        }
        if let Some(file) = &sink.file {
            found.length(at.field("file").field("path"), &file.path, 1..=4096);
        }
    }
    let Some(matches) = &log.matches else { return };
    let at = at.field("matches");
    found.count(at, matches.len(), 0..=4);
    found.unique(at, matches, "duplicate entry; remove one");
    for (index, event) in matches.iter().enumerate() {
        found.word(at.item(index), event.unknown(), HealthCheckEvent::WORDS);
    }
    let has = |events: [HealthCheckEvent; 2]| matches.iter().any(|event| events.contains(event));
    let fails = has([HealthCheckEvent::Failure, HealthCheckEvent::FailureSeriesStart]);
    let passes = has([HealthCheckEvent::Success, HealthCheckEvent::HealthyTransition]);
    let problem = "a failure type and a success type must both be specified together";
    found.require(fails == passes, at, problem);
}

fn passive(check: &PassiveHealthCheck, at: Path<'_>, found: &mut Violations) {
    for (field, number) in [
        ("maxEjectionPercent", check.max_ejection_percent),
        ("failurePercentageThreshold", check.failure_percentage_threshold),
    ] {
        found.optional(at.field(field), number, 0..=100);
    }
}
