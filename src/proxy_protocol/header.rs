//! The header of a connection: the addresses that it names, and how it is written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The two ends of a connection of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// The address that the client connected to.
    pub destination: SocketAddr,
}

/// The version of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    V1,
    V2,
}

/// How a header of version 2 begins.
pub(super) const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

pub(super) const LOCAL: u8 = 0x20;
pub(super) const PROXY: u8 = 0x21;
pub(super) const TCP4: u8 = 0x11;
pub(super) const TCP6: u8 = 0x21;

impl Version {
    /// Returns the header of a connection for a client, or of one for no client: command LOCAL, or
    /// protocol UNKNOWN.
    pub(crate) fn header(self, addresses: Option<&Addresses>) -> Vec<u8> {
        let ends = addresses.map(Addresses::of_one_family);
        match self {
            Self::V1 => v1(ends).into_bytes(),
            Self::V2 => v2(ends),
        }
    }
}

/// Source and destination of the same family.
#[derive(Clone, Copy)]
enum Ends {
    V4([Ipv4Addr; 2], [u16; 2]),
    V6([Ipv6Addr; 2], [u16; 2]),
}

impl Addresses {
    /// An IPv4 address beside an IPv6 address is written as an IPv6 address, because a header has
    /// one family.
    fn of_one_family(&self) -> Ends {
        let ports = [self.source.port(), self.destination.port()];
        match [self.source, self.destination].map(|end| end.ip().to_canonical()) {
            [IpAddr::V4(source), IpAddr::V4(destination)] => Ends::V4([source, destination], ports),
            mixed => Ends::V6(mixed.map(mapped), ports),
        }
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn v1(ends: Option<Ends>) -> String {
    match ends {
        None => "PROXY UNKNOWN\r\n".into(),
        Some(Ends::V4([from, to], [port, at])) => format!("PROXY TCP4 {from} {to} {port} {at}\r\n"),
        Some(Ends::V6([from, to], [port, at])) => format!("PROXY TCP6 {from} {to} {port} {at}\r\n"),
    }
}

fn v2(ends: Option<Ends>) -> Vec<u8> {
    let (kind, addresses, ports) = match ends {
        None => return [&V2[..], &[LOCAL, 0, 0, 0]].concat(),
        Some(Ends::V4(of, ports)) => (TCP4, of.map(|end| end.octets()).concat(), ports),
        Some(Ends::V6(of, ports)) => (TCP6, of.map(|end| end.octets()).concat(), ports),
    };
    // 12 or 36.
    let length = u8::try_from(addresses.len() + 4).unwrap_or(u8::MAX);
    let ports = ports.map(u16::to_be_bytes).concat();
    [&V2[..], &[PROXY, kind, 0, length], &addresses, &ports].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_written_as_the_specification_has_it() {
        // (source, destination, version 1, length of version 2)
        let table = [
            (
                "192.0.2.1:56324",
                "192.0.2.2:443",
                "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n",
                28,
            ),
            ("[2001:db8::1]:5", "[::1]:80", "PROXY TCP6 2001:db8::1 ::1 5 80\r\n", 52),
            (
                "192.0.2.1:7",
                "[2001:db8::2]:8",
                "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 7 8\r\n",
                52,
            ),
            ("[::ffff:192.0.2.1]:7", "192.0.2.9:8", "PROXY TCP4 192.0.2.1 192.0.2.9 7 8\r\n", 28),
        ];
        for (source, destination, line, length) in table {
            let [source, destination] = [source, destination].map(|end| end.parse().unwrap());
            let of = Addresses { source, destination };
            let v1 = Version::V1.header(Some(&of));
            assert_eq!(String::from_utf8(v1).unwrap(), line);
            assert_eq!(Version::V2.header(Some(&of)).len(), length, "{of:?}");
        }
        let of = Addresses {
            source: ([192, 0, 2, 1], 258).into(),
            destination: ([192, 0, 2, 2], 80).into(),
        };
        let v2 = Version::V2.header(Some(&of));
        assert_eq!(v2[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
        assert_eq!(v2[16..], [192, 0, 2, 1, 192, 0, 2, 2, 1, 2, 0, 80]);
        assert_eq!(Version::V1.header(None), b"PROXY UNKNOWN\r\n");
        assert_eq!(Version::V2.header(None), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    }
}
