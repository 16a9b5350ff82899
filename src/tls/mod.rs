//! TLS: certificates in their last good version, and the TLS settings made from them.
//!
//! [`CertStore`] turns a [`CertSource`] (a pair written inline, or a certbot lineage) into a
//! [`CertSlot`] and re-reads all slots on request. A fault on disk never removes a certificate that
//! a slot already serves. [`ListenerCertificates`] selects among the slots of one listener during a
//! handshake; [`server_config`] wraps it for rustls. [`accept_hello`] reads a ClientHello before a
//! certificate is selected; [`read_server_name`] reads the server name alone, if a backend may have
//! to answer the handshake. [`ClientValidation`] holds a listener's requirements on client
//! certificates.
//!
//! [`Client`] makes the handshakes with backends, by [`ClientSettings`]. Both directions validate
//! certificates against [`Authorities`].
//!
//! Invariants: a key is served only with the chain that it was checked against. Files are read by
//! [`CertStore`] alone, with blocking calls on the caller's thread, never on the path of a
//! connection. The bytes that a client sends before the handshake is complete have a limit here and
//! a deadline at the caller.
//!
//! Left out on purpose: OCSP stapling (Let's Encrypt closed its responders), early data (it can be
//! replayed), and a check that a certificate covers a listener's hostname: the listener selects the
//! certificate, and a client that needs another name refuses it. The command `certs` reports this
//! beforehand. The chain is judged when it is read ([`Chain`]); the result does not keep a
//! certificate from being served.

mod authorities;
mod certbot;
mod certificate;
mod chain;
mod client;
mod clients;
mod crypto;
mod fault;
mod hello;
mod lineage;
mod pem;
mod resolver;
mod server;
mod server_name;
mod session;
mod slot;
mod store;
#[cfg(test)]
mod testing;

pub(crate) use authorities::Authorities;
pub(crate) use certbot::{certonly, identifiers, quoted};
pub(crate) use certificate::CertFacts;
#[cfg(test)]
pub(crate) use certificate::KeyType;
pub(crate) use chain::Chain;
pub(crate) use client::{Alpn, AltName, Client, ClientSettings, Identity, TlsCause, TlsFailure};
pub(crate) use clients::ClientValidation;
pub(crate) use hello::{Hello, HelloError, accept_hello};
pub(crate) use resolver::ListenerCertificates;
pub(crate) use server::{Tickets, server_config};
pub(crate) use server_name::{NoHello, read_server_name, server_name};
pub(crate) use session::{cipher, version};
pub(crate) use slot::{CertSlot, CertSource, JudgedCertificate, Peer};
pub(crate) use store::{CertStore, News, RETRY_DELAYS, Reading};
