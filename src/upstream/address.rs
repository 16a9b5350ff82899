//! Addresses of endpoints, and their form in logs.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// The address of a socket to connect to.
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

/// Name of an endpoint for the log: `10.0.0.7:8080`, `unix:/run/app.sock`, or, if no address was
/// known, `keycloak.local:8080`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EndpointName(Inner);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Inner {
    At(Address),
    Unresolved { host: Arc<str>, port: u16 },
}

impl EndpointName {
    /// Returns the name of an endpoint without a known address.
    pub(super) fn unresolved(host: &Arc<str>, port: u16) -> Self {
        Self(Inner::Unresolved { host: Arc::clone(host), port })
    }

    /// Parses the displayed form of an endpoint with an address.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let address = match text.strip_prefix("unix:") {
            Some(path) => Address::Unix(Path::new(path).into()),
            None => Address::Ip(text.parse().ok()?),
        };
        Some(Self(Inner::At(address)))
    }

    /// Returns the address to connect to, if it is known.
    pub(super) fn address(&self) -> Option<&Address> {
        match &self.0 {
            Inner::At(address) => Some(address),
            Inner::Unresolved { .. } => None,
        }
    }

    /// Returns the socket address, if there is one, for `upstream` fields that need it typed.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_prints_as_what_was_connected_to() {
        let unresolved = EndpointName::unresolved(&"keycloak.local".into(), 8080);
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
