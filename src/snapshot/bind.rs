//! A socket address and the listeners that share it.

use std::net::IpAddr;
use std::sync::Arc;

use crate::net::HostPattern;
use crate::snapshot::{HostTable, RouteTable};
use crate::tls::CertSlot;

/// Where a bind listens, and so which it is: equal keys are one socket across a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BindKey {
    /// `None` is every address of the host, IPv4 and IPv6.
    pub address: Option<IpAddr>,
    /// The port as the Gateway has it. A socket that was handed over may be bound to another.
    pub port: u16,
}

/// One socket address: its protocol and the listeners on it.
#[derive(Debug)]
pub(crate) struct Bind {
    pub key: BindKey,
    /// `sectionName`s of the listeners: a socket handed over under one of them serves this bind.
    pub names: Vec<Arc<str>>,
    /// True if connections begin with a TLS handshake.
    pub tls: bool,
    /// Listeners by hostname. A connection or request belongs to the most specific one, and only
    /// its routes are tried (Gateway API, listener isolation).
    pub listeners: HostTable<Arc<Listener>>,
}

/// One listener of a Gateway.
#[derive(Debug)]
pub(crate) struct Listener {
    /// `namespace/gateway/sectionName`, for logs.
    pub name: Arc<str>,
    pub hostname: Option<HostPattern>,
    /// The handshake of an HTTPS listener; `None` for HTTP. A listener without any certificate has
    /// settings too, whose handshakes are refused until the first certificate is there.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// What `tls` chooses from, in the order of the certificateRefs; for people.
    pub certificates: Vec<Arc<CertSlot>>,
    pub routes: RouteTable,
}
