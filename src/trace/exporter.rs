//! The thread that sends spans to collectors.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::trace::collector::{Collector, CollectorSettings, Spans, Unserved};
use crate::trace::delivery::Delivery;
use crate::upstream::pool;

/// Spans of one message. A collector takes 4 MiB, which is more than as many of the largest come to.
const BATCH: usize = 256;
/// A span is sent within this time, and at once when a message is full.
const DELAY: Duration = Duration::from_millis(500);
/// How often connections to collectors are looked over.
const SWEEP: Duration = Duration::from_secs(1);

/// Serves collectors, each by a task of its own, so that none waits for another.
///
/// Its thread starts with the first collector: a gateway that traces nothing has none.
#[derive(Debug, Default)]
pub(crate) struct Exporter {
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    collectors: mpsc::UnboundedSender<Unserved>,
    /// What is queued by then is sent, and the thread ends.
    end: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Exporter {
    /// Serves what of `collectors` is not served yet, from now on. Those that are gone end by
    /// themselves, when everything that was queued for them is sent.
    pub(crate) fn serve<'c>(&mut self, collectors: impl IntoIterator<Item = &'c Arc<Collector>>) {
        for unserved in collectors.into_iter().filter_map(|collector| collector.take()) {
            if self.running.is_none() {
                match Running::start() {
                    Ok(running) => self.running = Some(running),
                    // Its queue is gone with it, so what is sent there counts as dropped.
                    Err(error) => {
                        tracing::error!(%error, "no thread for traces, so they are dropped");
                        continue;
                    }
                }
            }
            if let Some(running) = &self.running {
                let _ = running.collectors.send(unserved);
            }
        }
    }

    /// Sends what is queued, for at most `limit`, and ends. To be called when nothing is queued any
    /// more.
    pub(crate) async fn finish(self, limit: Duration) {
        let Some(Running { collectors, end, ended, thread }) = self.running else { return };
        drop(collectors);
        let _ = end.send(true);
        match tokio::time::timeout(limit, ended).await {
            // The thread is about to return.
            Ok(_) => {
                let _ = thread.join();
            }
            Err(_) => tracing::warn!("a collector is too slow, so the last traces are lost"),
        }
    }
}

impl Running {
    fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (collectors, received) = mpsc::unbounded_channel();
        let (end, ending) = watch::channel(false);
        let (ends, ended) = oneshot::channel();
        let thread = thread::Builder::new().name("traces".into()).spawn(move || {
            runtime.block_on(run(received, ending));
            // A lookup in the blocking pool may hang for as long as a name server likes.
            runtime.shutdown_timeout(Duration::from_millis(100));
            let _ = ends.send(());
        })?;
        Ok(Self { collectors, end, ended, thread })
    }
}

/// Until it is told to end and everything is sent.
async fn run(mut collectors: mpsc::UnboundedReceiver<Unserved>, ending: watch::Receiver<bool>) {
    let mut tasks = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            unserved = collectors.recv(), if !collectors.is_closed() || !collectors.is_empty() => {
                if let Some(unserved) = unserved {
                    tasks.spawn(serve(unserved, ending.clone()));
                }
            }
            _ = tasks.join_next(), if !tasks.is_empty() => {}
            _ = sweep.tick() => pool::sweep(clock::now()),
            else => break,
        }
        if collectors.is_closed() && collectors.is_empty() && tasks.is_empty() {
            break;
        }
    }
    pool::drain();
}

/// Sends to one collector what is queued for it, to the end of its queue.
async fn serve(unserved: Unserved, mut ending: watch::Receiver<bool>) {
    let Unserved { settings, cluster, mut queue, spans } = unserved;
    let name = Arc::clone(&settings.cluster.name);
    let rejected = Arc::new(AtomicU64::new(0));
    let delivery = Delivery::new(&settings, cluster, ending.clone(), Arc::clone(&rejected));
    let exporter = match exporter(&settings, delivery) {
        Ok(exporter) => exporter,
        // Its queue ends with this, so what is sent there counts as dropped.
        Err(error) => {
            tracing::error!(collector = %name, %error, "no exporter, so traces are dropped");
            return;
        }
    };
    let mut batch = Vec::with_capacity(BATCH);
    while fill(&mut batch, &mut queue, &mut ending).await {
        let sent = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
        let count = u64::try_from(sent.len()).unwrap_or(u64::MAX);
        let guard = Unsent { spans: &spans, count };
        // What goes wrong is told by the delivery, which knows better.
        if exporter.export(sent).await.is_ok() {
            guard.arrived(rejected.swap(0, Ordering::Relaxed));
        }
    }
}

/// Spans that count as dropped unless they arrived.
struct Unsent<'a> {
    spans: &'a Spans,
    count: u64,
}

impl Unsent<'_> {
    /// All but those that the collector did not take.
    fn arrived(mut self, rejected: u64) {
        let taken = self.count.saturating_sub(rejected);
        self.spans.exported.add(taken);
        self.count -= taken;
    }
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        self.spans.dropped.add(self.count);
    }
}

/// Waits for a span, and then for more until there are enough for a message or it is time. False at
/// the end of the queue. Once the process ends, the queue takes nothing more.
async fn fill(
    batch: &mut Vec<SpanData>,
    queue: &mut mpsc::Receiver<SpanData>,
    ending: &mut watch::Receiver<bool>,
) -> bool {
    let end = |queue: &mut mpsc::Receiver<SpanData>| queue.close();
    if *ending.borrow() {
        end(queue);
        return queue.recv_many(batch, BATCH).await > 0;
    }
    tokio::select! {
        biased;
        _ = ending.wait_for(|ending| *ending) => end(queue),
        count = queue.recv_many(batch, BATCH) => {
            if count == 0 {
                return false;
            }
        }
    }
    let due = tokio::time::sleep(DELAY);
    tokio::pin!(due);
    while batch.len() < BATCH {
        let room = BATCH - batch.len();
        tokio::select! {
            biased;
            _ = ending.wait_for(|ending| *ending), if !queue.is_closed() => end(queue),
            count = queue.recv_many(batch, room) => {
                if count == 0 {
                    break;
                }
            }
            () = &mut due => break,
        }
    }
    !batch.is_empty()
}

fn exporter(
    settings: &CollectorSettings,
    delivery: Delivery,
) -> Result<SpanExporter, ExporterBuildError> {
    let builder = SpanExporter::builder().with_http().with_http_client(delivery);
    // Theirs would have the whole thread sleep; the delivery has its own.
    let builder = builder.with_retry_policy(RetryPolicy::disabled());
    // The delivery knows where the collector is; the builder wants an address all the same.
    let builder = builder.with_protocol(Protocol::HttpBinary).with_endpoint("http://collector");
    let mut exporter = builder.build()?;
    let attributes = settings.resource.iter();
    let attributes = attributes.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let service = KeyValue::new("service.name", settings.service.to_string());
    let resource = Resource::builder_empty().with_attributes(attributes.chain([service])).build();
    exporter.set_resource(&resource);
    Ok(exporter)
}
