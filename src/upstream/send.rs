//! Sending a request to a cluster over its protocol.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http::header::UPGRADE;

use crate::body::Request;
use crate::proxy_protocol::Addresses;
use crate::upstream::balance::Aim;
use crate::upstream::cluster::{Cluster, ClusterSettings, Protocol};
use crate::upstream::descriptors::Holder;
use crate::upstream::errand::{Answer, Errand};
use crate::upstream::failure::SendFailure;
use crate::upstream::h1;
use crate::upstream::h2;
use crate::upstream::pool;
use crate::upstream::upstreams::Upstreams;

impl Cluster {
    /// Creates a cluster without connections. Does not look names up.
    pub(crate) fn new(settings: ClusterSettings, upstreams: &Upstreams) -> Arc<Self> {
        Self::with_room(settings, upstreams, make_room)
    }

    /// Sends one request and waits for the head of the response.
    ///
    /// The caller must have removed hop-by-hop fields and set `host`; for an upgrade it must keep
    /// `connection: upgrade` and `upgrade`. The body must have exactly the length that
    /// `content-length` promises; without that field the body is sent chunked and its trailers are
    /// dropped (HTTP/1.1), or it is sent unchanged (h2c).
    ///
    /// The request body is sent while the head is awaited, and afterwards whenever the response
    /// body is polled. Dropping the future, or the body before its end, ends the exchange with the
    /// backend at once. The only timeout is the connect timeout.
    ///
    /// Interim responses (1xx, including 103) are skipped.
    ///
    /// # Errors
    ///
    /// The reason why there is no response. `Overflow`, `NoDescriptor` and `ClientShare` are limits
    /// of the gateway, not failures of an endpoint. If an address does not accept the connection,
    /// the next one is tried; each at most once. A request that the backend reports as not
    /// processed is sent again, with any method: on a stream that is refused or above the last
    /// stream of GOAWAY (RFC 9113 section 8.7), provided that its body is still buffered, and a
    /// request without body that received 408 on a pooled connection. If a pooled connection turns
    /// out to be dead, the request is sent once more on a new connection if none of it was sent, or
    /// if it has no body and an idempotent method (RFC 9110 section 9.2.2). There are no other
    /// retries.
    pub(crate) async fn send(self: &Arc<Self>, request: Request) -> Result<Answer, SendFailure> {
        self.send_of(None, None, request).await
    }

    /// Like [`send`](Self::send), with the descriptors counted for a client, and its connection for
    /// PROXY headers.
    ///
    /// # Errors
    ///
    /// See [`send`](Self::send).
    pub(crate) async fn send_of(
        self: &Arc<Self>,
        client: Option<Holder>,
        proxied: Option<&Addresses>,
        request: Request,
    ) -> Result<Answer, SendFailure> {
        let (aim, tried, moved) = (&Aim::default(), &mut None, &AtomicU64::default());
        let errand = Errand { aim, client, proxied, counts: self.counts(), tried, moved };
        let mut request = request;
        self.send_for(errand, &mut request).await
    }

    /// Like [`send`](Self::send), to the endpoint that the errand prefers, if it is available. Takes
    /// the request out of its place.
    ///
    /// # Errors
    ///
    /// See [`send`](Self::send).
    pub(crate) async fn send_for(
        self: &Arc<Self>,
        errand: Errand<'_>,
        request: &mut Request,
    ) -> Result<Answer, SendFailure> {
        let http2 = match self.settings().protocol {
            Protocol::Http1 => false,
            Protocol::H2c => true,
            Protocol::H2cOrUpgrade => !request.headers().contains_key(UPGRADE),
        };
        if http2 {
            // Boxed, so that requests over HTTP/1.1 do not reserve memory for it.
            Box::pin(h2::send(self, errand, request)).await
        } else {
            h1::send(self, errand, request).await
        }
    }
}

/// Closes an idle connection of this worker; an HTTP/2 connection closes only a moment later.
fn make_room(cluster: Option<u64>) -> bool {
    if pool::close_one(cluster) {
        return true;
    }
    h2::end_one(cluster);
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::testing::{cluster, cluster_with, get};

    #[test]
    fn an_exchange_may_move_between_threads() {
        fn may_move(_: impl Send) {}

        may_move(cluster(&[]).send(get()));
        may_move(cluster_with(&[], |settings| settings.protocol = Protocol::H2c).send(get()));
    }

    #[test]
    fn two_clusters_with_equal_settings_are_still_two() {
        let (a, b) = (cluster(&[]), cluster(&[]));
        assert_eq!(a.settings(), b.settings());
        assert_ne!(a.id(), b.id(), "what carries over is the cluster itself");
    }
}
