//! Process-wide state, shared by all workers.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::downstream::open_connections::{Connections, PeerNetwork};
use crate::downstream::process_limits::ProcessLimits;
use crate::downstream::session_key::SessionKey;
use crate::downstream::shortage::Shortage;
use crate::net::Cidr;
use crate::observe::AccessLog;
use crate::snapshot::SnapshotCell;
use crate::upstream::{Descriptors, Holder};

/// The state that all workers share. The process has one instance.
#[derive(Debug)]
pub(crate) struct Process {
    pub snapshot: SnapshotCell,
    pub limits: ProcessLimits,
    /// Peers whose `X-Forwarded-*` fields are trusted.
    pub trusted_proxies: Vec<Cidr>,
    /// certbot's `--webroot-path`.
    pub acme_webroot: PathBuf,
    /// Encrypts session tokens.
    pub session_key: SessionKey,
    pub access_log: AccessLog,
    /// Downstream connections of all workers.
    pub connections: Arc<Connections>,
    pub shortage: Shortage,
    pub descriptors: &'static Descriptors,
    /// If true, routes and TLS are shown to backends and clients; see `proxy/shown_fields.rs`.
    pub shows_routes: bool,
    /// True from the time at which the process accepts no more connections.
    pub draining: AtomicBool,
}

/// A client has reached its limit of connections, and none of them is idle.
#[derive(Debug)]
pub(crate) struct PeerFull;

impl Process {
    /// Counts one more connection of the client at `address`. Returns `None` for a trusted proxy,
    /// whose connections carry many clients.
    ///
    /// # Errors
    ///
    /// The client has reached its limit, and none of its connections is idle.
    pub(crate) fn admit_peer(
        &self,
        address: IpAddr,
    ) -> Result<Option<(PeerNetwork, Holder)>, PeerFull> {
        if self.trusted_proxies.iter().any(|proxies| proxies.contains(address)) {
            return Ok(None);
        }
        let peer = PeerNetwork::of(address);
        match self.connections.admit_peer(peer, self.limits.connections_a_peer) {
            true => Ok(Some((peer, self.descriptors.client(peer)))),
            false => Err(PeerFull),
        }
    }
}
