//! Requests that wait while their backend restarts, in place of a 502 or 503.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body::Body as _;

use crate::body::{Replay, Request};
use crate::clock;
use crate::failure::Failure;
use crate::proxy::attempt::{BackendAnswer, ask};
use crate::proxy::exchange_record::Record;
use crate::snapshot::Rule;
use crate::stats::{Sharded, Upstream};
use crate::upstream::{Aim, Cluster, HeldRequest, Hold, Turn};

/// The wait before a request is sent again after a connection that was accepted and broke; it
/// doubles with each further one.
const AFTER_RESET: Duration = Duration::from_millis(100);

/// Maximum number of times that a request is sent again after such a connection: the request itself
/// may be what breaks the backend.
const MOST_RESETS: u32 = 7;

/// Like [`ask`], but while no endpoint of the cluster accepts a connection the request waits, within
/// the limits of `hold` and until `deadline`.
///
/// A request that the backend may have received waits only if it may be received twice: if its method
/// is idempotent and it has no body (RFC 9110 section 9.2.2).
pub(super) async fn ask_patiently(
    record: &mut Record,
    cluster: &Arc<Cluster>,
    rule: &Rule,
    hold: &Arc<Hold>,
    request: &mut Request,
    aim: &Aim,
    deadline: Option<Instant>,
) -> Result<BackendAnswer, Failure> {
    let (head, body) = std::mem::take(request).into_parts();
    let replayable = head.method.is_idempotent() && body.is_end_stream();
    let replay = Replay::new(body);
    let (mut wait, mut turn, mut resets) = (None, None, 0);
    loop {
        let connects = hold.connects();
        let mut again = Request::from_parts(head.clone(), replay.again());
        let asking = ask(record, cluster, rule, &mut again, aim, deadline);
        let came = in_turn(asking, turn.take(), hold, connects).await;
        let cause = match &came {
            Err(Failure::ConnectFailed) => Cause::Unreachable,
            // Without an endpoint there is nothing to wait for.
            Err(Failure::NoEndpoint) if !cluster.settings().endpoints.is_empty() => {
                Cause::Unreachable
            }
            Err(Failure::UpstreamReset) if replayable && resets < MOST_RESETS => Cause::Reset,
            _ => Cause::None,
        };
        if cause == Cause::None || !replay.is_whole() {
            replay.settle();
            return came;
        }
        let wait = match &mut wait {
            Some(wait) => wait,
            None => match Wait::begin(hold, &rule.counts) {
                Some(begun) => {
                    record.held = true;
                    wait.insert(begun)
                }
                None => return came,
            },
        };
        let until = deadline.map_or(wait.until, |deadline| deadline.min(wait.until));
        let waiting = async {
            if cause == Cause::Unreachable {
                return hold.until_worth_a_try(connects).await;
            }
            tokio::time::sleep(AFTER_RESET * 2_u32.pow(resets)).await;
            resets += 1;
            None
        };
        match tokio::time::timeout_at(until.into(), waiting).await {
            Ok(next) => turn = next,
            Err(_) if until < wait.until => return Err(record.too_long(record.awaits_body())),
            Err(_) => {
                rule.counts.here().held_timeouts.one_more();
                return came;
            }
        }
    }
}

/// The reason why a request waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    None,
    /// A connection was accepted, and ended without an answer.
    Reset,
    Unreachable,
}

/// Makes an attempt. Once a connection is open, the next request has its turn.
async fn in_turn<A>(
    asking: impl Future<Output = A>,
    turn: Option<Turn<'_>>,
    hold: &Hold,
    connects: u64,
) -> A {
    let Some(turn) = turn else { return asking.await };
    let mut asking = pin!(asking);
    tokio::select! {
        biased;
        came = &mut asking => return came,
        () = hold.connected(connects) => {}
    }
    drop(turn);
    asking.await
}

/// A wait that has begun.
struct Wait {
    until: Instant,
    _held: HeldRequest,
    _count: Count,
}

impl Wait {
    /// Begins a wait; `None` if as many requests wait as may.
    fn begin(hold: &Arc<Hold>, counts: &Arc<Sharded<Upstream>>) -> Option<Self> {
        let Some(held) = hold.enter() else {
            counts.here().held_overflows.one_more();
            return None;
        };
        let until = clock::now() + hold.settings().patience;
        Some(Self { until, _held: held, _count: Count::new(counts) })
    }
}

/// The request in the counters of its rule.
struct Count(Arc<Sharded<Upstream>>);

impl Count {
    fn new(counts: &Arc<Sharded<Upstream>>) -> Self {
        counts.here().held.one_more();
        counts.here().held_active.one_more();
        Self(Arc::clone(counts))
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.here().held_active.one_less();
    }
}
