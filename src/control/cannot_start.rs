//! Reasons why the gateway does not start.

use std::io;

use crate::config::Diagnostic;
use crate::control::CannotBind;

/// The reason why nothing is served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotStart {
    #[error("{}", list(.0))]
    Binds(Vec<CannotBind>),
    /// The diagnostics were logged one by one.
    #[error("the configuration has faults, see above; nothing is served")]
    Configuration(Vec<Diagnostic>),
    #[error("{NO_DESCRIPTOR}: {source}")]
    Copies { source: io::Error },
    #[error("{0}")]
    Load(String),
    #[error("threads cannot be started")]
    Workers(#[source] io::Error),
}

pub(super) const NO_DESCRIPTOR: &str = "no descriptor is free for the listening sockets";

/// Formats one line for each port.
pub(super) fn list(failed: &[CannotBind]) -> String {
    failed.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
