//! One try of a traced request at a backend.

use std::time::Duration;

use crate::stats::ResponseFlag;
use crate::trace::context::SpanId;
use crate::upstream::EndpointName;

/// One try at a backend.
#[derive(Debug)]
pub(super) struct Try {
    pub span: SpanId,
    pub began: Duration,
    /// None as long as the exchange with the backend lasts.
    pub ended: Option<Duration>,
    /// None where it was given up before anything came of it.
    pub outcome: Option<Outcome>,
    pub endpoint: Option<EndpointName>,
}

/// What a try came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There is no response; Envoy's flag for it.
    Failed(ResponseFlag),
    /// The head of a response with this status.
    Status(u16),
}
