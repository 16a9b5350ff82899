//! The verdict of a filter on a request.

use std::mem;
use std::ops::ControlFlow;

use bytes::Bytes;
use http::{StatusCode, request};

use crate::failure::Failure;

/// Continue, or answer now.
pub(crate) type Verdict = ControlFlow<Stop>;

/// The end of a request at a filter: no backend sees it.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A response in place of a backend's, complete as it is. It may use the memory of the request's
    /// head, which nobody reads any more.
    Answer(http::Response<Bytes>),
    /// The request is refused. The failure has the status, and what the log says.
    Refuse(Failure),
}

/// Begins a response whose fields use the memory of the request's fields, so that a short one
/// allocates nothing for them.
pub(super) fn answer_to(
    head: &mut request::Parts,
    status: StatusCode,
    body: Bytes,
) -> http::Response<Bytes> {
    let mut response = http::Response::new(body);
    *response.status_mut() = status;
    let mut headers = mem::take(&mut head.headers);
    headers.clear();
    *response.headers_mut() = headers;
    response
}
