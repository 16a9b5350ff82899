//! A cluster: the backends that one name stands for, and the way to send them a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::header::UPGRADE;

use crate::body::{Request, Response};
use crate::stats::{Sharded, Upstream};
use crate::tls;
use crate::upstream::balance::Aim;
use crate::upstream::breaker::Breaker;
use crate::upstream::descriptors::Holder;
use crate::upstream::endpoint::{Endpoint, EndpointName, EndpointSettings, EndpointState};
use crate::upstream::failure::SendFailure;
use crate::upstream::h1::{self, Tunnel};
use crate::upstream::h2;
use crate::upstream::host::Host;
use crate::upstream::pool;
use crate::upstream::upstreams::Upstreams;

/// Settings of a cluster. Two equal settings are the same cluster across a reload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClusterSettings {
    /// For logs and metrics.
    pub name: Arc<str>,
    /// May be empty: then every request fails with `NoEndpoint`.
    pub endpoints: Vec<EndpointSettings>,
    pub protocol: Protocol,
    /// Each connection begins with a handshake; None speaks in clear. Default None.
    pub tls: Option<tls::ClientSettings>,
    /// For one address, the TLS handshake included, and for the first lookup of a name. Default 10 s, as in Envoy.
    pub connect_timeout: Duration,
    /// How long a connection may rest in the pool. Default 4 s: below the 5 s after which Node and
    /// uvicorn close theirs, so that no POST meets a connection that is being closed. A backend
    /// that closes earlier (gunicorn: 2 s) is noticed when it does.
    pub idle_timeout: Duration,
    /// Resting connections a worker keeps for one address; the oldest goes first. Default 256.
    pub max_idle_per_endpoint: usize,
}

impl ClusterSettings {
    /// The defaults, for HTTP/1.1.
    pub(crate) fn new(name: impl Into<Arc<str>>, endpoints: Vec<EndpointSettings>) -> Self {
        Self {
            name: name.into(),
            endpoints,
            protocol: Protocol::Http1,
            tls: None,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(4),
            max_idle_per_endpoint: 256,
        }
    }
}

/// What the backends of a cluster speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    #[default]
    Http1,
    /// HTTP/2: in clear with prior knowledge (RFC 9113 section 3.3), over TLS as negotiated.
    H2c,
    /// As `H2c`, but HTTP/1.1 for a request that asks for an upgrade.
    H2cOrUpgrade,
}

/// The backends that one name stands for.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Unlike the address of this value, never used twice: pools are keyed by it.
    id: u64,
    settings: ClusterSettings,
    tls: Option<tls::Client>,
    endpoints: Box<[Endpoint]>,
    turn: AtomicUsize,
    breaker: Arc<Breaker>,
    /// Counters of senders outside a route.
    counts: Arc<Sharded<Upstream>>,
}

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

impl Cluster {
    /// A cluster with no connection yet. Looks no name up.
    pub(crate) fn new(settings: ClusterSettings, upstreams: &Upstreams) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let endpoint = |one| Endpoint::new(one, settings.tls.as_ref(), upstreams);
        let endpoints = settings.endpoints.iter().map(endpoint).collect();
        Arc::new(Self {
            id,
            tls: settings.tls.as_ref().map(tls::Client::new),
            settings,
            endpoints,
            turn: AtomicUsize::new(0),
            breaker: Breaker::new(id, upstreams.bounds, upstreams.descriptors, make_room),
            counts: Arc::default(),
        })
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
        self.send_for(Errand { aim, client, counts: &self.counts, tried, moved }, request).await
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
        let http2 = match self.settings.protocol {
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

    pub(crate) fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    /// What happened to requests that were sent on nobody's account.
    #[cfg(test)]
    pub(super) fn counts(&self) -> &Arc<Sharded<Upstream>> {
        &self.counts
    }

    /// How many addresses there are, and how many of them did not take a connection lately.
    pub(crate) fn members(&self) -> (usize, usize) {
        let hosts = self.hosts();
        (hosts.len(), hosts.iter().filter(|host| host.is_avoided()).count())
    }

    /// Every host that is known. Looks no name up.
    pub(super) fn hosts(&self) -> Vec<Arc<Host>> {
        let of_endpoint = |endpoint: &Endpoint| match endpoint {
            Endpoint::Fixed(host) => vec![Arc::clone(host)],
            Endpoint::Named(named) => named.known().hosts.to_vec(),
        };
        self.endpoints.iter().flat_map(of_endpoint).collect()
    }

    /// Every address as it is now, and every name of which none is known. Looks no name up.
    pub(crate) fn states(&self) -> Vec<EndpointState> {
        let state = |host: &Host, name| EndpointState {
            avoided: host.is_avoided(),
            address: Some(host.address().to_string()),
            name,
        };
        let of_endpoint = |endpoint: &Endpoint| match endpoint {
            Endpoint::Fixed(host) => vec![state(host, None)],
            Endpoint::Named(named) => {
                let called = Some(named.endpoint_name().to_string());
                let known = named.known();
                if known.hosts.is_empty() {
                    return vec![EndpointState { address: None, name: called, avoided: false }];
                }
                known.hosts.iter().map(|host| state(host, called.clone())).collect()
            }
        };
        self.endpoints.iter().flat_map(of_endpoint).collect()
    }

    /// Makes the handshakes, where there are any.
    pub(super) fn tls(&self) -> Option<&tls::Client> {
        self.tls.as_ref()
    }

    /// Bounds its connections.
    pub(super) fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The number that the next request gets. Who only looks takes nobody's turn.
    pub(super) fn turn(&self) -> usize {
        self.turn.load(Ordering::Relaxed)
    }

    /// A number that grows with every request, where there is anything to choose from.
    pub(super) fn next_turn(&self) -> usize {
        match &*self.endpoints {
            [] | [Endpoint::Fixed(_)] => 0,
            _ => self.turn.fetch_add(1, Ordering::Relaxed),
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
