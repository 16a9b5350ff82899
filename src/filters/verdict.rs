//! The verdict of a filter on a request.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::failure::Failure;

/// Continue, or answer now.
pub(crate) type Verdict = ControlFlow<Stop>;

/// The end of a request at a filter: no backend sees it.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A response in place of a backend's, complete as it is.
    Answer(http::Response<Bytes>),
    /// The request is refused. The failure has the status, and what the log says.
    Refuse(Failure),
}
