//! Properties of a downstream connection, for use by its requests.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use crate::downstream::{BindCounts, PeerNetwork, Process, Registration, Watch};
use crate::proxy::forwarded_fields::ConnectionOrigin;
use crate::proxy_protocol::Addresses;
use crate::snapshot::BindKey;
use crate::upstream::Holder;

/// The properties of a connection that are the same for all of its requests.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    pub process: Arc<Process>,
    pub bind: BindKey,
    pub origin: ConnectionOrigin,
    pub watch: Arc<Watch>,
    /// The local address.
    pub local: SocketAddr,
    /// The server name of the TLS handshake; empty if the client sent none. `None` without TLS.
    pub sni: Option<Box<str>>,
    /// The TLS version, such as `TLSv1.3`; `None` without TLS.
    pub tls: Option<&'static str>,
    /// The cipher suite, such as `TLS_AES_128_GCM_SHA256`; empty without TLS.
    pub cipher: &'static str,
    pub counts: BindCounts,
    /// Held until the last exchange or tunnel of the connection has ended.
    pub registration: Registration,
    /// The name of the listener of the first request. The records of later requests refer to it
    /// here: all workers share the reference count of the name.
    pub listener: OnceLock<Arc<str>>,
}

impl ClientConnection {
    /// Returns the two ends of the connection, for the PROXY header of a backend.
    pub(super) fn addresses(&self) -> Addresses {
        Addresses { source: self.watch.peer, destination: self.local }
    }

    /// Returns the holder to which the descriptors of a request are charged: the peer, or, behind a
    /// proxy that is believed, `client`, the address that the proxy reported. Requests of a proxy of
    /// `--trusted-proxies` that reports none are not limited.
    pub(super) fn client_of(&self, client: IpAddr) -> Option<Holder> {
        let peer = self.origin.peer.ip().to_canonical();
        match client == peer {
            true => self.registration.client(),
            false => Some(self.process.descriptors.client(PeerNetwork::of(client))),
        }
    }
}
