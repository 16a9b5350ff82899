//! Endpoints: what may be written, what can be connected to, and how it is called in a log.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::tls;
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

/// Something that can be connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Address {
    Ip(SocketAddr),
    Unix(Arc<Path>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An endpoint for the log: `10.0.0.7:8080`, `unix:/run/app.sock`, or, where no address was known,
/// `keycloak.local:8080`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EndpointName(Inner);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Inner {
    At(Address),
    Unresolved { host: Arc<str>, port: u16 },
}

impl EndpointName {
    /// Reads what an endpoint with an address prints as.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let address = match text.strip_prefix("unix:") {
            Some(path) => Address::Unix(Path::new(path).into()),
            None => Address::Ip(text.parse().ok()?),
        };
        Some(Self(Inner::At(address)))
    }

    /// What can be connected to, where it is known.
    pub(super) fn address(&self) -> Option<&Address> {
        match &self.0 {
            Inner::At(address) => Some(address),
            Inner::Unresolved { .. } => None,
        }
    }

    /// The socket address, where it is one: for `upstream` fields that want it typed.
    pub(crate) fn socket_addr(&self) -> Option<SocketAddr> {
        match &self.0 {
            Inner::At(Address::Ip(address)) => Some(*address),
            Inner::At(Address::Unix(_)) | Inner::Unresolved { .. } => None,
        }
    }
}

impl From<Address> for EndpointName {
    fn from(address: Address) -> Self {
        Self(Inner::At(address))
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::At(address) => address.fmt(f),
            Inner::Unresolved { host, port } => write!(f, "{host}:{port}"),
        }
    }
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
        EndpointName(Inner::Unresolved { host: Arc::clone(self.name.host()), port: self.port })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_prints_as_what_was_connected_to() {
        let unresolved =
            EndpointName(Inner::Unresolved { host: "keycloak.local".into(), port: 8080 });
        // (name, in the log)
        let table = [
            (Address::Ip("10.0.0.7:8080".parse().unwrap()).into(), "10.0.0.7:8080"),
            (Address::Ip("[fd00::1]:80".parse().unwrap()).into(), "[fd00::1]:80"),
            (Address::Unix(Path::new("/run/app.sock").into()).into(), "unix:/run/app.sock"),
            (unresolved, "keycloak.local:8080"),
        ];
        for (name, want) in table {
            assert_eq!(name.to_string(), want);
            let read = EndpointName::parse(want);
            assert_eq!(read, name.address().map(|_| name.clone()), "{want}");
        }
    }
}
