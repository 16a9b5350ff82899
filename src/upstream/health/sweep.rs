//! The sweep of outlier detection: ends ejections, and compares the hosts of a cluster.

use std::time::Instant;

use crate::upstream::health::group::Cause;
use crate::upstream::health::host_health::HostHealth;
use crate::upstream::health::settings::PassiveCheck;

/// Minimum number of hosts that are compared: Envoy's default.
const MIN_HOSTS: usize = 5;

/// Minimum number of requests of a host in an interval, for its failure percentage.
const PERCENTAGE_REQUESTS: u64 = 50;

/// Minimum number of requests of a host in an interval, for its success rate.
const RATE_REQUESTS: u64 = 100;

/// A host is ejected if its success rate is so many standard deviations below the mean.
const DEVIATIONS: f64 = 1.9;

/// Sweeps over the hosts of a cluster, once in an interval.
pub(super) fn sweep(hosts: &[&HostHealth], check: &PassiveCheck, now: Instant) {
    let mut counts = Vec::with_capacity(hosts.len());
    for host in hosts {
        let (total, good) = host.end_interval(now);
        if !host.is_ejected(now) {
            counts.push((*host, total, good));
        }
    }
    for (host, cause) in worst(&counts, check) {
        host.eject(check, cause, now);
    }
}

/// Returns the items whose counts are a reason to eject them.
fn worst<T: Copy>(counts: &[(T, u64, u64)], check: &PassiveCheck) -> Vec<(T, Cause)> {
    let mut worst = Vec::new();
    let rates = rates_of(counts, RATE_REQUESTS);
    if !rates.is_empty() {
        #[allow(clippy::cast_precision_loss, reason = "a cluster has fewer hosts than 2^52")]
        let number = rates.len() as f64;
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / number;
        let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / number;
        let least = mean - variance.sqrt() * DEVIATIONS;
        let below = rates.into_iter().filter(|(_, rate)| *rate < least);
        worst.extend(below.map(|(host, _)| (host, Cause::SuccessRate)));
    }
    if let Some(threshold) = check.failure_percentage {
        let rates = rates_of(counts, PERCENTAGE_REQUESTS);
        let failing = rates.into_iter().filter(|(_, rate)| 100.0 - rate >= f64::from(threshold));
        worst.extend(failing.map(|(host, _)| (host, Cause::FailurePercentage)));
    }
    worst
}

/// Returns the success rates in percent of the hosts with enough requests; none if there are too few
/// hosts.
fn rates_of<T: Copy>(counts: &[(T, u64, u64)], least: u64) -> Vec<(T, f64)> {
    #[allow(
        clippy::cast_precision_loss,
        reason = "the requests of an interval are fewer than 2^52"
    )]
    let rate = |total: u64, good: u64| good as f64 * 100.0 / total as f64;
    let enough = counts.iter().filter(|(_, total, _)| *total >= least);
    let rates: Vec<_> = enough.map(|(host, total, good)| (*host, rate(*total, *good))).collect();
    if rates.len() < MIN_HOSTS { Vec::new() } else { rates }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::health::testing::passive;

    #[test]
    fn hosts_are_compared_if_there_are_enough() {
        use Cause::{FailurePercentage, SuccessRate};
        let percentage =
            |threshold| PassiveCheck { failure_percentage: Some(threshold), ..passive() };
        // (check, requests and successes of each host, the ones to eject)
        let table: [(PassiveCheck, &[(u64, u64)], &[(usize, Cause)]); 6] = [
            (passive(), &[(100, 100); 6], &[]),
            (
                passive(),
                &[(100, 99), (100, 100), (100, 98), (100, 99), (100, 100), (100, 20)],
                &[(5, SuccessRate)],
            ),
            (passive(), &[(100, 100), (100, 100), (100, 100), (100, 20)], &[]),
            (
                percentage(50),
                &[(50, 50), (50, 25), (50, 26), (50, 50), (50, 50)],
                &[(1, FailurePercentage)],
            ),
            (percentage(50), &[(49, 0), (50, 50), (50, 50), (50, 50), (50, 50)], &[]),
            (
                percentage(0),
                &[(50, 50); 5],
                &[
                    (0, FailurePercentage),
                    (1, FailurePercentage),
                    (2, FailurePercentage),
                    (3, FailurePercentage),
                    (4, FailurePercentage),
                ],
            ),
        ];
        for (check, counts, want) in table {
            let counts: Vec<_> =
                counts.iter().enumerate().map(|(at, (total, good))| (at, *total, *good)).collect();
            assert_eq!(worst(&counts, &check), want, "{counts:?}");
        }
    }
}
