//! A collector: who it is, and the queue of spans before it.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderName, HeaderValue};
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::mpsc;

use crate::stats::Counter;
use crate::upstream::{Cluster, ClusterSettings};

/// Spans that wait; a span is seldom more than 2 KiB.
const QUEUE: usize = 4096;

/// What became of spans, over all collectors there ever were.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    /// A collector has taken them.
    pub exported: Counter,
    /// There was no room in the queue, or no collector that took them in time.
    pub dropped: Counter,
}

/// What makes a collector. Two with the same settings are the same one, across a reload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CollectorSettings {
    /// Speaks HTTP/2.
    pub cluster: ClusterSettings,
    /// `:authority` of the requests.
    pub authority: HeaderValue,
    /// Sent with each export. May be secrets: the values are marked as sensitive, so that `Debug`
    /// does not show them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `service.name`.
    pub service: Arc<str>,
    /// What is said of the gateway beside its name.
    pub resource: Vec<(String, String)>,
}

/// Where spans go. Their export ends when this is dropped and its queue is empty.
#[derive(Debug)]
pub(crate) struct Collector {
    settings: CollectorSettings,
    queue: mpsc::Sender<SpanData>,
    /// None once they are exported.
    unserved: Mutex<Option<Unserved>>,
    spans: Arc<Spans>,
}

/// The other end of a collector, for its export.
#[derive(Debug)]
pub(super) struct Unserved {
    pub settings: CollectorSettings,
    pub cluster: Arc<Cluster>,
    pub queue: mpsc::Receiver<SpanData>,
    pub spans: Arc<Spans>,
}

impl Collector {
    /// A collector without an export yet. `cluster` is made of the settings'; `spans` are counted
    /// there.
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

    /// What its export needs, once.
    pub(super) fn take(&self) -> Option<Unserved> {
        self.unserved.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Queues a span, or drops it where there is no room. Never waits.
    pub(crate) fn push(&self, span: SpanData) {
        if self.queue.try_send(span).is_err() {
            self.spans.dropped.one_more();
        }
    }
}
