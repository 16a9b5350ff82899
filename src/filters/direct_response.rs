//! `directResponse` of an HTTPRouteFilter.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

use crate::filters::Verdict;

/// Answers in place of a backend. Envoy Gateway's `HTTPDirectResponseFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DirectResponse {
    pub status: StatusCode,
    pub content_type: Option<HeaderValue>,
    pub body: Bytes,
}

impl DirectResponse {
    pub(crate) fn answer(&self) -> Verdict {
        let mut response = http::Response::new(self.body.clone());
        *response.status_mut() = self.status;
        if let Some(content_type) = &self.content_type {
            response.headers_mut().insert(CONTENT_TYPE, content_type.clone());
        }
        Verdict::Break(response)
    }
}
