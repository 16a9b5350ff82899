//! The event log and the access log.
//!
//! There are two streams. The gateway's own events (`tracing`) report its state, go to the journal
//! or to standard error, and are few. Access records report one exchange each, go to the journal or
//! to standard output, and are many: [`AccessLog`] formats them on the calling thread, and a
//! separate thread writes them.
//!
//! Invariant: a request never waits for the reader of a log. Records that cannot be written are
//! dropped and counted. There is one weakness: `tracing-journald` sends events to journald on the
//! thread that emits them. Events must therefore be rare: none at `info` may be emitted once per
//! request.
//!
//! Values from a peer should be recorded in an event with `?`: `Debug` escapes and quotes them.
//! Values recorded with `%` cannot forge a line or move a terminal's cursor either: JSON escapes
//! them, and [`events`] escapes them in text.

mod access_log;
mod choice;
mod counted;
mod custom;
mod envoy;
mod events;
mod forms;
mod journal;
mod journal_socket;
mod own_formats;
mod recent;
mod record;
mod redact;
mod sink;
mod spool;
mod text;

pub(crate) use access_log::AccessLog;
pub(crate) use choice::{LogChoice, Sample, StatusRanges};
pub(crate) use counted::{counted, listed};
pub(crate) use custom::{
    Condition, Format, FormatFault, GatewayLog, LogFile, LogFiles, Seen, Setting, Wanted,
};
pub(crate) use events::{LogLevel, init};
pub(crate) use forms::{AccessFormat, LogFormat};
pub(crate) use record::{AccessRecord, Upstream};
pub(crate) use redact::redacted_target;
pub(crate) use text::whole_millis;
