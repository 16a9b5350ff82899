//! The endpoints of a cluster, as configured and as running.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::tls;
use crate::upstream::address::{Address, EndpointName};
use crate::upstream::host::{Host, Hosts};
use crate::upstream::names::Name;
use crate::upstream::upstreams::Upstreams;

/// Where a backend is, as configured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EndpointSettings {
    Address(SocketAddr),
    /// A host name, looked up again while it is in use; each of its addresses takes part.
    Name {
        host: Arc<str>,
        port: u16,
    },
    /// The path of a Unix stream socket.
    Unix(PathBuf),
}

/// How one address of a cluster is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointState {
    /// None for a name of which no address is known.
    pub address: Option<String>,
    /// `host:port`, where it is one of the addresses of a name.
    pub name: Option<String>,
    /// It did not take a connection lately.
    pub avoided: bool,
}

/// An endpoint of a running cluster.
#[derive(Debug)]
pub(super) enum Endpoint {
    Fixed(Arc<Host>),
    Named(Named),
}

impl Endpoint {
    /// `tls` is the handshake that connections to it begin with.
    pub(super) fn new(
        settings: &EndpointSettings,
        tls: Option<&tls::ClientSettings>,
        upstreams: &Upstreams,
    ) -> Self {
        let fixed = |address| Self::Fixed(upstreams.hosts.host(address, tls));
        match settings {
            EndpointSettings::Address(address) => fixed(Address::Ip(*address)),
            EndpointSettings::Name { host, port } => {
                let named = Named {
                    name: upstreams.names.name(host),
                    port: *port,
                    tls: tls.cloned(),
                    all: Arc::clone(&upstreams.hosts),
                    found: ArcSwap::default(),
                };
                // While the cluster before this one still has its hosts.
                named.known();
                Self::Named(named)
            }
            EndpointSettings::Unix(path) => fixed(Address::Unix(path.as_path().into())),
        }
    }
}

/// An endpoint that is a name, with the hosts at its addresses.
#[derive(Debug)]
pub(super) struct Named {
    name: Arc<Name>,
    port: u16,
    tls: Option<tls::ClientSettings>,
    all: Arc<Hosts>,
    found: ArcSwap<Found>,
}

/// Hosts of a name, in the order of the addresses that they were made for.
#[derive(Debug, Default)]
pub(super) struct Found {
    addresses: Arc<[IpAddr]>,
    pub(super) hosts: Box<[Arc<Host>]>,
}

impl Named {
    /// Name and port, for the log.
    pub(super) fn endpoint_name(&self) -> EndpointName {
        EndpointName::unresolved(self.name.host(), self.port)
    }

    /// The hosts that were found last. Looks no name up.
    pub(super) fn known(&self) -> Arc<Found> {
        self.hosts_of(self.name.known())
    }

    /// The hosts, never none. Waits only if there were never any, and then at most `patience`.
    ///
    /// # Errors
    ///
    /// The resolver's words, or that it said nothing in time.
    pub(super) async fn hosts(&self, patience: Duration) -> Result<Arc<Found>, Arc<str>> {
        Ok(self.hosts_of(self.name.addresses(patience).await?))
    }

    /// The same as last time, unless the name has other addresses now.
    fn hosts_of(&self, addresses: Arc<[IpAddr]>) -> Arc<Found> {
        let found = self.found.load_full();
        if Arc::ptr_eq(&found.addresses, &addresses) || found.addresses == addresses {
            return found;
        }
        let of = |ip: &IpAddr| {
            let address = Address::Ip(SocketAddr::new(*ip, self.port));
            self.all.host(address, self.tls.as_ref())
        };
        let found = Arc::new(Found { hosts: addresses.iter().map(of).collect(), addresses });
        self.found.store(Arc::clone(&found));
        found
    }
}
