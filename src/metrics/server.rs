//! Metrics of the process, its configuration and its logs.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crate::clock;
use crate::downstream::Process;
use crate::snapshot::Snapshot;
use crate::stats::{
    CODINGS, CodingCounts, Compression, Counter, Faults, RateLimits, Reloads, Sharded,
};

use super::exposition::{Exposition, Labels, alone, level, unix_seconds};
use super::proc_figures::ProcFigures;

/// The state of the server, by Envoy's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Draining,
    /// No configuration is loaded yet.
    Initializing,
    Live,
}

impl State {
    pub(crate) fn of(process: &Process) -> Self {
        match (process.draining.load(Ordering::Relaxed), process.snapshot.load().generation) {
            (true, _) => Self::Draining,
            (false, 0) => Self::Initializing,
            (false, _) => Self::Live,
        }
    }

    /// Returns the value of Envoy's `server.state`.
    fn number(self) -> u64 {
        match self {
            Self::Live => 0,
            Self::Draining => 1,
            Self::Initializing => 3,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Draining => "DRAINING",
            Self::Initializing => "INITIALIZING",
            Self::Live => "LIVE",
        })
    }
}

/// The sources of these metrics besides the snapshot.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    pub process: &'a Process,
    pub reloads: &'a Reloads,
    /// The start of the process.
    pub begun: Instant,
    pub begun_wall: SystemTime,
}

pub(super) fn write(text: &mut Exposition, metrics: &Sources<'_>, snapshot: &Snapshot) {
    let process = metrics.process;
    let uptime = clock::now().saturating_duration_since(metrics.begun).as_secs();
    let figures = ProcFigures::read();
    let state = State::of(process);
    text.gauges("envoy_server_live", "0 in a drain.", alone(u64::from(state == State::Live)));
    text.gauges(
        "envoy_server_state",
        "0 live, 1 draining, 3 before the first configuration.",
        alone(state.number()),
    );
    text.gauges("envoy_server_uptime", "Seconds since the start.", alone(uptime));
    text.gauges(
        "envoy_server_memory_allocated",
        "Bytes of memory of our own.",
        alone(figures.anonymous_bytes),
    );
    text.gauges(
        "envoy_server_memory_heap_size",
        "Bytes of memory that are resident.",
        alone(figures.resident_bytes),
    );
    text.gauges(
        "envoy_server_total_connections",
        "Open connections of clients.",
        alone(process.connections.count()),
    );
    text.gauges(
        "edge_gateway_connections_limit",
        "Connections of clients that may be open.",
        alone(process.limits.connections),
    );
    text.gauges(
        "edge_gateway_connections_parked",
        "Open HTTP/1 connections that rest, and whose buffers were given back.",
        alone(process.connections.parked()),
    );
    configuration(text, metrics.reloads, snapshot);
    text.counters(
        "edge_gateway_access_log_dropped_total",
        "Lines that the access log had no room for, or that could not be written.",
        alone(process.access_log.dropped()),
    );
    text.gauges(
        "edge_gateway_logs_failing",
        "Logs that cannot be written now.",
        alone(process.access_log.faults().len()),
    );
    rate_limits(text, &snapshot.carried.limit_counts);
    compression(text, &snapshot.carried.compression_counts);
    faults(text, &snapshot.carried.fault_counts);
    text.gauges(
        "edge_gateway_held_bytes",
        "Bytes that filters hold for bodies.",
        alone(snapshot.carried.held_memory.bytes()),
    );
    text.counters(
        "edge_gateway_spans_exported_total",
        "Spans that a collector has taken.",
        alone(snapshot.carried.spans.exported.value()),
    );
    text.counters(
        "edge_gateway_spans_dropped_total",
        "Spans for which there was no room, or no collector.",
        alone(snapshot.carried.spans.dropped.value()),
    );
    text.counters(
        "process_cpu_seconds_total",
        "Seconds of processor time.",
        alone(figures.cpu_seconds),
    );
    text.gauges("process_resident_memory_bytes", "Resident memory.", alone(figures.resident_bytes));
    text.gauges("process_virtual_memory_bytes", "Mapped memory.", alone(figures.virtual_bytes));
    text.gauges("process_open_fds", "Open files.", alone(figures.open_files));
    text.gauges("process_max_fds", "Files that may be open.", alone(figures.most_files));
    text.gauges(
        "process_start_time_seconds",
        "When the process began.",
        alone(unix_seconds(metrics.begun_wall)),
    );
}

fn configuration(text: &mut Exposition, reloads: &Reloads, snapshot: &Snapshot) {
    let version = Labels::new("version", env!("CARGO_PKG_VERSION"));
    text.gauges("edge_gateway_build_info", "Always 1.", [(version, 1)]);
    text.gauges(
        "edge_gateway_config_generation",
        "Number of the configuration that is served.",
        alone(snapshot.generation),
    );
    let by_result = [("loaded", &reloads.loaded), ("refused", &reloads.refused)];
    text.counters(
        "edge_gateway_config_reloads_total",
        "Loads of the configuration, the first included.",
        by_result.map(|(result, count)| (Labels::new("result", result), count.value())),
    );
    text.gauges(
        "edge_gateway_config_last_reload_successful",
        "1 if the last load is what is served.",
        level(&reloads.last_was_loaded),
    );
    text.gauges(
        "edge_gateway_config_files_refused",
        "1 while the files are refused and an older configuration is served.",
        level(&reloads.files_refused),
    );
    text.gauges(
        "edge_gateway_config_last_reload_success_timestamp_seconds",
        "When what is served was loaded.",
        level(&reloads.last_loaded_at),
    );
    text.gauges(
        "edge_gateway_config_last_reload_seconds",
        "How long the last load took.",
        alone(Duration::from_micros(reloads.last_took.value()).as_secs_f64()),
    );
    text.gauges(
        "edge_gateway_config_diagnostics",
        "Faults and warnings in what was read last.",
        level(&reloads.diagnostics),
    );
    text.gauges(
        "edge_gateway_config_files_unwatched",
        "1 while files cannot be watched, so that they are compared every few seconds.",
        alone(u64::from(reloads.unwatched.told().is_some())),
    );
    let counts = snapshot.counts;
    for (kind, count) in [
        ("gateways", counts.gateways),
        ("listeners", counts.listeners),
        ("routes", counts.routes),
        ("backends", counts.backends),
    ] {
        text.gauges(&format!("edge_gateway_config_{kind}"), "How many are served.", alone(count));
    }
}

/// Writes the counters of the limits of requests. Envoy has one name for all routes.
fn rate_limits(text: &mut Exposition, counts: &Sharded<RateLimits>) {
    type Of = fn(&RateLimits) -> &Counter;
    let envoys: [(&str, &str, Of); 4] = [
        ("enabled", "Requests of rules with local rate limits.", |of| &of.enabled),
        ("enforced", "Requests that a local rate limit refused.", |of| &of.enforced),
        ("ok", "Requests within every local rate limit.", |of| &of.ok),
        ("rate_limited", "Times that a local rate limit was exceeded.", |of| &of.rate_limited),
    ];
    let prefix = Labels::new("envoy_local_http_ratelimit_prefix", "http_local_rate_limiter");
    for (name, help, of) in envoys {
        let name = format!("envoy_http_local_rate_limit_{name}");
        text.counters(&name, help, [(prefix.clone(), counts.sum(of))]);
    }
    text.counters(
        "edge_gateway_rate_limit_buckets_reused_total",
        "Full buckets of a value that another value has taken over.",
        alone(counts.sum(|of| &of.buckets_reused)),
    );
    text.counters(
        "edge_gateway_rate_limit_buckets_shared_total",
        "Requests with a value for which there was no bucket.",
        alone(counts.sum(|of| &of.buckets_shared)),
    );
}

/// Writes the counters of the compression of responses. Envoy has one name for all routes.
fn compression(text: &mut Exposition, counts: &Sharded<Compression>) {
    type Of = fn(&CodingCounts) -> &Counter;
    let envoys: [(&str, &str, Of); 3] = [
        ("compressed", "Responses that were compressed.", |of| &of.responses),
        ("total_uncompressed_bytes", "Their bytes before.", |of| &of.input_bytes),
        ("total_compressed_bytes", "Their bytes after.", |of| &of.output_bytes),
    ];
    for (place, coding) in CODINGS.iter().enumerate() {
        let library = format!("envoy_compression_{coding}_compressor_{coding}");
        for (name, help, of) in envoys {
            let name = format!("envoy_http_compressor_{library}_response_{name}");
            text.counters(&name, help, alone(counts.sum(|counts| of(counts.of(place)))));
        }
    }
}

/// Writes the counters of delays and refusals on purpose.
fn faults(text: &mut Exposition, counts: &Sharded<Faults>) {
    let help = "Requests that were refused on purpose.";
    text.counters("envoy_http_fault_aborts_injected", help, alone(counts.sum(|of| &of.aborts)));
    let help = "Requests that were delayed on purpose.";
    text.counters("envoy_http_fault_delays_injected", help, alone(counts.sum(|of| &of.delays)));
    let help = "Requests that are being delayed.";
    text.gauges("envoy_http_fault_active_faults", help, alone(counts.sum(|of| &of.active)));
}
