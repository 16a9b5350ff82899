//! The facts of a downstream connection that its requests ask for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::downstream::{BindCounts, PeerNetwork, Process, Registration, Watch};
use crate::proxy::forwarded_fields::ConnectionOrigin;
use crate::snapshot::BindKey;
use crate::upstream::Holder;

/// The facts of a connection that are the same for all of its requests.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    pub process: Arc<Process>,
    pub bind: BindKey,
    pub origin: ConnectionOrigin,
    pub watch: Arc<Watch>,
    /// The gateway's own address.
    pub local: SocketAddr,
    /// The server name of the TLS handshake; empty if the client sent none. `None` without TLS.
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
    /// The holder whose descriptors a request takes: the peer, or behind a trusted proxy `client`,
    /// the address that the proxy named. A proxy that names none has no limit for what it passes
    /// on.
    pub(super) fn client_of(&self, client: IpAddr) -> Option<Holder> {
        let peer = self.origin.peer.ip().to_canonical();
        self.registration.client().or_else(|| {
            (client != peer).then(|| self.process.descriptors.client(PeerNetwork::of(client)))
        })
    }
}
