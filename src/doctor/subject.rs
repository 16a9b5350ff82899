//! The subject of an examination: the configuration, the running gateway and the host's paths.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::control::socket::Status;
use crate::control::{Certificates, Load};
use crate::snapshot::Traffic;

/// What is examined, and where.
#[derive(Debug)]
pub(crate) struct Subject {
    /// What the files come to.
    pub load: Load,
    /// As the running gateway has them, or as the files say to whoever runs this.
    pub certificates: Certificates,
    /// True if they are those of the running gateway.
    pub served: bool,
    /// What the running gateway says, or why it says nothing.
    pub status: Result<Status, String>,
    /// `${DOMAIN}`, if it is set.
    pub domain: Option<String>,
    /// The ports that clients use.
    pub http_port: u16,
    pub https_port: u16,
    pub letsencrypt_dir: PathBuf,
    pub acme_webroot: PathBuf,
    /// The user that the service has, where none runs that could tell.
    pub user: String,
    /// Addresses of names that are not looked up.
    pub resolve: Vec<(String, Vec<IpAddr>)>,
}

impl Subject {
    /// Names that clients come for, without wildcards: of HTTPS listeners, of routes, and
    /// `${DOMAIN}`.
    pub(super) fn hosts(&self) -> Vec<String> {
        let mut hosts: Vec<String> = self.domain.iter().cloned().collect();
        for bind in self.load.compiled.iter().flat_map(|compiled| &compiled.snapshot.binds) {
            for (host, listener) in bind.listeners.sorted() {
                hosts.extend(host);
                match &listener.traffic {
                    Traffic::Http(routes) => {
                        hosts.extend(routes.rows().into_iter().filter_map(|row| row.host));
                    }
                    Traffic::Forward(forwards) | Traffic::Passthrough(forwards) => {
                        hosts.extend(forwards.sorted().into_iter().filter_map(|(host, _)| host));
                    }
                }
            }
        }
        hosts.retain(|host| !host.starts_with("*."));
        let mut seen = std::collections::HashSet::new();
        hosts.retain(|host| seen.insert(host.clone()));
        hosts
    }

    /// True if there is an HTTPS listener.
    pub(super) fn has_tls(&self) -> bool {
        let compiled = self.load.compiled.iter();
        compiled.flat_map(|compiled| &compiled.snapshot.binds).any(|bind| {
            let mut listeners = bind.listeners.sorted().into_iter();
            bind.tls && listeners.any(|(_, listener)| listener.routes().is_some())
        })
    }
}
