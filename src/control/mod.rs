//! The loop: signals, file changes and drain, one event at a time.

pub(crate) mod signals;
pub(crate) mod watch;
