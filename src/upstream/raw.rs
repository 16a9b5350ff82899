//! Backends without HTTP: a byte stream for each connection, a socket for each flow of datagrams.
//!
//! Endpoints are chosen as for requests: round robin, with names looked up while in use, and with
//! unavailable addresses last.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::socket::{MsgFlags, recv};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::clock;
use crate::proxy_protocol::Addresses;
use crate::stats::{Sharded, Upstream};
use crate::tls::Alpn;
use crate::upstream::address::{Address, EndpointName};
use crate::upstream::balance::{Aim, Candidates};
use crate::upstream::breaker::Permit;
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::{Stream, connect};
use crate::upstream::descriptors::{Holder, Share};
use crate::upstream::failure::{FailureKind, SendFailure};
use crate::upstream::holding::Holding;
use crate::upstream::host::Host;

/// A socket that exchanges datagrams with one endpoint only.
#[derive(Debug)]
pub(crate) struct Datagrams {
    socket: UdpSocket,
    host: Arc<Host>,
    /// The counters of the route.
    counts: Arc<Sharded<Upstream>>,
    _holding: Holding,
    _permit: Permit,
}

impl Datagrams {
    pub(crate) fn endpoint(&self) -> EndpointName {
        self.host.address().clone().into()
    }

    /// Sends a datagram without waiting for buffer space.
    ///
    /// # Errors
    ///
    /// Those of send(2). `ConnectionRefused`: an earlier datagram found no listening socket at the
    /// endpoint.
    pub(crate) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        SockRef::from(&self.socket).send(datagram)?;
        self.counts.here().sent_datagrams.one_more();
        self.counts.here().sent_bytes.add(datagram.len() as u64);
        Ok(())
    }

    /// Resolves when there may be something to receive.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        // A refusal is an error of the socket, without readable data.
        self.socket.ready(Interest::READABLE | Interest::ERROR).await.map(|_| ())
    }

    /// Receives the next datagram of the endpoint.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none; otherwise see [`send`](Self::send).
    pub(crate) fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut receive = || Ok(recv(self.socket.as_raw_fd(), into, MsgFlags::MSG_DONTWAIT)?);
        // `try_io` of tokio accepts one interest at a time, and does nothing for two combined.
        let length = match self.socket.try_io(Interest::READABLE, &mut receive) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.socket.try_io(Interest::ERROR, receive)?
            }
            other => other?,
        };
        self.counts.here().received_datagrams.one_more();
        self.counts.here().received_bytes.add(length as u64);
        Ok(length)
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.counts.here().open.one_less();
    }
}

/// Returns a socket with an ephemeral port that is connected to `to`: the kernel drops datagrams of
/// other senders.
async fn bound(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(to).await?;
    Ok(socket)
}

fn share(client: Option<Holder>) -> Result<Option<Share>, SendFailure> {
    client.map(|client| client.take().ok_or_else(SendFailure::client_share)).transpose()
}

impl Cluster {
    /// Opens a socket for a flow of datagrams to an endpoint, with the `counts` of a route. This
    /// sends nothing, so it does not detect an unreachable endpoint; see
    /// [`refused`](Self::refused).
    ///
    /// # Errors
    ///
    /// There is no endpoint, no room for a flow, or no socket.
    pub(crate) async fn datagrams(
        &self,
        aim: &Aim,
        client: Option<Holder>,
        counts: &Arc<Sharded<Upstream>>,
    ) -> Result<Datagrams, SendFailure> {
        let share = share(client)?;
        let permit = self.breaker().permit_now(counts)?;
        let mut candidates = Candidates::new(self, aim);
        while let Some(candidate) = candidates.next(&mut None).await {
            let Address::Ip(address) = *candidate.address() else {
                let problem = "datagrams cannot go to a Unix stream socket";
                let failure = SendFailure::new(FailureKind::NoEndpoint, problem);
                candidates.unfit(failure.at(candidate.address().clone()));
                continue;
            };
            match bound(address).await {
                Ok(socket) => {
                    let counts = Arc::clone(counts);
                    counts.here().connects.one_more();
                    counts.here().open.one_more();
                    let host = Arc::clone(candidate.host());
                    let holding = Holding { share, active: candidates.begin() };
                    return Ok(Datagrams {
                        socket,
                        host,
                        counts,
                        _holding: holding,
                        _permit: permit,
                    });
                }
                Err(error) => {
                    candidates.unfit(SendFailure::unconnected(&error).at(Address::Ip(address)));
                }
            }
        }
        Err(candidates.failure())
    }

    /// Records that an endpoint refused a datagram (no socket listens there): it comes last for a
    /// while.
    pub(crate) fn refused(&self, flow: &Datagrams) {
        flow.counts.here().connect_failures.one_more();
        flow.host.missed(FailureKind::ConnectRefused, clock::now());
    }

    /// Returns true if the endpoint belongs to this cluster, as far as its names are resolved.
    pub(crate) fn has(&self, flow: &Datagrams) -> bool {
        self.hosts().iter().any(|host| host.address() == flow.host.address())
    }

    /// Opens a byte stream to an endpoint for a client, with the `counts` of a route; `proxied` is the
    /// connection of the client, if the cluster sends PROXY headers. `tried` always holds the
    /// endpoint that was tried last.
    ///
    /// # Errors
    ///
    /// No endpoint accepted the connection, each tried once; the failure is that of the last. Or
    /// there is no room for a connection: byte streams do not wait for it.
    pub(crate) async fn open(
        &self,
        aim: &Aim,
        client: Option<Holder>,
        proxied: Option<&Addresses>,
        counts: &Arc<Sharded<Upstream>>,
        tried: &mut Option<EndpointName>,
    ) -> Result<Stream, SendFailure> {
        let share = share(client)?;
        let mut candidates = Candidates::new(self, aim);
        while let Some(candidate) = candidates.next(tried).await {
            let active = candidates.begin();
            let permit = self.breaker().permit_now(counts)?;
            let (address, alpn) = (candidate.address(), Alpn::Unspoken);
            match connect(self, address, alpn, proxied, counts, permit).await {
                Ok(mut stream) => {
                    candidate.host().opened();
                    drop(stream.hold(Holding { share, active }));
                    stream.keep_alive(self.settings().keep_alive);
                    return Ok(stream);
                }
                Err(refused) if refused.kind.is_ours() => return Err(refused),
                Err(refused) => candidates.missed(refused),
            }
        }
        Err(candidates.failure())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use crate::upstream::testing::cluster;

    use super::*;

    #[tokio::test]
    async fn a_stream_goes_to_the_next_endpoint_if_one_does_not_take_it() {
        let there = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, nobody) = (there.local_addr().unwrap(), gone.local_addr().unwrap());
        drop(gone);
        let cluster = cluster(&[nobody, address]);

        let mut tried = None;
        let mut stream =
            cluster.open(&Aim::default(), None, None, cluster.counts(), &mut tried).await.unwrap();
        assert_eq!(tried.unwrap().to_string(), address.to_string());
        let (mut accepted, _) = there.accept().await.unwrap();
        accepted.write_all(b"first").await.unwrap();
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"first");

        drop(there);
        let failed = cluster
            .open(&Aim::default(), None, None, cluster.counts(), &mut None)
            .await
            .unwrap_err();
        assert_eq!(failed.kind, FailureKind::ConnectRefused);
    }

    #[tokio::test]
    async fn a_flow_hears_its_endpoint_and_nobody_else() {
        let backend = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = backend.local_addr().unwrap();
        let cluster = cluster(&[address]);
        let flow = cluster.datagrams(&Aim::default(), None, cluster.counts()).await.unwrap();
        assert_eq!(flow.endpoint().to_string(), address.to_string());
        flow.send(b"ask").unwrap();
        let mut read = [0; 16];
        let (length, from) = backend.recv_from(&mut read).await.unwrap();
        assert_eq!(&read[..length], b"ask");
        stranger.send_to(b"forged", from).await.unwrap();
        backend.send_to(b"answer", from).await.unwrap();
        flow.readable().await.unwrap();
        let length = flow.receive(&mut read).unwrap();
        assert_eq!(&read[..length], b"answer");
        assert_eq!(flow.receive(&mut read).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn an_endpoint_that_refuses_datagrams_comes_last_for_a_while() {
        let there = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (address, nobody) = (there.local_addr().unwrap(), gone.local_addr().unwrap());
        drop(gone);
        let cluster = cluster(&[nobody, address]);
        let flow = cluster.datagrams(&Aim::default(), None, cluster.counts()).await.unwrap();
        assert_eq!(flow.endpoint(), Address::Ip(nobody).into());
        flow.send(b"ask").unwrap();
        flow.readable().await.unwrap();
        let refused = flow.receive(&mut [0; 16]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        cluster.refused(&flow);
        for _ in 0..3 {
            let flow = cluster.datagrams(&Aim::default(), None, cluster.counts()).await.unwrap();
            assert_eq!(flow.endpoint(), Address::Ip(address).into());
        }
    }
}
