//! The hosts of one backend that have equal health settings.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crate::stats::SharedCounter;
use crate::upstream::health::settings::PassiveCheck;
use crate::upstream::moment::millis;

/// The hosts of a backend with equal health settings: how many there are, and what their checks
/// have counted. A group lives as long as one of its hosts, so it survives a reload.
#[derive(Debug, Default)]
pub(crate) struct HealthGroup {
    hosts: AtomicUsize,
    ejected: AtomicUsize,
    /// Time from which the next sweep may begin, in [`millis`].
    next_sweep: AtomicU64,
    /// Checks begun.
    pub attempts: SharedCounter,
    pub successes: SharedCounter,
    /// Includes `network_failures`.
    pub failures: SharedCounter,
    /// Checks without an answer: no connection, a broken one, or a timeout.
    pub network_failures: SharedCounter,
    /// Ejections that the limits on ejected hosts prevented.
    pub overflows: SharedCounter,
    /// Requests for which health was ignored, because too few hosts are healthy.
    pub panics: SharedCounter,
    /// Reasons for an ejection, and ejections, by [`Cause`].
    causes: [[SharedCounter; 2]; Cause::ALL.len()],
}

/// The reason for an ejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Errors,
    FailurePercentage,
    GatewayErrors,
    LocalOriginFailures,
    SuccessRate,
}

impl Cause {
    pub(crate) const ALL: [Self; 5] = [
        Self::Errors,
        Self::FailurePercentage,
        Self::GatewayErrors,
        Self::LocalOriginFailures,
        Self::SuccessRate,
    ];

    /// Returns Envoy's name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Errors => "consecutive_5xx",
            Self::FailurePercentage => "failure_percentage",
            Self::GatewayErrors => "consecutive_gateway_failure",
            Self::LocalOriginFailures => "consecutive_local_origin_failure",
            Self::SuccessRate => "success_rate",
        }
    }
}

impl HealthGroup {
    /// Returns the counter of the times that there was this reason for an ejection.
    pub(crate) fn detected(&self, cause: Cause) -> &SharedCounter {
        &self.causes[cause as usize][0]
    }

    /// Returns the counter of ejections for this reason.
    pub(crate) fn enforced(&self, cause: Cause) -> &SharedCounter {
        &self.causes[cause as usize][1]
    }

    /// Returns the number of ejected hosts.
    pub(crate) fn ejected(&self) -> usize {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Counts a host, until it has left.
    pub(super) fn joined(&self) {
        self.hosts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn left(&self) {
        self.hosts.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts an ejected host. Returns false if there are as many as may be.
    pub(super) fn take_ejection(&self, check: &PassiveCheck) -> bool {
        let hosts = self.hosts.load(Ordering::Relaxed);
        let one_more = |ejected: usize| {
            let next = ejected + 1;
            let within = next * 100 <= hosts * usize::from(check.max_percent);
            let may = within || check.always_one && ejected == 0;
            let leaves_one = next < hosts || check.may_eject_all;
            (may && leaves_one).then_some(next)
        };
        self.ejected.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    pub(super) fn give_ejection_back(&self) {
        self.ejected.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns true once in each interval, however many clusters ask.
    pub(super) fn may_sweep(&self, check: &PassiveCheck, now: Instant) -> bool {
        let due = self.next_sweep.load(Ordering::Relaxed);
        let next = millis(now + check.interval);
        let (set, unset) = (Ordering::Relaxed, Ordering::Relaxed);
        due <= millis(now) && self.next_sweep.compare_exchange(due, next, set, unset).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::health::testing::passive;

    #[test]
    fn limits_keep_enough_hosts() {
        // (hosts, percentage, one always, all may go, ejected)
        let table = [
            (9, 10, false, false, 0),
            (10, 10, false, false, 1),
            (9, 10, true, false, 1),
            (4, 50, false, false, 2),
            (4, 50, true, false, 2),
            (4, 100, false, false, 3),
            (4, 100, false, true, 4),
            (1, 100, true, false, 0),
            (1, 100, false, true, 1),
            (1, 10, true, true, 1),
        ];
        for (hosts, max_percent, always_one, may_eject_all, want) in table {
            let group = HealthGroup::default();
            (0..hosts).for_each(|_| group.joined());
            let check = PassiveCheck { max_percent, always_one, may_eject_all, ..passive() };
            let ejected = (0..hosts).filter(|_| group.take_ejection(&check)).count();
            assert_eq!(ejected, want, "{hosts} hosts, {check:?}");
        }
    }
}
