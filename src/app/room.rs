//! How many connections there is room for: by memory, and by files.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::observe::counted;
use crate::proxy::{BYTES_A_CONNECTION, Limits};
use crate::systemd::Memory;

/// What the gateway takes before the first connection: code, configuration, logs that wait.
const BASE: u64 = 48 << 20;

/// What the command line says of limits that are else derived from what is found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wishes {
    pub connections: Option<usize>,
    pub connections_a_peer: Option<usize>,
    /// Bytes.
    pub memory: Option<u64>,
}

/// Fits the limits to the system, says so in the log, and gives the memory to keep to.
pub(super) fn make(limits: Limits, wishes: Wishes) -> (Limits, Option<Memory>) {
    let memory = wishes.memory.map(Memory::of).or_else(Memory::find);
    let files = files();
    let limits = fit(limits, wishes, memory.as_ref().map(Memory::limit), files);
    let memory_text =
        memory.as_ref().map_or_else(|| "memory without a limit".into(), ToString::to_string);
    let files_text =
        files.map_or_else(|| "files without a limit".into(), |files| counted(files, "file"));
    tracing::info!(
        "room for {}, {} of one peer, in {memory_text} and {files_text}",
        counted(limits.connections, "connection"),
        limits.connections_a_peer,
    );
    (limits, memory)
}

/// Three quarters of the memory may be taken by connections at rest; the last one is for what they
/// do. A wish goes before what memory allows, not before what files do.
fn fit(limits: Limits, wishes: Wishes, memory: Option<u64>, files: Option<u64>) -> Limits {
    let by_memory = memory.map(|bytes| bytes.saturating_sub(BASE) / 4 * 3 / BYTES_A_CONNECTION);
    // A connection and that to its backend take two, and some are for everything else.
    let by_files = files.map(|files| files.saturating_sub(128) / 2);
    let least = |bound: Option<u64>| {
        bound.map_or(usize::MAX, |bound| usize::try_from(bound).unwrap_or(usize::MAX).max(16))
    };
    let connections = wishes
        .connections
        .unwrap_or_else(|| limits.connections.min(least(by_memory)))
        .min(least(by_files));
    let scaled = |part: u64, most: u64| memory.map_or(most, |bytes| (bytes / part).min(most));
    let window = scaled(512, limits.http2_window.into()).max(256 << 10);
    let send_buffer = scaled(4096, limits.http2_send_buffer as u64).max(16 << 10);
    // Each has a file, of those that are left aside above.
    let flows_by_files = least(files.map(|files| files / 16));
    Limits {
        connections,
        udp_flows: limits.udp_flows.min(flows_by_files),
        connections_a_peer: wishes.connections_a_peer.unwrap_or_else(|| (connections / 4).max(64)),
        http2_window: u32::try_from(window).unwrap_or(limits.http2_window),
        http2_send_buffer: usize::try_from(send_buffer).unwrap_or(limits.http2_send_buffer),
        ..limits
    }
}

/// The limit on open files, raised as far as it goes; `None` if the system does not tell.
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
            memory: None,
        };
        let none = Wishes::default();
        // (memory, files, wishes, connections, of one peer)
        let table = [
            (None, None, none, 20_000, 5_000),
            (Some(512 * MIB), Some(65_536), none, 6_852, 1_713),
            (Some(1024 * MIB), Some(65_536), none, 14_414, 3_603),
            (Some(8192 * MIB), Some(65_536), none, 20_000, 5_000),
            (Some(64 * MIB), Some(65_536), none, 236, 64),
            // The gateway itself takes more.
            (Some(MIB), None, none, 16, 64),
            (Some(8192 * MIB), Some(1024), none, 448, 112),
            (None, Some(20), none, 16, 64),
            (Some(512 * MIB), Some(65_536), says(Some(30_000), None), 30_000, 7_500),
            (Some(512 * MIB), Some(1024), says(Some(30_000), Some(10)), 448, 10),
        ];
        for (memory, files, wishes, connections, a_peer) in table {
            let limits = fit(Limits::default(), wishes, memory, files);
            let got = (limits.connections, limits.connections_a_peer);
            assert_eq!(got, (connections, a_peer), "{memory:?} {files:?} {wishes:?}");
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
            let limits = fit(Limits::default(), Wishes::default(), Some(mib << 20), None);
            let got = (limits.http2_window, limits.http2_send_buffer);
            assert_eq!(got, (window, buffer), "{mib} MiB");
        }
    }
}
