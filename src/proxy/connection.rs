//! One downstream connection, as its requests see it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::proxy::Gateway;
use crate::proxy::connections::{Peer, Place};
use crate::proxy::forwarded::Origin;
use crate::proxy::watch::Watch;
use crate::snapshot::BindKey;
use crate::stats::{Downstream, Sharded};
use crate::upstream::Holder;

/// The counts of a connection's bind, in which it counts as open as long as this lives.
#[derive(Debug)]
pub(super) struct Counted(Arc<Sharded<Downstream>>);

impl Counted {
    pub(super) fn new(counts: &Arc<Sharded<Downstream>>) -> Self {
        counts.here().connections.one_more();
        counts.here().connections_active.one_more();
        Self(Arc::clone(counts))
    }

    pub(super) fn here(&self) -> &Downstream {
        self.0.here()
    }

    pub(super) fn of_bind(&self) -> Arc<Sharded<Downstream>> {
        Arc::clone(&self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.here().connections_active.one_less();
    }
}

/// What stays the same from one request of a connection to the next.
#[derive(Debug)]
pub(super) struct Connection {
    pub gateway: Arc<Gateway>,
    pub bind: BindKey,
    pub origin: Origin,
    pub watch: Arc<Watch>,
    /// Our end.
    pub local: SocketAddr,
    /// The name of the TLS handshake; empty where there was none. `None` without TLS.
    pub sni: Option<Box<str>>,
    /// `TLSv1.3`; `None` without TLS.
    pub tls: Option<&'static str>,
    /// `TLS_AES_128_GCM_SHA256`; empty without TLS.
    pub cipher: &'static str,
    pub counts: Counted,
    /// Held until the last exchange or tunnel of the connection is over.
    pub place: Place,
}

impl Connection {
    /// Whose descriptors a request takes: those of the peer, or behind a trusted proxy of `client`,
    /// the address that it named. A proxy that names none is not bound for what it passes on.
    pub(super) fn client_of(&self, client: IpAddr) -> Option<Holder> {
        let peer = self.origin.peer.ip().to_canonical();
        self.place
            .client()
            .or_else(|| (client != peer).then(|| self.gateway.descriptors.client(Peer::of(client))))
    }
}
