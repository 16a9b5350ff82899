//! Clusters: groups of backends under one name.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::proxy_protocol;
use crate::stats::{Sharded, Upstream};
use crate::tls;
use crate::upstream::address::EndpointName;
use crate::upstream::balance_policy::BalancePolicy;
use crate::upstream::breaker::{Bounds, Breaker, MakeRoom};
use crate::upstream::endpoint::{Endpoint, EndpointHealth, EndpointSettings, EndpointState};
use crate::upstream::health::group::HealthGroup;
use crate::upstream::health::leniency::Leniency;
use crate::upstream::health::settings::HealthSettings;
use crate::upstream::health::watched::Watched;
use crate::upstream::hold::{Hold, HoldSettings};
use crate::upstream::host::Host;
use crate::upstream::http2_settings::Http2Settings;
use crate::upstream::keep_alive::KeepAlive;
use crate::upstream::lifetime::LifetimeLimits;
use crate::upstream::request_limits::{RequestBounds, RequestLimits};
use crate::upstream::roster::Rosters;
use crate::upstream::upstreams::Upstreams;

/// Settings of a cluster. A cluster is kept across a reload if its settings are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClusterSettings {
    /// Name in logs and metrics.
    pub name: Arc<str>,
    /// May be empty; every request then fails with `NoEndpoint`.
    pub endpoints: Vec<EndpointSettings>,
    pub protocol: Protocol,
    /// TLS settings of the connections; `None` for connections in clear. Default `None`.
    pub tls: Option<tls::ClientSettings>,
    /// Limit on the connection to one address, including the TLS handshake, and on the first lookup
    /// of a name. Default 10 s, as in Envoy.
    pub connect_timeout: Duration,
    /// Limit on the time that a connection is idle in the pool. Default 4 s: less than the 5 s
    /// after which Node and uvicorn close theirs, so that no POST meets a connection that is being
    /// closed. If a backend closes earlier (gunicorn: 2 s), the close is detected when it happens.
    pub idle_timeout: Duration,
    /// Maximum number of idle connections of one worker to one address; beyond it, the oldest is
    /// closed. Default 1,024.
    pub max_idle_per_endpoint: usize,
    /// Limits over all workers. Default: those of the command line.
    pub bounds: Bounds,
    /// Limits on requests and retries over all workers. Default: `None`; then they are not counted.
    pub requests: Option<RequestBounds>,
    /// Settings of connections over HTTP/2.
    pub http2: Http2Settings,
    /// Limits on the life of a connection that requests use. Default: none.
    pub lifetime: LifetimeLimits,
    /// Set if requests wait while the backends restart. Default: `None`; then they fail at once.
    pub hold: Option<HoldSettings>,
    /// Keep-alive probes of connections that may be open without a request: HTTP/2 and byte
    /// streams.
    pub keep_alive: KeepAlive,
    pub policy: BalancePolicy,
    /// Checks of the health of the hosts. Default `None`.
    pub health: Option<Arc<HealthSettings>>,
    /// The percentage of healthy hosts below which requests ignore health. Default 50, as in Envoy.
    pub panic_threshold: u8,
    /// The PROXY header that each connection begins with, ahead of TLS. A connection is then for
    /// one connection of a client only. Default `None`.
    pub proxy_protocol: Option<proxy_protocol::Version>,
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
            max_idle_per_endpoint: 1024,
            bounds: Bounds::default(),
            requests: None,
            http2: Http2Settings::default(),
            lifetime: LifetimeLimits::default(),
            hold: None,
            keep_alive: KeepAlive::default(),
            policy: BalancePolicy::default(),
            health: None,
            panic_threshold: 50,
            proxy_protocol: None,
        }
    }
}

/// The protocol of the backends of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    #[default]
    Http1,
    /// HTTP/2: in clear with prior knowledge (RFC 9113 section 3.3), over TLS as negotiated.
    H2c,
    /// Like `H2c`, but HTTP/1.1 for a request that asks for an upgrade.
    H2cOrUpgrade,
}

/// A cluster: the backends under one name.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Unlike the address of this value, never reused.
    id: u64,
    settings: ClusterSettings,
    tls: Option<tls::Client>,
    endpoints: Box<[Endpoint]>,
    /// `None` for a policy that does not compare the hosts.
    rosters: Option<Rosters>,
    turn: AtomicUsize,
    breaker: Arc<Breaker>,
    hold: Option<Arc<Hold>>,
    /// Counters of requests that are sent outside a route.
    counts: Arc<Sharded<Upstream>>,
    /// `None` without health settings.
    watched: Option<Watched>,
}

impl Cluster {
    /// Creates a cluster without connections. Does not look names up. `make_room` closes an idle
    /// connection.
    pub(super) fn with_room(
        settings: ClusterSettings,
        upstreams: &Upstreams,
        make_room: MakeRoom,
    ) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let watched = settings.health.as_ref().map(|health| {
            let bounds = Bounds { connections: usize::MAX, pending: 0 };
            let breaker = Breaker::new(id, bounds, None, upstreams.descriptors, make_room);
            Watched::new(upstreams.hosts.group(health), breaker)
        });
        let health = settings.health.as_ref().zip(watched.as_ref().map(Watched::group));
        let endpoint = |one| Endpoint::new(one, settings.tls.as_ref(), health, upstreams);
        let endpoints: Box<[_]> = settings.endpoints.iter().map(endpoint).collect();
        // If no request may wait, the number of requests tells whether a connection is idle.
        let counted = (settings.bounds.pending == 0).then_some(RequestBounds::UNLIMITED);
        let requests = settings.requests.or(counted).map(RequestLimits::new);
        let (bounds, descriptors) = (settings.bounds, upstreams.descriptors);
        let breaker = Breaker::new(id, bounds, requests, descriptors, make_room);
        let hold = settings.hold.map(Hold::new);
        Arc::new(Self {
            id,
            tls: settings.tls.as_ref().map(tls::Client::new),
            rosters: Rosters::new(settings.policy, &endpoints),
            settings,
            endpoints,
            turn: AtomicUsize::new(0),
            breaker,
            hold,
            counts: Arc::default(),
            watched,
        })
    }

    pub(crate) fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    /// Returns the counters of requests that are sent outside a route.
    pub(super) fn counts(&self) -> &Arc<Sharded<Upstream>> {
        &self.counts
    }

    /// Returns the limits on requests and retries; `None` if there are none.
    pub(crate) fn request_limits(&self) -> Option<&Arc<RequestLimits>> {
        self.breaker.requests()
    }

    /// Returns the requests that wait for the backends; `None` if none may.
    pub(crate) fn hold(&self) -> Option<&Arc<Hold>> {
        self.hold.as_ref()
    }

    /// Returns how many more connections may be opened, and how many more requests may wait for
    /// one.
    pub(crate) fn connections_left(&self) -> (usize, usize) {
        self.breaker.left()
    }

    /// Returns the number of known addresses, and how many of them are unavailable.
    pub(crate) fn members(&self) -> (usize, usize) {
        let hosts = self.hosts();
        (hosts.len(), hosts.iter().filter(|host| !host.is_available()).count())
    }

    /// Returns the number of endpoints, and how many of them are available; a name counts once for
    /// each known address. Starts lookups of names that are outdated.
    pub(crate) fn availability(&self) -> (usize, usize) {
        let (mut all, mut available) = (0, 0);
        for endpoint in &self.endpoints {
            let (of_endpoint, of_them_available) = endpoint.availability();
            all += of_endpoint;
            available += of_them_available;
        }
        (all, available)
    }

    /// Returns true if this is the address of a known host that is available.
    pub(crate) fn has_available(&self, endpoint: &EndpointName) -> bool {
        let mut found = false;
        self.each_host(|host| {
            found |= Some(host.address()) == endpoint.address() && host.is_available();
        });
        found
    }

    /// Returns all known hosts. Does not look names up.
    pub(super) fn hosts(&self) -> Vec<Arc<Host>> {
        let mut hosts = Vec::new();
        self.each_host(|host| hosts.push(Arc::clone(host)));
        hosts
    }

    /// Calls `f` for each known host. Does not look names up.
    pub(super) fn each_host(&self, mut f: impl FnMut(&Arc<Host>)) {
        self.endpoints.iter().for_each(|endpoint| endpoint.each_host(&mut f));
    }

    /// Returns the state of each known address, and of each name without a known address. Does not
    /// look names up.
    pub(crate) fn states(&self) -> Vec<EndpointState> {
        let state = |host: &Host, name| EndpointState {
            address: Some(host.address().to_string()),
            name,
            health: EndpointHealth::of(host),
        };
        let of_endpoint = |endpoint: &Endpoint| match endpoint {
            Endpoint::Fixed(member) => vec![state(member.host(), None)],
            Endpoint::Named(named) => {
                let called = Some(named.endpoint_name().to_string());
                let known = named.known();
                if known.members.is_empty() {
                    let health = EndpointHealth::Unresolved;
                    return vec![EndpointState { address: None, name: called, health }];
                }
                known.hosts().map(|host| state(host, called.clone())).collect()
            }
        };
        self.endpoints.iter().flat_map(of_endpoint).collect()
    }

    /// Returns the TLS client; `None` if the cluster does not use TLS.
    pub(super) fn tls(&self) -> Option<&tls::Client> {
        self.tls.as_ref()
    }

    /// Returns the limits on the connections of this cluster.
    pub(super) fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    /// Returns the hosts that a request may use beside the healthy ones.
    pub(super) fn leniency(&self) -> Leniency {
        let standings = self.hosts().into_iter().map(|host| host.standing());
        let leniency = Leniency::of(standings, self.settings.panic_threshold);
        if leniency == Leniency::All
            && let Some(group) = self.health_group()
        {
            group.panics.one_more();
        }
        leniency
    }

    /// Records that an endpoint did not answer a request in time, for outlier detection.
    pub(crate) fn late(&self, endpoint: Option<&EndpointName>) {
        if self.watched.is_none() {
            return;
        }
        let Some(address) = endpoint.and_then(EndpointName::address) else { return };
        let hosts = self.hosts();
        hosts.iter().filter(|host| host.address() == address).for_each(|host| host.late());
    }

    /// Returns the link to the task that checks the hosts; `None` without health settings.
    pub(super) fn watched(&self) -> Option<&Watched> {
        self.watched.as_ref()
    }

    /// Returns what the checks of the hosts have counted; `None` without health settings.
    pub(crate) fn health_group(&self) -> Option<&HealthGroup> {
        self.watched().map(|watched| &**watched.group())
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Returns the rosters, for a policy that compares the hosts.
    pub(super) fn rosters(&self) -> Option<&Rosters> {
        self.rosters.as_ref()
    }

    pub(super) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Returns the number that the next request will get, without taking it.
    pub(super) fn turn(&self) -> usize {
        self.turn.load(Ordering::Relaxed)
    }

    /// Returns a number that grows with every request if there is a choice of endpoints; else 0.
    pub(super) fn next_turn(&self) -> usize {
        match &*self.endpoints {
            [] | [Endpoint::Fixed(_)] => 0,
            _ => self.turn.fetch_add(1, Ordering::Relaxed),
        }
    }
}
