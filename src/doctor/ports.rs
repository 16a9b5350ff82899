//! Check of the ports: finds the listening process by `/proc/net/tcp` and the open files of every
//! process.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::finding::Finding;
use super::subject::Subject;

/// The state of a listening socket in the kernel's tables.
const LISTENING: &str = "0A";
/// The process name of the gateway. The kernel truncates names to 15 bytes.
const OWN: &str = "edge-gateway";

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listening {
    address: IpAddr,
    port: u16,
    inode: u64,
}

/// A process that has a socket open.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SocketHolder {
    pid: u32,
    name: String,
    /// The systemd unit, such as `nginx.service`.
    unit: Option<String>,
}

pub(super) fn look(subject: &Subject) -> Vec<Finding> {
    let mut ports = vec![subject.http_port];
    if subject.has_tls() {
        ports.push(subject.https_port);
    }
    let mut sockets = Vec::new();
    for (file, parse) in [("tcp", v4 as fn(&str) -> _), ("tcp6", v6)] {
        let table = fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
        sockets.extend(listening(&table, parse).filter(|socket| ports.contains(&socket.port)));
    }
    let holders = holders(&sockets);
    let own = subject.status.as_ref().ok().map(|status| status.pid);
    let judged = |port: u16| {
        let of_port: Vec<_> = sockets
            .iter()
            .filter(|socket| socket.port == port)
            .map(|socket| (socket.address, holders.get(&socket.inode).cloned().unwrap_or_default()))
            .collect();
        judge(port, &of_port, own)
    };
    ports.into_iter().map(judged).collect()
}

/// Returns the listening sockets of one of the kernel's tables.
fn listening(
    table: &str,
    parse: fn(&str) -> Option<IpAddr>,
) -> impl Iterator<Item = Listening> + '_ {
    table.lines().skip(1).filter_map(move |line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (address, port) = fields.get(1)?.split_once(':')?;
        (*fields.get(3)? == LISTENING).then_some(())?;
        Some(Listening {
            address: parse(address)?,
            port: u16::from_str_radix(port, 16).ok()?,
            inode: fields.get(9)?.parse().ok()?,
        })
    })
}

/// Parses an IPv4 address: four bytes in network order, printed as a number in native byte order.
fn v4(hex: &str) -> Option<IpAddr> {
    let number = u32::from_str_radix(hex, 16).ok()?;
    Some(Ipv4Addr::from(number.to_ne_bytes()).into())
}

/// Parses an IPv6 address: four such numbers.
fn v6(hex: &str) -> Option<IpAddr> {
    let mut bytes = [0; 16];
    for (index, chunk) in bytes.chunks_mut(4).enumerate() {
        let number = u32::from_str_radix(hex.get(index * 8..index * 8 + 8)?, 16).ok()?;
        chunk.copy_from_slice(&number.to_ne_bytes());
    }
    Some(Ipv6Addr::from(bytes).into())
}

/// Returns the processes that have each socket open, by inode. Only root sees those of other users.
fn holders(sockets: &[Listening]) -> HashMap<u64, Vec<SocketHolder>> {
    let mut holders: HashMap<u64, Vec<SocketHolder>> = HashMap::new();
    let Ok(processes) = fs::read_dir("/proc") else { return holders };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        for file in files.flatten() {
            let Ok(target) = fs::read_link(file.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']'))
                .and_then(|inode| inode.parse().ok());
            let Some(inode) = inode else { continue };
            if !sockets.iter().any(|socket| socket.inode == inode) {
                continue;
            }
            let of_socket = holders.entry(inode).or_default();
            if !of_socket.iter().any(|holder| holder.pid == pid) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                let groups = fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
                of_socket.push(SocketHolder { pid, name: name.trim().into(), unit: unit(&groups) });
            }
        }
    }
    holders
}

/// Returns the service of a process, by its control group: `0::/system.slice/nginx.service`.
fn unit(groups: &str) -> Option<String> {
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut parts = paths.flat_map(|path| path.rsplit('/'));
    parts.find(|part| part.ends_with(".service")).map(str::to_owned)
}

fn judge(port: u16, sockets: &[(IpAddr, Vec<SocketHolder>)], own: Option<u32>) -> Finding {
    let check = format!("port {port}");
    if sockets.is_empty() {
        return Finding::fail(
            check,
            "no process listens, so connections are refused",
            "systemctl start edge-gateway-http.socket edge-gateway-https.socket edge-gateway",
        );
    }
    let is_own = |holder: &&SocketHolder| holder.name == OWN || Some(holder.pid) == own;
    let holders = || sockets.iter().flat_map(|(_, holders)| holders);
    if let Some(holder) = holders().find(is_own) {
        // A loopback socket is reachable only from this host, unless a proxy forwards to it.
        let public = sockets.iter().any(|(address, holders)| {
            !address.is_loopback() && holders.iter().any(|of| is_own(&of))
        });
        let what = format!("{} (pid {})", holder.name, holder.pid);
        return match public {
            true => Finding::ok(check, format!("{what} listens")),
            false => Finding::warn(
                check,
                format!(
                    "{what} listens only on the loopback address; that is right only behind a proxy"
                ),
                None,
            ),
        };
    }
    let Some(other) = holders().find(|holder| holder.pid != 1) else {
        if holders().next().is_some() {
            return Finding::fail(
                check,
                "systemd listens, and no gateway has taken over the socket",
                "systemctl list-sockets, then systemctl status edge-gateway",
            );
        }
        return Finding::warn(
            check,
            "a process listens; only root can see which",
            Some("sudo edge-gateway doctor".into()),
        );
    };
    let repair = match &other.unit {
        Some(unit) if unit.starts_with("docker") || unit.starts_with("containerd") => {
            format!("docker ps --filter publish={port}, then stop that container")
        }
        Some(unit) => format!("systemctl disable --now {unit}"),
        None => format!("kill {}", other.pid),
    };
    Finding::fail(check, format!("{} (pid {}) has it", other.name, other.pid), repair)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Rating;

    #[test]
    fn the_kernels_table_is_read() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0
   1: 00000000:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0
   2: 0100007F:0050 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0
   3: broken
";
        let got: Vec<_> = listening(table, v4).collect();
        let of = |address: &str, port, inode| Listening {
            address: address.parse().unwrap(),
            port,
            inode,
        };
        // From a little-endian machine, as all supported ones are.
        assert_eq!(got, [of("127.0.0.1", 80, 4711), of("0.0.0.0", 443, 4712)]);
        assert_eq!(v6("00000000000000000000000001000000"), Some("::1".parse().unwrap()));
        assert_eq!(v6("0000"), None);
    }

    #[test]
    fn a_process_is_traced_to_its_service() {
        // (control groups, unit)
        let table = [
            ("0::/system.slice/nginx.service\n", Some("nginx.service")),
            ("0::/system.slice/docker.service/x\n", Some("docker.service")),
            ("1:name=systemd:/system.slice/apache2.service\n0::/\n", Some("apache2.service")),
            ("0::/user.slice/user-0.slice/session-1.scope\n", None),
            ("", None),
        ];
        for (groups, want) in table {
            assert_eq!(unit(groups).as_deref(), want, "{groups}");
        }
    }

    #[test]
    fn a_port_is_ours_or_somebody_is_named() {
        let holder = |pid, name: &str, unit: Option<&str>| SocketHolder {
            pid,
            name: name.into(),
            unit: unit.map(Into::into),
        };
        let any: IpAddr = "::".parse().unwrap();
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        let own = || holder(7, OWN, Some("edge-gateway.service"));
        let systemd = || holder(1, "systemd", None);
        let (ok, warn, fail) = (Rating::Ok, Rating::Warn, Rating::Fail);
        // (sockets, rating, part of the finding, part of the repair)
        let table = [
            (vec![], fail, "no process listens", "systemctl start edge-gateway"),
            (vec![(any, vec![systemd(), own()])], ok, "pid 7", ""),
            (vec![(here, vec![own()])], warn, "loopback", ""),
            (vec![(here, vec![own()]), (any, vec![own()])], ok, "listens", ""),
            (vec![(any, vec![holder(42, "renamed", None)])], ok, "renamed", ""),
            (vec![(any, vec![systemd()])], fail, "systemd", "list-sockets"),
            (vec![(any, vec![])], warn, "only root", "sudo"),
            (
                vec![(any, vec![holder(9, "nginx", Some("nginx.service"))])],
                fail,
                "nginx (pid 9) has it",
                "systemctl disable --now nginx.service",
            ),
            (vec![(any, vec![holder(9, "nc", None)])], fail, "nc (pid 9)", "kill 9"),
            (
                vec![(any, vec![holder(9, "docker-proxy", Some("docker.service"))])],
                fail,
                "docker-proxy",
                "docker ps --filter publish=80",
            ),
        ];
        for (sockets, rating, what, repair) in table {
            let found = judge(80, &sockets, Some(42));
            assert_eq!(found.rating, rating, "{found:?}");
            assert!(found.what.contains(what), "{found:?}");
            assert!(found.repair.as_deref().unwrap_or_default().contains(repair), "{found:?}");
        }
    }
}
