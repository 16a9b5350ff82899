//! Spans for the tests of other modules.

use opentelemetry_sdk::trace::SpanData;

use crate::trace::span;

/// Returns an empty span.
pub(crate) fn span() -> SpanData {
    span::blank()
}
