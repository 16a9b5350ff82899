//! Attempts of a request at its cluster: one, or as many as the rule allows.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderName;

use crate::body::{Replay, Request};
use crate::clock;
use crate::failure::Failure;
use crate::proxy::attempt::{BackendAnswer, ask};
use crate::proxy::exchange_record::Record;
use crate::proxy::held::ask_patiently;
use crate::snapshot::{RetriedFailures, Retry, Rule};
use crate::trace::{Outcome, grpc_code};
use crate::upstream::{Aim, BreakerLimit, Cluster, RetryPermit};

const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// Sends a request within the limits of the rule and of the cluster, and retries it if the rule has
/// `retry`.
///
/// Takes the request out of its place: each future on its way would reserve memory for another one.
pub(super) async fn send(
    record: &mut Record,
    cluster: &Arc<Cluster>,
    rule: &Rule,
    request: &mut Request,
    aim: &mut Aim,
    deadline: Option<Instant>,
) -> Result<BackendAnswer, Failure> {
    if let Some(limits) = cluster.request_limits() {
        record.permit = limits.begin();
        if record.permit.is_none() {
            record.tries(rule);
            rule.counts.here().pending_overflows.one_more();
            return Err(Failure::Overflow(BreakerLimit::ParallelRequests));
        }
    }
    match &rule.retry {
        None => once(record, cluster, rule, request, aim, deadline).await,
        // Boxed, so that other requests do not reserve memory for it.
        Some(retry) => {
            Box::pin(repeatedly(record, cluster, rule, retry, request, aim, deadline)).await
        }
    }
}

/// Implements HTTPRoute `retry` (GEP-1731) and that of a BackendTrafficPolicy: retries until a
/// response can be passed on or no attempt is left. Returns the result of the last attempt.
///
/// All methods are retried, as in the specification: a rule with `retry` declares that its backends
/// can handle repeated requests. A body that is too long to be buffered ends the attempts.
async fn repeatedly(
    record: &mut Record,
    cluster: &Arc<Cluster>,
    rule: &Rule,
    retry: &Retry,
    request: &mut Request,
    aim: &mut Aim,
    deadline: Option<Instant>,
) -> Result<BackendAnswer, Failure> {
    let (head, body) = std::mem::take(request).into_parts();
    let replay = Replay::keeping(body, retry.buffer);
    let mut number = 1;
    // Counts the present attempt as a retry, if it is one and the cluster counts them.
    let mut permit = None;
    loop {
        let mut again = Request::from_parts(head.clone(), replay.again());
        let came = once(record, cluster, rule, &mut again, aim, deadline).await;
        if !is_worth_another(&came, retry) || !replay.is_whole() {
            replay.settle();
            return came;
        }
        if number > retry.attempts {
            record.exhausted = true;
            return match came {
                // The conformance tests of the specification expect 500 or 503 here.
                Err(Failure::UpstreamReset) => Err(Failure::UpstreamResetAgain),
                came => came,
            };
        }
        drop(permit);
        match permit_of_retry(cluster) {
            Ok(taken) => permit = taken,
            Err(Full) => {
                rule.counts.here().retry_overflows.one_more();
                return came;
            }
        }
        number += 1;
        let wait = retry.wait(number, fastrand::u32(..));
        // The wait would end in a timeout, so the result of this attempt is passed on.
        if deadline.is_some_and(|at| at.saturating_duration_since(clock::now()) <= wait) {
            return came;
        }
        // Dropping a response that is not passed on closes its connection and frees the backend.
        drop(came);
        // The next attempt goes to another endpoint if there is one.
        aim.prefer = None;
        aim.avoid.extend(record.upstream.clone());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// The cluster has as many retries under way as it may.
struct Full;

/// Counts a retry, if the cluster counts them.
fn permit_of_retry(cluster: &Cluster) -> Result<Option<RetryPermit>, Full> {
    let Some(limits) = cluster.request_limits() else { return Ok(None) };
    limits.retry().map(Some).ok_or(Full)
}

fn is_worth_another(came: &Result<BackendAnswer, Failure>, retry: &Retry) -> bool {
    match came {
        Ok((response, _)) => {
            retry.codes.contains(&response.status())
                // In a head there is one if no message follows.
                || !retry.grpc.is_empty()
                    && grpc_code(response.headers()).is_some_and(|code| retry.grpc.contains(&code))
        }
        Err(Failure::ConnectFailed | Failure::ConnectTimeout | Failure::Tls(_)) => {
            retry.failures != RetriedFailures::None
        }
        Err(Failure::UpstreamReset | Failure::UpstreamTimeout) => {
            retry.failures == RetriedFailures::All
        }
        Err(_) => false,
    }
}

/// Makes one attempt at a backend.
async fn once(
    record: &mut Record,
    cluster: &Arc<Cluster>,
    rule: &Rule,
    request: &mut Request,
    aim: &Aim,
    deadline: Option<Instant>,
) -> Result<BackendAnswer, Failure> {
    record.tries(rule);
    if record.policy.as_ref().is_some_and(|policy| policy.shows_envoy_headers) {
        request.headers_mut().insert(ATTEMPT_COUNT, record.attempts().into());
    }
    if let Some(trace) = &mut record.trace {
        trace.begin_try(request.headers_mut(), clock::now());
    }
    let came = match cluster.hold() {
        None => ask(record, cluster, rule, request, aim, deadline).await,
        // Boxed, so that other requests do not reserve memory for it.
        Some(hold) => {
            Box::pin(ask_patiently(record, cluster, rule, hold, request, aim, deadline)).await
        }
    };
    if let Some(trace) = &mut record.trace {
        let outcome = match &came {
            Ok((response, _)) => Outcome::Status(response.status().as_u16()),
            Err(failure) => Outcome::Failed(failure.flag().into()),
        };
        trace.end_try(outcome, record.upstream.as_ref(), clock::now());
    }
    came
}
