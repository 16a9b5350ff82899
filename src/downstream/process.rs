//! Process-wide state, shared by all workers.

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
