//! Hosts: addresses of backends, and the state of each.
//!
//! The state is atomic, so that all workers read and write it without a lock. A host lives as long
//! as a cluster uses it; the clusters of the next configuration find it by its address
//! ([`Hosts::host`]), so its state survives a reload.
//!
//! To add state of an address (health, load), add a field to [`Host`]. A state that takes an
//! address out of service must be reflected in [`Host::is_available`].

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::carry_over::CarryOver;
use crate::clock;
use crate::tls;
use crate::upstream::address::Address;
use crate::upstream::failure::FailureKind;

/// Time for which an address that refused a connection comes last.
const AVOID_REFUSING: Duration = Duration::from_secs(5);

/// Time for which an address that did not answer comes last. Each attempt to use it costs a request
/// the whole connect timeout.
const AVOID_SILENT: Duration = Duration::from_secs(30);

/// One address and its state.
#[derive(Debug)]
pub(super) struct Host {
    address: Address,
    /// Time until which the address comes last, in [`millis`]; 0 if it does not.
    avoided_until: AtomicU64,
    /// Time at which the first cluster with the address was made, in [`millis`].
    since: u64,
    /// Requests in progress, of clusters that count them.
    active: AtomicUsize,
}

/// A request in progress at a host, from the choice of the host to the end of the response; or a
/// tunnel, connection or flow. Dropping it ends the count.
#[derive(Debug)]
#[must_use = "the request is counted only while this lives"]
pub(super) struct ActiveRequest(Arc<Host>);

impl ActiveRequest {
    pub(super) fn at(host: &Arc<Host>) -> Self {
        host.active.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(host))
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Host {
    fn new(address: Address) -> Self {
        let since = millis(clock::now());
        Self { address, avoided_until: 0.into(), since, active: 0.into() }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Records that the address failed to accept a connection.
    pub(super) fn missed(&self, kind: FailureKind, now: Instant) {
        let span = match kind {
            FailureKind::ConnectTimeout => AVOID_SILENT,
            _ => AVOID_REFUSING,
        };
        self.avoided_until.store(millis(now + span), Ordering::Relaxed);
    }

    /// Returns false if the address recently failed to accept a connection: it is then tried last.
    /// This is the complete health state. Does not read the clock for a healthy address.
    pub(super) fn is_available(&self) -> bool {
        self.avoided_until.load(Ordering::Relaxed) == 0 || self.is_available_at(clock::now())
    }

    /// Returns the number of requests in progress, of clusters that count them.
    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Returns the time for which the host has been in service without interruption: since it is
    /// known, or since it was last avoided. Zero while it is avoided.
    pub(super) fn time_in_service(&self, now: Instant) -> Duration {
        let since = self.since.max(self.avoided_until.load(Ordering::Relaxed));
        Duration::from_millis(millis(now).saturating_sub(since))
    }

    fn is_available_at(&self, now: Instant) -> bool {
        self.avoided_until.load(Ordering::Relaxed) <= millis(now)
    }
}

/// Converts to milliseconds since the first call of this function.
fn millis(at: Instant) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(clock::now);
    u64::try_from(at.saturating_duration_since(start).as_millis()).unwrap_or(u64::MAX)
}

/// Connections to the same address share their state only if their TLS settings are equal.
type Key = (Address, Option<tls::ClientSettings>);

/// All hosts of the process.
#[derive(Debug, Default)]
pub(super) struct Hosts(CarryOver<Key, Host>);

impl Hosts {
    /// Returns the host at `address`, shared with the other clusters that use it.
    pub(super) fn host(&self, address: Address, tls: Option<&tls::ClientSettings>) -> Arc<Host> {
        self.0.get_or_make((address, tls.cloned()), |(address, _)| {
            Arc::new(Host::new(address.clone()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Address {
        Address::Ip(([10, 0, 0, last], 80).into())
    }

    #[test]
    fn an_address_that_was_missed_is_avoided_for_a_while() {
        let now = clock::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        // (failure, still avoided after, no longer avoided after)
        let table = [
            (FailureKind::ConnectRefused, 4, 6),
            (FailureKind::ConnectTimeout, 29, 31),
            (FailureKind::Tls(tls::TlsCause::Closed), 4, 6),
        ];
        for (kind, still, no_longer) in table {
            let host = Host::new(address(1));
            assert!(host.is_available() && host.is_available_at(now), "{kind}");
            host.missed(kind, now);
            assert!(!host.is_available(), "{kind}");
            assert!(!host.is_available_at(after(still)), "{kind}");
            assert!(host.is_available_at(after(no_longer)), "{kind}");
        }
    }

    #[test]
    fn a_host_is_in_service_since_it_was_last_avoided() {
        let host = Arc::new(Host::new(address(1)));
        let now = clock::now();
        let after = |seconds| host.time_in_service(now + Duration::from_secs(seconds)).as_secs();
        assert_eq!(after(20), 20);
        host.missed(FailureKind::ConnectRefused, now);
        assert_eq!((after(3), after(20)), (0, 15));
    }

    #[test]
    fn requests_are_counted_while_they_last() {
        let host = Arc::new(Host::new(address(1)));
        let one = ActiveRequest::at(&host);
        let other = ActiveRequest::at(&host);
        assert_eq!(host.active(), 2);
        drop(one);
        assert_eq!(host.active(), 1);
        drop(other);
        assert_eq!(host.active(), 0);
    }

    #[test]
    fn a_host_is_found_again_as_long_as_somebody_has_it() {
        let hosts = Hosts::default();
        let host = hosts.host(address(1), None);
        assert!(Arc::ptr_eq(&host, &hosts.host(address(1), None)));
        assert!(!Arc::ptr_eq(&host, &hosts.host(address(2), None)));
        host.missed(FailureKind::ConnectRefused, clock::now());
        drop(host);
        assert!(hosts.host(address(1), None).is_available(), "nobody had it any more");
    }
}
