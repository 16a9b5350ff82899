//! An answer of the admin interface.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::json;

/// An answer of the admin interface.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub content_type: &'static str,
    pub body: Bytes,
    /// Additional header fields of this answer.
    pub headers: &'static [(&'static str, &'static str)],
}

impl Answer {
    pub(super) fn of(body: Bytes) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/plain; charset=utf-8",
            body,
            headers: &[],
        }
    }

    pub(super) fn text(body: String) -> Self {
        Self::of(body.into())
    }

    /// Returns `value` as JSON.
    pub(crate) fn json(value: &impl Serialize) -> Self {
        // Plain data with text keys always serialises.
        let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
        text.push(b'\n');
        Self { content_type: "application/json", ..Self::of(text.into()) }
    }

    /// An error answer.
    pub(crate) fn refused(status: StatusCode, error: &str) -> Self {
        Self { status, ..Self::json(&json!({ "error": error })) }
    }

    /// The header fields of the answer.
    pub(crate) fn fields(&self) -> HeaderMap {
        let always = [
            ("content-type", self.content_type),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-resource-policy", "same-origin"),
        ];
        let fields = always.iter().chain(self.headers);
        fields
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }
}
