//! The progress of a request's body, shared by all parts of its exchange.

use std::sync::atomic::{AtomicBool, AtomicU64};

use tokio::sync::Notify;

/// The progress of a request's body so far.
#[derive(Debug, Default)]
pub(super) struct BodyProgress {
    pub bytes: AtomicU64,
    /// When a byte of the exchange last moved, in either direction, if that was noted.
    pub moved: AtomicU64,
    /// The gateway waits for the client to send.
    pub awaited: AtomicBool,
    /// The client sent nothing for too long, and the body was given up.
    pub stalled: AtomicBool,
    /// The client reset the stream, or its HTTP/2 connection is gone.
    pub abandoned: AtomicBool,
    /// When the response had ended; 0 until then.
    pub answered: AtomicU64,
    /// HTTP/1: the connection ends with the response, and the rest of the body is discarded.
    pub left: AtomicBool,
    /// The exchange is over.
    pub over: Notify,
}
