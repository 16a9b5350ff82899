//! Access logs that somebody has written: a format, whose lines they are, and where they go. They are
//! written in place of the gateway's own log, for one Gateway (EnvoyProxy,
//! `spec.telemetry.accessLog`).
//!
//! A setting is taken apart when the snapshot is compiled. An exchange then keeps the headers that some
//! setting asks for, and at its end each setting whose conditions hold has its line written into the
//! queues of its files, where it is dropped and counted rather than waited for.

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

/// How the exchanges of a Gateway are logged in place of the gateway's own log.
#[derive(Debug)]
pub(crate) struct GatewayLog {
    /// None where nothing is to be written.
    settings: Box<[Setting]>,
    wanted: Wanted,
}

/// One format, and the exchanges and files that it is for.
#[derive(Debug)]
pub(crate) struct Setting {
    pub format: Format,
    /// All of them must hold.
    pub conditions: Vec<Condition>,
    pub files: Vec<LogFile>,
}

impl GatewayLog {
    /// Settings with what all of them ask for; without any, nothing is written.
    pub(crate) fn new(settings: Vec<Setting>, wanted: Wanted) -> Self {
        Self { settings: settings.into(), wanted }
    }

    pub(crate) fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// The headers that the settings ask for.
    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Writes an exchange down. `line` is a buffer.
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
