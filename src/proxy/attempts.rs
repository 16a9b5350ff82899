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
use crate::snapshot::{Choice, RetriedFailures, Retry, Rule, WeightedClusters};
use crate::trace::{Outcome, grpc_code};
use crate::upstream::{Aim, BreakerLimit, Cluster, RetryPermit};

const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// The destination of the attempts of a request.
#[derive(Debug)]
pub(super) struct Destination<'r, 'a> {
    /// Becomes the cluster of the last attempt.
    pub cluster: &'a mut &'r Arc<Cluster>,
    pub aim: &'a mut Aim,
    /// True if the request has passed filters of the backend: it cannot go to another one.
    pub has_filters: bool,
}

impl<'r> Destination<'r, '_> {
    /// Turns to one of these backends. Returns false if that is not possible.
    fn turn_to(&mut self, backends: Option<&'r WeightedClusters>) -> bool {
        let next = backends.map(|backends| backends.next_of_priority(self.aim.hash));
        match next {
            Some(Choice::Cluster { cluster, filters })
                if filters.is_empty() && !self.has_filters =>
            {
                *self.cluster = cluster;
                self.aim.prefer = None;
                true
            }
            _ => false,
        }
    }
}

/// Sends a request within the limits of the rule and of the cluster, and retries it if the rule has
/// `retry`.
///
/// Takes the request out of its place: each future on its way would reserve memory for another one.
pub(super) async fn send<'r>(
    record: &mut Record,
    to: Destination<'r, '_>,
    rule: &'r Rule,
    request: &mut Request,
    deadline: Option<Instant>,
) -> Result<BackendAnswer, Failure> {
    admit(record, to.cluster, rule)?;
    let has_fallback = rule.backends.as_ref().is_some_and(WeightedClusters::has_fallback);
    if rule.retry.is_none() && !has_fallback {
        return once(record, to.cluster, rule, request, to.aim, deadline).await;
    }
    // Boxed, so that other requests do not reserve memory for it.
    Box::pin(repeatedly(record, to, rule, request, deadline)).await
}

/// Counts the request for its cluster, if the cluster counts them.
fn admit(record: &mut Record, cluster: &Cluster, rule: &Rule) -> Result<(), Failure> {
    record.permit = None;
    let Some(limits) = cluster.request_limits() else { return Ok(()) };
    record.permit = limits.begin();
    if record.permit.is_some() {
        return Ok(());
    }
    record.tries(rule);
    rule.counts.here().pending_overflows.one_more();
    Err(Failure::Overflow(BreakerLimit::ParallelRequests))
}

/// Implements HTTPRoute `retry` (GEP-1731) and that of a BackendTrafficPolicy: retries until a
/// response can be passed on or no attempt is left. Returns the result of the last attempt. A
/// request that no endpoint of its cluster accepted goes to the fallback of the rule; that is not a
/// retry.
///
/// All methods are retried, as in the specification: a rule with `retry` declares that its backends
/// can handle repeated requests. A body that is too long to be buffered ends the attempts.
async fn repeatedly<'r>(
    record: &mut Record,
    mut to: Destination<'r, '_>,
    rule: &'r Rule,
    request: &mut Request,
    deadline: Option<Instant>,
) -> Result<BackendAnswer, Failure> {
    let (head, body) = std::mem::take(request).into_parts();
    let buffer = rule.retry.as_ref().and_then(|retry| retry.buffer);
    let replay = Replay::keeping(body, buffer);
    let backends = rule.backends.as_ref();
    let (mut number, mut of_priority) = (1, 1);
    // Counts the present attempt as a retry, if it is one and the cluster counts them.
    let mut permit = None;
    loop {
        let mut again = Request::from_parts(head.clone(), replay.again());
        let came = once(record, to.cluster, rule, &mut again, to.aim, deadline).await;
        let fallback = backends.and_then(|backends| backends.fallback_of(to.cluster));
        if is_unreached(&came) && replay.is_whole() && to.turn_to(fallback) {
            admit(record, to.cluster, rule)?;
            of_priority = 1;
            continue;
        }
        let retry = rule.retry.as_ref().filter(|retry| is_worth_another(&came, retry));
        let Some(retry) = retry.filter(|_| replay.is_whole()) else {
            replay.settle();
            return came;
        };
        if number > retry.attempts {
            record.exhausted = true;
            return match came {
                // The conformance tests of the specification expect 500 or 503 here.
                Err(Failure::UpstreamReset) => Err(Failure::UpstreamResetAgain),
                came => came,
            };
        }
        drop(permit);
        match permit_of_retry(to.cluster) {
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
        to.aim.prefer = None;
        to.aim.avoid.extend(record.upstream.clone());
        if retry.tries_per_priority.is_some_and(|tries| of_priority >= tries.get())
            && to.turn_to(backends.and_then(|backends| backends.other_priority(to.cluster)))
        {
            admit(record, to.cluster, rule)?;
            of_priority = 0;
        }
        of_priority += 1;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// Returns true if no endpoint of the cluster accepted the connection: none has seen the request.
fn is_unreached(came: &Result<BackendAnswer, Failure>) -> bool {
    matches!(
        came,
        Err(Failure::ConnectFailed
            | Failure::ConnectTimeout
            | Failure::NoEndpoint
            | Failure::Tls(_))
    )
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
