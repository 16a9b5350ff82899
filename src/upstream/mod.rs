//! Backends: everything between "this request goes to this cluster" and the backend's bytes.
//!
//! [`Cluster::send`] is the way in for requests: it chooses an endpoint, takes a pooled connection or opens one,
//! sends, and returns with the head of the response. Bodies stream both ways inside the futures of
//! the exchange itself: an HTTP/1.1 exchange ([`h1`]) has no task and no channel, and dropping it
//! closes its connection. Connections rest in a pool of their own worker ([`pool`]), so that no
//! request meets a lock.
//!
//! Other connections use [`Cluster::open`], flows of datagrams [`Cluster::datagrams`]. All of them go
//! through the endpoints by one loop ([`balance`]); the state of an address is in its [`host`].
//!
//! Everything that may differ from cluster to cluster is in [`ClusterSettings`], with the gateway's
//! defaults. To add a load-balancing policy: a variant of `BalancePolicy` and its arm in [`balance`]; to
//! add a reason for which an address is out of service: [`host`].
//!
//! To add a protocol: a variant of [`Protocol`], a file beside `h1` and `h2`, an arm in
//! [`Cluster::send`].
//!
//! A cluster's connections are bounded ([`breaker`]), and so are the descriptors of all of them and of
//! one client ([`descriptors`]).
//!
//! Deliberately absent: a total timeout (the caller drops the future), retries of requests that the
//! backend may have processed, and the removal of hop-by-hop fields.

mod address;
mod balance;
mod breaker;
mod cluster;
mod connect;
mod descriptors;
mod endpoint;
mod errand;
mod failure;
mod h1;
mod h2;
mod host;
mod keep_alive;
mod names;
pub(crate) mod pool;
mod raw;
mod send;
mod upstreams;

pub(crate) use address::EndpointName;
pub(crate) use balance::Aim;
pub(crate) use breaker::Bounds;
pub(crate) use cluster::{Cluster, ClusterSettings, Protocol};
pub(crate) use connect::cut;
pub(crate) use descriptors::{Descriptors, Holder};
pub(crate) use endpoint::{EndpointSettings, EndpointState};
pub(crate) use errand::Errand;
pub(crate) use failure::{FailureKind, SendFailure};
pub(crate) use h1::Tunnel;
pub(crate) use keep_alive::KeepAlive;
pub(crate) use raw::Datagrams;
pub(crate) use upstreams::Upstreams;

#[cfg(test)]
mod testing;
