//! The access logs of Gateways: `spec.telemetry.accessLog` of their EnvoyProxies.
//!
//! A log is never a reason to refuse traffic: a setting that cannot be written is left out and
//! reported, and a Gateway without any remaining setting uses the default access log of the
//! process.

use std::sync::Arc;

use crate::api::envoy::{
    AccessLogFormatType, AccessLogSetting, AccessLogSink, AccessLogSinkType, AccessLogType,
};
use crate::config::{Fault, FieldPath, Origin, field_path};
use crate::graph::{Gateway, Graph, Proxy};
use crate::observe::{
    Condition, Format, FormatFault, GatewayLog, LogFile, LogFiles, Setting, Wanted,
};

/// The access log of each EnvoyProxy, in the order of the graph.
#[derive(Debug)]
pub(super) struct AccessLogs(Vec<Option<Arc<GatewayLog>>>);

impl AccessLogs {
    /// Compiles the logs of every EnvoyProxy. Files are opened only for an EnvoyProxy that a served
    /// Gateway uses.
    pub(super) fn new(graph: &Graph<'_>, files: &LogFiles, faults: &mut Vec<Fault>) -> Self {
        let unopened = LogFiles::unopened();
        let logs = graph.proxies.iter().enumerate().map(|(place, proxy)| {
            let mut gateways = graph.gateways.iter().filter(|gateway| gateway.is_served());
            let is_used = gateways.any(|gateway| gateway.proxy == Some(place));
            let files = if is_used { files } else { &unopened };
            Compiling { proxy, files, wanted: Wanted::default(), faults }.log().map(Arc::new)
        });
        Self(logs.collect())
    }

    /// Returns the log of a Gateway; `None` if it uses the default access log of the process.
    pub(super) fn of(&self, gateway: &Gateway<'_>) -> Option<&Arc<GatewayLog>> {
        self.0.get(gateway.proxy?)?.as_ref()
    }
}

struct Compiling<'c> {
    proxy: &'c Proxy<'c>,
    files: &'c LogFiles,
    wanted: Wanted,
    faults: &'c mut Vec<Fault>,
}

impl Compiling<'_> {
    fn log(mut self) -> Option<GatewayLog> {
        let log = self.proxy.object.access_log()?;
        if log.disable == Some(true) {
            return Some(GatewayLog::new(Vec::new(), self.wanted));
        }
        let settings = log.settings.iter().enumerate();
        let settings: Vec<Setting> = settings
            .filter_map(|(place, setting)| {
                self.setting(setting, &field_path!(spec.telemetry.accessLog.settings[place]))
            })
            .collect();
        (!settings.is_empty()).then(|| GatewayLog::new(settings, self.wanted))
    }

    /// Compiles one setting; returns `None` if it writes nothing, which is reported.
    fn setting(&mut self, setting: &AccessLogSetting, at: &FieldPath) -> Option<Setting> {
        if setting.kind == Some(AccessLogType::Listener) {
            let problem = "a line for a connection is not written, so this setting is left out; leave \
                           `type` out, or use Route";
            self.warn(at.clone().field("type"), problem);
            return None;
        }
        // Every part is read, so that each fault is reported.
        let format = self.format(setting, &at.clone().field("format"));
        let conditions = self.conditions(&setting.matches, &at.clone().field("matches"));
        let sinks = setting.sinks.iter().enumerate();
        let files: Vec<LogFile> = sinks
            .filter_map(|(place, sink)| self.sink(sink, &at.clone().field("sinks").item(place)))
            .collect();
        let setting = Setting { format: format?, conditions: conditions?, files };
        (!setting.files.is_empty()).then_some(setting)
    }

    fn format(&mut self, setting: &AccessLogSetting, at: &FieldPath) -> Option<Format> {
        let written = setting.format.as_ref();
        let is_text = written.and_then(|of| of.kind.as_ref()) == Some(&AccessLogFormatType::Text);
        let mut found = Vec::new();
        let wanted = &mut self.wanted;
        let format = match written.map(|of| (&of.text, &of.json)) {
            Some((Some(text), _)) if is_text => Format::text(text, wanted, &mut found),
            Some((_, Some(json))) => Format::json(json, wanted, &mut found),
            _ => Some(Format::default_json(wanted)),
        };
        if written.is_some_and(|of| of.text.is_some()) && !is_text {
            let problem = "is not written, for lines are JSON where the type is not Text; write \
                           `type: Text`";
            self.warn(at.clone().field("text"), problem);
        }
        for FormatFault { key, problem, is_malformed } in found {
            let field = match key {
                None => at.clone().field("text"),
                Some(key) => at.clone().field("json").field(key),
            };
            let so = if is_malformed { "; this setting is left out" } else { "" };
            self.refuse(field, format!("{problem}{so}"));
        }
        format
    }

    fn conditions(&mut self, written: &[String], at: &FieldPath) -> Option<Vec<Condition>> {
        let mut is_whole = true;
        let mut conditions = Vec::new();
        for (place, expression) in written.iter().enumerate() {
            match Condition::read(expression, &mut self.wanted) {
                Ok(condition) => conditions.push(condition),
                Err(problem) => {
                    is_whole = false;
                    let problem = format!("{problem}; this setting is left out");
                    self.refuse(at.clone().item(place), problem);
                }
            }
        }
        is_whole.then_some(conditions)
    }

    fn sink(&mut self, sink: &AccessLogSink, at: &FieldPath) -> Option<LogFile> {
        let path = match (&sink.kind, &sink.file) {
            (AccessLogSinkType::File, Some(file)) => &file.path,
            (AccessLogSinkType::Als | AccessLogSinkType::OpenTelemetry, _) => {
                let problem =
                    format!("nothing is sent to {}; use File, which is served", sink.kind);
                self.warn(at.clone().field("type"), problem);
                return None;
            }
            // These break a rule of the kind, which is reported.
            (AccessLogSinkType::File | AccessLogSinkType::Unknown(_), _) => return None,
        };
        match self.files.open(path) {
            Ok(file) => Some(file),
            Err(unopened) => {
                // A full disk or a missing directory is not a mistake in the files.
                let origin = if path.starts_with('/') { Origin::Host } else { Origin::Written };
                let field = at.clone().field("file").field("path");
                let fault = Fault::error(self.proxy.key.clone(), field, unopened.problem);
                self.faults.push(Fault { origin, ..fault });
                unopened.before
            }
        }
    }

    fn refuse(&mut self, field: FieldPath, problem: String) {
        self.faults.push(Fault::error(self.proxy.key.clone(), field, problem));
    }

    fn warn(&mut self, field: FieldPath, problem: impl Into<String>) {
        self.faults.push(Fault::warning(self.proxy.key.clone(), field, problem));
    }
}
