//! Outlier detection: a host is ejected for a time because of the answers that requests got from it.
//!
//! All state is atomic and belongs to one host. Requests write it; a sweep in each interval ends
//! ejections and compares the hosts.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::upstream::health::group::{Cause, HealthGroup};
use crate::upstream::health::settings::PassiveCheck;
use crate::upstream::moment::millis;

/// Longest time of an ejection, unless the first one is longer: Envoy's default.
const LONGEST: Duration = Duration::from_secs(300);

/// The answers of one host, and its ejection.
#[derive(Debug, Default)]
pub(super) struct Outlier {
    /// Responses in a row with status 500 and above.
    errors: AtomicU32,
    /// Responses in a row with 502, 503 or 504.
    gateway_errors: AtomicU32,
    /// Requests in a row without a response, if these are counted apart.
    local_failures: AtomicU32,
    /// Requests since the last sweep, and those without an error.
    total: AtomicU64,
    good: AtomicU64,
    /// Time at which the ejection ends, in [`millis`]; 0 if the host is not ejected.
    ejected_until: AtomicU64,
    /// Ejections in a row; each sweep in which the host is not ejected takes one away.
    times: AtomicU32,
}

/// A request that got no response from a host, because of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum NoResponse {
    /// The connection was refused or broke.
    Broken,
    /// No connection, or no response, in time.
    Late,
}

impl Outlier {
    /// Does not read the clock for a host that is not ejected.
    pub(super) fn is_ejected(&self, now: impl FnOnce() -> Instant) -> bool {
        let until = self.ejected_until.load(Ordering::Relaxed);
        until != 0 && until > millis(now())
    }

    /// Records a response. Returns the reason to eject the host, if there is one.
    pub(super) fn answered(&self, check: &PassiveCheck, status: u16) -> Option<Cause> {
        clear(&self.local_failures);
        self.noted(check, status)
    }

    /// Records a request without a response. Returns the reason to eject the host, if there is one.
    pub(super) fn failed(&self, check: &PassiveCheck, how: NoResponse) -> Option<Cause> {
        match check.local_failures {
            Some(limit) => {
                reaches(&self.local_failures, Some(limit)).then_some(Cause::LocalOriginFailures)
            }
            None => self.noted(check, if how == NoResponse::Late { 504 } else { 503 }),
        }
    }

    fn noted(&self, check: &PassiveCheck, status: u16) -> Option<Cause> {
        self.total.fetch_add(1, Ordering::Relaxed);
        if status < 500 {
            self.good.fetch_add(1, Ordering::Relaxed);
            clear(&self.errors);
            clear(&self.gateway_errors);
            return None;
        }
        let gateway = match status {
            502..=504 => reaches(&self.gateway_errors, check.gateway_errors),
            _ => {
                clear(&self.gateway_errors);
                false
            }
        };
        if reaches(&self.errors, check.errors) {
            return Some(Cause::Errors);
        }
        gateway.then_some(Cause::GatewayErrors)
    }

    /// Ejects the host, as far as the limits of the group allow it. Returns the time of the
    /// ejection.
    pub(super) fn eject(
        &self,
        check: &PassiveCheck,
        group: &HealthGroup,
        cause: Cause,
        now: Instant,
    ) -> Option<Duration> {
        group.detected(cause).one_more();
        self.end_if_due(group, now);
        if self.ejected_until.load(Ordering::Relaxed) != 0 {
            return None;
        }
        if !group.take_ejection(check) {
            group.overflows.one_more();
            return None;
        }
        let times = self.times.load(Ordering::Relaxed).saturating_add(1);
        let span = check.base_ejection.saturating_mul(times);
        let span = span.min(LONGEST.max(check.base_ejection));
        let until = millis(now + span).max(1);
        let (set, unset) = (Ordering::Relaxed, Ordering::Relaxed);
        if self.ejected_until.compare_exchange(0, until, set, unset).is_err() {
            // Another request ejected it meanwhile.
            group.give_ejection_back();
            return None;
        }
        self.times.store(times, Ordering::Relaxed);
        group.enforced(cause).one_more();
        Some(span)
    }

    /// Ends the ejection. Returns false if there is none.
    pub(super) fn end(&self, group: &HealthGroup) -> bool {
        if self.ejected_until.swap(0, Ordering::Relaxed) == 0 {
            return false;
        }
        group.give_ejection_back();
        for counter in [&self.errors, &self.gateway_errors, &self.local_failures] {
            clear(counter);
        }
        true
    }

    /// Ends the ejection if its time is over. Returns true if it has ended now.
    pub(super) fn end_if_due(&self, group: &HealthGroup, now: Instant) -> bool {
        let until = self.ejected_until.load(Ordering::Relaxed);
        until != 0 && until <= millis(now) && self.end(group)
    }

    /// Forgets one of the ejections in a row, of a host that is not ejected.
    pub(super) fn forgive(&self) {
        let less = |times: u32| times.checked_sub(1);
        let _ = self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Returns the number of requests since the last call, and of those without an error.
    pub(super) fn take_counts(&self) -> (u64, u64) {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        (take(&self.total), take(&self.good))
    }
}

/// Counts one more. Returns true if that reaches the limit; then it begins again.
fn reaches(counter: &AtomicU32, limit: Option<u32>) -> bool {
    let Some(limit) = limit else { return false };
    let reached = counter.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= limit;
    if reached {
        counter.store(0, Ordering::Relaxed);
    }
    reached
}

/// Writes only if it must, so that requests without errors share the cache line.
fn clear(counter: &AtomicU32) {
    if counter.load(Ordering::Relaxed) != 0 {
        counter.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::upstream::health::testing::passive;

    #[test]
    fn errors_in_a_row_are_a_reason() {
        use Cause::{Errors, GatewayErrors, LocalOriginFailures};
        let table: [(PassiveCheck, &[u16], Option<Cause>); 7] = [
            (passive(), &[500, 500], None),
            (passive(), &[500, 503, 599], Some(Errors)),
            (passive(), &[500, 500, 200, 500, 500], None),
            (passive(), &[500, 500, 404, 500], None),
            (
                PassiveCheck { gateway_errors: Some(2), ..passive() },
                &[502, 504],
                Some(GatewayErrors),
            ),
            (PassiveCheck { gateway_errors: Some(2), ..passive() }, &[502, 500], None),
            (PassiveCheck { errors: None, ..passive() }, &[500, 500, 500, 500], None),
        ];
        for (check, statuses, want) in table {
            let outlier = Outlier::default();
            let mut found = None;
            for status in statuses {
                found = outlier.answered(&check, *status);
            }
            assert_eq!(found, want, "{statuses:?}");
        }

        let fail = |check: &PassiveCheck| {
            let outlier = Outlier::default();
            let found: Vec<_> = (0..3).map(|_| outlier.failed(check, NoResponse::Broken)).collect();
            assert_eq!(found[..2], [None, None]);
            found[2]
        };
        assert_eq!(fail(&passive()), Some(Errors), "connect errors count as 503");
        let split = PassiveCheck { local_failures: Some(3), errors: Some(1), ..passive() };
        assert_eq!(fail(&split), Some(LocalOriginFailures));
        let outlier = Outlier::default();
        outlier.failed(&split, NoResponse::Late);
        outlier.failed(&split, NoResponse::Late);
        outlier.answered(&split, 200);
        assert_eq!(outlier.failed(&split, NoResponse::Late), None, "a response came between");
    }

    #[test]
    fn an_ejection_lasts_longer_each_time() {
        let (check, group) = (passive(), HealthGroup::default());
        (0..10).for_each(|_| group.joined());
        let outlier = Outlier::default();
        let mut now = clock::now();
        for seconds in [30, 60, 90] {
            let span = Duration::from_secs(seconds);
            assert_eq!(outlier.eject(&check, &group, Cause::Errors, now), Some(span));
            assert!(outlier.is_ejected(|| now));
            assert_eq!(outlier.eject(&check, &group, Cause::Errors, now), None, "it is ejected");
            now += span;
            assert!(!outlier.is_ejected(|| now), "the time ends it, not the sweep");
            assert!(outlier.end_if_due(&group, now));
        }
        assert_eq!(group.ejected(), 0);
        outlier.forgive();
        outlier.forgive();
        let span = Duration::from_secs(60);
        assert_eq!(outlier.eject(&check, &group, Cause::Errors, now), Some(span));
        assert!(outlier.end(&group) && !outlier.end(&group));
        for _ in 0..20 {
            outlier.eject(&check, &group, Cause::Errors, now);
            outlier.end(&group);
        }
        assert_eq!(outlier.eject(&check, &group, Cause::Errors, now), Some(LONGEST));
    }
}
