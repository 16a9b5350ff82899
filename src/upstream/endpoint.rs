//! The endpoints of a cluster, in the configuration and at runtime.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::tls;
use crate::upstream::address::{Address, EndpointName};
use crate::upstream::health::group::HealthGroup;
use crate::upstream::health::host_health::Standing;
use crate::upstream::health::settings::HealthSettings;
use crate::upstream::host::{HealthOf, Host, Hosts};
use crate::upstream::member::Member;
use crate::upstream::names::Name;
use crate::upstream::upstreams::Upstreams;

/// The address of a backend in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EndpointSettings {
    Address(SocketAddr),
    /// A host name, looked up periodically while in use; all of its addresses are used.
    Name {
        host: Arc<str>,
        port: u16,
    },
    /// The path of a Unix stream socket.
    Unix(PathBuf),
}

/// The state of one address of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointState {
    /// `None` for a name without a known address.
    pub address: Option<String>,
    /// `host:port`, if the endpoint is a name.
    pub name: Option<String>,
    pub health: EndpointHealth,
}

/// The health of one address of a cluster, as requests and checks found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndpointHealth {
    /// Requests got too many errors from the address, so it gets none for a time.
    Ejected,
    Healthy,
    /// No health check has ended yet.
    Unchecked,
    /// The address failed its health checks.
    Unhealthy,
    /// The address recently failed to accept a connection: it is skipped for a while.
    Unreachable,
    /// No address is known for the name.
    Unresolved,
}

impl EndpointHealth {
    pub(super) fn of(host: &Host) -> Self {
        match host.standing() {
            Standing::Unhealthy => Self::Unhealthy,
            Standing::Ejected => Self::Ejected,
            _ if !host.is_reachable() => Self::Unreachable,
            Standing::Unchecked => Self::Unchecked,
            Standing::Healthy => Self::Healthy,
        }
    }

    /// Returns true if health checks have taken the address out of service.
    pub(crate) fn is_out(self) -> bool {
        matches!(self, Self::Ejected | Self::Unhealthy)
    }

    /// Returns the word of the admin API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ejected => "ejected",
            Self::Healthy => "healthy",
            Self::Unchecked => "unchecked",
            Self::Unhealthy => "unhealthy",
            Self::Unreachable => "unreachable",
            Self::Unresolved => "unresolved",
        }
    }
}

impl EndpointSettings {
    /// Returns the form of the endpoint in logs, by which the health settings name it.
    fn name(&self) -> String {
        match self {
            Self::Address(address) => address.to_string(),
            Self::Name { host, port } => format!("{host}:{port}"),
            Self::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}

/// The health settings of a cluster, and the counters of its hosts.
type Health<'a> = (&'a Arc<HealthSettings>, &'a Arc<HealthGroup>);

/// An endpoint of a running cluster.
#[derive(Debug)]
pub(super) enum Endpoint {
    Fixed(Member),
    Named(Named),
}

impl Endpoint {
    /// Creates an endpoint; `tls` has the settings of the handshake with it.
    pub(super) fn new(
        settings: &EndpointSettings,
        tls: Option<&tls::ClientSettings>,
        health: Option<Health<'_>>,
        upstreams: &Upstreams,
    ) -> Self {
        let fixed = |address| {
            let endpoint = settings.name();
            let health =
                health.map(|(settings, group)| HealthOf { settings, group, endpoint: &endpoint });
            Self::Fixed(Member::new(upstreams.hosts.host(address, tls, health)))
        };
        match settings {
            EndpointSettings::Address(address) => fixed(Address::Ip(*address)),
            EndpointSettings::Name { host, port } => {
                let named = Named {
                    name: upstreams.names.name(host),
                    port: *port,
                    tls: tls.cloned(),
                    health: health.map(|(of, group)| (Arc::clone(of), Arc::clone(group))),
                    all: Arc::clone(&upstreams.hosts),
                    found: ArcSwap::default(),
                };
                // Must happen while the previous version of the cluster still holds its hosts.
                named.known();
                Self::Named(named)
            }
            EndpointSettings::Unix(path) => fixed(Address::Unix(path.as_path().into())),
        }
    }
}

impl Endpoint {
    /// Returns the number of addresses, and how many of them are available. A name without a known
    /// address counts as one, which is available until a lookup has failed.
    pub(super) fn availability(&self) -> (usize, usize) {
        match self {
            Self::Fixed(member) => (1, usize::from(member.host().is_available())),
            Self::Named(named) => {
                let found = named.in_use();
                if found.members.is_empty() {
                    return (1, usize::from(!named.name.is_unresolved()));
                }
                let available = found.hosts().filter(|host| host.is_available());
                (found.members.len(), available.count())
            }
        }
    }

    /// Calls `f` for each known host. Does not look names up.
    pub(super) fn each_host(&self, mut f: impl FnMut(&Arc<Host>)) {
        match self {
            Self::Fixed(member) => f(member.host()),
            Self::Named(named) => named.known().hosts().for_each(f),
        }
    }
}

/// An endpoint that is a name, with the members at its addresses.
#[derive(Debug)]
pub(super) struct Named {
    name: Arc<Name>,
    port: u16,
    tls: Option<tls::ClientSettings>,
    health: Option<(Arc<HealthSettings>, Arc<HealthGroup>)>,
    all: Arc<Hosts>,
    found: ArcSwap<Found>,
}

/// The members at the addresses of a name, in the order of the addresses.
#[derive(Debug, Default)]
pub(super) struct Found {
    addresses: Arc<[IpAddr]>,
    pub(super) members: Box<[Arc<Member>]>,
}

impl Found {
    pub(super) fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.members.iter().map(|member| member.host())
    }
}

impl Named {
    /// Returns name and port, for the log.
    pub(super) fn endpoint_name(&self) -> EndpointName {
        EndpointName::unresolved(self.name.host(), self.port)
    }

    fn host(&self, address: Address) -> Arc<Host> {
        let endpoint = self.endpoint_name().to_string();
        let health = self.health.as_ref();
        let health =
            health.map(|(settings, group)| HealthOf { settings, group, endpoint: &endpoint });
        self.all.host(address, self.tls.as_ref(), health)
    }

    /// Starts a lookup of the name if its addresses are unknown or outdated.
    pub(super) fn refresh(&self) {
        self.name.refresh();
    }

    /// Returns the members that were found last. Does not start a lookup.
    pub(super) fn known(&self) -> Arc<Found> {
        self.members_at(&self.name.known())
    }

    /// Returns the members that were found last, for a use of them: starts a lookup if they are
    /// outdated, and does not wait for it.
    pub(super) fn in_use(&self) -> Arc<Found> {
        self.members_at(&self.name.in_use())
    }

    /// Returns the members; the list is never empty. Waits only if no address has ever been found,
    /// for at most `patience`.
    ///
    /// # Errors
    ///
    /// The resolver's error message, or a message that it did not answer in time.
    pub(super) async fn members(&self, patience: Duration) -> Result<Arc<Found>, Arc<str>> {
        Ok(self.members_at(&self.name.addresses(patience).await?))
    }

    /// Returns the members at these addresses. A member remains the same as long as its address is
    /// one of the name's, so that its connections remain in use.
    fn members_at(&self, addresses: &Arc<[IpAddr]>) -> Arc<Found> {
        let found = self.found.load_full();
        if Arc::ptr_eq(&found.addresses, addresses) || found.addresses == *addresses {
            return found;
        }
        // Workers that find other addresses at the same time must agree on the members.
        self.found.rcu(|found| {
            if found.addresses == *addresses {
                return Arc::clone(found);
            }
            let member = |ip: &IpAddr| {
                let known = found.addresses.iter().position(|known| known == ip);
                known.map(|at| Arc::clone(&found.members[at])).unwrap_or_else(|| {
                    let address = Address::Ip(SocketAddr::new(*ip, self.port));
                    Arc::new(Member::new(self.host(address)))
                })
            };
            let members = addresses.iter().map(member).collect();
            Arc::new(Found { members, addresses: Arc::clone(addresses) })
        });
        self.found.load_full()
    }
}
