//! A connection whose bytes go to a backend as they are: TCPRoute, and TLSRoute in both modes.
//!
//! The backend is connected to at once, since it may be the one that speaks first. From then on the
//! connection is a tunnel: it ends when both ends have ended, when nothing has moved for the tunnel
//! timeout, or with the process at the end of a drain. A reload leaves it alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::proxy::connection::Counted;
use crate::proxy::connections::Place;
use crate::proxy::failure::Failure;
use crate::proxy::io::Client;
use crate::proxy::passage::Passage;
use crate::proxy::tunnel::{Broken, carry};
use crate::proxy::watch::{Ending, Open, Watch};
use crate::snapshot::{Choice, Forward};
use crate::stats::{Sharded, Tunnel, Upstream};
use crate::upstream::{self, Cluster};

/// Where a connection goes, and on whose account.
#[derive(Debug)]
pub(super) struct Chosen {
    pub cluster: Arc<Cluster>,
    pub counts: Arc<Sharded<Upstream>>,
}

/// Chooses where a connection goes, once for all of it.
///
/// # Errors
///
/// Nowhere. It is closed without a word, which is all that there is to say.
pub(super) fn choose(
    forward: Option<&Arc<Forward>>,
    passage: &mut Passage,
) -> Result<Chosen, Failure> {
    let forward = forward.ok_or(Failure::NoRoute)?;
    forward.counts.here().hits.one_more();
    passage.route = Some(Arc::clone(&forward.name));
    match forward.backends.as_ref().ok_or(Failure::NoBackend)?.next() {
        Choice::Cluster { cluster, .. } => {
            let counts = Arc::clone(&forward.counts);
            Ok(Chosen { cluster: Arc::clone(cluster), counts })
        }
        Choice::Invalid => Err(Failure::BackendInvalid),
    }
}

/// A connection on its way: its place among the others, and the word that it is in use.
#[derive(Debug)]
pub(super) struct Held {
    pub tunnel: Tunnel,
    pub passage: Passage,
    pub open: Open,
    pub watch: Arc<Watch>,
    pub counts: Counted,
    pub place: Place,
}

/// Carries a connection to its end.
pub(super) async fn serve<S: Client>(held: Held, chosen: Chosen, mut client: S) {
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
    let limit = passage.limit();
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
