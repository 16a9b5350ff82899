//! Logs to the journal and one record per exchange.
//!
//! Two streams. The gateway's own events (`tracing`) tell of its state, go to the journal or to
//! standard error, and are few. Access records tell of exchanges, go to the journal or to standard
//! output, one each, and are many: [`AccessLog`] formats on the calling thread and leaves the
//! writing to a thread of its own.
//!
//! Invariant: a request never waits for whoever reads a log. What cannot be written is dropped and
//! counted. One weakness stands: events to journald are sent by `tracing-journald` on the thread
//! that emits them, so events must stay rare; nothing at `info` may be emitted once per request.
//!
//! Words of a peer in an event are best recorded with `?`: `Debug` escapes them and shows where they
//! end. What comes with `%` all the same cannot forge a line or move a cursor: JSON escapes it, and
//! so does [`events`] in text.

mod access_log;
mod choice;
mod counted;
mod custom;
mod envoy;
mod events;
mod forms;
mod journal;
mod recent;
mod record;
mod redact;
mod spool;
mod text;

pub(crate) use access_log::AccessLog;
pub(crate) use choice::{Choice, Sample, Statuses};
pub(crate) use counted::{counted, listed};
pub(crate) use custom::{
    Condition, Format, FormatFault, GatewayLog, LogFile, LogFiles, Seen, Setting, Wanted,
};
pub(crate) use events::{LogLevel, init};
pub(crate) use forms::{AccessFormat, LogFormat};
pub(crate) use record::{AccessRecord, Upstream};
pub(crate) use redact::redacted_target;
pub(crate) use text::whole_millis;
