//! Health of hosts: checks that decide whether a host gets requests.
//!
//! [`HealthSettings`] are those of a cluster, [`HostHealth`](host_health::HostHealth) is the state of
//! one host, and [`HealthGroup`] has the counters of the hosts of a backend. A background task of each
//! cluster ([`checking`]) makes the active checks ([`probe`]) and the sweeps of outlier detection
//! ([`outlier`]). Requests only use atomics, and a cluster without health settings has none of them.
//!
//! State belongs to hosts that are found again by backend and settings: a reload goes on with the
//! state and the schedule of checks, and two clusters of one backend share both.

pub(super) mod checking;
pub(super) mod group;
pub(super) mod host_health;
pub(super) mod leniency;
pub(super) mod outcome;
pub(super) mod outlier;
pub(super) mod probe;
pub(super) mod settings;
mod sweep;
#[cfg(test)]
pub(super) mod testing;
pub(super) mod watched;

pub(crate) use group::{Cause, HealthGroup};
pub(crate) use settings::{ActiveCheck, HealthSettings, HttpProbe, PassiveCheck, Probe, TcpProbe};
