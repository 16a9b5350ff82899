//! The datagram receiver of one socket, and its flows: UDPRoute.
//!
//! Only one worker receives from a socket, so it owns all flows of the socket without a lock. A
//! flow is the datagrams from one peer to one local address. Its first datagram selects its
//! backend. The flow has a socket that is connected to the backend, and it ends when no datagram
//! has moved for the idle timeout. A peer receives only what the backend of its flow has sent.
//!
//! The sender of a datagram can be forged, so anyone can create flows at no cost. Their number is
//! limited, and at the limit, flows whose backend never answered end first.

mod flow;
mod life;
mod socket;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::clock::coarse_now;
use crate::downstream::{PeerNetwork, Process};
use crate::failure::Failure;
use crate::net::canonical;
use crate::snapshot::{Bind, BindKey, Choice, Snapshot, Transport};
use crate::stats::{Downstream, Sharded};
use crate::streams::destination::choose_destination;
use crate::streams::stream_record::StreamRecord;
use crate::streams::udp::flow::{DatagramFlow, DatagramOutcome};
use crate::streams::udp::life::least_worth;
use crate::streams::udp::socket::{DatagramSocket, FlowKey, LARGEST};

/// Number of datagrams that are received before other tasks are scheduled.
const BATCH: usize = 64;

/// Interval between two sweeps over the flows.
const SWEEP: Duration = Duration::from_millis(200);

/// Idle timeout of a flow while the process drains: the peer's datagrams go to the next process, so
/// only the last datagrams of the backend are still to arrive.
const FAREWELL: Duration = Duration::from_secs(5);

/// The task that receives from one socket.
#[derive(Debug)]
pub(crate) struct Receiver {
    state: Arc<ReceiverState>,
    /// Dropping it ends the flows.
    _task: JoinSet<()>,
}

#[derive(Debug, Default)]
struct ReceiverState {
    draining: AtomicBool,
    drain: Notify,
    flows: AtomicUsize,
}

impl Receiver {
    /// Starts to receive.
    ///
    /// # Errors
    ///
    /// Fails if the socket cannot be registered with the runtime.
    pub(crate) fn start(
        process: &Arc<Process>,
        socket: std::net::UdpSocket,
        bind: BindKey,
    ) -> io::Result<Self> {
        let state = Arc::new(ReceiverState::default());
        let table = FlowTable {
            process: Arc::clone(process),
            bind,
            socket: Arc::new(DatagramSocket::new(socket)?),
            state: Arc::clone(&state),
            flows: HashMap::new(),
            generation: None,
            room: 1,
            idle_timeout: Duration::MAX,
            counts: Arc::default(),
        };
        let mut task = JoinSet::new();
        task.spawn(receive(table));
        Ok(Self { state, _task: task })
    }

    /// Stops receiving. Datagrams that backends still send are passed on.
    pub(crate) fn drain(&self) {
        self.state.draining.store(true, Ordering::Relaxed);
        self.state.drain.notify_one();
    }

    /// Returns true if no flow is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.flows.load(Ordering::Relaxed) == 0
    }
}

async fn receive(mut table: FlowTable) {
    let mut read = vec![0; LARGEST];
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (socket, state) = (Arc::clone(&table.socket), Arc::clone(&table.state));
        let draining = state.draining.load(Ordering::Relaxed);
        tokio::select! {
            biased;
            () = state.drain.notified() => {}
            _ = sweep.tick() => table.sweep(),
            ready = socket.readable(), if !draining => match ready {
                Ok(()) => {
                    table.receive(&mut read);
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    tracing::error!(%error, "socket cannot be received from");
                    return;
                }
            },
        }
    }
}

/// The flows of one socket.
#[derive(Debug)]
struct FlowTable {
    process: Arc<Process>,
    bind: BindKey,
    socket: Arc<DatagramSocket>,
    state: Arc<ReceiverState>,
    flows: HashMap<FlowKey, DatagramFlow>,
    /// The generation of the snapshot that the flows and the fields below follow.
    generation: Option<u64>,
    /// Maximum number of flows.
    room: usize,
    /// Idle timeout of a flow, by the limits of the listener.
    idle_timeout: Duration,
    counts: Arc<Sharded<Downstream>>,
}

impl FlowTable {
    /// Processes the received datagrams, up to [`BATCH`] of them.
    fn receive(&mut self, read: &mut [u8]) {
        let snapshot = self.process.snapshot.load();
        self.follow(&snapshot);
        for _ in 0..BATCH {
            match self.socket.receive(read) {
                Ok((length, ends)) => {
                    if self.take(&snapshot, ends, &read[..length]) {
                        // The task of the flow has yet to connect to the backend. Among many new
                        // flows, the next one might evict it before its first datagram has been
                        // sent.
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => tracing::debug!(%error, "datagram lost"),
            }
        }
        self.state.flows.store(self.flows.len(), Ordering::Relaxed);
    }

    /// Passes a datagram to its flow. Returns true if it is the first one of a flow.
    fn take(&mut self, snapshot: &Snapshot, ends: FlowKey, datagram: &[u8]) -> bool {
        let counts = &self.counts.here().datagrams;
        counts.received.one_more();
        counts.received_bytes.add(datagram.len() as u64);
        if let Some(flow) = self.flows.get(&ends) {
            if flow.take(datagram, coarse_now()) == DatagramOutcome::Accepted {
                return false;
            }
            // The backend has refused the flow. This datagram is not lost: a new flow may go to
            // another backend.
            self.flows.remove(&ends);
        }
        self.make_room();
        let Some(served) = snapshot.bind(self.bind) else { return false };
        let flow = self.begin(served, ends);
        flow.take(datagram, coarse_now());
        self.flows.insert(ends, flow);
        true
    }

    fn begin(&self, served: &Bind, ends: FlowKey) -> DatagramFlow {
        let peer = canonical(ends.peer);
        let mut record = StreamRecord::begin(Arc::clone(&self.process), peer, "UDP");
        let forwards = served.forwards();
        if let Some((listener, _)) = forwards {
            record.by(listener);
        }
        let forward = forwards.and_then(|(_, forwards)| forwards.best(""));
        match choose_destination(forward, &mut record) {
            Ok(destination) => {
                let socket = Arc::clone(&self.socket);
                let Process { descriptors, trusted_proxies, .. } = &*self.process;
                let is_proxy = trusted_proxies.iter().any(|of| of.contains(peer.ip()));
                let client = (!is_proxy).then(|| descriptors.client(PeerNetwork::of(peer.ip())));
                DatagramFlow::to(
                    destination,
                    client,
                    record,
                    socket,
                    ends,
                    Arc::clone(&self.counts),
                )
            }
            Err(failure) => {
                record.failure = Some(failure);
                DatagramFlow::nowhere(record, Arc::clone(&self.counts))
            }
        }
    }

    fn make_room(&mut self) {
        let flows = self.flows.iter().map(|(ends, flow)| (*ends, flow.life()));
        for ends in least_worth(flows, self.room) {
            if let Some(flow) = self.flows.remove(&ends) {
                flow.failed(Failure::Overloaded);
                self.counts.here().datagrams.evicted.one_more();
            }
        }
    }

    /// Switches to the current snapshot. Flows whose backend is no longer one of the listener's
    /// end; the others continue.
    fn follow(&mut self, snapshot: &Snapshot) {
        if self.generation == Some(snapshot.generation) {
            return;
        }
        self.generation = Some(snapshot.generation);
        let binds = snapshot.binds.iter().filter(|bind| bind.key.transport == Transport::Udp);
        let limits = &self.process.limits;
        self.room = (limits.udp_flows / binds.count().max(1)).max(1);
        let Some(served) = snapshot.bind(self.bind) else { return };
        self.counts = Arc::clone(&served.counts);
        self.idle_timeout = served.limits.udp_idle_timeout;
        let forward = served.forwards().and_then(|(_, forwards)| forwards.best(""));
        let backends = forward.and_then(|forward| forward.backends.as_ref());
        // Beyond this limit a new flow would be refused, so a flow that is worth less is evicted.
        let clusters = backends.map_or(0, |backends| backends.weighted().count()).max(1);
        self.room = self.room.min(limits.backend.connections.saturating_mul(clusters));
        self.flows.retain(|_, flow| {
            let mut choices = backends.iter().flat_map(|backends| backends.weighted());
            choices.any(|(_, choice)| match choice {
                Choice::Cluster { cluster, .. } => flow.is_to(cluster),
                Choice::Invalid => false,
            })
        });
    }

    /// Ends the flows that have been idle for too long.
    fn sweep(&mut self) {
        let snapshot = self.process.snapshot.load();
        self.follow(&snapshot);
        let mut limit = self.idle_timeout;
        if self.state.draining.load(Ordering::Relaxed) {
            limit = limit.min(FAREWELL);
        }
        let now = coarse_now();
        self.flows.retain(|_, flow| !flow.life().is_over(now, limit));
        self.state.flows.store(self.flows.len(), Ordering::Relaxed);
    }
}

impl Drop for FlowTable {
    fn drop(&mut self) {
        if self.state.draining.load(Ordering::Relaxed) {
            for flow in self.flows.values() {
                flow.failed(Failure::DrainTimeout);
            }
        }
    }
}
