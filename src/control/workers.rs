//! The worker threads, as the control loop sees them.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::net::ServerSocket;
use crate::proxy::{Command, Gateway, SocketId, run_worker};
use crate::snapshot::BindKey;

/// Threads that serve, each with a runtime of its own.
#[derive(Debug)]
pub(super) struct Workers {
    commands: Vec<mpsc::UnboundedSender<Command>>,
    threads: Vec<JoinHandle<()>>,
    /// Closed by each thread when it returns.
    done: Vec<oneshot::Receiver<Infallible>>,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    ///
    /// The system gives no thread or no event queue.
    pub(super) fn start(count: usize, gateway: &Arc<Gateway>) -> io::Result<Self> {
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

    /// Has every worker accept from a socket that listens, and one receive from a socket of
    /// datagrams: the flows of a socket are its own, and nobody else's to know.
    ///
    /// # Errors
    ///
    /// No descriptor is free for a worker's copy of the socket.
    pub(super) fn listen(
        &self,
        bind: BindKey,
        socket: SocketId,
        server: &ServerSocket,
    ) -> io::Result<()> {
        let (first, count) = match server {
            ServerSocket::Tcp(_) => (0, self.commands.len()),
            ServerSocket::Udp(_) => (usize::try_from(socket.0).unwrap_or(0), 1),
        };
        for commands in self.commands.iter().cycle().skip(first % self.commands.len()).take(count) {
            let server = server.try_clone()?;
            let _ = commands.send(Command::Listen { socket, server, bind });
        }
        Ok(())
    }

    pub(super) fn close(&self, socket: SocketId) {
        for commands in &self.commands {
            let _ = commands.send(Command::Close { socket });
        }
    }

    pub(super) fn drain(&self, deadline: Instant) {
        for commands in &self.commands {
            let _ = commands.send(Command::Drain { deadline });
        }
    }

    pub(super) fn abort(&self) {
        for commands in &self.commands {
            let _ = commands.send(Command::Abort);
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
            let asked = commands.send(Command::Ping(answer)).is_ok();
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
