//! An API answer before it becomes an HTTP response.

use serde_json::Value;

use super::refused::ApiError;

/// The status code, body and warnings of an answer.
#[derive(Debug)]
pub(super) struct ApiAnswer {
    pub code: u16,
    pub body: AnswerBody,
    pub warnings: Vec<String>,
}

#[derive(Debug)]
pub(super) enum AnswerBody {
    Bytes { content_type: &'static str, bytes: Vec<u8> },
    Json(Value),
}

impl ApiAnswer {
    pub(super) fn json(code: u16, body: Value) -> Self {
        Self { code, body: AnswerBody::Json(body), warnings: Vec::new() }
    }

    pub(super) fn bytes(content_type: &'static str, bytes: Vec<u8>) -> Self {
        Self { code: 200, body: AnswerBody::Bytes { content_type, bytes }, warnings: Vec::new() }
    }
}

impl From<ApiError> for ApiAnswer {
    fn from(refused: ApiError) -> Self {
        Self::json(refused.code, refused.status())
    }
}
