//! Workers and their sockets: they accept connections, do the TLS handshake, and pass them to HTTP
//! (`proxy`) or to a byte stream (`streams`).
//!
//! Each worker is one thread with its own runtime, connections and pool of upstream connections, so
//! that requests on different workers share no lock. Connections are divided equally among them.

mod accept;
mod balance;
mod connection_error;
mod proxy_header;
mod worker;

pub(crate) use balance::seats;
pub(crate) use worker::{SocketId, WorkerCommand, run_worker};
