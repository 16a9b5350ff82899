//! An answer before it becomes a response of HTTP.

use serde_json::Value;

use super::refused::Refused;

/// Status, body and warnings.
#[derive(Debug)]
pub(super) struct Answer {
    pub code: u16,
    pub body: Body,
    pub warnings: Vec<String>,
}

#[derive(Debug)]
pub(super) enum Body {
    Bytes { content_type: &'static str, bytes: Vec<u8> },
    Json(Value),
}

impl Answer {
    pub(super) fn json(code: u16, body: Value) -> Self {
        Self { code, body: Body::Json(body), warnings: Vec::new() }
    }

    pub(super) fn bytes(content_type: &'static str, bytes: Vec<u8>) -> Self {
        Self { code: 200, body: Body::Bytes { content_type, bytes }, warnings: Vec::new() }
    }
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Self {
        Self::json(refused.code, refused.status())
    }
}
