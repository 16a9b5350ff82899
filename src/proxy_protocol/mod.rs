//! The PROXY protocol, versions 1 and 2: the header of a connection that names its client.
//!
//! `https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt`. A header is sent by whoever
//! accepted the connection from the client, ahead of everything else, TLS included.

mod decode;
mod header;

pub(crate) use decode::{ENOUGH, Header, NotAHeader, decode};
pub(crate) use header::{Addresses, Version};
