//! Endpoints: what may be written, what can be connected to, and how it is called in a log.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::upstream::names::{Name, Names};

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
    pub(super) fn unresolved(host: &Arc<str>, port: u16) -> Self {
        Self(Inner::Unresolved { host: Arc::clone(host), port })
    }

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
    Fixed(Address),
    Named { name: Arc<Name>, port: u16 },
}

impl Endpoint {
    pub(super) fn new(settings: &EndpointSettings, names: &Names) -> Self {
        match settings {
            EndpointSettings::Address(address) => Self::Fixed(Address::Ip(*address)),
            EndpointSettings::Name { host, port } => {
                Self::Named { name: names.name(host), port: *port }
            }
            EndpointSettings::Unix(path) => Self::Fixed(Address::Unix(path.as_path().into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_prints_as_what_was_connected_to() {
        // (name, in the log)
        let table = [
            (Address::Ip("10.0.0.7:8080".parse().unwrap()).into(), "10.0.0.7:8080"),
            (Address::Ip("[fd00::1]:80".parse().unwrap()).into(), "[fd00::1]:80"),
            (Address::Unix(Path::new("/run/app.sock").into()).into(), "unix:/run/app.sock"),
            (EndpointName::unresolved(&"keycloak.local".into(), 8080), "keycloak.local:8080"),
        ];
        for (name, want) in table {
            assert_eq!(name.to_string(), want);
            let read = EndpointName::parse(want);
            assert_eq!(read, name.address().map(|_| name.clone()), "{want}");
        }
    }
}
