//! One downstream connection, as its requests see it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::downstream::{BindCounts, PeerNetwork, Process, Registration, Watch};
use crate::proxy::forwarded_fields::ConnectionOrigin;
use crate::snapshot::BindKey;
use crate::upstream::Holder;

/// What stays the same from one request of a connection to the next.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    pub process: Arc<Process>,
    pub bind: BindKey,
    pub origin: ConnectionOrigin,
    pub watch: Arc<Watch>,
    /// Our end.
    pub local: SocketAddr,
    /// The name of the TLS handshake; empty where there was none. `None` without TLS.
    pub sni: Option<Box<str>>,
    /// `TLSv1.3`; `None` without TLS.
    pub tls: Option<&'static str>,
    /// `TLS_AES_128_GCM_SHA256`; empty without TLS.
    pub cipher: &'static str,
    pub counts: BindCounts,
    /// Held until the last exchange or tunnel of the connection is over.
    pub registration: Registration,
}

impl ClientConnection {
    /// Whose descriptors a request takes: those of the peer, or behind a trusted proxy of `client`,
    /// the address that it named. A proxy that names none is not bound for what it passes on.
    pub(super) fn client_of(&self, client: IpAddr) -> Option<Holder> {
        let peer = self.origin.peer.ip().to_canonical();
        self.registration.client().or_else(|| {
            (client != peer).then(|| self.process.descriptors.client(PeerNetwork::of(client)))
        })
    }
}
