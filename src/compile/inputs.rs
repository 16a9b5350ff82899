//! The inputs of a compilation beside the objects.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{Environment, Settings};
use crate::graph::Held;
use crate::net::AddressPool;
use crate::observe::LogFiles;
use crate::snapshot::{BindKey, ClientLimits, Snapshot};
use crate::tls::{CertStore, Tickets};
use crate::upstream::Upstreams;

/// What a compilation needs beside the objects.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// The snapshot that runs: what is unchanged of it lives on, and the next one counts from it.
    pub previous: &'a Snapshot,
    /// `controller_name` and `enable_backend` of it.
    pub settings: &'a Settings,
    /// What variables are set to.
    pub environment: Environment<'a>,
    /// `${DOMAIN}`, if it is set.
    pub domain: Option<&'a str>,
    pub certificates: &'a CertStore,
    pub tickets: &'a Tickets,
    pub upstreams: &'a Upstreams,
    /// Why an address of `Gateway.spec.addresses` cannot be listened on, `None` if it can.
    pub unusable_address: &'a dyn Fn(IpAddr) -> Option<String>,
    /// Why a bind cannot be had, `None` if nothing speaks against it.
    pub unusable_bind: &'a dyn Fn(BindKey) -> Option<String>,
    /// Gateways that name no address get one of these; `None` gives them all of the host.
    pub pool: Option<&'a AddressPool>,
    /// Who held which address of the pool before.
    pub held: &'a Held,
    /// Where access logs of Gateways go.
    pub log_files: &'a LogFiles,
    /// What a client of a listener may take that says nothing of it.
    pub client_limits: &'a Arc<ClientLimits>,
    /// Some peers may say who the client is (`--trusted-proxies`).
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
