//! Facts about the host and the settings that the graph needs beside the objects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::api;
use crate::net::AddressPool;

use super::credentials::{NamedAuthorities, NamedCertificate, Readiness};

/// Who holds which address of the pool: `namespace/name` of a Gateway, with `#2` and so on behind
/// it for its further ones.
pub(crate) type Held = BTreeMap<String, IpAddr>;

/// What has to be known beside the objects.
#[derive(Clone, Copy)]
pub(crate) struct LoadFacts<'a> {
    /// Classes with this `controllerName` are ours.
    pub controller_name: &'a str,
    /// `extensionApis.enableBackend` of the EnvoyGateway document: routes may refer to Backends.
    pub enable_backend: bool,
    /// `${DOMAIN}`: a lineage of this name serves where no Secret does.
    pub domain: Option<&'a str>,
    /// The state of a certificate for clients.
    pub certificate: &'a dyn Fn(&NamedCertificate) -> Readiness,
    /// The state of a certificate that is shown to backends.
    pub client_certificate: &'a dyn Fn(&NamedCertificate) -> Readiness,
    /// Checks that certificates can be verified with these authorities.
    pub authorities: &'a dyn Fn(&NamedAuthorities) -> Result<(), String>,
    /// True if a certificate can be asked for by this name, a wildcard as its first label aside.
    pub server_name: &'a dyn Fn(&str) -> bool,
    /// Why an address cannot be listened on, `None` if it can.
    pub unusable_address: &'a dyn Fn(IpAddr) -> Option<String>,
    /// Why the port of a listener cannot be listened on at an address, every one where there is
    /// none; `None` if nothing speaks against it.
    pub unusable_port: &'a dyn Fn(Option<IpAddr>, &api::Listener) -> Option<String>,
    /// Gateways that name no address get one of these; `None` gives them all of the host.
    pub pool: Option<&'a AddressPool>,
    /// Who held which address of the pool before.
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
