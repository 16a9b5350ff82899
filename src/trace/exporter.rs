//! The export of spans: what is queued for a collector, sent in batches.

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

/// Spans of one message. A collector takes 4 MiB, which is more than as many of the largest come to.
const BATCH: usize = 256;
/// A span is sent within this time, and at once when a message is full.
const DELAY: Duration = Duration::from_millis(500);

impl Collector {
    /// Sends what is queued, in batches, until the queue is empty and nobody is left who could fill it.
    /// Once `ending` is true the queue takes nothing more, and nothing is tried twice.
    ///
    /// None where this is being done already: it holds no [`Collector`], whose end it waits for.
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
