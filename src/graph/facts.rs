//! Facts about the host and the settings that the graph needs besides the objects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::api;
use crate::net::AddressPool;

use super::credentials::{NamedAuthorities, NamedCertificate, Readiness};

/// Addresses of the pool, by holder. The key is the `namespace/name` of a Gateway, with the suffix
/// `#2` and so on for its further addresses.
pub(crate) type Held = BTreeMap<String, IpAddr>;

/// The inputs of a load besides its objects.
#[derive(Clone, Copy)]
pub(crate) struct LoadFacts<'a> {
    /// The controller name. GatewayClasses with this `controllerName` belong to this controller.
    pub controller_name: &'a str,
    /// `extensionApis.enableBackend` of the EnvoyGateway document: permits references to Backends.
    pub enable_backend: bool,
    /// `${DOMAIN}`: the name of a certbot lineage that is tried if a Secret is not written.
    pub domain: Option<&'a str>,
    /// Returns the state of a certificate that is presented to clients.
    pub certificate: &'a dyn Fn(&NamedCertificate) -> Readiness,
    /// Returns the state of a client certificate that is presented to backends.
    pub client_certificate: &'a dyn Fn(&NamedCertificate) -> Readiness,
    /// Checks that certificates can be verified with these authorities.
    pub authorities: &'a dyn Fn(&NamedAuthorities) -> Result<(), String>,
    /// Returns true if a TLS handshake can use this server name. A wildcard as the first label is
    /// ignored.
    pub server_name: &'a dyn Fn(&str) -> bool,
    /// Returns the reason why an address cannot be listened on, `None` if it can.
    pub unusable_address: &'a dyn Fn(IpAddr) -> Option<String>,
    /// Returns the reason why the port of a listener cannot be bound at an address (at every
    /// address of the host for `None`); `None` if no failure is known.
    pub unusable_port: &'a dyn Fn(Option<IpAddr>, &api::Listener) -> Option<String>,
    /// The pool of addresses for Gateways that name none. With `None` they listen on every address
    /// of the host.
    pub pool: Option<&'a AddressPool>,
    /// The addresses of the pool that were held before this load.
    pub held: &'a Held,
}

impl std::fmt::Debug for LoadFacts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadFacts")
            .field("controller_name", &self.controller_name)
            .field("enable_backend", &self.enable_backend)
            .field("domain", &self.domain)
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}
