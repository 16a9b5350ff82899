//! One downstream connection, as its requests see it.

use std::sync::Arc;

use crate::proxy::Gateway;
use crate::proxy::connections::Place;
use crate::proxy::forwarded::Origin;
use crate::proxy::watch::Watch;
use crate::snapshot::BindKey;

/// What stays the same from one request of a connection to the next.
#[derive(Debug)]
pub(super) struct Connection {
    pub gateway: Arc<Gateway>,
    pub bind: BindKey,
    pub origin: Origin,
    pub watch: Arc<Watch>,
    /// The name of the TLS handshake; empty where there was none. `None` without TLS.
    pub sni: Option<Box<str>>,
    /// `TLSv1.3`; `None` without TLS.
    pub tls: Option<&'static str>,
    /// Held until the last exchange or tunnel of the connection is over.
    pub _place: Place,
}
