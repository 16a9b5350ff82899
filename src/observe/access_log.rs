//! The access log: one record per exchange, written to journald, to standard output, or to the
//! files of the Gateway's access log.

use std::cell::RefCell;
use std::io;
#[cfg(test)]
use std::io::Write;
use std::sync::Arc;

use super::choice::LogChoice;
use super::custom::{GatewayLog, LogFiles};
use super::forms::{AccessFormat, Output};
use super::journal_socket::JournalSocket;
use super::recent::Recent;
use super::record::AccessRecord;
use super::sink::Descriptor;
use super::spool::{LAST_FLUSH, Spool};
use super::text::Stamp;

/// Capacity that the line buffer keeps between records, in bytes; larger than ordinary lines.
const BUFFER_BYTES: usize = 16 << 10;

/// The access log; clones share it.
///
/// A separate thread writes. [`record`](Self::record) formats on the calling thread and never waits
/// for the writer: if the reader of the log is too slow, records are dropped and counted, and the
/// loss is logged once records are written again.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    form: Form,
    /// `None` for a log that discards all records.
    spool: Option<Spool>,
    recent: Arc<Recent>,
    /// The files of Gateways' access logs.
    files: LogFiles,
    choice: LogChoice,
}

/// The format of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    EnvoyJson,
    Journald,
    Json,
    Text,
}

impl Form {
    fn of(output: Output, format: AccessFormat) -> Self {
        match (format, output) {
            (AccessFormat::EnvoyJson, _) => Self::EnvoyJson,
            (AccessFormat::Auto, Output::Journald) => Self::Journald,
            (AccessFormat::Auto, Output::Json) => Self::Json,
            (AccessFormat::Auto, Output::Text) => Self::Text,
        }
    }
}

thread_local! {
    /// Buffers of this thread, so that formatting a record allocates nothing.
    static DESK: RefCell<Desk> = const { RefCell::new(Desk { line: Vec::new(), stamp: Stamp::new() }) };
}

struct Desk {
    /// A line for the files of a Gateway's log.
    line: Vec<u8>,
    stamp: Stamp,
}

impl AccessLog {
    /// Starts the access log. Depending on `output`, it writes datagrams to journald or lines to
    /// standard output; with [`AccessFormat::EnvoyJson`], always lines. `events` is the queue that
    /// writes to standard error, and `choice` selects the exchanges.
    ///
    /// # Errors
    ///
    /// The writer thread cannot be started, or the output cannot be opened.
    pub(super) fn start(
        output: Output,
        format: AccessFormat,
        choice: LogChoice,
        events: Option<Spool>,
    ) -> io::Result<Self> {
        let form = Form::of(output, format);
        let (spool, stdout) = match form {
            Form::Journald => (Spool::for_records("journald", JournalSocket::system()?)?, None),
            Form::EnvoyJson | Form::Json | Form::Text => {
                let spool = Spool::for_records("standard output", Descriptor::stdout()?)?;
                (spool.clone(), Some(spool))
            }
        };
        let files = LogFiles::new(stdout, events);
        Ok(Self { form, spool: Some(spool), recent: Arc::default(), files, choice })
    }

    /// Starts a log that writes lines to `to`: text or, for every other `output`, JSON.
    ///
    /// # Errors
    ///
    /// The writer thread cannot be started.
    #[cfg(test)]
    pub(crate) fn to(to: impl Write + Send + 'static, output: Output) -> io::Result<Self> {
        let form = if output == Output::Text { Form::Text } else { Form::Json };
        let spool = Some(Spool::for_records("a test", Descriptor::new(to))?);
        Ok(Self { form, spool, ..Self::discard() })
    }

    /// Returns a log that discards all records.
    #[cfg(test)]
    pub(crate) fn discard() -> Self {
        Self {
            form: Form::Json,
            spool: None,
            recent: Arc::default(),
            files: LogFiles::unopened(),
            choice: LogChoice::default(),
        }
    }

    /// Logs one exchange, in the Gateway's own access log if it has one. Never blocks.
    pub(crate) fn record(&self, log: Option<&GatewayLog>, record: &AccessRecord<'_>) {
        let Some(spool) = &self.spool else { return };
        let is_chosen = self.choice.takes(record);
        let written = DESK.try_with(|desk| {
            let Ok(mut desk) = desk.try_borrow_mut() else { return false };
            let Desk { line, stamp } = &mut *desk;
            match (is_chosen, log) {
                (false, _) => {}
                (true, Some(log)) => {
                    line.clear();
                    line.shrink_to(BUFFER_BYTES);
                    log.record(record, line, stamp);
                }
                (true, None) => spool.push_with(|out| match self.form {
                    Form::EnvoyJson => record.envoy(out, stamp),
                    Form::Journald => record.journal(out, stamp),
                    Form::Json => record.json(out, stamp),
                    Form::Text => record.text(out, stamp),
                }),
            }
            self.recent.record(record, stamp);
            true
        });
        if !matches!(written, Ok(true)) {
            // The thread is ending and its buffers are gone.
            spool.lost();
        }
    }

    /// Returns the most recent exchanges.
    pub(crate) fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Returns the files of Gateways' access logs.
    pub(crate) fn files(&self) -> LogFiles {
        self.files.clone()
    }

    /// Reopens the files of Gateways' access logs, which may have been rotated.
    pub(crate) fn reopen(&self) {
        self.files.reopen();
    }

    /// Returns the logs that cannot be written now, each with the reason. Includes the event log if
    /// it is written as lines.
    pub(crate) fn faults(&self) -> Vec<String> {
        // Standard output is included in the files.
        let own = self.spool.as_ref().filter(|_| self.form == Form::Journald);
        own.and_then(Spool::fault).into_iter().chain(self.files.faults()).collect()
    }

    /// Returns the number of records dropped since the start, including those of Gateways' logs.
    pub(crate) fn dropped(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::dropped) + self.files.dropped()
    }

    /// Waits until every record made before this call is written or lost, at most two seconds.
    /// Returns false on timeout. For the end of the process and for tests; records are written
    /// without it.
    pub(crate) fn flush(&self) -> bool {
        let own = self.spool.as_ref().is_none_or(|spool| spool.flush(LAST_FLUSH));
        self.files.flush(LAST_FLUSH) && own
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::observe::record::tests::sample;
    use crate::stats::ResponseFlag;

    const PATIENCE: Duration = Duration::from_secs(10);

    struct Lines(mpsc::Sender<Vec<u8>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn journal_log(sink: JournalSocket) -> AccessLog {
        let spool = Some(Spool::for_records("journald", sink).unwrap());
        AccessLog { form: Form::Journald, spool, ..AccessLog::discard() }
    }

    #[test]
    fn records_come_out_whole_and_in_the_form_asked_for() {
        for (output, begins) in [(Output::Json, "{\"time\":"), (Output::Text, "2026-09-14T")] {
            let (lines, written) = mpsc::channel();
            let log = AccessLog::to(Lines(lines), output).unwrap();
            log.record(None, &sample());
            log.record(None, &sample());
            assert!(log.flush());
            let all: Vec<u8> = written.try_iter().flatten().collect();
            let all = String::from_utf8(all).unwrap();
            assert_eq!(all.lines().count(), 2, "{all}");
            assert!(all.lines().all(|line| line.starts_with(begins)), "{all}");
            assert_eq!(log.dropped(), 0);
        }
    }

    #[test]
    fn a_record_comes_out_without_a_flush() {
        let (lines, written) = mpsc::channel();
        let log = AccessLog::to(Lines(lines), Output::Json).unwrap();
        log.record(None, &sample());
        assert!(written.recv_timeout(PATIENCE).unwrap().ends_with(b"}\n"));
    }

    #[test]
    fn one_record_is_one_datagram_of_native_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        journald.set_read_timeout(Some(PATIENCE)).unwrap();
        let sink = JournalSocket::to(&path).unwrap();
        let log = journal_log(sink);

        let hostile = AccessRecord { user_agent: Some(b"a\nPRIORITY=0"), ..sample() };
        log.record(None, &hostile);
        log.record(
            None,
            &AccessRecord {
                status: 503,
                flags: ResponseFlag::UpstreamConnectionFailure.into(),
                ..sample()
            },
        );

        let mut bytes = [0; 8192];
        let length = journald.recv(&mut bytes).unwrap();
        let text = std::str::from_utf8(&bytes[..length]).unwrap();
        let fields: Vec<(&str, &str)> =
            text.lines().map(|line| line.split_once('=').unwrap()).collect();
        for (name, value) in [
            ("PRIORITY", "6"),
            ("SYSLOG_IDENTIFIER", "edge-gateway"),
            ("EG_METHOD", "GET"),
            ("EG_HOST", "shop.example.com"),
            ("EG_PATH", "/cart?item=7&token=[redacted]"),
            ("EG_STATUS", "200"),
            ("EG_DURATION_MS", "12.345"),
            ("EG_ROUTE", "shop/cart"),
            ("EG_UPSTREAM", "10.0.0.5:8080"),
            ("EG_FLAGS", "-"),
            ("EG_REQUEST_ID", "0f8fad5b-d9cb-469f-a165-70867728950e"),
            ("EG_USER_AGENT", "a\\x0APRIORITY=0"),
        ] {
            let found: Vec<_> = fields.iter().filter(|field| field.0 == name).collect();
            assert_eq!(found, [&(name, value)]);
        }
        assert!(
            fields.iter().any(|(name, text)| *name == "MESSAGE" && text.contains("\"GET shop"))
        );

        let length = journald.recv(&mut bytes).unwrap();
        let text = std::str::from_utf8(&bytes[..length]).unwrap();
        assert!(text.contains("\nEG_STATUS=503\n") && text.contains("\nEG_FLAGS=UF\n"), "{text}");
    }

    #[test]
    fn records_are_counted_as_dropped_while_journald_is_away_and_come_again_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let sink = JournalSocket::to(&path).unwrap();
        let log = journal_log(sink);
        log.record(None, &sample());
        assert!(log.flush());
        assert_eq!(log.dropped(), 1);

        let journald = UnixDatagram::bind(&path).unwrap();
        log.record(None, &sample());
        assert!(log.flush());
        assert_eq!(log.dropped(), 1);
        let mut bytes = [0; 8192];
        assert!(journald.recv(&mut bytes).unwrap() > 0);
    }

    #[test]
    fn a_log_that_nobody_keeps_drops_nothing() {
        let log = AccessLog::discard();
        log.record(None, &sample());
        assert!(log.flush());
        assert_eq!(log.dropped(), 0);
    }
}
