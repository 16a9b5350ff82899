//! A request to a cluster and the response to it, apart from their protocol.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::body::Response;
use crate::stats::{Sharded, Upstream};
use crate::upstream::address::EndpointName;
use crate::upstream::balance::Aim;
use crate::upstream::descriptors::Holder;
use crate::upstream::h1::Tunnel;

/// Where a request is to go, on whose account, and who is told how it goes.
#[derive(Debug)]
pub(crate) struct Errand<'a> {
    pub aim: &'a Aim,
    /// Whose share of descriptors the request takes from; None counts for nobody.
    pub client: Option<Holder>,
    /// What happens to connections that are opened for the request is counted here, for as long as
    /// they live.
    pub counts: &'a Arc<Sharded<Upstream>>,
    /// Tells at any time which endpoint the request went to last, so that whoever drops the future
    /// knows who has not answered.
    pub tried: &'a mut Option<EndpointName>,
    /// Set to the [coarse time](crate::clock::coarse_now) when bytes move in either direction before
    /// there is a head. Over HTTP/2 the request's body alone can tell.
    pub moved: &'a AtomicU64,
}

/// What came back, up to the head.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Status, fields and streaming body. `content-length` is there if the body has that length;
    /// `transfer-encoding` is gone; other hop-by-hop fields are as the backend sent them.
    pub response: Response,
    /// Who answered, for the log.
    pub endpoint: EndpointName,
    /// The bytes after a 101, if the request asked for an upgrade and got it. The body is then empty.
    pub tunnel: Option<Tunnel>,
}
