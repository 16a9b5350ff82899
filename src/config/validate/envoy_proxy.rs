//! The rules of EnvoyProxy (gateway.envoyproxy.io): those of Envoy Gateway's CRD for the supported
//! fields.

use crate::api::envoy::{
    AccessLog, AccessLogFormat, AccessLogFormatType, AccessLogSetting, AccessLogSink,
    AccessLogSinkType, AccessLogType, CustomTagType, EnvoyProxySpec, Tracing, TracingProvider,
    TracingProviderType,
};
use crate::api::shared::PlainBackendRef;
use crate::config::path::Path;

use super::route;
use super::violations::Violations;

pub(super) fn spec(spec: &EnvoyProxySpec, at: Path<'_>, found: &mut Violations) {
    let Some(telemetry) = &spec.telemetry else { return };
    let at = at.field("telemetry");
    if let Some(log) = &telemetry.access_log {
        access_log(log, at.field("accessLog"), found);
    }
    if let Some(spec) = &telemetry.tracing {
        tracing(spec, at.field("tracing"), found);
    }
}

fn access_log(log: &AccessLog, at: Path<'_>, found: &mut Violations) {
    let settings = at.field("settings");
    found.count(settings, log.settings.len(), 0..=50);
    for (index, of) in log.settings.iter().enumerate() {
        setting(of, settings.item(index), found);
    }
}

fn setting(setting: &AccessLogSetting, at: Path<'_>, found: &mut Violations) {
    let kind = setting.kind.as_ref().and_then(AccessLogType::unknown);
    found.word(at.field("type"), kind, AccessLogType::WORDS);
    if let Some(of) = &setting.format {
        format(of, at.field("format"), found);
    }
    found.count(at.field("matches"), setting.matches.len(), 0..=10);
    let sinks = at.field("sinks");
    found.count(sinks, setting.sinks.len(), 1..=50);
    for (index, of) in setting.sinks.iter().enumerate() {
        sink(of, sinks.item(index), found);
    }
}

fn format(format: &AccessLogFormat, at: Path<'_>, found: &mut Violations) {
    let unknown = format.kind.as_ref().and_then(AccessLogFormatType::unknown);
    found.word(at.field("type"), unknown, AccessLogFormatType::WORDS);
    let (text, json) = (format.text.is_some(), format.json.is_some());
    match format.kind {
        Some(AccessLogFormatType::Text) => {
            let problem = "If AccessLogFormat type is Text, text field needs to be set.";
            found.require(text, at, problem);
            let problem = "json must not be set where the type is Text";
            found.require(!json, at.field("json"), problem);
        }
        Some(AccessLogFormatType::Json) => {
            let problem = "If AccessLogFormat type is JSON, json field needs to be set.";
            found.require(json, at, problem);
            let problem = "text must not be set where the type is JSON";
            found.require(!text, at.field("text"), problem);
        }
        Some(AccessLogFormatType::Unknown(_)) | None => {}
    }
}

fn sink(sink: &AccessLogSink, at: Path<'_>, found: &mut Violations) {
    use AccessLogSinkType::{Als, File, OpenTelemetry};

    found.word(at.field("type"), sink.kind.unknown(), AccessLogSinkType::WORDS);
    for (kind, field, is_set) in [
        (Als, "als", sink.als.is_some()),
        (File, "file", sink.file.is_some()),
        (OpenTelemetry, "openTelemetry", sink.open_telemetry.is_some()),
    ] {
        if (sink.kind == kind) != is_set && sink.kind.unknown().is_none() {
            let problem =
                format!("If AccessLogSink type is {kind}, {field} field needs to be set.");
            found.add(if is_set { at.field(field) } else { at }, problem);
        }
    }
    if let Some(file) = &sink.file {
        found.length(at.field("file").field("path"), &file.path, 1..=4096);
    }
}

fn tracing(tracing: &Tracing, at: Path<'_>, found: &mut Violations) {
    if let Some(percent) = tracing.sampling_rate {
        found.number(at.field("samplingRate"), percent, 0..=100);
    }
    if let Some(fraction) = tracing.sampling_fraction {
        let at = at.field("samplingFraction");
        if fraction.denominator() == 0 {
            found.add(at.field("denominator"), "0 is out of range; use 1 or more");
        }
        let problem = "numerator must be less than or equal to denominator";
        found.require(fraction.numerator <= fraction.denominator(), at, problem);
    }
    let problem = "only one of SamplingRate or SamplingFraction can be specified";
    let is_both = tracing.sampling_rate.is_some() && tracing.sampling_fraction.is_some();
    found.require(!is_both, at, problem);
    let tags = at.field("customTags");
    for (name, tag) in &tracing.custom_tags {
        let kind = tag.kind();
        found.word(tags.field(name).field("type"), kind.unknown(), CustomTagType::WORDS);
    }
    provider(&tracing.provider, at.field("provider"), found);
}

fn provider(provider: &TracingProvider, at: Path<'_>, found: &mut Violations) {
    let kind = provider.kind();
    found.word(at.field("type"), kind.unknown(), TracingProviderType::WORDS);
    let is_somewhere = provider.host.is_some() || !provider.backend_refs.is_empty();
    found.require(is_somewhere, at, "host or backendRefs needs to be set");
    let refs = at.field("backendRefs");
    found.count(refs, provider.backend_refs.len(), 0..=16);
    for (index, reference) in provider.backend_refs.iter().enumerate() {
        let at = refs.item(index);
        route::backend(reference.object(), at, found);
        route::weight(PlainBackendRef::weight(reference), at.field("weight"), found);
    }
    if let Some(telemetry) = &provider.open_telemetry {
        let at = at.field("openTelemetry");
        let headers = at.field("headers");
        for (index, header) in telemetry.headers.iter().enumerate() {
            let at = headers.item(index);
            found.header_name(at.field("name"), &header.name);
            found.header_value(at.field("value"), &header.value);
        }
    }
}
