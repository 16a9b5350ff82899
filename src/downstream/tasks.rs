//! The start of tasks in the data wing.

/// Starts a task of this worker.
///
/// Its owner is the worker's runtime: a connection's task is told to end through its
/// [`Watch`](crate::downstream::connection_watch::Watch), the tasks of its streams, tunnels and
/// mirrors end with it or by their own time limit, and all of them with the runtime.
#[allow(clippy::disallowed_methods, reason = "the one place where the data wing starts tasks")]
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}
