//! Worker threads, as controlled by the control loop.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::downstream::Process;
use crate::edge::{SocketId, WorkerCommand, run_worker, seats};
use crate::net::ServerSocket;
use crate::snapshot::BindKey;

/// Worker threads, each with its own single-threaded runtime.
#[derive(Debug)]
pub(super) struct Workers {
    commands: Vec<mpsc::UnboundedSender<WorkerCommand>>,
    threads: Vec<JoinHandle<()>>,
    /// One channel for each thread, closed when it returns.
    done: Vec<oneshot::Receiver<Infallible>>,
}

/// Copies of a socket, each with the number of its worker.
pub(super) type Copies = Vec<(usize, ServerSocket)>;

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    ///
    /// Fails if the system provides no thread or no event queue.
    pub(super) fn start(count: usize, gateway: &Arc<Process>) -> io::Result<Self> {
        let mut workers = Self { commands: Vec::new(), threads: Vec::new(), done: Vec::new() };
        for (number, seat) in seats(count, &gateway.connections).into_iter().enumerate() {
            let (commands, received) = mpsc::unbounded_channel();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let gateway = Arc::clone(gateway);
            let (ends, done) = oneshot::channel();
            let thread = Builder::new().name(format!("worker-{number}")).spawn(move || {
                runtime.block_on(run_worker(gateway, seat, received));
                // A name lookup in the blocking pool may hang for as long as the name server takes.
                runtime.shutdown_timeout(Duration::from_millis(100));
                drop(ends);
            })?;
            workers.commands.push(commands);
            workers.threads.push(thread);
            workers.done.push(done);
        }
        Ok(workers)
    }

    /// Makes the workers serve `bind` on their copies of a socket.
    pub(super) fn listen(&self, bind: BindKey, socket: SocketId, copies: Copies) {
        for (worker, server) in copies {
            let _ = self.commands[worker].send(WorkerCommand::Listen { socket, server, bind });
        }
    }

    /// The number of workers.
    pub(super) fn count(&self) -> usize {
        self.commands.len()
    }

    pub(super) fn close(&self, socket: SocketId) {
        for commands in &self.commands {
            let _ = commands.send(WorkerCommand::Close { socket });
        }
    }

    pub(super) fn drain(&self, deadline: Instant) {
        for commands in &self.commands {
            let _ = commands.send(WorkerCommand::Drain { deadline });
        }
    }

    pub(super) fn abort(&self) {
        for commands in &self.commands {
            let _ = commands.send(WorkerCommand::Abort);
        }
    }

    /// Waits until every thread has returned, or is about to. Cancel safe: a thread that has
    /// returned is not waited for again.
    pub(super) async fn done(&mut self) {
        while let Some(done) = self.done.last_mut() {
            let _ = done.await;
            self.done.pop();
        }
    }

    /// Waits until the event loop of every worker has answered; forever if one hangs or has died.
    pub(super) async fn answer(&self) {
        for commands in &self.commands {
            let (answer, answered) = oneshot::channel();
            let asked = commands.send(WorkerCommand::Ping(answer)).is_ok();
            if !asked || answered.await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Joins the threads. Should be called after [`done`](Self::done).
    pub(super) fn join(&mut self) {
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker died");
            }
        }
    }
}

/// Copies a socket for the workers that serve it. Every worker accepts from a listening socket.
/// Only one receives from a UDP socket, since its flows belong to one worker.
///
/// # Errors
///
/// Fails if no file descriptor is free.
pub(super) fn copies(
    workers: usize,
    socket: SocketId,
    server: &ServerSocket,
) -> io::Result<Copies> {
    let (first, count) = match server {
        ServerSocket::Tcp(_) => (0, workers),
        ServerSocket::Udp(_) => (usize::try_from(socket.0).unwrap_or(0) % workers, 1),
    };
    (first..first + count).map(|worker| Ok((worker, server.try_clone()?))).collect()
}
