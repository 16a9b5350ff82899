//! The log of the gateway's own events, and its level.

use std::fmt::{Formatter, Result as Formatted};
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, reload};

use super::access_log::AccessLog;
use super::choice::LogChoice;
use super::forms::{AccessFormat, LogFormat, Output};
use super::journal;
use super::sink::Descriptor;
use super::spool::{LAST_FLUSH, Spool};

/// The running logs. Dropping them writes the remaining events, for at most one second.
#[derive(Debug)]
#[must_use = "the last events before the end are written when this is dropped"]
pub(crate) struct Logs {
    output: Output,
    /// `None` if events are sent to journald.
    events: Option<Spool>,
    level: LogLevel,
}

/// The minimum level of logged events; clones share it.
#[derive(Clone)]
pub(crate) struct LogLevel {
    level: Arc<Mutex<Level>>,
    apply: Arc<dyn Fn(Level) + Send + Sync>,
}

impl LogLevel {
    /// Creates the level. `apply` puts a new level into effect.
    pub(crate) fn new(level: Level, apply: impl Fn(Level) + Send + Sync + 'static) -> Self {
        Self { level: Arc::new(Mutex::new(level)), apply: Arc::new(apply) }
    }

    pub(crate) fn level(&self) -> Level {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the minimum level.
    pub(crate) fn set(&self, level: Level) {
        let mut current = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        *current = level;
        (self.apply)(level);
    }
}

impl std::fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut Formatter<'_>) -> Formatted {
        write!(f, "LogLevel({})", self.level())
    }
}

impl Logs {
    /// Starts the access log of the exchanges that `choice` selects. With [`AccessFormat::Auto`],
    /// it has the output and format of the events.
    ///
    /// # Errors
    ///
    /// The writer thread cannot be started, or standard output is closed.
    pub(crate) fn access_log(
        &self,
        format: AccessFormat,
        choice: LogChoice,
    ) -> io::Result<AccessLog> {
        AccessLog::start(self.output, format, choice, self.events.clone())
    }

    /// Returns the level of the events, which can be changed.
    pub(crate) fn level(&self) -> LogLevel {
        self.level.clone()
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        if let Some(events) = &self.events {
            events.flush(LAST_FLUSH);
        }
    }
}

/// Starts the log of the gateway's own events with the minimum level `level`. Events of libraries
/// are logged from `error` up; if `level` is `trace`, from `debug` up.
///
/// To be called once in a process: after a second call, the first log stays in effect.
///
/// # Errors
///
/// The writer thread cannot be started, or standard error is closed.
pub(crate) fn init(format: LogFormat, level: Level) -> io::Result<Logs> {
    let mut to_journal_by_pipe = false;
    let wanted = settle(format);
    if wanted == Output::Journald {
        match journal::events() {
            Ok(layer) => {
                let level = install(layer, level);
                return Ok(Logs { output: Output::Journald, events: None, level });
            }
            Err(_) => to_journal_by_pipe = journal::is_stderr(),
        }
    }
    let stderr = Descriptor::stderr()?;
    let events = Spool::start("events", "standard error", stderr, 1, Duration::ZERO)?;
    let writer = EventWriter { to: events.clone(), escape: wanted != Output::Json };
    let fmt = fmt::layer().with_writer(writer);
    let (output, level) = match wanted {
        Output::Json => (Output::Json, install(fmt.json().flatten_event(true), level)),
        Output::Text => (Output::Text, install(fmt.with_target(level > Level::INFO), level)),
        Output::Journald => {
            let level = if to_journal_by_pipe {
                // The journal adds the time to each line and reads `<n>` as its priority.
                let fmt = fmt.with_target(false).without_time();
                install(fmt.map_event_format(journal::Prefixed), level)
            } else {
                install(fmt.with_target(false), level)
            };
            tracing::warn!("journald not reached, logging to standard error and output");
            (Output::Json, level)
        }
    };
    Ok(Logs { output, events: Some(events), level })
}

fn settle(format: LogFormat) -> Output {
    match format {
        LogFormat::Journald => Output::Journald,
        LogFormat::Json => Output::Json,
        LogFormat::Text => Output::Text,
        LogFormat::Auto if journal::is_stderr() => Output::Journald,
        LogFormat::Auto if io::stdout().is_terminal() => Output::Text,
        LogFormat::Auto => Output::Json,
    }
}

fn install(layer: impl Layer<Registry> + Send + Sync, level: Level) -> LogLevel {
    let (wanted, handle) = reload::Layer::new(wanted(level));
    let subscriber = Registry::default().with(layer).with(wanted);
    // Fails only if a subscriber is already set, which stays in effect.
    let _ = tracing::subscriber::set_global_default(subscriber);
    let apply = move |level| {
        // Fails only if the subscriber is gone, and with it the log.
        let _ = handle.reload(self::wanted(level));
    };
    LogLevel::new(level, apply)
}

fn wanted(level: Level) -> Targets {
    let libraries = if level == Level::TRACE { LevelFilter::DEBUG } else { LevelFilter::ERROR };
    Targets::new().with_default(libraries).with_target("edge_gateway", level)
}

/// Passes events to the writer thread.
#[derive(Debug)]
struct EventWriter {
    to: Spool,
    /// True if the format does not escape control characters itself.
    escape: bool,
}

impl<'a> MakeWriter<'a> for EventWriter {
    type Writer = EventLine<'a>;

    fn make_writer(&'a self) -> EventLine<'a> {
        EventLine(self)
    }
}

/// The writer of one event. The formatter writes an event at once, so each write is one line.
#[derive(Debug)]
struct EventLine<'a>(&'a EventWriter);

impl Write for EventLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.escape {
            self.0.to.push(printable(line).as_bytes());
        } else {
            self.0.to.push(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the line with its control characters escaped (`\u{1b}`), except the newline at its end.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut printable = String::with_capacity(text.len() + 1);
    for char in text.trim_end_matches('\n').chars() {
        if char.is_control() {
            printable.extend(char.escape_unicode());
        } else {
            printable.push(char);
        }
    }
    printable.push('\n');
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_that_is_asked_for_is_not_second_guessed() {
        assert_eq!(settle(LogFormat::Json), Output::Json);
        assert_eq!(settle(LogFormat::Text), Output::Text);
        assert_eq!(settle(LogFormat::Journald), Output::Journald);
    }

    #[test]
    fn an_event_is_one_line_whatever_it_says() {
        let table = [
            ("INFO plain\n", "INFO plain\n"),
            ("a\nINFO forged\r\n", "a\\u{a}INFO forged\\u{d}\n"),
            ("\u{1b}[2J\u{9b}2J\t\n", "\\u{1b}[2J\\u{9b}2J\\u{9}\n"),
            ("Grüße\n", "Grüße\n"),
        ];
        for (line, want) in table {
            assert_eq!(printable(line.as_bytes()), want);
        }
    }
}
