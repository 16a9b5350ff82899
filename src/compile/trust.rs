//! Certificate authorities, and the TLS settings that rely on them: for backends, and for clients
//! that present certificates.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;

use rustls::pki_types::ServerName;

use crate::graph::{self, UpstreamTls};
use crate::tls::{AltName, Authorities, ClientSettings, ClientValidation, Identity, Peer};

use super::slots::Slots;

/// Authorities by their source, each read once in a load.
#[derive(Debug, Default)]
pub(super) struct Trust {
    of_host: OnceCell<Result<Authorities, String>>,
    of_pem: RefCell<HashMap<Vec<Vec<u8>>, Result<Authorities, String>>>,
}

impl Trust {
    /// Checks that certificates can be verified against these authorities.
    ///
    /// # Errors
    ///
    /// The reason why the authorities cannot be used.
    pub(super) fn check(&self, authorities: &graph::NamedAuthorities) -> Result<(), String> {
        self.get(authorities).map(drop)
    }

    /// Returns the authorities; `None` if certificates are not verified.
    fn get(&self, authorities: &graph::NamedAuthorities) -> Result<Option<Authorities>, String> {
        let found = match authorities {
            graph::NamedAuthorities::Nobody => return Ok(None),
            graph::NamedAuthorities::System => {
                self.of_host.get_or_init(Authorities::of_host).clone()
            }
            graph::NamedAuthorities::Pem(bundles) => {
                let mut known = self.of_pem.borrow_mut();
                let make = || Authorities::of_pem(bundles.iter().map(Vec::as_slice));
                known.entry(bundles.clone()).or_insert_with(make).clone()
            }
        };
        found.map(Some)
    }

    /// Returns the TLS settings for a backend; `None` if TLS cannot be used, which the graph has
    /// reported.
    pub(super) fn to_backend(
        &self,
        tls: &UpstreamTls,
        gateway: Option<&graph::NamedCertificate>,
        slots: &Slots<'_>,
    ) -> Option<ClientSettings> {
        let names = tls.names.iter().map(|name| match name {
            graph::ExpectedAltName::Hostname(host) => AltName::host(host),
            graph::ExpectedAltName::Uri(uri) => Some(AltName::Uri(uri.clone())),
        });
        let server_name = match &tls.server_name {
            None => None,
            Some(name) => Some(server_name(name)?),
        };
        let certificate = tls.client.as_ref().or(gateway);
        Some(ClientSettings {
            authorities: self.get(&tls.authorities).ok()?,
            server_name,
            // All names or none: without names, the certificate would be checked against
            // `server_name` instead.
            names: names.collect::<Option<_>>()?,
            identity: certificate
                .map(|certificate| Identity::new(slots.get(certificate, Peer::Backends))),
        })
    }

    /// Returns the validation of client certificates; `None` if no client could be accepted, which
    /// the graph has reported.
    pub(super) fn of_clients(
        &self,
        clients: &graph::FrontendValidation,
    ) -> Option<ClientValidation> {
        let authorities = self.get(&clients.authorities).ok()??;
        Some(ClientValidation { authorities, insecure_fallback: clients.insecure_fallback })
    }
}

/// Returns true if the name is valid as a server name (SNI); a leading `*.` is ignored.
pub(super) fn is_server_name(name: &str) -> bool {
    server_name(name.strip_prefix("*.").unwrap_or(name)).is_some()
}

fn server_name(name: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).ok()
}
