//! Start of tasks for connections and requests.

/// Starts a task of this worker.
///
/// The task is owned by the worker's runtime. A connection's task is asked to end through its
/// [`Watch`](crate::downstream::connection_watch::Watch). The tasks of its streams, tunnels and
/// mirrors end with it or by their own time limits, and all of them end with the runtime.
#[allow(clippy::disallowed_methods, reason = "the one place where the data wing starts tasks")]
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}
