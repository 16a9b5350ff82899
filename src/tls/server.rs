//! TLS settings of a listener.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{
    NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache, StoresServerSessions,
};

use crate::carry_over::CarryOver;

use super::clients::ClientValidation;
use super::crypto::crypto;
use super::resolver::ListenerCertificates;

/// Limit on TLS 1.2 sessions kept for resumption by session id; a few hundred bytes each. Only old
/// clients use this: all others hold a ticket, which uses no memory here.
const MAX_SESSIONS: usize = 1024;

/// The state for session resumption, kept across reloads: created once, passed to every
/// [`server_config`].
///
/// Shared by all listeners that request no client certificate; rustls resumes a session only under
/// the server name that it began with. Listeners that request one share their state only with
/// listeners that have the same requirements: a session begun on another listener, or before an
/// authority was removed, would bypass the check.
#[derive(Clone)]
pub(crate) struct Tickets {
    shared: Arc<Resumption>,
    /// By the requirements on clients; dropped with the last listener that has them.
    of_clients: Arc<CarryOver<ClientValidation, Resumption>>,
}

/// The ticket keys, and the sessions of clients without tickets.
struct Resumption {
    ticketer: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
}

impl Resumption {
    fn new() -> Result<Self, rustls::Error> {
        Ok(Self {
            ticketer: Ticketer::new()?,
            sessions: ServerSessionMemoryCache::new(MAX_SESSIONS),
        })
    }
}

/// Implemented here so that a listener's settings keep the whole state alive.
impl ProducesTickets for Resumption {
    fn enabled(&self) -> bool {
        self.ticketer.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.ticketer.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.ticketer.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.ticketer.decrypt(cipher)
    }
}

impl fmt::Debug for Resumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resumption([redacted])")
    }
}

impl Tickets {
    /// Generates keys. They are replaced every six hours and discarded six hours later. They never
    /// leave the process: after a restart a client makes a full handshake.
    ///
    /// # Errors
    ///
    /// The system provides no randomness.
    pub(crate) fn new() -> Result<Self, rustls::Error> {
        Ok(Self { shared: Arc::new(Resumption::new()?), of_clients: Arc::default() })
    }

    /// Returns the state for a listener with the requirements `clients`; `None`, and so no
    /// resumption, if the system provides no randomness.
    fn of(&self, clients: Option<&ClientValidation>) -> Option<Arc<Resumption>> {
        let Some(clients) = clients else { return Some(Arc::clone(&self.shared)) };
        if let Some(tickets) = self.of_clients.get(clients) {
            return Some(tickets);
        }
        let tickets = Arc::new(Resumption::new().ok()?);
        self.of_clients.insert(clients.clone(), &tickets);
        Some(tickets)
    }
}

/// Redacted: it holds session keys.
impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets([redacted])")
    }
}

/// Builds the TLS settings of one listener: TLS 1.2 and 1.3, `alpn` most preferred first (`h2`,
/// `http/1.1`), no early data, the server's order of cipher suites. With `clients` it requests a
/// client certificate.
///
/// A client that offers ALPN and none of `alpn` is refused with `no_application_protocol` (RFC 7301
/// section 3.2); one that does not use ALPN is accepted without a protocol.
pub(crate) fn server_config(
    certificates: ListenerCertificates,
    alpn: &[&[u8]],
    tickets: &Tickets,
    clients: Option<&ClientValidation>,
) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(Arc::clone(crypto()))
        .with_safe_default_protocol_versions()
        .expect("the list of cipher suites has some for TLS 1.2 and for TLS 1.3");
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(clients) => config.with_client_cert_verifier(clients.verifier()),
    };
    let mut config = config.with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if let Some(tickets) = tickets.of(clients) {
        config.session_storage = Arc::clone(&tickets.sessions);
        config.ticketer = tickets;
    }
    Arc::new(config)
}
