//! Attempts of a traced request at backends.

use std::time::Duration;

use crate::stats::ResponseFlags;
use crate::trace::context::SpanId;
use crate::upstream::EndpointName;

/// One attempt at a backend.
#[derive(Debug)]
pub(super) struct Try {
    pub span: SpanId,
    pub began: Duration,
    /// `None` while the exchange with the backend continues.
    pub ended: Option<Duration>,
    /// `None` if the attempt was abandoned before its outcome was known.
    pub outcome: Option<Outcome>,
    pub endpoint: Option<EndpointName>,
}

/// The outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There was no response; the reason as Envoy's response flags.
    Failed(ResponseFlags),
    /// A response head with this status.
    Status(u16),
}
