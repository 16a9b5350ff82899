//! Timeouts and retries of a rule: those of an HTTPRoute, and `timeout` and `retry` of a
//! BackendTrafficPolicy.

use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;

use crate::api;
use crate::api::envoy::BackendTrafficPolicySpec;
use crate::api::envoy::backend_settings::{BackOff, BackendRetry, RetryTrigger};
use crate::api::{HttpRouteRetry, HttpRouteTimeouts};
use crate::snapshot::{Limit, RetriedFailures, Retry, Timeouts};

/// Converts a timeout; `0s` turns a limit off (GEP-1742).
fn limit(raw: Option<api::Duration>) -> Limit {
    match raw.map(api::Duration::get) {
        None => Limit::Unset,
        Some(Duration::ZERO) => Limit::Off,
        Some(limit) => Limit::After(limit),
    }
}

/// Converts the timeouts of an HTTPRoute.
pub(super) fn timeouts(raw: HttpRouteTimeouts) -> Timeouts {
    Timeouts {
        request: limit(raw.request),
        backend_request: limit(raw.backend_request),
        ..Timeouts::default()
    }
}

/// The default of `attempts`, which counts tries after the first: Envoy Gateway's default.
const ATTEMPTS: u32 = 2;

/// The default of `backoff`: Envoy's default.
const BACKOFF: Duration = Duration::from_millis(25);

/// Converts the retries of an HTTPRoute.
pub(super) fn retry(raw: &HttpRouteRetry) -> Retry {
    let backoff = raw.backoff.map_or(BACKOFF, api::Duration::get);
    Retry {
        failures: RetriedFailures::All,
        // A number that is not a status breaks a rule of the kind.
        codes: raw.codes.iter().filter_map(|code| StatusCode::from_u16(*code).ok()).collect(),
        attempts: raw.attempts.unwrap_or(ATTEMPTS),
        backoff,
        max_backoff: backoff.saturating_mul(10),
        buffer: None,
        grpc: Box::default(),
        tries_per_priority: None,
    }
}

/// Returns the timeouts of a rule: its own, or else those of the policy.
pub(super) fn timeouts_with(own: Timeouts, policy: &BackendTrafficPolicySpec) -> Timeouts {
    let http = policy.timeout.as_ref().and_then(|timeouts| timeouts.http.as_ref());
    let per_try = policy.retry.as_ref().and_then(|retry| retry.per_retry.as_ref());
    Timeouts {
        request: own.request.or(limit(http.and_then(|http| http.request_timeout))),
        backend_request: own.backend_request.or(limit(per_try.and_then(|retry| retry.timeout))),
        stream_idle: limit(http.and_then(|http| http.stream_idle_timeout)),
        stream: limit(http.and_then(|http| http.max_stream_duration)).duration(),
    }
}

/// Returns the retries of a rule that has none itself.
pub(super) fn retry_of_policy(policy: &BackendTrafficPolicySpec) -> Option<Retry> {
    let raw = policy.retry.as_ref()?;
    let attempts = raw.num_retries();
    let (failures, codes, grpc) = conditions(raw);
    let back_off = raw.per_retry.as_ref().and_then(|retry| retry.back_off.as_ref());
    let of = |field: fn(&BackOff) -> Option<api::Duration>| {
        back_off.and_then(field).map(api::Duration::get)
    };
    let backoff = of(|back_off| back_off.base_interval).unwrap_or(BACKOFF);
    let max_backoff =
        of(|back_off| back_off.max_interval).unwrap_or_else(|| backoff.saturating_mul(10));
    let buffer = None;
    let tries_per_priority = raw.num_attempts_per_priority;
    let tries_per_priority =
        tries_per_priority.and_then(|tries| NonZeroU32::new(u32::try_from(tries).ok()?));
    (attempts > 0).then_some(Retry {
        failures,
        codes,
        attempts,
        backoff,
        max_backoff,
        buffer,
        grpc,
        tries_per_priority,
    })
}

/// Returns the maximum number of bytes of a request body that are kept for another try, if the
/// policy sets it.
pub(super) fn buffer(policy: &BackendTrafficPolicySpec) -> Option<usize> {
    let limit = policy.connection.as_ref()?.buffer_limit.as_ref()?.bytes()?;
    Some(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Returns what is retried: failures, statuses and gRPC statuses.
///
/// A request that the backend has not processed (`refused-stream`, `reset-before-request`) is sent
/// again whatever is written here, by `upstream`.
fn conditions(raw: &BackendRetry) -> (RetriedFailures, Box<[StatusCode]>, Box<[u8]>) {
    use RetryTrigger::{Cancelled, ConnectFailure, RetriableStatusCodes, Unavailable};

    let default = [ConnectFailure, Unavailable, Cancelled, RetriableStatusCodes];
    let (triggers, written) = match &raw.retry_on {
        Some(on) => (on.triggers.as_slice(), on.http_status_codes.as_slice()),
        None => (default.as_slice(), [503].as_slice()),
    };
    let mut failures = RetriedFailures::None;
    let (mut codes, mut grpc): (Vec<u16>, Vec<u8>) = (Vec::new(), Vec::new());
    for trigger in triggers {
        let of_trigger = match trigger {
            RetryTrigger::Error5xx | RetryTrigger::GatewayError | RetryTrigger::Reset => {
                RetriedFailures::All
            }
            ConnectFailure => RetriedFailures::Connecting,
            _ => RetriedFailures::None,
        };
        failures = failures.max(of_trigger);
        match trigger {
            RetryTrigger::Error5xx => codes.extend(500..=599),
            RetryTrigger::GatewayError => codes.extend([502, 503, 504]),
            RetryTrigger::Retriable4xx => codes.push(409),
            RetriableStatusCodes => codes.extend(written),
            Cancelled => grpc.push(1),
            RetryTrigger::DeadlineExceeded => grpc.push(4),
            RetryTrigger::ResourceExhausted => grpc.push(8),
            RetryTrigger::Internal => grpc.push(13),
            Unavailable => grpc.push(14),
            _ => {}
        }
    }
    let codes = codes.into_iter().filter_map(|code| StatusCode::from_u16(code).ok());
    (failures, codes.collect(), grpc.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> BackendTrafficPolicySpec {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn the_rule_s_own_timeouts_come_before_those_of_the_policy() {
        let policy =
            spec("{timeout: {http: {requestTimeout: 20s}}, retry: {perRetry: {timeout: 3s}}}");
        let after = |seconds| Limit::After(Duration::from_secs(seconds));
        // (of the rule, of both)
        let table = [
            ((Limit::Unset, Limit::Unset), (after(20), after(3))),
            ((after(1), Limit::Unset), (after(1), after(3))),
            ((Limit::Off, after(2)), (Limit::Off, after(2))),
        ];
        for ((request, backend_request), want) in table {
            let own = Timeouts { request, backend_request, ..Timeouts::default() };
            let both = timeouts_with(own, &policy);
            assert_eq!((both.request, both.backend_request), want);
        }
        let off =
            timeouts_with(Timeouts::default(), &spec("timeout: {http: {requestTimeout: 0s}}"));
        assert_eq!(off.request, Limit::Off);
        assert!(timeouts_with(Timeouts::default(), &spec("timeout: {}")).is_unset());
        let of_streams = spec("timeout: {http: {streamIdleTimeout: 0s, maxStreamDuration: 9s}}");
        let timeouts = timeouts_with(Timeouts::default(), &of_streams);
        assert_eq!(timeouts.stream_idle, Limit::Off);
        assert_eq!(timeouts.stream, Some(Duration::from_secs(9)));
        assert!(timeouts.stream_comes_first());
        let off = timeouts_with(timeouts, &spec("timeout: {http: {maxStreamDuration: 0s}}"));
        assert_eq!((off.stream, off.whole()), (None, None));
    }

    #[test]
    fn triggers_say_what_is_retried() {
        use RetriedFailures::{All, Connecting, None};
        // (retryOn, failures, number of statuses, gRPC statuses)
        let table: [(&str, _, usize, &[u8]); 8] = [
            ("retry: {}", Connecting, 1, &[14, 1]),
            ("retry: {retryOn: {triggers: [5xx]}}", All, 100, &[]),
            ("retry: {retryOn: {triggers: [gateway-error, connect-failure]}}", All, 3, &[]),
            ("retry: {retryOn: {triggers: [reset]}}", All, 0, &[]),
            ("retry: {retryOn: {triggers: [connect-failure, retriable-4xx]}}", Connecting, 1, &[]),
            // Without the trigger, statuses have no effect.
            (
                "retry: {retryOn: {triggers: [refused-stream], httpStatusCodes: [500]}}",
                None,
                0,
                &[],
            ),
            (
                "retry: {retryOn: {triggers: [retriable-status-codes], httpStatusCodes: [500, 429]}}",
                None,
                2,
                &[],
            ),
            ("retry: {retryOn: {triggers: [internal, deadline-exceeded]}}", None, 0, &[13, 4]),
        ];
        for (yaml, failures, codes, grpc) in table {
            let retry = retry_of_policy(&spec(yaml)).unwrap();
            assert_eq!((retry.failures, retry.codes.len()), (failures, codes), "{yaml}");
            assert_eq!((&*retry.grpc, retry.attempts), (grpc, 2), "{yaml}");
        }
        assert_eq!(retry_of_policy(&spec("retry: {numRetries: 0}")), Option::None);
        assert_eq!(retry_of_policy(&spec("timeout: {}")), Option::None);
        let backoff = "retry: {perRetry: {backOff: {baseInterval: 1s, maxInterval: 2s}}}";
        let retry = retry_of_policy(&spec(backoff)).unwrap();
        assert_eq!((retry.backoff.as_secs(), retry.max_backoff.as_secs()), (1, 2));
    }

    #[test]
    fn a_timeout_of_zero_is_off() {
        use Limit::{Off, Unset};
        let seconds = |seconds| Limit::After(Duration::from_secs(seconds));
        // (request, backendRequest, limits)
        let table = [
            (None, None, (Unset, Unset)),
            (Some("10s"), None, (seconds(10), Unset)),
            (Some("10s"), Some("10s"), (seconds(10), seconds(10))),
            (Some("0s"), Some("10s"), (Off, seconds(10))),
            (Some("10s"), Some("0s"), (seconds(10), Off)),
            (None, Some("1s"), (Unset, seconds(1))),
        ];
        for (request, backend, want) in table {
            let parse = |text: &str| text.parse().unwrap();
            let (request, backend_request) = (request.map(parse), backend.map(parse));
            let limits = timeouts(HttpRouteTimeouts { request, backend_request });
            let got = (limits.request, limits.backend_request);
            assert_eq!(got, want, "{request:?} {backend_request:?}");
        }
    }
}
