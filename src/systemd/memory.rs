//! The memory limit of this process, and the memory in use.
//!
//! The limit is read from the kernel: `memory.high` and `memory.max` of the process's cgroup and of
//! its ancestors (`MemoryHigh=`, `MemoryMax=` of the unit), the same of cgroup v1, else half of the
//! memory of the host. If the kernel kills at a limit, a quarter of it stays free: a flood uses
//! some of it before the use is read again.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A limit on memory, in bytes, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    limit: u64,
    from: From,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum From {
    /// A file of a cgroup. Every process in the cgroup counts.
    Cgroup(PathBuf),
    /// The command line.
    Flag,
    /// Half of the memory of the host; the rest is for other processes.
    Host,
}

impl Memory {
    /// Returns the lowest limit that applies to this process; `None` if the system reports none.
    pub(crate) fn find() -> Option<Self> {
        Self::find_below(Path::new("/"))
    }

    /// A limit from the command line.
    pub(crate) fn of(limit: u64) -> Self {
        Self { limit, from: From::Flag }
    }

    fn find_below(root: &Path) -> Option<Self> {
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let of_cgroups = groups.lines().flat_map(|line| limits(&root.join("sys/fs/cgroup"), line));
        let lowest = of_cgroups.min_by_key(|(limit, _)| *limit);
        let host = kib(&root.join("proc/meminfo"), "MemTotal:").map(|bytes| bytes / 2);
        match (lowest, host) {
            (Some((limit, file)), host) if host.is_none_or(|host| limit <= host * 2) => {
                Some(Self { limit, from: From::Cgroup(file) })
            }
            (_, host) => host.map(|limit| Self { limit, from: From::Host }),
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Returns the bytes in use that cannot be reclaimed: of the cgroup that has the limit, without
    /// the page cache; else of this process. `None` if the system does not report them.
    pub(crate) fn used(&self) -> Option<u64> {
        let From::Cgroup(file) = &self.from else {
            return kib(Path::new("/proc/self/status"), "VmRSS:");
        };
        let group = file.parent()?;
        let current = number(&group.join("memory.current"))
            .or_else(|| number(&group.join("memory.usage_in_bytes")))?;
        let statistics = fs::read_to_string(group.join("memory.stat")).ok()?;
        Some(current.saturating_sub(remembered(&statistics)))
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB of memory (", self.limit >> 20)?;
        match &self.from {
            From::Cgroup(file) => write!(f, "{}", file.display())?,
            From::Flag => f.write_str("--memory-limit")?,
            From::Host => f.write_str("half of what the host has")?,
        }
        f.write_str(")")
    }
}

/// The files with a limit, and the usable part of it, in quarters.
const V2: &[(&str, u64)] = &[("memory.high", 4), ("memory.max", 3)];
const V1: &[(&str, u64)] = &[("memory.limit_in_bytes", 3)];

/// Returns the limits of a line of /proc/self/cgroup: of that cgroup and of its ancestors. Missing
/// files are skipped (in a container the path may be that of the host).
fn limits(mount: &Path, line: &str) -> Vec<(u64, PathBuf)> {
    let mut parts = line.splitn(3, ':');
    let (_, Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (mount, files) = match controllers {
        "" => (mount.to_owned(), V2),
        list if list.split(',').any(|name| name == "memory") => (mount.join("memory"), V1),
        _ => return Vec::new(),
    };
    let own = Path::new(path.trim_start_matches('/'));
    let groups = own.ancestors().map(|group| mount.join(group));
    groups
        .flat_map(|group| files.iter().map(move |(file, part)| (group.join(file), part)))
        .filter_map(|(file, part)| {
            let limit = number(&file).filter(|limit| *limit < UNLIMITED)?;
            Some((limit / 4 * part, file))
        })
        .collect()
}

/// cgroup v1 writes "no limit" as the largest whole number of pages.
const UNLIMITED: u64 = 1 << 62;

/// Reads a number; `None` for `max`, too.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Returns the page cache in memory.stat, in bytes: of the cgroup and its descendants. In cgroup v1
/// the sums begin with `total_`.
fn remembered(statistics: &str) -> u64 {
    let sum = |names: [&str; 2]| {
        let fields = statistics.lines().filter_map(|line| line.split_once(' '));
        let mut found = fields.filter(|(name, _)| names.contains(name)).peekable();
        found
            .peek()
            .is_some()
            .then(|| found.filter_map(|(_, value)| value.parse::<u64>().ok()).sum())
    };
    sum(["total_active_file", "total_inactive_file"])
        .or_else(|| sum(["active_file", "inactive_file"]))
        .unwrap_or(0)
}

/// Returns the bytes of `NAME:   1234 kB`.
fn kib(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// Creates a host with these files.
    fn host(files: &[(&str, &str)]) -> TempDir {
        let host = TempDir::new().unwrap();
        for (path, text) in files {
            let path = host.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        host
    }

    #[test]
    fn the_lowest_limit_around_us_counts() {
        const V2: (&str, &str) = ("proc/self/cgroup", "0::/system.slice/eg.service\n");
        const V1: (&str, &str) = ("proc/self/cgroup", "9:cpu:/x\n4:hugetlb,memory:/a/b\n0::/\n");
        const MEMINFO: (&str, &str) = ("proc/meminfo", "MemFree: 1 kB\nMemTotal:  2048 kB\n");
        // (files, limit, the file that has it)
        type Row<'a> = (&'a [(&'a str, &'a str)], Option<u64>, &'a str);
        let high = "sys/fs/cgroup/system.slice/eg.service/memory.high";
        let max = "sys/fs/cgroup/system.slice/eg.service/memory.max";
        let table: [Row<'_>; 9] = [
            (&[], None, ""),
            (&[V2, MEMINFO], Some(1 << 20), "half"),
            (&[V2, MEMINFO, (high, "max\n"), (max, "max\n")], Some(1 << 20), "half"),
            (&[V2, (high, "5000\n"), (max, "8000\n")], Some(5000), high),
            (&[V2, (high, "7000\n"), (max, "8000\n")], Some(6000), max),
            (
                &[V2, (max, "8000\n"), ("sys/fs/cgroup/system.slice/memory.max", "4000")],
                Some(3000),
                "sys/fs/cgroup/system.slice/memory.max",
            ),
            // More than the memory of the host.
            (&[V2, MEMINFO, (max, "9000000\n")], Some(1 << 20), "half"),
            (
                &[V1, ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712")],
                None,
                "",
            ),
            // In a container the path is that of the host, and the mount is the cgroup of the
            // process.
            (
                &[V1, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4096")],
                Some(3072),
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
            ),
        ];
        for (number, (files, want, from)) in table.into_iter().enumerate() {
            let host = host(files);
            let found = Memory::find_below(host.path());
            assert_eq!(found.as_ref().map(Memory::limit), want, "row {number}");
            let shown = found.map(|memory| memory.to_string()).unwrap_or_default();
            assert!(shown.contains(from), "row {number}: {shown}");
        }
    }

    #[test]
    fn what_is_used_is_without_remembered_files() {
        let v2 = "anon 5000\nfile 3000\ninactive_file 1000\nactive_file 500\n";
        let v1 = "active_file 1\ntotal_inactive_file 200\ntotal_active_file 100\n";
        // (file of the limit, files, used)
        let table = [
            ("memory.max", vec![("memory.current", "10000\n"), ("memory.stat", v2)], Some(8500)),
            (
                "memory.limit_in_bytes",
                vec![("memory.usage_in_bytes", "10000\n"), ("memory.stat", v1)],
                Some(9700),
            ),
            ("memory.max", vec![], None),
        ];
        for (file, files, want) in table {
            let host = host(&files);
            let memory = Memory { limit: 1, from: From::Cgroup(host.path().join(file)) };
            assert_eq!(memory.used(), want, "{files:?}");
        }
        let own = Memory::of(1 << 30).used().unwrap();
        assert!(own > 1 << 20, "a process has more than a page: {own}");
    }
}
