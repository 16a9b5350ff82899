//! Attempts of a request at its cluster: one, or as many as the rule allows.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderName;

use crate::body::{Replay, Request, Response};
use crate::clock;
use crate::clock::coarse_now;
use crate::downstream::{coarse_timer, silence};
use crate::failure::Failure;
use crate::proxy::exchange_record::Record;
use crate::snapshot::{RetriedFailures, Retry, Rule};
use crate::trace::{Outcome, grpc_code};
use crate::upstream::{Aim, BreakerLimit, Cluster, Errand, FailureKind, RetryPermit, Tunnel};

const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// A response head with its body, and the tunnel that follows a 101.
type BackendAnswer = (Response, Option<Tunnel>);

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
    let replay = Replay::new(body);
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

/// Resolves when no byte has moved for `rest` while the gateway was not waiting for the client.
///
/// There is one timer, which is set again only when it fires, so passing bytes cost nothing.
async fn no_progress(moved: &AtomicU64, rest: Duration, client_is_awaited: impl Fn() -> bool) {
    loop {
        moved.store(coarse_now(), Ordering::Relaxed);
        silence(moved, rest).await;
        if !client_is_awaited() {
            return;
        }
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
    let came = ask(record, cluster, rule, request, aim, deadline).await;
    if let Some(trace) = &mut record.trace {
        let outcome = match &came {
            Ok((response, _)) => Outcome::Status(response.status().as_u16()),
            Err(failure) => Outcome::Failed(failure.flag().into()),
        };
        trace.end_try(outcome, record.upstream.as_ref(), clock::now());
    }
    came
}

/// Sends the request to a backend, within the remaining time limits.
async fn ask(
    record: &mut Record,
    cluster: &Arc<Cluster>,
    rule: &Rule,
    request: &mut Request,
    aim: &Aim,
    deadline: Option<Instant>,
) -> Result<BackendAnswer, Failure> {
    let limits = record.connection.watch.limits();
    let left = deadline.map(|at| at.saturating_duration_since(clock::now()));
    let wait = left.into_iter().chain(rule.timeouts.backend_request.duration()).min();
    // A gRPC call may be silent for longer; its deadline is forwarded with it.
    let (is_grpc, idle_limit) = (record.is_grpc(), record.idle_limit());
    let rest = idle_limit.or(limits.response_timeout).filter(|_| rule.timeouts.is_unset());

    let received = record.received.clone();
    let alone = AtomicU64::default();
    let moved = received.as_deref().map_or(&alone, |received| &received.moved);
    let late = async {
        match (wait, rest) {
            (Some(wait), _) => {
                coarse_timer::sleep(wait).await;
                match left == Some(wait) {
                    true => Failure::RequestTimeout,
                    false => Failure::UpstreamTimeout,
                }
            }
            (None, Some(rest)) => {
                // While the gateway waits for the client, the timeout of request bodies applies; a
                // gRPC call has no such timeout.
                let received = received.as_deref().filter(|_| !is_grpc);
                no_progress(moved, rest, || {
                    received.is_some_and(|of| of.awaited.load(Ordering::Relaxed))
                })
                .await;
                Failure::UpstreamTimeout
            }
            (None, None) => pending().await,
        }
    };
    // The record gets the endpoint, so that the log names the one that did not answer in time.
    let client = record.connection.client_of(record.client);
    let (counts, tried) = (&rule.counts, &mut record.upstream);
    let errand = Errand { aim, client, counts, tried, moved };
    let sent = tokio::select! {
        biased;
        sent = cluster.send_for(errand, request) => sent,
        failure = late => return Err(failure),
    };
    match sent {
        Ok(answer) => {
            record.answered_by(answer.endpoint);
            Ok((answer.response, answer.tunnel))
        }
        Err(failed) => {
            tracing::debug!(details = %failed.details, cluster = %cluster.settings().name, "no response");
            record.upstream = failed.endpoint;
            Err(match failed.kind {
                FailureKind::RequestBody if record.is_body_late() => Failure::RequestBodyLate,
                FailureKind::RequestBody if record.is_body_stalled() => Failure::RequestBodyStalled,
                FailureKind::RequestBody if record.is_abandoned() => Failure::ClientGone,
                kind => kind.into(),
            })
        }
    }
}
