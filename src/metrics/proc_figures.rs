//! Figures of this process from the kernel.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

/// Figures from `/proc/self` and the limit on open files; 0 for those that cannot be read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProcFigures {
    pub resident_bytes: u64,
    /// Anonymous memory: the heap and the stacks.
    pub anonymous_bytes: u64,
    pub virtual_bytes: u64,
    pub open_files: usize,
    /// The limit on open files (soft `RLIMIT_NOFILE`).
    pub most_files: u64,
    pub cpu_seconds: f64,
}

impl ProcFigures {
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.trim_end_matches("kB").trim().parse::<u64>().ok());
            kib.unwrap_or(0) * 1024
        };
        Self {
            resident_bytes: bytes("VmRSS:"),
            anonymous_bytes: bytes("RssAnon:"),
            virtual_bytes: bytes("VmSize:"),
            open_files: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            most_files: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
            cpu_seconds: cpu_seconds(&fs::read_to_string("/proc/self/stat").unwrap_or_default()),
        }
    }
}

/// Returns the user and system time from `/proc/self/stat` (proc_pid_stat(5), fields 14 and 15).
fn cpu_seconds(stat: &str) -> f64 {
    // The name of the process, in parentheses, may contain any character.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    // USER_HZ, which is 100 on every architecture of Debian.
    (ticks() + ticks()) / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_some_of_everything() {
        let process = ProcFigures::read();
        assert!(process.resident_bytes > 1 << 20, "{process:?}");
        assert!(process.virtual_bytes > process.resident_bytes, "{process:?}");
        assert!(process.open_files > 2, "{process:?}");
    }

    #[test]
    fn a_name_with_a_parenthesis_moves_nothing() {
        let stat = "7 (a) b 9) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 3 0 100 1 1";
        assert!((cpu_seconds(stat) - 2.0).abs() < 1e-9);
    }
}
