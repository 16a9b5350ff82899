//! Certificates as last seen whole, and the TLS settings made from them.
//!
//! [`CertStore`] turns a [`CertSource`] (a pair written inline, or a certbot lineage) into a
//! [`CertSlot`], re-reads all of them when told to, and never lets a fault on disk take away what a
//! slot already serves. [`ListenerCertificates`] chooses among the slots of one listener while a
//! client waits; [`server_config`] wraps it for rustls; [`accept_hello`] reads a ClientHello before
//! any of them is chosen, and [`read_server_name`] where it may be for another to answer.
//! [`ClientValidation`] says what clients of a listener have to show.
//!
//! Towards backends [`Client`] makes the handshakes that [`ClientSettings`] describe; both wings of
//! it check certificates by [`Authorities`].
//!
//! Invariants: a key is served only with the chain it was checked against; files are read by
//! [`CertStore`] alone, with plain blocking calls on the caller's thread, never on the way of a
//! connection; what a client sends before the handshake is done has a limit here and a deadline at
//! the caller.
//!
//! Absent on purpose: OCSP stapling (Let's Encrypt closed its responders), early data (it can be
//! replayed), and any judgement whether a certificate fits a listener's hostname: the listener
//! picks the certificate, and a client that minds will say so. `certs` says it beforehand.
//! Whether clients can follow a chain is judged when it is read ([`Chain`]), and keeps nothing from
//! being served.

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
pub(crate) use slot::{CertSlot, CertSource, Judged, Peer};
pub(crate) use store::{CertStore, News, RETRY_DELAYS, Reading};
