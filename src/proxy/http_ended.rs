//! The reason why HTTP on a downstream connection ended.

use std::io;

/// The reason why HTTP on a connection ended, if not by the client's choice.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpEnded {
    #[error("HTTP")]
    Http(#[source] hyper::Error),
    #[error("writing to the client")]
    Write(#[source] io::Error),
    #[error("a time limit passed or a drain ended")]
    Late,
}
