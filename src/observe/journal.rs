//! journald: its native protocol, and detection of a standard error that is connected to it.
//!
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>: a record is one datagram of `NAME=value` lines.
//! Values are escaped by the caller, so the format for values with newlines is not needed.

use std::env;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing::{Event, Level, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// The syslog identifier of the gateway in the journal.
const IDENTIFIER: &str = "edge-gateway";

/// Returns true if standard error is the stream that the service manager connected to the journal.
///
/// `JOURNAL_STREAM` alone is not enough: a child whose standard error is redirected inherits it.
pub(super) fn is_stderr() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let Ok(file) = stderr.and_then(|file| file.metadata()) else { return false };
    names(&stream, file.dev(), file.ino())
}

fn names(stream: &str, device: u64, inode: u64) -> bool {
    stream
        .split_once(':')
        .is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

/// Returns the layer that sends the gateway's own events.
///
/// # Errors
///
/// journald cannot be reached.
pub(super) fn events() -> io::Result<tracing_journald::Layer> {
    // By default INFO would become `notice`, which journalctl prints in bold.
    let priorities = PriorityMappings {
        info: Priority::Informational,
        debug: Priority::Debug,
        ..PriorityMappings::new()
    };
    Ok(tracing_journald::layer()?
        .with_field_prefix(None)
        .with_priority_mappings(priorities)
        .with_syslog_identifier(IDENTIFIER.to_owned()))
}

/// Format of text events for a journal that reads standard error: the journal takes the `<n>`
/// before each line as its priority (`sd-daemon(3)`).
#[derive(Debug)]
pub(super) struct Prefixed<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for Prefixed<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}

/// Fields that every record has: `info` as its priority, and the identifier of the gateway.
pub(super) const COMMON_FIELDS: &str = "PRIORITY=6\nSYSLOG_IDENTIFIER=edge-gateway\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_our_reader_only_if_device_and_inode_agree() {
        // (JOURNAL_STREAM, result of `names`), for device 8 and inode 4711
        let table =
            [("8:4711", true), ("8:4712", false), ("9:4711", false), ("", false), ("8", false)];
        for (stream, want) in table {
            assert_eq!(names(stream, 8, 4711), want, "{stream}");
        }
    }

    #[test]
    fn a_record_has_the_identifier_of_the_events() {
        assert_eq!(COMMON_FIELDS, format!("PRIORITY=6\nSYSLOG_IDENTIFIER={IDENTIFIER}\n"));
    }
}
