//! The address of a bind.

use std::net::IpAddr;

/// Where a bind listens, and so which it is: equal keys are one socket across a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BindKey {
    /// `None` is every address of the host, IPv4 and IPv6.
    pub address: Option<IpAddr>,
    /// The port as the Gateway has it. A socket that was handed over may be bound to another.
    pub port: u16,
    /// A UDP socket shares its port with nobody but the one of TCP.
    pub transport: Transport,
}

/// What a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}
