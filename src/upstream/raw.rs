//! Backends without HTTP: a stream for a connection.
//!
//! Endpoints are chosen as for requests: in turn, names looked up while in use, what did not take a
//! connection lately last.

use std::sync::Arc;

use crate::clock;
use crate::stats::{Sharded, Upstream};
use crate::tls::Alpn;
use crate::upstream::balance::{Aim, Candidates};
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::{Stream, connect};
use crate::upstream::endpoint::EndpointName;
use crate::upstream::failure::{FailureKind, SendFailure};

impl Cluster {
    /// Opens a stream to an endpoint, on the account of a route's `counts`. `tried` tells at any time
    /// which one was tried last.
    ///
    /// # Errors
    ///
    /// No endpoint took the connection, each tried once; the failure is that of the last.
    pub(crate) async fn open(
        &self,
        counts: &Arc<Sharded<Upstream>>,
        tried: &mut Option<EndpointName>,
    ) -> Result<Stream, SendFailure> {
        let aim = Aim::default();
        let mut candidates = Candidates::new(self, &aim);
        let mut failure = SendFailure::new(FailureKind::NoEndpoint, "the cluster has no endpoint");
        while let Some(candidate) = candidates.next().await {
            let address = match candidate {
                Ok(address) => address,
                Err(unresolved) => {
                    failure = unresolved;
                    continue;
                }
            };
            *tried = Some(address.clone().into());
            match connect(self, &address, Alpn::Unspoken, counts).await {
                Ok(stream) => return Ok(stream),
                Err(refused) => {
                    self.avoided().add(address, refused.kind, clock::now());
                    failure = refused;
                }
            }
        }
        Err(failure)
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
        let mut stream = cluster.open(cluster.counts(), &mut tried).await.unwrap();
        assert_eq!(tried.unwrap().to_string(), address.to_string());
        let (mut accepted, _) = there.accept().await.unwrap();
        accepted.write_all(b"first").await.unwrap();
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"first");

        drop(there);
        let failed = cluster.open(cluster.counts(), &mut None).await.unwrap_err();
        assert_eq!(failed.kind, FailureKind::ConnectRefused);
    }
}
