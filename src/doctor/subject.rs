//! The subject of an examination: the configuration, the running gateway and the host's paths.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::control::socket::StatusReport;
use crate::control::{Certificates, Load};
use crate::snapshot::Traffic;

/// The configuration and the host to examine.
#[derive(Debug)]
pub(crate) struct Subject {
    /// The result of loading the files.
    pub load: Load,
    /// The certificates of the running gateway; without one, those of the files, as far as this
    /// user may read them.
    pub certificates: Certificates,
    /// True if `certificates` are those of the running gateway.
    pub served: bool,
    /// The answer of the running gateway, or the reason why there is none.
    pub status: Result<StatusReport, String>,
    /// `${DOMAIN}`, if it is set.
    pub domain: Option<String>,
    /// The ports that clients use.
    pub http_port: u16,
    pub https_port: u16,
    pub letsencrypt_dir: PathBuf,
    pub acme_webroot: PathBuf,
    /// The user of the service, used if no gateway is running.
    pub user: String,
    /// Fixed addresses of names, which are not looked up.
    pub resolve: Vec<(String, Vec<IpAddr>)>,
}

impl Subject {
    /// Returns the host names that clients use, without wildcards: those of listeners and routes,
    /// and `${DOMAIN}`.
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
