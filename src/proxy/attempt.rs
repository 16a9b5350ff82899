//! One attempt of a request at its cluster, within the time limits of the rule.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::body::{Request, Response};
use crate::clock;
use crate::clock::coarse_now;
use crate::downstream::{coarse_timer, silence};
use crate::failure::Failure;
use crate::proxy::body_progress::BodyProgress;
use crate::proxy::exchange_record::Record;
use crate::snapshot::Rule;
use crate::upstream::{Aim, Cluster, Errand, FailureKind, Tunnel};

/// A response head with its body, and the tunnel that follows a 101.
pub(super) type BackendAnswer = (Response, Option<Tunnel>);

/// Sends the request to a backend, within the remaining time limits.
pub(super) async fn ask(
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
    let (silence, idle_limit) = (Silence::of(record), record.idle_limit());
    let rest = match silence {
        Silence::ByRule => idle_limit,
        _ => idle_limit.or(limits.response_timeout).filter(|_| rule.timeouts.is_unset()),
    };

    let received = record.received.clone();
    let alone = AtomicU64::default();
    let moved = received.as_deref().map_or(&alone, |received| &received.moved);
    let late = async {
        let failure =
            match (wait, rest) {
                (Some(wait), None) => expire(wait, left).await,
                (None, Some(rest)) => fall_silent(silence, rest, received.as_deref(), moved).await,
                // Boxed, so that other requests do not reserve memory for it.
                (Some(wait), Some(rest)) => Box::pin(async {
                    tokio::select! {
                        failure = expire(wait, left) => failure,
                        failure = fall_silent(silence, rest, received.as_deref(), moved) => failure,
                    }
                })
                .await,
                (None, None) => pending().await,
            };
        // Before the request is dropped, after which nothing is awaited.
        (failure, received.as_deref().is_some_and(BodyProgress::is_awaited))
    };
    // The record gets the endpoint, so that the log names the one that did not answer in time.
    let client = record.connection.client_of(record.client);
    let header = cluster.settings().proxy_protocol;
    let proxied = header.map(|_| Box::new(record.connection.addresses()));
    let (counts, tried, proxied) = (&rule.counts, &mut record.upstream, proxied.as_deref());
    let errand = Errand { aim, client, proxied, counts, tried, moved };
    let sent = tokio::select! {
        biased;
        sent = cluster.send_for(errand, request) => sent,
        (failure, arrives) = late => {
            // A client that is slow to send its body is not the fault of the endpoint.
            if !arrives {
                cluster.late(record.upstream.as_ref());
            }
            return Err(match failure {
                Failure::RequestTimeout => record.too_long(arrives),
                failure => failure,
            });
        }
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
                FailureKind::RequestBody => record.broken_body(),
                kind => kind.into(),
            })
        }
    }
}

/// The limit on the time without a byte in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    /// The rule's own, also while the gateway waits for the client.
    ByRule,
    /// That of a gRPC call, which has no timeout for request bodies.
    OfCall,
    /// That of responses. While the gateway waits for the client, the timeout of request bodies
    /// applies.
    OfResponse,
}

impl Silence {
    fn of(record: &Record) -> Self {
        match (record.has_own_idle_limit(), record.is_grpc()) {
            (true, _) => Self::ByRule,
            (false, true) => Self::OfCall,
            (false, false) => Self::OfResponse,
        }
    }
}

/// Returns the failure of an attempt when `wait` is over; `left` is the time that was left for the
/// whole exchange.
async fn expire(wait: Duration, left: Option<Duration>) -> Failure {
    coarse_timer::sleep(wait).await;
    if left == Some(wait) { Failure::RequestTimeout } else { Failure::UpstreamTimeout }
}

/// Returns the failure of an attempt when no byte has moved for `rest`.
async fn fall_silent(
    silence: Silence,
    rest: Duration,
    received: Option<&BodyProgress>,
    moved: &AtomicU64,
) -> Failure {
    let is_awaited = || received.is_some_and(BodyProgress::is_awaited);
    no_progress(moved, rest, || silence == Silence::OfResponse && is_awaited()).await;
    match silence {
        Silence::ByRule if is_awaited() => Failure::RequestBodyStalled,
        Silence::ByRule => Failure::StreamIdle,
        Silence::OfCall | Silence::OfResponse => Failure::UpstreamTimeout,
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
