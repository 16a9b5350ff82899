//! `directResponse` of an HTTPRouteFilter.

use std::fmt::{self, Display, Formatter};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode, request};

use crate::filters::verdict::answer_to;
use crate::filters::{Exchange, HttpFilter, Phase, Stop, Verdict};

/// Answers in place of a backend. Envoy Gateway's `HTTPDirectResponseFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DirectResponse {
    pub status: StatusCode,
    pub content_type: Option<HeaderValue>,
    pub body: Bytes,
}

impl Display for DirectResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "answer {} with {} bytes", self.status.as_u16(), self.body.len())
    }
}

impl HttpFilter for DirectResponse {
    fn phase(&self) -> Phase {
        Phase::Answer
    }

    fn apply(&self, _: &mut Exchange, head: &mut request::Parts) -> Verdict {
        let mut response = answer_to(head, self.status, self.body.clone());
        if let Some(content_type) = &self.content_type {
            response.headers_mut().insert(CONTENT_TYPE, content_type.clone());
        }
        Verdict::Break(Stop::Answer(response))
    }
}
