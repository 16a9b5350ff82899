//! Access logs of Gateways (EnvoyProxy, `spec.telemetry.accessLog`). They are written in place of
//! the gateway's own access log. Each setting has a format, conditions and files.
//!
//! A setting is parsed when the snapshot is compiled. An exchange keeps the headers that the
//! settings need. At its end, each setting whose conditions hold adds a line to the queues of its
//! files. If there is no room, the line is dropped and counted; the exchange does not wait.

mod condition;
mod files;
mod format;
mod headers;
mod operator;

use super::record::AccessRecord;
use super::text::Stamp;

pub(crate) use condition::Condition;
pub(crate) use files::{LogFile, LogFiles};
pub(crate) use format::{Format, FormatFault};
pub(crate) use headers::{Seen, Wanted};

/// The access log of one Gateway, in place of the gateway's own.
#[derive(Debug)]
pub(crate) struct GatewayLog {
    /// Empty if nothing is logged.
    settings: Box<[Setting]>,
    wanted: Wanted,
}

/// One format, with the conditions on its exchanges and its files.
#[derive(Debug)]
pub(crate) struct Setting {
    pub format: Format,
    /// All conditions must hold.
    pub conditions: Vec<Condition>,
    pub files: Vec<LogFile>,
}

impl GatewayLog {
    /// Creates a log from settings and the headers that they need. Without settings, nothing is
    /// logged.
    pub(crate) fn new(settings: Vec<Setting>, wanted: Wanted) -> Self {
        Self { settings: settings.into(), wanted }
    }

    pub(crate) fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// Returns the headers that the settings need.
    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Logs an exchange. `line` is a scratch buffer.
    pub(super) fn record(&self, record: &AccessRecord<'_>, line: &mut Vec<u8>, stamp: &mut Stamp) {
        for setting in &self.settings {
            if setting.conditions.iter().all(|condition| condition.holds(record)) {
                line.clear();
                setting.format.write(record, line, stamp);
                for file in &setting.files {
                    file.push(line);
                }
            }
        }
    }
}
