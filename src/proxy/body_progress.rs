//! What came of a request's body, as all see it who have to do with its exchange.

use std::sync::atomic::{AtomicBool, AtomicU64};

use tokio::sync::Notify;

/// What came of a request's body so far.
#[derive(Debug, Default)]
pub(super) struct BodyProgress {
    pub bytes: AtomicU64,
    /// When a byte of the exchange last moved, in either direction, as far as that was noted.
    pub moved: AtomicU64,
    /// The client is waited for.
    pub awaited: AtomicBool,
    /// The client let it rest for too long, and it was given up.
    pub stalled: AtomicBool,
    /// The client reset the stream, or its HTTP/2 connection is gone.
    pub abandoned: AtomicBool,
    /// When the response had ended; 0 until then.
    pub answered: AtomicU64,
    /// HTTP/1: the connection ends with the answer, and the rest is thrown away with it.
    pub left: AtomicBool,
    /// The exchange is over.
    pub over: Notify,
}
