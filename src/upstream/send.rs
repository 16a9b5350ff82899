//! Sending a request to a cluster, whatever its protocol.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http::header::UPGRADE;

use crate::body::Request;
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
    /// A cluster with no connection yet. Looks no name up.
    pub(crate) fn new(settings: ClusterSettings, upstreams: &Upstreams) -> Arc<Self> {
        Self::with_room(settings, upstreams, make_room)
    }

    /// Sends one request and waits for the head of the response.
    ///
    /// The caller has removed hop-by-hop fields and settled `host`; for an upgrade it left
    /// `connection: upgrade` and `upgrade` in place. `content-length` is a promise that the body is
    /// held to; without it the body goes out chunked, its trailers dropped (HTTP/1.1), or as it is
    /// (h2c).
    ///
    /// The request body is sent while the head is awaited, and after that whenever the response body
    /// is polled. Dropping the future, or the body before its end, ends the exchange at the backend
    /// at once. There is no timeout but that of connecting.
    ///
    /// Interim responses (1xx) are skipped, 103 among them.
    ///
    /// # Errors
    ///
    /// Why there is no response. `Overflow`, `NoDescriptor` and `ClientShare`: there is no room, here
    /// and not at an endpoint. An address that does not take the connection is followed by the
    /// next, each tried once. What the backend says it has not processed is sent again, whatever the
    /// method: a stream that is refused or above the last one of GOAWAY (RFC 9113 section 8.7), as long
    /// as its body is kept, and a request without body that met 408 on a pooled connection. A pooled
    /// connection that turns out to be dead is replaced by a fresh one, once, if nothing of the request
    /// was sent or it has no body and an idempotent method (RFC 9110 section 9.2.2). Nothing else is
    /// tried twice.
    pub(crate) async fn send(self: &Arc<Self>, request: Request) -> Result<Answer, SendFailure> {
        self.send_of(None, request).await
    }

    /// As [`send`](Self::send), of the descriptors of a client.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub(crate) async fn send_of(
        self: &Arc<Self>,
        client: Option<Holder>,
        request: Request,
    ) -> Result<Answer, SendFailure> {
        let (aim, tried, moved) = (&Aim::default(), &mut None, &AtomicU64::default());
        self.send_for(Errand { aim, client, counts: self.counts(), tried, moved }, request).await
    }

    /// As [`send`](Self::send), to the endpoint that the errand asks for where it can be had.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub(crate) async fn send_for(
        self: &Arc<Self>,
        errand: Errand<'_>,
        request: Request,
    ) -> Result<Answer, SendFailure> {
        let http2 = match self.settings().protocol {
            Protocol::Http1 => false,
            Protocol::H2c => true,
            Protocol::H2cOrUpgrade => !request.headers().contains_key(UPGRADE),
        };
        if http2 {
            h2::send(self, errand, request).await
        } else {
            h1::send(self, errand, request).await
        }
    }
}

/// Closes a connection that rests at this worker; that of HTTP/2 is gone only a moment later.
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
