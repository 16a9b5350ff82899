//! The tasks of one echo backend: connections, HTTP/2 streams, tunnels.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::task::JoinSet;

/// All tasks. They are aborted when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    pub(super) fn spawner(&self) -> Spawner {
        Spawner(Arc::downgrade(&self.0))
    }
}

/// A handle to spawn tasks. It does not keep the others alive, so a task may hold one.
#[derive(Clone, Debug)]
pub(super) struct Spawner(Weak<Mutex<JoinSet<()>>>);

impl Spawner {
    /// Runs `task` until it ends or [`Tasks`] is dropped; not at all if that has happened.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let Some(tasks) = self.0.upgrade() else { return };
        let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // Each spawn removes the tasks that have ended, so the set holds no more than those that
        // run.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

/// hyper runs each HTTP/2 stream in a task of its own.
impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.spawn(async move {
            stream.await;
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn tasks_end_with_their_owner() {
        let tasks = Tasks::default();
        let spawner = tasks.spawner();
        let (alive, ended) = oneshot::channel::<()>();
        let inner = spawner.clone();
        spawner.spawn(async move {
            // A task that can spawn must not keep its owner alive.
            let _held = (alive, inner);
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;

        drop(tasks);
        assert!(ended.await.is_err(), "the task was dropped, and its end of the channel with it");
        spawner.spawn(async { unreachable!("nobody owns this task") });
    }
}
