//! A worker: the listening sockets, connections and clock of one thread.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::clock::{coarse_now, set_coarse_now};
use crate::downstream::{
    Assignment, Ending, Millis, Process, Registration, Watch, WorkerConnections, coarse_timer,
    tasks,
};
use crate::edge::accept;
use crate::edge::balance::{Assigner, HandedOver, WorkerSeat};
use crate::net::{ServerSocket, canonical};
use crate::observe::whole_millis;
use crate::snapshot::BindKey;
use crate::stats::take_shard;
use crate::streams::Receiver;
use crate::upstream;

/// The identifier of a socket, the same for all workers, which all accept from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SocketId(pub u64);

/// A command from the control loop to a worker.
#[derive(Debug)]
pub(crate) enum WorkerCommand {
    /// Accept or receive from this socket and serve `bind` on it. The socket is non-blocking.
    Listen { socket: SocketId, server: ServerSocket, bind: BindKey },
    /// Stop accepting from this socket and close the connections of its bind gracefully.
    Close { socket: SocketId },
    /// Stop accepting, close idle connections now and the others after their open exchanges. The
    /// worker returns when no connection is left, or at `deadline`.
    Drain { deadline: Instant },
    /// Close everything now and return.
    Abort,
    /// Reply, to show that the worker's loop runs.
    Ping(oneshot::Sender<()>),
}

/// Runs a worker until it is drained. Each thread runs one such future on its own runtime.
pub(crate) async fn run_worker(
    process: Arc<Process>,
    mut seat: WorkerSeat,
    mut commands: mpsc::UnboundedReceiver<WorkerCommand>,
) {
    take_shard();
    let connections = seat.connections();
    let worker = Arc::new(Worker { process, connections });
    let mut acceptors: HashMap<SocketId, JoinSet<()>> = HashMap::new();
    let mut receivers: HashMap<SocketId, Receiver> = HashMap::new();
    let mut sweep = tokio::time::interval(coarse_timer::SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begun = clock::now();
    let mut deadline = None;
    // False once the worker drains and no other worker can hand over a connection any more.
    let mut is_given = true;
    loop {
        tokio::select! {
            handed = seat.handed_over.recv(), if is_given => match handed {
                Some(connection) => worker.take_over(connection, deadline.is_some()),
                None => is_given = false,
            },
            command = commands.recv() => match command {
                Some(WorkerCommand::Listen { socket, server, bind }) => {
                    let listening = match server {
                        ServerSocket::Tcp(listener) => {
                            TcpListener::from_std(listener).map(|listener| {
                                let (worker, assigner) = (Arc::clone(&worker), seat.assigner());
                                let mut task = JoinSet::new();
                                task.spawn(accept_from(worker, assigner, listener, bind));
                                acceptors.insert(socket, task);
                            })
                        }
                        ServerSocket::Udp(datagrams) => {
                            Receiver::start(&worker.process, datagrams, bind).map(|receiver| {
                                receivers.insert(socket, receiver);
                            })
                        }
                    };
                    if let Err(error) = listening {
                        tracing::error!(%error, "socket cannot be listened on");
                    }
                }
                Some(WorkerCommand::Close { socket }) => {
                    acceptors.remove(&socket);
                    receivers.remove(&socket);
                }
                Some(WorkerCommand::Drain { deadline: at }) => {
                    acceptors.clear();
                    // What was handed over before is still served; what another worker accepts from
                    // now on, it keeps.
                    seat.handed_over.close();
                    receivers.values().for_each(Receiver::drain);
                    worker.connections.end_where(|_, _| Some(Ending::Gracefully));
                    deadline = Some(at);
                }
                Some(WorkerCommand::Abort) | None => break,
                Some(WorkerCommand::Ping(answer)) => {
                    let _ = answer.send(());
                }
            },
            _ = sweep.tick() => {
                let now = clock::now();
                worker.sweep(now.saturating_duration_since(begun));
                let is_empty = || {
                    !is_given
                        && worker.connections.is_empty()
                        && receivers.values().all(Receiver::is_empty)
                };
                if deadline.is_some_and(|deadline| now >= deadline || is_empty()) {
                    break;
                }
            }
        }
    }
    worker.connections.end_where(|_, _| Some(Ending::Shutdown));
    receivers.values().for_each(Receiver::drain);
    receivers.clear();
    upstream::pool::drain();
    // Yields once, so that the tasks can see the ending and write their records.
    tokio::task::yield_now().await;
}

/// The state shared by the tasks of a worker.
#[derive(Debug)]
struct Worker {
    process: Arc<Process>,
    connections: Arc<WorkerConnections>,
}

impl Worker {
    fn sweep(&self, uptime: Duration) {
        // Milliseconds are counted from 1, because 0 means "unset".
        set_coarse_now(Millis::try_from(uptime.as_millis()).unwrap_or(Millis::MAX) + 1);
        let millis = coarse_now();
        let Process { snapshot, connections, shortage, .. } = &*self.process;
        let snapshot = snapshot.here();
        let held = &snapshot.carried.held_memory;
        shortage.look(millis, connections, held, || snapshot.longest_idle_timeout());
        let (patience, severe) = (shortage.patience(), shortage.is_severe());
        self.connections.end_where(|bind, watch| {
            let is_needless = || {
                snapshot.bind(bind).is_none()
                    || patience.is_some_and(|patience| watch.rests(millis, patience))
            };
            let is_stuck =
                || patience.is_some_and(|patience| severe && watch.is_stuck(millis, patience));
            watch.park_if_at_rest(millis);
            watch
                .overdue(millis)
                .or_else(|| is_stuck().then_some(Ending::AtOnce))
                .or_else(|| is_needless().then_some(Ending::Gracefully))
        });
        coarse_timer::wake_expired(millis);
        upstream::pool::sweep(millis);
    }

    /// Serves a connection that another worker accepted. A worker that drains ends it like one
    /// that it accepted just before.
    fn take_over(&self, connection: HandedOver, is_draining: bool) {
        let HandedOver { stream, peer, bind, assignment } = connection;
        match TcpStream::from_std(stream) {
            Ok(stream) => self.serve(stream, peer, bind, assignment, is_draining),
            Err(error) => tracing::warn!(%error, "accepted connection cannot be served"),
        }
    }

    /// Serves a connection, unless it exceeds a limit.
    fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        bind: BindKey,
        assignment: Assignment,
        is_draining: bool,
    ) {
        let Some((watch, registration)) = self.admit(peer, bind, assignment) else { return };
        if is_draining {
            watch.end(Ending::Gracefully);
        }
        let process = Arc::clone(&self.process);
        tasks::spawn(accept::serve(process, bind, stream, watch, registration));
    }

    /// Registers a connection. At the limit on connections, the longest idle connection is closed
    /// to make room; at the limit of the peer, the longest idle one of that peer. Returns `None` if
    /// none is idle.
    fn admit(
        &self,
        peer: SocketAddr,
        bind: BindKey,
        assignment: Assignment,
    ) -> Option<(Arc<Watch>, Registration)> {
        let address = canonical(peer);
        let Process { connections, limits, .. } = &*self.process;
        // A reload may have removed the bind since the connection was accepted.
        let snapshot = self.process.snapshot.load();
        let served = snapshot.bind(bind)?;
        let client_limits = Arc::clone(&served.limits);
        let number = connections.admit(limits.connections)?;
        // The sender of a PROXY header carries many clients; the client is counted once it is known.
        let peer = match served.proxy_header {
            Some(_) => None,
            None => {
                let peer = self.process.admit_peer(address.ip());
                peer.inspect_err(|_| connections.left()).ok()?
            }
        };
        let watch = Arc::new(Watch::new(address, client_limits, coarse_now()));
        let all = Arc::clone(connections);
        let registration = Registration::new(all, assignment, number, bind, peer, &watch);
        Some((watch, registration))
    }
}

/// Accepts connections for all workers.
async fn accept_from(
    worker: Arc<Worker>,
    assigner: Assigner,
    listener: TcpListener,
    bind: BindKey,
) {
    let mut pause = Duration::ZERO;
    loop {
        let accepted = listener.accept().await;
        match accepted.and_then(|(stream, peer)| Ok((assigner.assign(stream, peer, bind)?, peer))) {
            Ok((own, peer)) => {
                pause = Duration::ZERO;
                if let Some((stream, assignment)) = own {
                    worker.serve(stream, peer, bind, assignment, false);
                }
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors or memory: clients in the backlog have to wait longer, and a
                // loop without a pause would take CPU time from tasks that could free some.
                pause = (pause * 2).clamp(Duration::from_millis(50), Duration::from_secs(1));
                tracing::warn!(%error, pause_ms = whole_millis(pause), "accept failed, pausing");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Returns true for errors of the accepted connection rather than of the listening socket
/// (accept(2), "Error handling").
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}
