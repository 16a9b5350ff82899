//! A datagram flow: passes a peer's datagrams to a backend, and the backend's to the peer.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::task::JoinSet;

use crate::clock::coarse_now;
use crate::downstream::{CarriedBytes, Millis};
use crate::failure::Failure;
use crate::stats::{Downstream, Sharded};
use crate::streams::destination::Destination;
use crate::streams::stream_record::StreamRecord;
use crate::streams::udp::life::Life;
use crate::streams::udp::socket::{DatagramSocket, FlowKey, LARGEST};
use crate::upstream::{Cluster, Datagrams, Holder};

/// Maximum number of datagrams that wait for a name lookup; more are dropped.
const WAITING: usize = 8;

/// Number of datagrams of a backend that are passed on before other tasks are scheduled.
const BATCH: usize = 16;

/// The outcome of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DatagramOutcome {
    /// The flow accepted the datagram, even if it dropped it.
    Accepted,
    /// The backend's port is closed, so the flow has ended.
    Refused,
}

/// A datagram flow. Dropping it ends the flow.
#[derive(Debug)]
pub(super) struct DatagramFlow {
    inner: Arc<FlowState>,
    cluster: Option<Arc<Cluster>>,
    _task: JoinSet<()>,
}

#[derive(Debug)]
struct FlowState {
    /// Dropping it writes the flow's log line.
    record: Mutex<StreamRecord>,
    carried: Arc<CarriedBytes>,
    counts: Arc<Sharded<Downstream>>,
    begun: Millis,
    /// Time of the last datagram, from either side.
    moved: AtomicU64,
    answered: AtomicBool,
    /// The backend's port is closed.
    refused: AtomicBool,
    /// There is no backend, or it cannot be reached.
    nowhere: AtomicBool,
    /// Set once the socket to the backend is open.
    backend: OnceLock<Datagrams>,
    /// Datagrams that wait until then.
    waiting: Mutex<Vec<Box<[u8]>>>,
}

impl DatagramFlow {
    /// Creates a flow to an endpoint of the chosen cluster.
    pub(super) fn to(
        destination: Destination,
        client: Option<Holder>,
        record: StreamRecord,
        clients: Arc<DatagramSocket>,
        ends: FlowKey,
        counts: Arc<Sharded<Downstream>>,
    ) -> Self {
        let inner = Arc::new(FlowState::new(record, counts));
        let cluster = Arc::clone(&destination.cluster);
        let mut task = JoinSet::new();
        task.spawn(run(Arc::clone(&inner), destination, client, clients, ends));
        Self { inner, cluster: Some(cluster), _task: task }
    }

    /// Creates a flow whose datagrams are dropped.
    pub(super) fn nowhere(record: StreamRecord, counts: Arc<Sharded<Downstream>>) -> Self {
        let inner = FlowState::new(record, counts);
        inner.nowhere.store(true, Ordering::Relaxed);
        Self { inner: Arc::new(inner), cluster: None, _task: JoinSet::new() }
    }

    /// Passes on a datagram from the peer.
    pub(super) fn take(&self, datagram: &[u8], now: Millis) -> DatagramOutcome {
        let inner = &*self.inner;
        if inner.refused.load(Ordering::Relaxed) {
            return DatagramOutcome::Refused;
        }
        inner.moved.store(now, Ordering::Relaxed);
        if inner.nowhere.load(Ordering::Relaxed) {
            inner.dropped();
            return DatagramOutcome::Accepted;
        }
        let Some(backend) = inner.backend.get() else {
            let mut waiting = inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            match waiting.len() < WAITING {
                true => waiting.push(datagram.into()),
                false => inner.dropped(),
            }
            return DatagramOutcome::Accepted;
        };
        match backend.send(datagram) {
            Ok(()) => inner.sent_up(datagram.len()),
            // The kernel reports the result of an earlier datagram here, and has not sent this one.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if let Some(cluster) = &self.cluster {
                    cluster.refused(backend);
                }
                inner.is_refused();
                return DatagramOutcome::Refused;
            }
            Err(_) => inner.dropped(),
        }
        DatagramOutcome::Accepted
    }

    /// Returns the facts that currently decide when the flow ends.
    pub(super) fn life(&self) -> Life {
        let inner = &*self.inner;
        Life {
            begun: inner.begun,
            moved: inner.moved.load(Ordering::Relaxed),
            answered: inner.answered.load(Ordering::Relaxed),
            nowhere: inner.nowhere.load(Ordering::Relaxed),
            refused: inner.refused.load(Ordering::Relaxed),
        }
    }

    /// Returns true if the flow goes to an endpoint of this cluster, or would.
    pub(super) fn is_to(&self, cluster: &Arc<Cluster>) -> bool {
        let same = self.cluster.as_ref().is_some_and(|own| Arc::ptr_eq(own, cluster));
        same || self.inner.backend.get().is_some_and(|backend| cluster.has(backend))
    }

    /// Records the reason why the flow ends. The first reason is kept.
    pub(super) fn failed(&self, failure: Failure) {
        self.inner.record().failure.get_or_insert(failure);
    }
}

impl FlowState {
    fn new(record: StreamRecord, counts: Arc<Sharded<Downstream>>) -> Self {
        counts.here().datagrams.flows.one_more();
        counts.here().datagrams.flows_active.one_more();
        Self {
            carried: Arc::clone(&record.carried),
            record: Mutex::new(record),
            counts,
            begun: coarse_now(),
            moved: coarse_now().into(),
            answered: false.into(),
            refused: false.into(),
            nowhere: false.into(),
            backend: OnceLock::new(),
            waiting: Mutex::default(),
        }
    }

    fn record(&self) -> MutexGuard<'_, StreamRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dropped(&self) {
        self.counts.here().datagrams.dropped.one_more();
    }

    fn sent_up(&self, length: usize) {
        self.carried.up.fetch_add(length as u64, Ordering::Relaxed);
    }

    fn is_refused(&self) {
        self.record().failure.get_or_insert(Failure::ConnectFailed);
        self.refused.store(true, Ordering::Relaxed);
    }
}

impl Drop for FlowState {
    fn drop(&mut self) {
        self.counts.here().datagrams.flows_active.one_less();
    }
}

thread_local! {
    /// The buffer for datagrams from backends: one for all flows of a worker, since no two of them
    /// read at the same time.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; LARGEST]);
}

/// Connects to the backend, then passes on its datagrams.
async fn run(
    flow: Arc<FlowState>,
    destination: Destination,
    client: Option<Holder>,
    clients: Arc<DatagramSocket>,
    ends: FlowKey,
) {
    let Destination { cluster, counts, aim, .. } = destination;
    let opened = cluster.datagrams(&aim, client, &counts).await;
    let backend = match opened {
        Ok(backend) => flow.backend.get_or_init(|| backend),
        Err(failed) => {
            flow.record().not_connected(failed);
            flow.nowhere.store(true, Ordering::Relaxed);
            return;
        }
    };
    flow.record().upstream = Some(backend.endpoint());
    let waiting = std::mem::take(&mut *flow.waiting.lock().unwrap_or_else(PoisonError::into_inner));
    for datagram in waiting {
        match backend.send(&datagram) {
            Ok(()) => flow.sent_up(datagram.len()),
            // The kernel reports this once: if it were ignored here, the loop below would wait in
            // vain.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                cluster.refused(backend);
                return flow.is_refused();
            }
            Err(_) => flow.dropped(),
        }
    }
    while backend.readable().await.is_ok() {
        let heard = READ.with_borrow_mut(|read| pass_on(&flow, backend, &clients, ends, read));
        if heard.is_err() {
            cluster.refused(backend);
            return flow.is_refused();
        }
        tokio::task::yield_now().await;
    }
}

/// Passes on the datagrams that have arrived from the backend, up to [`BATCH`] of them.
///
/// # Errors
///
/// Fails if the backend's host has reported that the port is closed.
fn pass_on(
    flow: &FlowState,
    backend: &Datagrams,
    clients: &DatagramSocket,
    ends: FlowKey,
    read: &mut [u8],
) -> io::Result<()> {
    for _ in 0..BATCH {
        let length = match backend.receive(read) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(error),
            // Other errors concern a single datagram, or report that none is available.
            Err(_) => break,
        };
        if !flow.answered.swap(true, Ordering::Relaxed) {
            flow.record().connected();
        }
        flow.moved.store(coarse_now(), Ordering::Relaxed);
        let counts = &flow.counts.here().datagrams;
        match clients.send(&read[..length], ends) {
            Ok(()) => {
                flow.carried.down.fetch_add(length as u64, Ordering::Relaxed);
                counts.sent.one_more();
                counts.sent_bytes.add(length as u64);
            }
            Err(_) => counts.dropped.one_more(),
        }
    }
    Ok(())
}
