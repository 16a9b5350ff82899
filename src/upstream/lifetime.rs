//! The life of a connection to a backend: the time and the number of requests that it serves.

use std::time::Duration;

/// Limits on the life of each connection of a cluster. By default, there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct LifetimeLimits {
    /// Maximum age; afterwards the connection serves no further request.
    pub age: Option<Duration>,
    /// Maximum number of requests.
    pub requests: Option<u32>,
}

/// The rest of the life of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetime {
    /// In milliseconds of the coarse clock.
    until: u64,
    requests_left: u32,
}

/// The reason why a connection serves no further request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spent {
    Age,
    Requests,
}

impl Lifetime {
    /// Begins a life at `now`, in milliseconds of the coarse clock.
    pub(super) fn begin(limits: LifetimeLimits, now: u64) -> Self {
        let age = limits.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        Self {
            until: age.map_or(u64::MAX, |age| now.saturating_add(age)),
            requests_left: limits.requests.unwrap_or(u32::MAX),
        }
    }

    /// Counts a request.
    pub(super) fn serves(&mut self) {
        if self.requests_left != u32::MAX {
            self.requests_left = self.requests_left.saturating_sub(1);
        }
    }

    /// Returns the limit that is reached at `now`, if one is.
    pub(super) fn spent(&self, now: u64) -> Option<Spent> {
        if self.requests_left == 0 {
            Some(Spent::Requests)
        } else {
            (now >= self.until).then_some(Spent::Age)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_ends_by_age_or_by_requests_and_without_limits_never() {
        let second = Some(Duration::from_secs(1));
        // (limits, requests, now, reason)
        let table = [
            (None, None, 5, u64::MAX - 1, None),
            (second, None, 5, 1999, None),
            (second, None, 0, 2000, Some(Spent::Age)),
            (None, Some(1), 0, 2000, None),
            (None, Some(1), 1, 1000, Some(Spent::Requests)),
            (None, Some(3), 2, 1000, None),
            (second, Some(3), 4, 1000, Some(Spent::Requests)),
        ];
        for (age, requests, served, now, want) in table {
            let mut life = Lifetime::begin(LifetimeLimits { age, requests }, 1000);
            (0..served).for_each(|_| life.serves());
            assert_eq!(life.spent(now), want, "{age:?} {requests:?} {served}");
        }
    }
}
