//! Connections whose bytes are forwarded unchanged: TCPRoute, and TLSRoute in both modes.
//!
//! The gateway connects to the backend at once, because the backend may speak first. From then on
//! the connection is a tunnel: it ends when both ends have ended, when no byte has moved for the
//! tunnel timeout, or with the process at the end of a drain. A reload does not affect it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::downstream::{BindCounts, ClientStream, Ending, OpenExchange, Registration, Watch};
use crate::failure::Failure;
use crate::proxy_protocol::Addresses;
use crate::stats::Tunnel;
use crate::streams::destination::Destination;
use crate::streams::stream_record::StreamRecord;
use crate::streams::tunnel::{TunnelBroken, carry};
use crate::upstream::{self, KeepAlive};

/// An accepted connection that is to be forwarded: its record, its registration, and the guard that
/// counts it as in use.
#[derive(Debug)]
pub(crate) struct AcceptedStream {
    pub tunnel: Tunnel,
    pub record: StreamRecord,
    pub open: OpenExchange,
    pub watch: Arc<Watch>,
    /// The address that the client connected to.
    pub local: SocketAddr,
    /// The connection has keep-alive probes already, with settings of a policy.
    pub keeps_alive: bool,
    pub counts: BindCounts,
    pub registration: Registration,
}

/// Forwards a connection until it ends.
pub(crate) async fn serve<S: ClientStream>(
    accepted: AcceptedStream,
    destination: Destination,
    mut client: S,
) {
    // They are dropped in this order, so that the log line is written while the connection is still
    // registered.
    let AcceptedStream {
        tunnel,
        mut record,
        open: _open,
        watch,
        local,
        keeps_alive,
        counts: of_bind,
        registration,
    } = accepted;
    let Destination { cluster, fallback, counts, aim } = destination;
    if !keeps_alive {
        KeepAlive::default().apply(client.socket());
    }
    let header = cluster.settings().proxy_protocol;
    let proxied = header.map(|_| Addresses { source: watch.peer, destination: local });
    let (holder, proxied) = (registration.client(), proxied.as_ref());
    let opened = tokio::select! {
        opened = async {
            let upstream = &mut record.upstream;
            match (cluster.open(&aim, holder, proxied, &counts, upstream).await, &fallback) {
                (Err(failed), Some(fallback)) if !failed.kind.is_ours() => {
                    fallback.open(&aim, holder, proxied, &counts, upstream).await
                }
                (opened, _) => opened,
            }
        } => opened,
        _ = ending(&watch) => {
            record.failure = Some(Failure::DrainTimeout);
            return upstream::cut(client.socket());
        }
    };
    // A tunnel may outlive the configuration that it was created from.
    drop((cluster, fallback));
    let mut backend = match opened {
        Ok(backend) => backend,
        Err(failed) => {
            record.not_connected(failed);
            return upstream::cut(client.socket());
        }
    };
    record.connected();
    let limit = watch.limits().tunnel_timeout;
    let carried = Arc::clone(&record.carried);
    let up = |length| {
        carried.up.fetch_add(length, Ordering::Relaxed);
        of_bind.here().tunnels(tunnel).received_bytes.add(length);
    };
    let down = |length| {
        carried.down.fetch_add(length, Ordering::Relaxed);
        of_bind.here().tunnels(tunnel).sent_bytes.add(length);
    };
    let ended = tokio::select! {
        ended = carry(&mut client, &mut backend, limit, up, down) => ended.map_err(Some),
        _ = ending(&watch) => Err(None),
    };
    let Err(broken) = ended else { return };
    if let Some(error) = &broken {
        tracing::debug!(%error, peer = %watch.peer, "tunnel ended");
    }
    record.failure = Some(match broken {
        None => Failure::DrainTimeout,
        Some(TunnelBroken::Backend(_)) => Failure::UpstreamReset,
        Some(TunnelBroken::Client(_)) => Failure::ClientGone,
        Some(TunnelBroken::Silent) => {
            of_bind.here().tunnels(tunnel).idle_timeouts.one_more();
            Failure::TunnelIdle
        }
    });
    // If one side was reset, the other side must see a reset too, not an orderly end.
    upstream::cut(client.socket());
    backend.cut();
}

/// Resolves when the connection must end, even if its two sides have not ended.
async fn ending(watch: &Watch) -> Ending {
    watch.ending(Some(Ending::Gracefully)).await
}
