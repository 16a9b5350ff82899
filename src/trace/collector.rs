//! Trace collectors and their queues of spans.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderName, HeaderValue};
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::mpsc;

use crate::stats::SharedCounter;
use crate::upstream::{Cluster, ClusterSettings};

/// Capacity of the queue in spans; a span is seldom larger than 2 KiB.
const QUEUE: usize = 4096;

/// Counters of spans, over all collectors of the process.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    /// Spans that a collector accepted.
    pub exported: SharedCounter,
    /// Spans without room in the queue, and spans that no collector accepted in time.
    pub dropped: SharedCounter,
}

/// Settings of a collector. A collector is kept across a reload if its settings are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CollectorSettings {
    /// Must use HTTP/2.
    pub cluster: ClusterSettings,
    /// `:authority` of the requests.
    pub authority: HeaderValue,
    /// Sent with each export. May contain secrets: the values are marked as sensitive, so that
    /// `Debug` does not show them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The resource attribute `service.name`.
    pub service: Arc<str>,
    /// Further resource attributes of the gateway.
    pub resource: Vec<(String, String)>,
}

/// The destination of spans. The export ends when this is dropped and its queue is empty.
#[derive(Debug)]
pub(crate) struct Collector {
    settings: CollectorSettings,
    queue: mpsc::Sender<SpanData>,
    /// `None` once the export has started.
    unserved: Mutex<Option<Unserved>>,
    spans: Arc<Spans>,
}

/// The receiving side of a collector, for its export.
#[derive(Debug)]
pub(super) struct Unserved {
    pub settings: CollectorSettings,
    pub cluster: Arc<Cluster>,
    pub queue: mpsc::Receiver<SpanData>,
    pub spans: Arc<Spans>,
}

impl Collector {
    /// Creates a collector whose export has not started. `cluster` is made from the cluster
    /// settings in `settings`; `spans` has the counters.
    pub(crate) fn new(
        settings: CollectorSettings,
        cluster: Arc<Cluster>,
        spans: Arc<Spans>,
    ) -> Arc<Self> {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let unserved = Unserved {
            settings: settings.clone(),
            cluster,
            queue: receiver,
            spans: Arc::clone(&spans),
        };
        Arc::new(Self { settings, queue, unserved: Mutex::new(Some(unserved)), spans })
    }

    pub(crate) fn settings(&self) -> &CollectorSettings {
        &self.settings
    }

    /// Returns the receiving side for the export; `None` after the first call.
    pub(super) fn take(&self) -> Option<Unserved> {
        self.unserved.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Queues a span; drops it if the queue is full. Never waits.
    pub(crate) fn push(&self, span: SpanData) {
        if self.queue.try_send(span).is_err() {
            self.spans.dropped.one_more();
        }
    }
}
