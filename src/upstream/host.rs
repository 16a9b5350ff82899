//! Hosts: addresses of backends, and the state of each.
//!
//! The state is atomic, so that all workers read and write it without a lock. A host lives as long
//! as a cluster uses it; the clusters of the next configuration find it by its address
//! ([`Hosts::host`]), so its state survives a reload.
//!
//! To add state of an address (health, load), add a field to [`Host`]. A state that takes an
//! address out of service must be reflected in [`Host::is_available`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};

use crate::carry_over::CarryOver;
use crate::clock;
use crate::tls;
use crate::upstream::address::Address;
use crate::upstream::failure::FailureKind;
use crate::upstream::health::group::HealthGroup;
use crate::upstream::health::host_health::{HostHealth, Standing};
use crate::upstream::health::outlier::NoResponse;
use crate::upstream::health::settings::HealthSettings;
use crate::upstream::moment::millis;

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
    /// `None` if the clusters of the host have no health settings.
    health: Option<Box<HostHealth>>,
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

/// The health settings of a cluster, for one of its hosts.
#[derive(Clone, Copy, Debug)]
pub(super) struct HealthOf<'a> {
    pub settings: &'a Arc<HealthSettings>,
    pub group: &'a Arc<HealthGroup>,
    /// The name of the endpoint, which is the `Host` of checks by default.
    pub endpoint: &'a str,
}

impl Host {
    fn new(address: Address, health: Option<HealthOf<'_>>) -> Self {
        let health = health.map(|HealthOf { settings, group, endpoint }| {
            let authority = settings.active.as_ref().map(|check| check.authority_of(endpoint));
            Box::new(HostHealth::new(
                address.clone(),
                authority.unwrap_or_default(),
                Arc::clone(settings),
                Arc::clone(group),
                clock::now(),
            ))
        });
        let since = millis(clock::now());
        Self { address, avoided_until: 0.into(), since, active: 0.into(), health }
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
        self.failed(kind);
    }

    /// Records the status of a response, for outlier detection. `headers` may have the status of a
    /// gRPC call.
    pub(super) fn answered(&self, status: StatusCode, headers: &HeaderMap) {
        if let Some(health) = &self.health {
            health.answered(grpc_status(headers).unwrap_or(status.as_u16()));
        }
    }

    /// Records that a byte stream was opened, for outlier detection.
    pub(super) fn opened(&self) {
        if let Some(health) = &self.health {
            health.answered(200);
        }
    }

    /// Records a request without a response, for outlier detection.
    pub(super) fn failed(&self, kind: FailureKind) {
        let Some(health) = &self.health else { return };
        match kind {
            FailureKind::ConnectTimeout => health.failed_request(NoResponse::Late),
            FailureKind::ConnectRefused
            | FailureKind::InvalidResponse(_)
            | FailureKind::ResetBeforeHead
            | FailureKind::Tls(_) => health.failed_request(NoResponse::Broken),
            // The host is not at fault.
            _ => {}
        }
    }

    /// Records a request that was not answered in time, for outlier detection.
    pub(super) fn late(&self) {
        if let Some(health) = &self.health {
            health.failed_request(NoResponse::Late);
        }
    }

    /// Returns false if the host is not healthy, or if the address recently failed to accept a
    /// connection: it is then tried last. Does not read the clock for a healthy address.
    pub(super) fn is_available(&self) -> bool {
        self.is_reachable() && self.standing() == Standing::Healthy
    }

    /// Returns the number of requests in progress, of clusters that count them.
    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Returns the time for which the host has been in service without interruption: since it is
    /// known, turned healthy, or was last avoided. Zero while it is avoided.
    pub(super) fn time_in_service(&self, now: Instant) -> Duration {
        let healthy = self.health.as_ref().map_or(0, |health| health.healthy_since());
        let since = self.since.max(self.avoided_until.load(Ordering::Relaxed)).max(healthy);
        Duration::from_millis(millis(now).saturating_sub(since))
    }

    /// Returns false if the address recently failed to accept a connection.
    pub(super) fn is_reachable(&self) -> bool {
        self.avoided_until.load(Ordering::Relaxed) == 0 || self.is_reachable_at(clock::now())
    }

    /// Returns the health of the host as its checks found it; healthy without checks.
    pub(super) fn standing(&self) -> Standing {
        self.health.as_ref().map_or(Standing::Healthy, |health| health.standing())
    }

    /// Returns the health state; `None` without health settings.
    pub(super) fn health(&self) -> Option<&HostHealth> {
        self.health.as_deref()
    }

    fn is_reachable_at(&self, now: Instant) -> bool {
        self.avoided_until.load(Ordering::Relaxed) <= millis(now)
    }
}

/// Returns the HTTP status that stands for the `grpc-status` of a call, if there is one in the head of
/// the response: then no message follows. As in Envoy.
fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    let code: u8 = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    Some(match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    })
}

/// Connections to the same address share their state only if their TLS settings and the checks of
/// their health are equal.
type Key = (Address, Option<tls::ClientSettings>, Option<Arc<HealthSettings>>);

/// All hosts of the process.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    hosts: CarryOver<Key, Host>,
    groups: CarryOver<Arc<HealthSettings>, HealthGroup>,
}

impl Hosts {
    /// Returns the host at `address`, shared with the other clusters that use it.
    pub(super) fn host(
        &self,
        address: Address,
        tls: Option<&tls::ClientSettings>,
        health: Option<HealthOf<'_>>,
    ) -> Arc<Host> {
        let settings = health.map(|of| Arc::clone(of.settings));
        self.hosts.get_or_make((address, tls.cloned(), settings), |(address, ..)| {
            Arc::new(Host::new(address.clone(), health))
        })
    }

    /// Returns the counters of the hosts with these health settings.
    pub(super) fn group(&self, settings: &Arc<HealthSettings>) -> Arc<HealthGroup> {
        self.groups.get_or_make(Arc::clone(settings), |_| Arc::default())
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
            let host = Host::new(address(1), None);
            assert!(host.is_available() && host.is_reachable_at(now), "{kind}");
            host.missed(kind, now);
            assert!(!host.is_available(), "{kind}");
            assert!(!host.is_reachable_at(after(still)), "{kind}");
            assert!(host.is_reachable_at(after(no_longer)), "{kind}");
        }
    }

    #[test]
    fn a_host_is_in_service_since_it_was_last_avoided() {
        let host = Arc::new(Host::new(address(1), None));
        let now = clock::now();
        let after = |seconds| host.time_in_service(now + Duration::from_secs(seconds)).as_secs();
        assert_eq!(after(20), 20);
        host.missed(FailureKind::ConnectRefused, now);
        assert_eq!((after(3), after(20)), (0, 15));
    }

    #[test]
    fn requests_are_counted_while_they_last() {
        let host = Arc::new(Host::new(address(1), None));
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
        let host = hosts.host(address(1), None, None);
        assert!(Arc::ptr_eq(&host, &hosts.host(address(1), None, None)));
        assert!(!Arc::ptr_eq(&host, &hosts.host(address(2), None, None)));
        host.missed(FailureKind::ConnectRefused, clock::now());
        drop(host);
        assert!(hosts.host(address(1), None, None).is_available(), "nobody had it any more");
    }
}
