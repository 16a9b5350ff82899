//! A connection whose bytes go to a backend as they are: TCPRoute, and TLSRoute in both modes.
//!
//! The backend is connected to at once, since it may be the one that speaks first. From then on the
//! connection is a tunnel: it ends when both ends have ended, when nothing has moved for the tunnel
//! timeout, or with the process at the end of a drain. A reload leaves it alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::downstream::{ClientStream, Counted, Ending, Open, Place, Watch};
use crate::failure::Failure;
use crate::stats::Tunnel;
use crate::streams::destination::Chosen;
use crate::streams::passage::Passage;
use crate::streams::tunnel::{Broken, carry};
use crate::upstream;

/// A connection on its way: its place among the others, and the word that it is in use.
#[derive(Debug)]
pub(crate) struct Held {
    pub tunnel: Tunnel,
    pub passage: Passage,
    pub open: Open,
    pub watch: Arc<Watch>,
    pub counts: Counted,
    pub place: Place,
}

/// Carries a connection to its end.
pub(crate) async fn serve<S: ClientStream>(held: Held, chosen: Chosen, mut client: S) {
    // In this order they are dropped: the line is written while the connection has its place.
    let Held { tunnel, mut passage, open: _open, watch, counts: of_bind, place } = held;
    let Chosen { cluster, counts } = chosen;
    upstream::keep_alive(client.socket());
    let opened = tokio::select! {
        opened = cluster.open(place.client(), &counts, &mut passage.upstream) => opened,
        _ = ending(&watch) => {
            passage.failure = Some(Failure::DrainTimeout);
            return upstream::cut(client.socket());
        }
    };
    // A tunnel may outlive the configuration that it came from.
    drop(cluster);
    let mut backend = match opened {
        Ok(backend) => backend,
        Err(failed) => {
            passage.not_connected(failed);
            return upstream::cut(client.socket());
        }
    };
    passage.connected();
    backend.keep_alive();
    let limit = watch.limits().tunnel_timeout;
    let carried = Arc::clone(&passage.carried);
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
    passage.failure = Some(match broken {
        None => Failure::DrainTimeout,
        Some(Broken::Backend(_)) => Failure::UpstreamReset,
        Some(Broken::Client(_)) => Failure::ClientGone,
        Some(Broken::Silent) => {
            of_bind.here().tunnels(tunnel).idle_timeouts.one_more();
            Failure::TunnelIdle
        }
    });
    // A cut on one side is none of the other's making, and must look like one there too.
    upstream::cut(client.socket());
    backend.cut();
}

/// Resolves when the connection may not go on to its own end.
async fn ending(watch: &Watch) -> Ending {
    watch.ending(Some(Ending::Gracefully)).await
}
