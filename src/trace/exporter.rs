//! Export of spans: sends the queue of a collector in batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::{mpsc, watch};

use crate::trace::collector::{Collector, CollectorSettings, Spans, Unserved};
use crate::trace::delivery::Delivery;

/// Spans per message. Collectors accept 4 MiB, which is more than this number of the largest spans
/// needs.
const BATCH: usize = 256;
/// Maximum delay of a span; a full message is sent at once.
const DELAY: Duration = Duration::from_millis(500);

impl Collector {
    /// Sends queued spans in batches, until the queue is empty and all of its senders are dropped.
    /// When `ending` becomes true, the queue is closed, and failed attempts are not repeated.
    ///
    /// Returns `None` if the export has been started already. The future holds no [`Collector`],
    /// since it ends when the collector is dropped.
    pub(crate) fn export(
        &self,
        ending: watch::Receiver<bool>,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        Some(export(self.take()?, ending))
    }
}

async fn export(unserved: Unserved, mut ending: watch::Receiver<bool>) {
    let Unserved { settings, cluster, mut queue, spans } = unserved;
    let name = Arc::clone(&settings.cluster.name);
    let rejected = Arc::new(AtomicU64::new(0));
    let delivery = Delivery::new(&settings, cluster, ending.clone(), Arc::clone(&rejected));
    let exporter = match exporter(&settings, delivery) {
        Ok(exporter) => exporter,
        // This drops the queue, so later spans count as dropped.
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
        // The delivery logs failures, with more detail.
        if exporter.export(sent).await.is_ok() {
            guard.arrived(rejected.swap(0, Ordering::Relaxed));
        }
    }
}

/// Spans in a message; they count as dropped unless they are delivered.
struct Unsent<'a> {
    spans: &'a Spans,
    count: u64,
}

impl Unsent<'_> {
    /// Counts the spans as exported, except those that the collector rejected.
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

/// Waits for a span, then for more until the batch is full or [`DELAY`] has passed. Returns false
/// at the end of the queue. Closes the queue when the process is ending.
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
    // The builder's own retries would block the whole thread; the delivery has retries.
    let builder = builder.with_retry_policy(RetryPolicy::disabled());
    // The delivery has the collector's address; the builder requires one nevertheless.
    let builder = builder.with_protocol(Protocol::HttpBinary).with_endpoint("http://collector");
    let mut exporter = builder.build()?;
    let attributes = settings.resource.iter();
    let attributes = attributes.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let service = KeyValue::new("service.name", settings.service.to_string());
    let resource = Resource::builder_empty().with_attributes(attributes.chain([service])).build();
    exporter.set_resource(&resource);
    Ok(exporter)
}
