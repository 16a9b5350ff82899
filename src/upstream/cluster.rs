//! A cluster: the backends that one name stands for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::stats::{Sharded, Upstream};
use crate::tls;
use crate::upstream::address::Address;
use crate::upstream::breaker::{Bounds, Breaker, MakeRoom};
use crate::upstream::endpoint::{Endpoint, EndpointSettings, EndpointState};
use crate::upstream::host::Host;
use crate::upstream::keep_alive::KeepAlive;
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
    /// Over all workers. Those of the command line unless the cluster has its own.
    pub bounds: Bounds,
    /// Of connections that are held open without a request: those of HTTP/2 and of byte streams.
    pub keep_alive: KeepAlive,
    pub policy: BalancePolicy,
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
            bounds: Bounds::default(),
            keep_alive: KeepAlive::default(),
            policy: BalancePolicy::default(),
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

/// Whose connections: the cluster by its id, then the address.
pub(super) type PoolKey = (u64, Address);

/// The order in which requests go to the endpoints of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum BalancePolicy {
    /// In turn, and so the addresses of a name.
    #[default]
    RoundRobin,
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

impl Cluster {
    /// A cluster with no connection yet. Looks no name up. `make_room` closes a connection at rest.
    pub(super) fn with_room(
        settings: ClusterSettings,
        upstreams: &Upstreams,
        make_room: MakeRoom,
    ) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let endpoint = |one| Endpoint::new(one, settings.tls.as_ref(), upstreams);
        let endpoints = settings.endpoints.iter().map(endpoint).collect();
        let breaker = Breaker::new(id, settings.bounds, upstreams.descriptors, make_room);
        Arc::new(Self {
            id,
            tls: settings.tls.as_ref().map(tls::Client::new),
            settings,
            endpoints,
            turn: AtomicUsize::new(0),
            breaker,
            counts: Arc::default(),
        })
    }

    pub(crate) fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    /// What happened to requests that were sent on nobody's account.
    pub(super) fn counts(&self) -> &Arc<Sharded<Upstream>> {
        &self.counts
    }

    /// How many addresses there are, and how many of them did not take a connection lately.
    pub(crate) fn members(&self) -> (usize, usize) {
        let hosts = self.hosts();
        (hosts.len(), hosts.iter().filter(|host| !host.is_available()).count())
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
            avoided: !host.is_available(),
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

    /// The key of its connections to `address` in the pool of a worker.
    pub(super) fn pool_key(&self, address: &Address) -> PoolKey {
        (self.id, address.clone())
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
