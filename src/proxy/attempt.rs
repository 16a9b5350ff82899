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
