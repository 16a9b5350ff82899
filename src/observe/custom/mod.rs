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
mod operator;

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::record::AccessRecord;
use super::text::Stamp;

pub(crate) use condition::Condition;
pub(crate) use files::{LogFile, LogFiles};
pub(crate) use format::{Format, FormatFault};

/// Lists of headers that a thread keeps for exchanges to come.
const SPARES: usize = 64;

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

/// The headers that the settings of a Gateway ask for.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    request: Vec<HeaderName>,
    response: Vec<HeaderName>,
}

impl Wanted {
    fn request(&mut self, name: HeaderName) -> usize {
        place_of(&mut self.request, name)
    }

    fn response(&mut self, name: HeaderName) -> usize {
        place_of(&mut self.response, name)
    }
}

fn place_of(names: &mut Vec<HeaderName>, name: HeaderName) -> usize {
    names.iter().position(|known| *known == name).unwrap_or_else(|| {
        names.push(name);
        names.len() - 1
    })
}

impl GatewayLog {
    /// Settings with what all of them ask for; without any, nothing is written.
    pub(crate) fn new(settings: Vec<Setting>, wanted: Wanted) -> Self {
        Self { settings: settings.into(), wanted }
    }

    pub(crate) fn settings(&self) -> &[Setting] {
        &self.settings
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

/// The headers of an exchange that its log asks for. Most logs ask for none, and then it holds nothing.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Those of the request, then those of the response.
    values: Vec<Option<HeaderValue>>,
    of_request: usize,
}

thread_local! {
    static SPARE: RefCell<Vec<Vec<Option<HeaderValue>>>> = const { RefCell::new(Vec::new()) };
}

/// What is seen of an exchange whose log asks for nothing.
static NOTHING: Seen = Seen { values: Vec::new(), of_request: 0 };

impl Seen {
    /// No header of a request or response.
    pub(crate) fn nothing() -> &'static Self {
        &NOTHING
    }

    /// Keeps what `log` asks for of a request. A copy of a value shares its bytes.
    pub(crate) fn see_request(&mut self, log: &GatewayLog, headers: &HeaderMap) {
        let Wanted { request, response } = &log.wanted;
        if request.is_empty() && response.is_empty() {
            return;
        }
        if self.values.capacity() == 0 {
            let spare = SPARE.try_with(|spare| spare.try_borrow_mut().ok()?.pop());
            self.values = spare.ok().flatten().unwrap_or_default();
        }
        self.values.clear();
        self.values.extend(request.iter().map(|name| headers.get(name).cloned()));
        self.of_request = request.len();
        self.values.resize(request.len() + response.len(), None);
    }

    /// Keeps what `log` asks for of a response.
    pub(crate) fn see_response(&mut self, log: &GatewayLog, headers: &HeaderMap) {
        let Wanted { request, response } = &log.wanted;
        if response.is_empty() {
            return;
        }
        // Where the request was refused before its headers were looked at.
        self.of_request = request.len();
        self.values.resize(request.len() + response.len(), None);
        for (value, name) in self.values[self.of_request..].iter_mut().zip(response) {
            *value = headers.get(name).cloned();
        }
    }

    pub(super) fn request(&self, place: usize) -> Option<&[u8]> {
        self.values[..self.of_request].get(place)?.as_ref().map(HeaderValue::as_bytes)
    }

    pub(super) fn response(&self, place: usize) -> Option<&[u8]> {
        self.values[self.of_request..].get(place)?.as_ref().map(HeaderValue::as_bytes)
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if self.values.capacity() == 0 {
            return;
        }
        let mut values = std::mem::take(&mut self.values);
        values.clear();
        // A thread that ends has no use for it.
        let _ = SPARE.try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut()
                && spare.len() < SPARES
            {
                spare.push(values);
            }
        });
    }
}
