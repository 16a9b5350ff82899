//! The counts that a request holds while it uses a connection.

use crate::upstream::descriptors::Share;
use crate::upstream::host::ActiveRequest;

/// The counts that a request holds while it uses a connection to a backend.
#[derive(Debug, Default)]
pub(super) struct Holding {
    /// The descriptor that counts for the client.
    pub share: Option<Share>,
    /// The request in progress at the host, if its cluster counts them.
    pub active: Option<ActiveRequest>,
}
