//! A request to a cluster and its response, independent of the protocol.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::body::Response;
use crate::proxy_protocol::Addresses;
use crate::stats::{Sharded, Upstream};
use crate::upstream::address::EndpointName;
use crate::upstream::balance::Aim;
use crate::upstream::descriptors::Holder;
use crate::upstream::h1::Tunnel;

/// Parameters of one request: its preferred endpoint, its accounts, and the outputs on its
/// progress.
#[derive(Debug)]
pub(crate) struct Errand<'a> {
    pub aim: &'a Aim,
    /// The client that the request's descriptors count for; with `None` they count for no client.
    pub client: Option<Holder>,
    /// The connection of the client, if the cluster sends PROXY headers: only connections that were
    /// opened for it are used. With `None` the header names no client.
    pub proxied: Option<&'a Addresses>,
    /// Counters of the connections that are opened for the request, for their whole life.
    pub counts: &'a Arc<Sharded<Upstream>>,
    /// Always holds the endpoint that the request went to last, so that a caller that drops the
    /// future knows which endpoint has not answered.
    pub tried: &'a mut Option<EndpointName>,
    /// Set to the [coarse time](crate::clock::coarse_now) when bytes move in either direction
    /// before the response head. HTTP/2 exchanges do not set it; there, only the request body shows
    /// progress.
    pub moved: &'a AtomicU64,
}

/// The response up to its head.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Status, fields and streaming body. `content-length` is present if the body has that length;
    /// `transfer-encoding` is removed; other hop-by-hop fields are as the backend sent them.
    pub response: Response,
    /// The endpoint that answered, for the log.
    pub endpoint: EndpointName,
    /// The bytes after a 101, if the request's upgrade succeeded. The body is then empty.
    pub tunnel: Option<Tunnel>,
}
