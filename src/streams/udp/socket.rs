//! The socket for clients' datagrams: it replies from the address that the client sent to.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmsg, sendmsg, setsockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Size of the largest datagram, in bytes.
pub(super) const LARGEST: usize = 64 << 10;

/// The key of a flow: the peer that sends the datagrams, and the local address that it sends them
/// to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlowKey {
    pub peer: SocketAddr,
    /// Known if the socket is bound to the wildcard address.
    pub local: Option<IpAddr>,
}

/// A socket for datagrams from and to clients.
#[derive(Debug)]
pub(super) struct DatagramSocket {
    inner: UdpSocket,
    /// Bound to the wildcard address, so that each reply must specify its source address.
    wild: bool,
}

impl DatagramSocket {
    /// # Errors
    ///
    /// Fails if the socket cannot be registered with the runtime, or does not support reporting the
    /// destination address of datagrams.
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let wild = address.ip().is_unspecified();
        match address {
            SocketAddr::V4(_) if wild => setsockopt(&socket, Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) if wild => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
            _ => {}
        }
        Ok(Self { inner: UdpSocket::from_std(socket)?, wild })
    }

    /// Resolves when the socket may have a datagram to receive.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.inner.readable().await
    }

    /// Receives the next datagram into `into`, which has room for the largest one; a longer one
    /// would be truncated.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if no datagram is available; other errors of recvmsg(2).
    pub(super) fn receive(&self, into: &mut [u8]) -> io::Result<(usize, FlowKey)> {
        self.inner.try_io(Interest::READABLE, || {
            let mut buffers = [IoSliceMut::new(into)];
            let mut room = if self.wild { cmsg_space!(in6_pktinfo) } else { Vec::new() };
            let received = recvmsg::<SockaddrStorage>(
                self.inner.as_raw_fd(),
                &mut buffers,
                self.wild.then_some(&mut room[..]),
                MsgFlags::MSG_DONTWAIT,
            )?;
            let peer = received.address.as_ref().and_then(socket_addr);
            let peer = peer.ok_or(io::ErrorKind::InvalidData)?;
            let mut local = None;
            if self.wild {
                for message in received.cmsgs()? {
                    local = match message {
                        ControlMessageOwned::Ipv4PacketInfo(info) => {
                            Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into())
                        }
                        ControlMessageOwned::Ipv6PacketInfo(info) => {
                            Some(IpAddr::from(info.ipi6_addr.s6_addr))
                        }
                        _ => local,
                    };
                }
            }
            Ok((received.bytes, FlowKey { peer, local }))
        })
    }

    /// Sends a datagram to the peer, from the address that the peer sent to. Does not wait for
    /// buffer space.
    ///
    /// # Errors
    ///
    /// Errors of sendmsg(2).
    pub(super) fn send(&self, datagram: &[u8], to: FlowKey) -> io::Result<()> {
        let fd = self.inner.as_raw_fd();
        let datagram = [IoSlice::new(datagram)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let (v4, v6);
        let from = match to.local {
            None => None,
            Some(IpAddr::V4(local)) => {
                let local = in_addr { s_addr: u32::from_ne_bytes(local.octets()) };
                v4 = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: local, ipi_addr: local };
                Some(ControlMessage::Ipv4PacketInfo(&v4))
            }
            Some(IpAddr::V6(local)) => {
                let local = in6_addr { s6_addr: local.octets() };
                v6 = in6_pktinfo { ipi6_addr: local, ipi6_ifindex: 0 };
                Some(ControlMessage::Ipv6PacketInfo(&v6))
            }
        };
        match to.peer {
            SocketAddr::V4(peer) => {
                sendmsg(fd, &datagram, from.as_slice(), flags, Some(&SockaddrIn::from(peer)))?
            }
            SocketAddr::V6(peer) => {
                sendmsg(fd, &datagram, from.as_slice(), flags, Some(&SockaddrIn6::from(peer)))?
            }
        };
        Ok(())
    }
}

fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(socket: &DatagramSocket, into: &mut [u8]) -> (usize, FlowKey) {
        loop {
            socket.readable().await.unwrap();
            match socket.receive(into) {
                Ok(received) => return received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A host replies from the one of its addresses that was contacted: a client drops replies from
    /// another.
    #[tokio::test]
    async fn an_answer_comes_from_the_address_that_was_asked() {
        // (bound to, contacted at)
        let table = [
            ("127.0.0.1:0", "127.0.0.1"),
            ("0.0.0.0:0", "127.0.0.1"),
            ("0.0.0.0:0", "127.9.8.7"),
            ("[::]:0", "127.9.8.7"),
            ("[::]:0", "::1"),
        ];
        for (bound, asked) in table {
            let asked: IpAddr = asked.parse().unwrap();
            let Ok(socket) = std::net::UdpSocket::bind(bound) else {
                assert!(bound.starts_with('['), "{bound}: only IPv6 may be missing");
                continue;
            };
            socket.set_nonblocking(true).unwrap();
            let port = socket.local_addr().unwrap().port();
            let socket = DatagramSocket::new(socket).unwrap();
            let any = if asked.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let client = UdpSocket::bind(any).await.unwrap();
            client.connect((asked, port)).await.unwrap();
            client.send(b"ask").await.unwrap();
            let mut read = [0; 16];
            let (length, ends) = next(&socket, &mut read).await;
            assert_eq!(&read[..length], b"ask");
            assert_eq!(ends.peer.port(), client.local_addr().unwrap().port());
            let local = ends.local.map(|local| local.to_canonical());
            assert_eq!(local, (bound != "127.0.0.1:0").then_some(asked), "{bound} {asked}");
            socket.send(b"answer", ends).unwrap();
            let heard = client.recv(&mut read);
            let heard = tokio::time::timeout(std::time::Duration::from_secs(5), heard).await;
            assert_eq!(&read[..heard.unwrap().unwrap()], b"answer", "{bound} {asked}");
        }
    }
}
