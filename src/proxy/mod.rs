//! Connections and requests from the socket to the answer.
//!
//! A request's way is `accept.rs` (socket, TLS), then `http.rs` (everything else, in the order in
//! which it happens). `worker.rs` owns the tasks: each worker is one thread with a runtime of its
//! own, its own connections and its own pool of upstream connections, so that requests on
//! different workers meet in no lock.
//!
//! Invariant: nothing here reads YAML types. A request sees one snapshot from its head to its last
//! byte.

mod accept;
mod acme_webroot;
mod body;
mod connection;
mod connections;
mod failure;
mod forward;
mod forwarded;
mod framing;
mod grpc;
mod grpc_web;
mod guard;
mod http;
mod io;
mod limits;
mod linger;
mod mirror;
mod passage;
mod received;
mod record;
mod request_line;
mod room;
mod session;
mod shortage;
mod shown;
mod stall;
mod tasks;
mod tcp;
mod trailers;
mod tunnel;
mod udp;
mod upgrade;
mod watch;
mod websocket;
mod worker;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use crate::filters::HostName;
use crate::net::Cidr;
use crate::observe::AccessLog;
use crate::snapshot::SnapshotCell;
use crate::upstream::Descriptors;

pub(crate) use acme_webroot::{read as acme_challenge, token as acme_token};
pub(crate) use connections::Connections;
pub(crate) use failure::Failure;
pub(crate) use limits::Limits;
pub(crate) use session::{KEY_LENGTH, SessionKey};
pub(crate) use shortage::{BYTES_A_CONNECTION, Shortage};
pub(crate) use worker::{Command, SocketId, run_worker};

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub snapshot: SnapshotCell,
    pub limits: Limits,
    /// Peers whose `X-Forwarded-*` count.
    pub trusted_proxies: Vec<Cidr>,
    /// certbot's `--webroot-path`.
    pub acme_webroot: PathBuf,
    /// Seals the tokens of sessions.
    pub session_key: SessionKey,
    pub access_log: AccessLog,
    /// Downstream connections, over all workers.
    pub connections: Connections,
    pub shortage: Shortage,
    pub descriptors: &'static Descriptors,
    /// Whether backends and clients are told of routes and TLS; see `shown.rs`.
    pub shows_routes: bool,
    /// True once no more connections are taken, until the end of the process.
    pub draining: AtomicBool,
}

/// The host of a request whose head is let through, which is left as routes see it.
///
/// # Errors
///
/// Why no route may see it.
pub(crate) fn admit(
    head: &mut ::http::request::Parts,
    limits: &Limits,
) -> Result<HostName, Failure> {
    guard::admit(head, limits).map(|admitted| admitted.host)
}
