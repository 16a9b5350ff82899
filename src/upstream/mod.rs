//! The client side of the gateway: clusters of backends, and connections to them.
//!
//! Requests use [`Cluster::send`]: it chooses an endpoint, takes a pooled connection or opens one,
//! sends the request, and returns with the head of the response. Bodies stream in both directions
//! inside the futures of the exchange itself: an HTTP/1.1 exchange ([`h1`]) has no task and no
//! channel, and dropping it closes its connection. Each worker has its own pool of idle connections
//! ([`pool`]), so that requests take no lock.
//!
//! Byte streams use [`Cluster::open`], flows of datagrams [`Cluster::datagrams`]. All of them
//! choose an endpoint by the same loop ([`balance`]); the state of an address is in its [`host`], and
//! checks of its health are in [`health`].
//!
//! [`ClusterSettings`] has everything that may differ between clusters, with the defaults. To add a
//! load-balancing policy, add a variant of `BalanceKind` and its arm in [`balance`]; to add a reason
//! for which an address is out of service, extend [`host`].
//!
//! To add a protocol, add a variant of [`Protocol`], a module beside `h1` and `h2`, and an arm in
//! [`Cluster::send`].
//!
//! The connections of a cluster are limited ([`breaker`]), and so are the descriptors of all
//! clusters together and those of one client ([`descriptors`]).
//!
//! Deliberately absent: a total timeout (the caller drops the future), retries of requests that the
//! backend may have processed, and the removal of hop-by-hop fields.

mod address;
mod balance;
mod balance_policy;
mod breaker;
mod cluster;
mod connect;
mod descriptors;
mod endpoint;
mod errand;
mod failure;
mod h1;
mod h2;
mod health;
mod hold;
mod holding;
mod host;
mod http2_settings;
mod keep_alive;
mod lifetime;
mod maglev;
mod member;
mod moment;
mod names;
pub(crate) mod pool;
mod raw;
mod request_limits;
mod roster;
mod send;
mod upstreams;

pub(crate) use address::EndpointName;
pub(crate) use balance::{Aim, hash_of_client};
pub(crate) use balance_policy::{BalanceKind, BalancePolicy};
pub(crate) use breaker::{Bounds, BreakerLimit};
pub(crate) use cluster::{Cluster, ClusterSettings, Protocol};
pub(crate) use connect::cut;
pub(crate) use descriptors::{Descriptors, Holder};
pub(crate) use endpoint::{EndpointSettings, EndpointState};
pub(crate) use errand::Errand;
pub(crate) use failure::{FailureKind, SendFailure};
pub(crate) use h1::Tunnel;
pub(crate) use health::{
    ActiveCheck, Cause, HealthGroup, HealthSettings, HttpProbe, PassiveCheck, Probe, TcpProbe,
};
pub(crate) use hold::{HeldRequest, Hold, HoldSettings, Turn};
pub(crate) use http2_settings::{Http2Settings, Ping};
pub(crate) use keep_alive::KeepAlive;
pub(crate) use lifetime::LifetimeLimits;
pub(crate) use raw::Datagrams;
pub(crate) use request_limits::{RequestBounds, RequestPermit, RetryBound, RetryPermit};
pub(crate) use upstreams::Upstreams;

#[cfg(test)]
mod testing;
