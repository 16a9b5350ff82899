//! The owner of all background tasks, and the thread that they run on.

use std::collections::HashSet;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::background::task::{Description, Task, Work};
use crate::clock;
use crate::snapshot::Snapshot;
use crate::upstream::pool;

/// Interval at which the thread closes upstream connections that exceeded their idle timeout.
const SWEEP: Duration = Duration::from_secs(1);

/// The background tasks of the present snapshot, and those of earlier snapshots that are finishing.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    /// Tasks of the present snapshot.
    named: HashSet<Description>,
    /// `None` until a snapshot has a task.
    thread: Option<TaskThread>,
}

#[derive(Debug)]
struct TaskThread {
    work: mpsc::UnboundedSender<Work>,
    /// Becomes true when the process ends.
    end: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
    handle: JoinHandle<()>,
}

impl Tasks {
    /// Starts the tasks of a snapshot that do not run yet. Must be called before the snapshot is
    /// published, so that its first request finds them. If the thread cannot be started, the next
    /// snapshot tries again.
    pub(crate) fn serve(&mut self, snapshot: &Snapshot) {
        let mut named = HashSet::new();
        for task in Task::named_by(snapshot) {
            let description = task.description();
            if self.named.contains(&description) || self.start(&task) {
                named.insert(description);
            }
        }
        self.named = named;
    }

    /// Makes all tasks finish, for at most `limit`, and ends the thread. Must be called when no
    /// request is left that could queue work.
    pub(crate) async fn finish(self, limit: Duration) {
        let Some(TaskThread { work, end, ended, handle }) = self.thread else { return };
        drop(work);
        let _ = end.send(true);
        match tokio::time::timeout(limit, ended).await {
            // The thread is about to return.
            Ok(_) => {
                let _ = handle.join();
            }
            Err(_) => tracing::warn!("a background task is too slow, so its last work is lost"),
        }
    }

    /// Returns false if the thread of the tasks is unavailable.
    fn start(&mut self, task: &Task) -> bool {
        let thread = match &mut self.thread {
            Some(thread) => thread,
            None => match TaskThread::start() {
                Ok(thread) => self.thread.insert(thread),
                Err(error) => {
                    tracing::error!(%error, "no thread for background tasks");
                    return false;
                }
            },
        };
        match task.work(thread.end.subscribe()) {
            Some(work) => thread.work.send(work).is_ok(),
            None => true,
        }
    }
}

impl TaskThread {
    fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (work, received) = mpsc::unbounded_channel();
        let (end, _) = watch::channel(false);
        let (ends, ended) = oneshot::channel();
        let handle = thread::Builder::new().name("background".into()).spawn(move || {
            runtime.block_on(run(received));
            // A name lookup in the blocking pool may hang for as long as the name server delays it.
            runtime.shutdown_timeout(Duration::from_millis(100));
            let _ = ends.send(());
        })?;
        Ok(Self { work, end, ended, handle })
    }
}

/// Runs tasks until the channel is closed and all tasks have returned.
async fn run(mut work: mpsc::UnboundedReceiver<Work>) {
    let mut tasks = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_open = true;
    while is_open || !tasks.is_empty() {
        tokio::select! {
            next = work.recv(), if is_open => match next {
                Some(work) => {
                    tasks.spawn(work);
                }
                None => is_open = false,
            },
            _ = tasks.join_next(), if !tasks.is_empty() => {}
            _ = sweep.tick() => pool::sweep(clock::coarse_now()),
        }
    }
    pool::drain();
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use http::HeaderValue;

    use super::*;
    use crate::trace::{Collector, CollectorSettings, Spans};
    use crate::upstream::{Cluster, ClusterSettings, EndpointSettings, Protocol, Upstreams};

    fn settings(service: &str) -> CollectorSettings {
        // The discard port has no listener.
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let endpoints = vec![EndpointSettings::Address(address)];
        let cluster = ClusterSettings {
            protocol: Protocol::H2c,
            ..ClusterSettings::new("collector", endpoints)
        };
        CollectorSettings {
            cluster,
            authority: HeaderValue::from_static("localhost"),
            headers: Vec::new(),
            service: service.into(),
            resource: Vec::new(),
        }
    }

    fn collector(service: &str, spans: &Arc<Spans>) -> Arc<Collector> {
        let settings = settings(service);
        let cluster = Cluster::new(settings.cluster.clone(), &Upstreams::new([]));
        Collector::new(settings, cluster, Arc::clone(spans))
    }

    fn snapshot(collectors: &[&Arc<Collector>]) -> Snapshot {
        let collectors = collectors.iter().map(|one| Arc::clone(one)).collect();
        Snapshot { collectors, ..Snapshot::default() }
    }

    #[test]
    fn without_a_task_there_is_no_thread() {
        let mut tasks = Tasks::default();
        tasks.serve(&Snapshot::default());
        assert!(tasks.thread.is_none() && tasks.named.is_empty());
    }

    #[tokio::test]
    async fn a_task_is_started_once_and_carried_over() {
        let spans = Arc::default();
        let (one, other) = (collector("one", &spans), collector("other", &spans));
        let mut tasks = Tasks::default();
        tasks.serve(&snapshot(&[&one]));
        assert!(one.export(watch::channel(false).1).is_none(), "it is at work");
        let thread = tasks.thread.as_ref().unwrap().handle.thread().id();

        tasks.serve(&snapshot(&[&one, &other]));
        assert_eq!(tasks.named.len(), 2);
        assert!(other.export(watch::channel(false).1).is_none(), "it is at work, too");
        assert_eq!(tasks.thread.as_ref().unwrap().handle.thread().id(), thread);

        tasks.serve(&snapshot(&[&other]));
        assert_eq!(tasks.named, HashSet::from([Description::TraceExport(settings("other"))]));
        // A collector with equal settings is another task once the first one is forgotten.
        let again = collector("one", &spans);
        tasks.serve(&snapshot(&[&again, &other]));
        assert!(again.export(watch::channel(false).1).is_none());
        tasks.finish(Duration::from_secs(10)).await;
    }

    #[tokio::test]
    async fn a_task_that_no_snapshot_names_ends_when_its_queue_does() {
        let spans = Arc::<Spans>::default();
        let gone = collector("gone", &spans);
        let mut tasks = Tasks::default();
        tasks.serve(&snapshot(&[&gone]));
        tasks.serve(&snapshot(&[]));
        // A request that began earlier still holds the collector.
        gone.push(crate::trace::testing::span());
        assert_eq!(Arc::strong_count(&spans), 3, "the test, the collector and its task");
        drop(gone);
        tasks.finish(Duration::from_secs(10)).await;
        assert_eq!(Arc::strong_count(&spans), 1);
        assert_eq!(spans.dropped.value(), 1, "it was tried, and nobody took it");
    }

    #[tokio::test]
    async fn at_the_end_of_the_process_what_is_queued_is_done() {
        let spans = Arc::<Spans>::default();
        let collector = collector("one", &spans);
        let mut tasks = Tasks::default();
        let snapshot = snapshot(&[&collector]);
        tasks.serve(&snapshot);
        for _ in 0..1000 {
            collector.push(crate::trace::testing::span());
        }
        let begun = clock::now();
        tasks.finish(Duration::from_secs(10)).await;
        // The snapshot still holds its collector, and there are no further attempts.
        assert!(clock::now() - begun < Duration::from_secs(8));
        assert_eq!(spans.dropped.value(), 1000);
    }
}
