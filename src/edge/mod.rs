//! The workers and their sockets: each connection is accepted here, its TLS handshake is done, and
//! it goes on to HTTP (`proxy`) or to a byte stream (`streams`).
//!
//! Each worker is one thread with a runtime of its own, its own connections and its own pool of
//! upstream connections, so that requests on different workers meet in no lock.

mod accept;
mod worker;

pub(crate) use worker::{SocketId, WorkerCommand, run_worker};
