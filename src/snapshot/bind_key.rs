//! The key of a bind.

use std::net::IpAddr;

/// The address of a bind and its identity: equal keys are one socket across a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BindKey {
    /// `None` is every address of the host, IPv4 and IPv6.
    pub address: Option<IpAddr>,
    /// The port of the Gateway. A socket that is passed in may be bound to another port.
    pub port: u16,
    /// A UDP socket and a TCP socket may share a port.
    pub transport: Transport,
}

/// The transport protocol of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}
