//! Where the data wing starts tasks.

use std::future::Future;
use std::time::Duration;

use crate::proxy::room;

/// Starts a task of this worker.
///
/// Its owner is the worker's runtime: a connection's task is told to end through its [`Watch`](crate::proxy::watch::Watch), the
/// tasks of its streams, tunnels and mirrors end with it or by their own time limit, and all of
/// them with the runtime.
#[allow(clippy::disallowed_methods, reason = "the one place where the data wing starts tasks")]
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// Where hyper puts the tasks of HTTP/2 streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Executor {
    /// For a client to make room for more of a response on its stream.
    pub send_timeout: Duration,
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        spawn(room::within(self.send_timeout, task));
    }
}
