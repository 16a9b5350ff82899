//! Limits of connections, derived from the memory and the open files of the host.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::downstream::{BYTES_A_CONNECTION, ProcessLimits};
use crate::observe::counted;
use crate::snapshot::ClientLimits;
use crate::systemd::Memory;
use crate::upstream::Bounds;

/// Memory that the gateway uses without connections, in bytes: code, configuration, queued log
/// lines.
const BASE: u64 = 48 << 20;

/// The minimum number of descriptors reserved for listening sockets (each worker has its own copy),
/// the control socket, certificates and log files. A sixteenth of all descriptors is reserved if
/// that is more, and at most half.
const RESERVE: u64 = 128;

/// Limits set on the command line. Limits that are not set are derived from the host.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wishes {
    pub connections: Option<usize>,
    pub connections_a_peer: Option<usize>,
    pub upstream_a_peer: Option<usize>,
    pub connections_a_backend: Option<usize>,
    /// Bytes.
    pub memory: Option<u64>,
}

/// Limits that fit the host.
#[derive(Debug)]
pub(super) struct FittedLimits {
    pub limits: ProcessLimits,
    pub client_limits: ClientLimits,
    /// The memory limit; `None` if the system reports none.
    pub memory: Option<Memory>,
}

/// Fits the limits to the host, and logs them.
pub(super) fn fit_to_host(
    limits: ProcessLimits,
    client_limits: ClientLimits,
    wishes: Wishes,
) -> FittedLimits {
    let memory = wishes.memory.map(Memory::of).or_else(Memory::find);
    let files = files();
    let limits = fit(limits, wishes, memory.as_ref().map(Memory::limit), files);
    let client_limits = fit_buffers(client_limits, memory.as_ref().map(Memory::limit));
    let memory_text =
        memory.as_ref().map_or_else(|| "memory without a limit".into(), ToString::to_string);
    let files_text =
        files.map_or_else(|| "files without a limit".into(), |files| counted(files, "file"));
    tracing::info!(
        "limits: {} ({} per client address), for {memory_text} and {files_text}",
        counted(limits.connections, "connection"),
        limits.connections_a_peer,
    );
    tracing::info!(
        upstream_connections = limits.upstream_connections,
        connections_per_backend = limits.backend.connections,
        pending_per_backend = limits.backend.pending,
        connections_for_peer = limits.upstream_a_peer,
        "limits of connections to backends"
    );
    FittedLimits { limits, client_limits, memory }
}

/// Idle connections may use three quarters of the memory; the last quarter is for requests. A limit
/// from the command line overrides the one by memory, but not the one by descriptors.
fn fit(
    limits: ProcessLimits,
    wishes: Wishes,
    memory: Option<u64>,
    files: Option<u64>,
) -> ProcessLimits {
    let by_memory = memory.map(|bytes| bytes.saturating_sub(BASE) / 4 * 3 / BYTES_A_CONNECTION);
    let left = files.map(|files| files - RESERVE.max(files / 16).min(files / 2));
    // A client connection and its backend connection use two descriptors.
    let by_files = left.map(|files| files / 2);
    let count = |of: u64| usize::try_from(of).unwrap_or(usize::MAX);
    let least = |bound: Option<u64>| bound.map_or(usize::MAX, |bound| count(bound).max(16));
    let connections = wishes
        .connections
        .unwrap_or_else(|| limits.connections.min(least(by_memory)))
        .min(least(by_files));
    // UDP flows count as connections to backends.
    let flows_by_files = least(files.map(|files| files / 16));
    let connections_a_peer = wishes.connections_a_peer.unwrap_or_else(|| (connections / 4).max(64));
    // Fewer connections of clients leave more descriptors for backends.
    let upstream_connections =
        left.map_or(usize::MAX, |files| count(files).saturating_sub(connections).max(16));
    // One backend may use at most three quarters of the connections, and one client a quarter.
    let connections_a_backend = wishes
        .connections_a_backend
        .unwrap_or_else(|| limits.backend.connections.min(upstream_connections / 4 * 3));
    let upstream_a_peer = wishes.upstream_a_peer.unwrap_or(upstream_connections / 4);
    ProcessLimits {
        connections,
        upstream_connections,
        upstream_a_peer,
        backend: Bounds { connections: connections_a_backend, ..limits.backend },
        udp_flows: limits.udp_flows.min(flows_by_files),
        connections_a_peer,
    }
}

/// Reduces buffer sizes on hosts with little memory.
fn fit_buffers(limits: ClientLimits, memory: Option<u64>) -> ClientLimits {
    let scaled = |part: u64, most: u64| memory.map_or(most, |bytes| (bytes / part).min(most));
    let window = scaled(512, limits.http2_window.into()).max(256 << 10);
    let send_buffer = scaled(4096, limits.http2_send_buffer as u64).max(16 << 10);
    ClientLimits {
        http2_window: u32::try_from(window).unwrap_or(limits.http2_window),
        http2_send_buffer: usize::try_from(send_buffer).unwrap_or(limits.http2_send_buffer),
        ..limits
    }
}

/// Raises the limit on open files to the hard limit, and returns it; `None` if the system reports
/// none.
fn files() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let raised = soft == hard || setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    Some(if raised { hard } else { soft })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_from_what_there_is_unless_somebody_says() {
        const MIB: u64 = 1 << 20;
        let says = |connections, connections_a_peer| Wishes {
            connections,
            connections_a_peer,
            ..Wishes::default()
        };
        let none = Wishes::default();
        // (memory, files, wishes, connections, connections of one peer)
        let table = [
            (None, None, none, 20_000, 5_000),
            (Some(512 * MIB), Some(65_536), none, 6_852, 1_713),
            (Some(1024 * MIB), Some(65_536), none, 14_414, 3_603),
            (Some(8192 * MIB), Some(65_536), none, 20_000, 5_000),
            (Some(64 * MIB), Some(65_536), none, 236, 64),
            // The gateway itself needs more memory.
            (Some(MIB), None, none, 16, 64),
            (Some(8192 * MIB), Some(1024), none, 448, 112),
            (None, Some(20), none, 16, 64),
            (Some(512 * MIB), Some(65_536), says(Some(30_000), None), 30_000, 7_500),
            (Some(512 * MIB), Some(1024), says(Some(30_000), Some(10)), 448, 10),
        ];
        for (memory, files, wishes, connections, a_peer) in table {
            let limits = fit(ProcessLimits::default(), wishes, memory, files);
            let got = (limits.connections, limits.connections_a_peer);
            assert_eq!(got, (connections, a_peer), "{memory:?} {files:?} {wishes:?}");
        }
    }

    #[test]
    fn nobody_has_all_descriptors() {
        let asks = |upstream_a_peer, connections_a_backend| Wishes {
            upstream_a_peer,
            connections_a_backend,
            ..Wishes::default()
        };
        let none = Wishes::default();
        let few = Wishes { connections: Some(96), ..none };
        // (files, wishes, connections of clients, to backends, to one backend, for one peer)
        let table = [
            (None, none, 20_000, usize::MAX, 1024, usize::MAX / 4),
            (Some(65_536), none, 20_000, 41_440, 1024, 10_360),
            (Some(4096), none, 1920, 1920, 1024, 480),
            (Some(1024), none, 448, 448, 336, 112),
            (Some(1024), few, 96, 800, 600, 200),
            (Some(64), none, 16, 16, 12, 4),
            (Some(1024), asks(Some(50), Some(2000)), 448, 448, 2000, 50),
        ];
        for (files, wishes, connections, upstream, a_backend, a_peer) in table {
            let limits = fit(ProcessLimits::default(), wishes, None, files);
            assert_eq!(limits.connections, connections, "{files:?} {wishes:?}");
            assert_eq!(limits.upstream_connections, upstream, "{files:?} {wishes:?}");
            assert_eq!(limits.backend.connections, a_backend, "{files:?} {wishes:?}");
            assert_eq!(limits.upstream_a_peer, a_peer, "{files:?} {wishes:?}");
            assert_eq!(limits.backend.pending, 1024);
        }
    }

    #[test]
    fn buffers_shrink_with_memory_to_what_still_flows() {
        // (memory in MiB, window of a connection, send buffer of a stream)
        let table = [
            (2048, 1 << 20, 128 << 10),
            (512, 1 << 20, 128 << 10),
            (256, 512 << 10, 64 << 10),
            (32, 256 << 10, 16 << 10),
        ];
        for (mib, window, buffer) in table {
            let limits = fit_buffers(ClientLimits::default(), Some(mib << 20));
            let got = (limits.http2_window, limits.http2_send_buffer);
            assert_eq!(got, (window, buffer), "{mib} MiB");
        }
    }
}
