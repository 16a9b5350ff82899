//! The endpoints of a cluster, in the configuration and at runtime.

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
    /// The address recently failed to accept a connection.
    pub avoided: bool,
}

/// An endpoint of a running cluster.
#[derive(Debug)]
pub(super) enum Endpoint {
    Fixed(Arc<Host>),
    Named(Named),
}

impl Endpoint {
    /// Creates an endpoint; `tls` has the settings of the handshake with it.
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
                // Must happen while the previous version of the cluster still holds its hosts.
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

/// The hosts of a name, in the order of its addresses.
#[derive(Debug, Default)]
pub(super) struct Found {
    addresses: Arc<[IpAddr]>,
    pub(super) hosts: Box<[Arc<Host>]>,
}

impl Named {
    /// Returns name and port, for the log.
    pub(super) fn endpoint_name(&self) -> EndpointName {
        EndpointName::unresolved(self.name.host(), self.port)
    }

    /// Returns the hosts that were found last. Does not start a lookup.
    pub(super) fn known(&self) -> Arc<Found> {
        self.hosts_of(self.name.known())
    }

    /// Returns the hosts; the list is never empty. Waits only if no address has ever been found,
    /// for at most `patience`.
    ///
    /// # Errors
    ///
    /// The resolver's error message, or a message that it did not answer in time.
    pub(super) async fn hosts(&self, patience: Duration) -> Result<Arc<Found>, Arc<str>> {
        Ok(self.hosts_of(self.name.addresses(patience).await?))
    }

    /// Returns the present hosts, unless the addresses of the name have changed.
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
