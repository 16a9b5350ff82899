//! The progress of a request body, shared by all parts of its exchange.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// The progress of a request body so far.
#[derive(Debug, Default)]
pub(super) struct BodyProgress {
    pub bytes: AtomicU64,
    /// Time at which a byte of the exchange last moved, in either direction, if recorded.
    pub moved: AtomicU64,
    /// The gateway is waiting for the client to send.
    pub awaited: AtomicBool,
    /// The client sent nothing for too long, and the body was abandoned.
    pub stalled: AtomicBool,
    /// The client reset the stream, or its HTTP/2 connection was lost.
    pub abandoned: AtomicBool,
    /// Time at which the response ended; 0 until then.
    pub answered: AtomicU64,
    /// The body was not complete by its deadline.
    pub late: AtomicBool,
    /// HTTP/1: the connection ends with the response, and the rest of the body is discarded.
    pub left: AtomicBool,
    /// Notified when the exchange has ended.
    pub over: Notify,
}

impl BodyProgress {
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }
}
