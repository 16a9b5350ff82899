//! Limits on the requests and the retries of a cluster: those parts of Envoy's circuit breaker that
//! are not about connections.
//!
//! A request counts from its first attempt to the last byte of its response; a retry counts from
//! the decision for it to the response head. Both are counted over all workers. Copies for a mirror
//! are not counted.
//!
//! A cluster without such limits counts nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Limits on the requests and retries of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RequestBounds {
    /// Maximum number of requests under way; the next one is refused at once.
    pub requests: usize,
    pub retries: RetryBound,
}

/// The limit on the retries under way; the next one is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RetryBound {
    Number(usize),
    /// A share of the requests under way, but at least a number.
    Share {
        numerator: u32,
        /// Not 0.
        denominator: u32,
        at_least: usize,
    },
}

impl RequestBounds {
    /// Limits that are never reached: requests are only counted.
    pub(super) const UNLIMITED: Self =
        Self { requests: usize::MAX, retries: RetryBound::Number(usize::MAX) };
}

/// The requests and retries of one cluster that are under way, and their limits.
#[derive(Debug)]
pub(crate) struct RequestLimits {
    bounds: RequestBounds,
    requests: AtomicUsize,
    retries: AtomicUsize,
}

impl RequestLimits {
    pub(super) fn new(bounds: RequestBounds) -> Arc<Self> {
        Arc::new(Self { bounds, requests: 0.into(), retries: 0.into() })
    }

    /// Counts a request; `None` if the limit is reached.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<RequestPermit> {
        one_more(&self.requests, self.bounds.requests).then(|| RequestPermit(Arc::clone(self)))
    }

    /// Counts a retry; `None` if the limit is reached.
    pub(crate) fn retry(self: &Arc<Self>) -> Option<RetryPermit> {
        one_more(&self.retries, self.most_retries()).then(|| RetryPermit(Arc::clone(self)))
    }

    /// Returns the number of requests under way.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Returns how many more requests may begin.
    pub(crate) fn requests_left(&self) -> usize {
        self.bounds.requests.saturating_sub(self.requests())
    }

    /// Returns how many more retries may begin.
    pub(crate) fn retries_left(&self) -> usize {
        self.most_retries().saturating_sub(self.retries.load(Ordering::SeqCst))
    }

    fn most_retries(&self) -> usize {
        match self.bounds.retries {
            RetryBound::Number(number) => number,
            RetryBound::Share { numerator, denominator, at_least } => {
                let share = self.requests() as u128 * u128::from(numerator)
                    / u128::from(denominator.max(1));
                at_least.max(usize::try_from(share).unwrap_or(usize::MAX))
            }
        }
    }
}

/// Increments the counter unless it has reached `most`. Returns false in that case.
pub(super) fn one_more(counter: &AtomicUsize, most: usize) -> bool {
    let next = |count| (count < most).then_some(count + 1);
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
}

/// A request that counts while this lives.
#[derive(Debug)]
#[must_use = "the request is counted only while this lives"]
pub(crate) struct RequestPermit(Arc<RequestLimits>);

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A retry that counts while this lives.
#[derive(Debug)]
#[must_use = "the retry is counted only while this lives"]
pub(crate) struct RetryPermit(Arc<RequestLimits>);

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.0.retries.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_beyond_the_limit_is_refused_until_another_has_ended() {
        let limits =
            RequestLimits::new(RequestBounds { requests: 2, retries: RetryBound::Number(1) });
        let (first, _second) = (limits.begin().unwrap(), limits.begin().unwrap());
        assert!(limits.begin().is_none() && limits.begin().is_none());
        assert_eq!(limits.requests_left(), 0);
        drop(first);
        assert_eq!(limits.requests_left(), 1);
        let retry = limits.retry().unwrap();
        assert!(limits.retry().is_none(), "retries have a limit of their own");
        drop(retry);
        assert!(limits.begin().is_some() && limits.retry().is_some());
    }

    #[test]
    fn a_budget_grows_with_the_requests_and_has_a_floor() {
        let share = |numerator, denominator, at_least| RequestBounds {
            retries: RetryBound::Share { numerator, denominator, at_least },
            ..RequestBounds::UNLIMITED
        };
        // (bounds, requests under way, retries)
        let table = [
            (share(20, 100, 3), 0, 3),
            (share(20, 100, 3), 10, 3),
            (share(20, 100, 3), 100, 20),
            (share(1, 3, 0), 8, 2),
            (share(0, 100, 0), 100, 0),
            (share(100, 100, 0), 7, 7),
        ];
        for (bounds, requests, retries) in table {
            let limits = RequestLimits::new(bounds);
            let _requests: Vec<_> = (0..requests).map(|_| limits.begin().unwrap()).collect();
            // Each is held until all are taken.
            let mut taken = Vec::new();
            taken.extend(std::iter::from_fn(|| limits.retry()));
            assert_eq!(taken.len(), retries, "{bounds:?}");
            assert_eq!(limits.retries_left(), 0);
        }
    }
}
