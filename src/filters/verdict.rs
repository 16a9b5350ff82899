//! The verdict of a filter on a request.

use std::ops::ControlFlow;

use bytes::Bytes;

/// Continue, or answer now.
pub(crate) type Verdict = ControlFlow<http::Response<Bytes>>;
