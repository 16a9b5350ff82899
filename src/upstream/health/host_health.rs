//! The health of one host, as its checks and its answers to requests show it.
//!
//! The state is atomic: requests and the task that checks the host read and write it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock;
use crate::upstream::address::Address;
use crate::upstream::health::group::{Cause, HealthGroup};
use crate::upstream::health::outcome::{Failing, Outcome};
use crate::upstream::health::outlier::{NoResponse, Outlier};
use crate::upstream::health::settings::{ActiveCheck, HealthSettings, PassiveCheck};
use crate::upstream::moment::millis;

/// The health of a host in the state of [`HostHealth::standing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Healthy,
    /// No check has ended yet.
    Unchecked,
    /// The host failed its checks.
    Unhealthy,
    /// Requests got too many errors from the host.
    Ejected,
}

/// The values of `HostHealth::checked`.
const UNCHECKED: u8 = 0;
const HEALTHY: u8 = 1;
const UNHEALTHY: u8 = 2;

/// The health of one host.
#[derive(Debug)]
pub(in crate::upstream) struct HostHealth {
    address: Address,
    /// The `Host` of checks.
    authority: Box<str>,
    settings: Arc<HealthSettings>,
    group: Arc<HealthGroup>,
    /// The result of the active checks.
    checked: AtomicU8,
    /// Number of results in a row that contradict `checked`.
    contrary: AtomicU32,
    /// Time from which the next check may start, in [`millis`].
    due: AtomicU64,
    /// Time at which the host turned healthy, in [`millis`]; 0 if it always was.
    healthy_since: AtomicU64,
    outlier: Outlier,
}

/// The right to make one check of a host. Only one task has it at a time.
#[derive(Debug)]
pub(in crate::upstream) struct Turn {
    begun: Instant,
}

impl HostHealth {
    /// Creates the state of a host whose checks have the `Host` `authority`.
    pub(in crate::upstream) fn new(
        address: Address,
        authority: Box<str>,
        settings: Arc<HealthSettings>,
        group: Arc<HealthGroup>,
        now: Instant,
    ) -> Self {
        let checked = if settings.active.is_some() { UNCHECKED } else { HEALTHY };
        let jitter = settings.active.as_ref().map(|check| part(check.initial_jitter));
        let due = millis(now + jitter.unwrap_or_default());
        group.joined();
        Self {
            address,
            authority,
            settings,
            group,
            checked: checked.into(),
            contrary: 0.into(),
            due: due.into(),
            healthy_since: 0.into(),
            outlier: Outlier::default(),
        }
    }

    /// Returns the health of the host. Does not read the clock for a host that is not ejected.
    pub(in crate::upstream) fn standing(&self) -> Standing {
        match self.found() {
            Standing::Healthy if self.outlier.is_ejected(clock::now) => Standing::Ejected,
            found => found,
        }
    }

    /// Returns the result of the active checks.
    fn found(&self) -> Standing {
        match self.checked.load(Ordering::Relaxed) {
            HEALTHY => Standing::Healthy,
            UNCHECKED => Standing::Unchecked,
            _ => Standing::Unhealthy,
        }
    }

    /// Records the status of a response to a request.
    pub(in crate::upstream) fn answered(&self, status: u16) {
        if let Some(check) = &self.settings.passive
            && let Some(cause) = self.outlier.answered(check, status)
        {
            self.eject(check, cause, clock::now());
        }
    }

    /// Records that a request got no response, because of the host.
    pub(in crate::upstream) fn failed_request(&self, how: NoResponse) {
        if let Some(check) = &self.settings.passive
            && let Some(cause) = self.outlier.failed(check, how)
        {
            self.eject(check, cause, clock::now());
        }
    }

    pub(super) fn eject(&self, check: &PassiveCheck, cause: Cause, now: Instant) {
        if let Some(span) = self.outlier.eject(check, &self.group, cause, now) {
            let (backend, endpoint) = (&*self.settings.backend, &self.address);
            let (cause, seconds) = (cause.as_str(), span.as_secs_f64());
            tracing::warn!(backend, %endpoint, cause, seconds, "endpoint is ejected");
        }
    }

    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.outlier.is_ejected(|| now)
    }

    /// Ends an interval of outlier detection. Returns the number of its requests, and of those
    /// without an error.
    pub(super) fn end_interval(&self, now: Instant) -> (u64, u64) {
        if self.outlier.end_if_due(&self.group, now) {
            self.log_return();
        } else if !self.is_ejected(now) {
            self.outlier.forgive();
        }
        self.outlier.take_counts()
    }

    fn log_return(&self) {
        self.healthy_since.store(millis(clock::now()), Ordering::Relaxed);
        let (backend, endpoint) = (&*self.settings.backend, &self.address);
        tracing::info!(backend, %endpoint, "endpoint is no longer ejected");
    }

    /// Returns the time at which the host turned healthy, in [`millis`]; 0 if it always was.
    pub(in crate::upstream) fn healthy_since(&self) -> u64 {
        self.healthy_since.load(Ordering::Relaxed)
    }

    pub(in crate::upstream) fn authority(&self) -> &str {
        &self.authority
    }

    /// Takes the turn to check the host, if a check is due. Clusters with the same hosts thus check
    /// each once, and a reload changes nothing in the schedule.
    pub(in crate::upstream) fn take_turn(&self, check: &ActiveCheck, now: Instant) -> Option<Turn> {
        let due = self.due.load(Ordering::Relaxed);
        if due > millis(now) {
            return None;
        }
        // If the task ends before the check does, another one makes the next.
        let latest = millis(now + check.interval.max(check.timeout));
        let (set, unset) = (Ordering::Relaxed, Ordering::Relaxed);
        self.due.compare_exchange(due, latest, set, unset).ok()?;
        self.group.attempts.one_more();
        Some(Turn { begun: now })
    }

    /// Returns the time at which the next check is due, in [`millis`].
    pub(in crate::upstream) fn due_at(&self) -> u64 {
        self.due.load(Ordering::Relaxed)
    }

    /// Returns the time until the next check is due.
    pub(in crate::upstream) fn due_in(&self, now: Instant) -> Duration {
        Duration::from_millis(self.due_at().saturating_sub(millis(now)))
    }

    /// Records the outcome of a check.
    pub(in crate::upstream) fn learn(
        &self,
        check: &ActiveCheck,
        turn: &Turn,
        outcome: Outcome,
        now: Instant,
    ) {
        let first = self.found() == Standing::Unchecked;
        // From the second check on, hosts that were found together are checked at different times.
        let wait =
            if first { check.interval / 2 + part(check.interval / 2) } else { check.interval };
        self.due.store(millis((turn.begun + wait).max(now)), Ordering::Relaxed);
        match outcome {
            Outcome::Passed => {
                self.group.successes.one_more();
                self.passed(check);
                if self.found() == Standing::Healthy && self.outlier.end(&self.group) {
                    self.log_return();
                }
            }
            Outcome::Failed { how, cause } => {
                self.group.failures.one_more();
                if how == Failing::Network {
                    self.group.network_failures.one_more();
                }
                self.failed(check, how, &cause);
            }
            Outcome::Unmade => {}
        }
    }

    fn passed(&self, check: &ActiveCheck) {
        let (backend, endpoint) = (&*self.settings.backend, &self.address);
        match self.found() {
            Standing::Healthy | Standing::Ejected => self.contrary.store(0, Ordering::Relaxed),
            Standing::Unchecked => {
                self.checked.store(HEALTHY, Ordering::Relaxed);
                tracing::debug!(backend, %endpoint, "endpoint passed its first health check");
            }
            Standing::Unhealthy => {
                if self.contradicted(check.healthy_threshold) {
                    self.checked.store(HEALTHY, Ordering::Relaxed);
                    self.healthy_since.store(millis(clock::now()), Ordering::Relaxed);
                    tracing::info!(backend, %endpoint, "endpoint is healthy again");
                }
            }
        }
    }

    fn failed(&self, check: &ActiveCheck, how: Failing, cause: &str) {
        let (backend, endpoint) = (&*self.settings.backend, &self.address);
        let is_down = match self.found() {
            Standing::Unhealthy => {
                self.contrary.store(0, Ordering::Relaxed);
                false
            }
            Standing::Unchecked => true,
            Standing::Healthy | Standing::Ejected => {
                how == Failing::AtOnce || self.contradicted(check.unhealthy_threshold)
            }
        };
        if is_down {
            self.contrary.store(0, Ordering::Relaxed);
            self.checked.store(UNHEALTHY, Ordering::Relaxed);
            tracing::warn!(backend, %endpoint, cause, "endpoint failed its health check");
        }
    }

    /// Counts a result that contradicts the present state. Returns true if it is the last of
    /// `threshold`.
    fn contradicted(&self, threshold: u32) -> bool {
        let contrary = self.contrary.load(Ordering::Relaxed) + 1;
        let is_last = contrary >= threshold;
        self.contrary.store(if is_last { 0 } else { contrary }, Ordering::Relaxed);
        is_last
    }
}

impl Drop for HostHealth {
    fn drop(&mut self) {
        self.outlier.end(&self.group);
        self.group.left();
    }
}

/// Returns a random part of a time.
fn part(of: Duration) -> Duration {
    of.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::health::testing::{active, settings};

    const SECOND: Duration = Duration::from_secs(1);

    fn host(check: ActiveCheck, now: Instant) -> HostHealth {
        let address = Address::Ip(([10, 0, 0, 1], 80).into());
        let settings = Arc::new(settings(Some(check)));
        HostHealth::new(address, "a.test".into(), settings, Arc::default(), now)
    }

    #[test]
    fn thresholds_decide_when_a_host_changes() {
        use Failing::{AtOnce, Counted, Network};
        let pass = || Outcome::Passed;
        let fail = |how| Outcome::Failed { how, cause: "test".into() };
        // (outcomes, healthy after each); 3 failures in a row, or 2 passes.
        let table: [(Vec<Outcome>, &[bool]); 6] = [
            (vec![pass(), fail(Network), fail(Counted), fail(Network)], &[true, true, true, false]),
            (vec![pass(), fail(AtOnce), pass(), pass()], &[true, false, false, true]),
            (
                vec![fail(Network), pass(), fail(Network), pass(), pass()],
                &[false, false, false, false, true],
            ),
            (
                vec![pass(), fail(Network), fail(Network), pass(), fail(Network), fail(Network)],
                &[true, true, true, true, true, true],
            ),
            (vec![pass(), fail(Network), fail(AtOnce), pass()], &[true, true, false, false]),
            (vec![pass(), Outcome::Unmade], &[true, true]),
        ];
        for (outcomes, want) in table {
            let now = clock::now();
            let host = host(ActiveCheck { unhealthy_threshold: 3, ..active() }, now);
            let check = ActiveCheck { unhealthy_threshold: 3, healthy_threshold: 2, ..active() };
            let found = outcomes.iter().map(|outcome| {
                host.learn(&check, &Turn { begun: now }, outcome.clone(), now);
                host.standing() == Standing::Healthy
            });
            assert_eq!(found.collect::<Vec<_>>(), want, "{outcomes:?}");
        }
    }

    #[test]
    fn one_task_checks_a_host_at_its_time() {
        let now = clock::now();
        let check = active();
        let host = host(check.clone(), now);
        assert_eq!(host.standing(), Standing::Unchecked);
        let turn = host.take_turn(&check, now).unwrap();
        assert!(host.take_turn(&check, now).is_none(), "it is being checked");
        assert!(host.take_turn(&check, now + 4 * SECOND).is_some(), "the first task was dropped");

        host.learn(&check, &turn, Outcome::Passed, now + SECOND);
        let wait = host.due_in(now);
        assert!(check.interval / 2 <= wait && wait <= check.interval, "{wait:?} is spread");
        let turn = host.take_turn(&check, now + 3 * SECOND).unwrap();
        host.learn(&check, &turn, Outcome::Passed, now + 4 * SECOND);
        assert_eq!(host.due_in(now + 4 * SECOND), 2 * SECOND, "3 s from the start of the last");
        assert_eq!(host.group.attempts.value(), 3);
        assert_eq!(host.group.successes.value(), 2);
    }
}
