//! The state of the process that all workers share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::downstream::open_connections::Connections;
use crate::downstream::process_limits::ProcessLimits;
use crate::downstream::session_key::SessionKey;
use crate::downstream::shortage::Shortage;
use crate::net::Cidr;
use crate::observe::AccessLog;
use crate::snapshot::SnapshotCell;
use crate::upstream::Descriptors;

/// The state that all workers share. There is one for the process.
#[derive(Debug)]
pub(crate) struct Process {
    pub snapshot: SnapshotCell,
    pub limits: ProcessLimits,
    /// Peers whose `X-Forwarded-*` count.
    pub trusted_proxies: Vec<Cidr>,
    /// certbot's `--webroot-path`.
    pub acme_webroot: PathBuf,
    /// Seals the tokens of sessions.
    pub session_key: SessionKey,
    pub access_log: AccessLog,
    /// Downstream connections, over all workers.
    pub connections: Arc<Connections>,
    pub shortage: Shortage,
    pub descriptors: &'static Descriptors,
    /// Whether backends and clients are told of routes and TLS; see `proxy/shown_fields.rs`.
    pub shows_routes: bool,
    /// True once the process accepts no more connections, until its end.
    pub draining: AtomicBool,
}
