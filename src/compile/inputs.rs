//! The inputs of a compilation other than the objects.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{Environment, Settings};
use crate::graph::Held;
use crate::net::AddressPool;
use crate::observe::LogFiles;
use crate::snapshot::{BindKey, ClientLimits, Snapshot};
use crate::tls::{CertStore, Tickets};
use crate::upstream::Upstreams;

/// The inputs of a compilation other than the objects.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// The running snapshot: its unchanged parts are reused, and the next generation number follows
    /// from it.
    pub previous: &'a Snapshot,
    /// The settings; `controller_name` and `enable_backend` are used.
    pub settings: &'a Settings,
    /// The values of environment variables.
    pub environment: Environment<'a>,
    /// `${DOMAIN}`, if it is set.
    pub domain: Option<&'a str>,
    pub certificates: &'a CertStore,
    pub tickets: &'a Tickets,
    pub upstreams: &'a Upstreams,
    /// Returns the reason why the gateway cannot listen on an address of `Gateway.spec.addresses`,
    /// `None` if it can.
    pub unusable_address: &'a dyn Fn(IpAddr) -> Option<String>,
    /// Returns the reason why a bind is not possible, `None` if there is none.
    pub unusable_bind: &'a dyn Fn(BindKey) -> Option<String>,
    /// The addresses for Gateways that name none; `None` gives such Gateways all addresses of the
    /// host.
    pub pool: Option<&'a AddressPool>,
    /// The holders of the pool's addresses before this compilation.
    pub held: &'a Held,
    /// The files of the Gateways' access logs.
    pub log_files: &'a LogFiles,
    /// The client limits of a listener that sets none.
    pub client_limits: &'a Arc<ClientLimits>,
    /// True if some peers may set the client address (`--trusted-proxies`).
    pub trusts_proxies: bool,
}

impl std::fmt::Debug for Inputs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs")
            .field("generation", &self.previous.generation)
            .field("settings", &self.settings)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}
