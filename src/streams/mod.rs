//! Byte streams and datagrams that go to a backend as they are: TCPRoute, TLSRoute and UDPRoute.

mod destination;
mod passage;
pub(crate) mod tcp;
mod tunnel;
mod udp;

pub(crate) use destination::{Chosen, choose};
pub(crate) use passage::Passage;
pub(crate) use udp::Receiver;
