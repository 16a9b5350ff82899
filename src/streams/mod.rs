//! Byte streams and datagrams that are forwarded unchanged: TCPRoute, TLSRoute and UDPRoute.

mod destination;
mod stream_record;
pub(crate) mod tcp;
mod tunnel;
mod udp;

pub(crate) use destination::{Destination, choose_destination};
pub(crate) use stream_record::StreamRecord;
pub(crate) use udp::Receiver;
