//! Worker threads, from the control loop's side.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::downstream::Process;
use crate::edge::{SocketId, WorkerCommand, run_worker};
use crate::net::ServerSocket;
use crate::snapshot::BindKey;

/// Threads that serve, each with a runtime of its own.
#[derive(Debug)]
pub(super) struct Workers {
    commands: Vec<mpsc::UnboundedSender<WorkerCommand>>,
    threads: Vec<JoinHandle<()>>,
    /// Closed by each thread when it returns.
    done: Vec<oneshot::Receiver<Infallible>>,
}

/// Copies of a socket, each with the number of the worker that it is for.
pub(super) type Copies = Vec<(usize, ServerSocket)>;

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    ///
    /// The system gives no thread or no event queue.
    pub(super) fn start(count: usize, gateway: &Arc<Process>) -> io::Result<Self> {
        let mut workers = Self { commands: Vec::new(), threads: Vec::new(), done: Vec::new() };
        for number in 0..count {
            let (commands, received) = mpsc::unbounded_channel();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let gateway = Arc::clone(gateway);
            let (ends, done) = oneshot::channel();
            let thread = Builder::new().name(format!("worker-{number}")).spawn(move || {
                runtime.block_on(run_worker(gateway, received));
                // A lookup in the blocking pool may hang for as long as a name server likes.
                runtime.shutdown_timeout(Duration::from_millis(100));
                drop(ends);
            })?;
            workers.commands.push(commands);
            workers.threads.push(thread);
            workers.done.push(done);
        }
        Ok(workers)
    }

    /// Has the workers serve `bind` on their copies of a socket.
    pub(super) fn listen(&self, bind: BindKey, socket: SocketId, copies: Copies) {
        for (worker, server) in copies {
            let _ = self.commands[worker].send(WorkerCommand::Listen { socket, server, bind });
        }
    }

    /// How many there are.
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

    /// Resolves when every thread has returned, or is about to. Cancel safe: a thread that has
    /// returned is not waited for again.
    pub(super) async fn done(&mut self) {
        while let Some(done) = self.done.last_mut() {
            let _ = done.await;
            self.done.pop();
        }
    }

    /// Resolves when every worker's loop has answered; never if one hangs or has died.
    pub(super) async fn answer(&self) {
        for commands in &self.commands {
            let (answer, answered) = oneshot::channel();
            let asked = commands.send(WorkerCommand::Ping(answer)).is_ok();
            if !asked || answered.await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for the threads. Call it when they are done.
    pub(super) fn join(&mut self) {
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker died");
            }
        }
    }
}

/// A copy of a socket for each of `workers` that is to serve it: every one accepts from a socket that
/// listens, and one receives from a socket of datagrams, whose flows are its own.
///
/// # Errors
///
/// No descriptor is free.
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
