//! Whether the names that clients come for lead to this host.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;

use super::{Finding, HOSTS, Subject};

/// A name server that everybody can ask.
pub(super) const RESOLVER: &str = "1.1.1.1";
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn look(subject: &Subject, hosts: &[String]) -> Vec<Finding> {
    if hosts.is_empty() {
        let what = "no listener and no route names a host, so there is nothing to look up";
        return vec![Finding::ok("DNS", what)];
    }
    let own = own_addresses();
    let looked_up = |host: &String| match looked_up(subject, host) {
        Some(Ok(addresses)) => judge(host, &addresses, &own),
        Some(Err(error)) => unknown(host, &error.to_string()),
        None => unknown(host, "no name server answers"),
    };
    let mut findings: Vec<_> = hosts.iter().take(HOSTS).map(looked_up).collect();
    if hosts.len() > HOSTS {
        let what = format!("{} more names are not looked up", hosts.len() - HOSTS);
        findings.push(Finding::ok("DNS", what));
    }
    findings
}

/// The addresses of a name; `None` if that takes too long.
pub(super) fn looked_up(subject: &Subject, host: &str) -> Option<io::Result<Vec<IpAddr>>> {
    let fixed = subject.resolve.iter().find(|(name, _)| name.eq_ignore_ascii_case(host));
    if let Some((_, addresses)) = fixed {
        return Some(Ok(addresses.clone()));
    }
    let (found, heard) = mpsc::channel();
    let host = host.to_owned();
    // The resolver of the system cannot be told to give up; a thread that hangs ends with us.
    thread::spawn(move || found.send(resolve(&host)));
    heard.recv_timeout(PATIENCE).ok()
}

fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<_> = (host, 0).to_socket_addrs()?.map(|found| found.ip()).collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

/// The addresses of this host's interfaces.
pub(super) fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        })
        .collect()
}

fn unknown(host: &str, why: &str) -> Finding {
    Finding::fail(
        "DNS",
        format!("{host} has no address: {why}"),
        format!("add an A record for {host} that is the address of this host"),
    )
}

fn judge(host: &str, addresses: &[IpAddr], own: &[IpAddr]) -> Finding {
    let check = "DNS";
    if addresses.is_empty() {
        return unknown(host, "its name server knows none");
    }
    let strangers: Vec<_> = addresses
        .iter()
        .filter(|address| !own.contains(address) && !address.is_loopback())
        .collect();
    if addresses.iter().all(IpAddr::is_loopback) {
        return Finding::warn(
            check,
            format!(
                "{host} is {} here, by /etc/hosts perhaps; others may see more",
                list(addresses)
            ),
            Some(format!("dig +short {host} @{RESOLVER}")),
        );
    }
    let Some(stranger) = strangers.first() else {
        return Finding::ok(check, format!("{host} is {}, this host", list(addresses)));
    };
    // Behind a router or at a cloud provider, no interface has the public address.
    let has_public =
        |v6: bool| own.iter().any(|address| address.is_ipv6() == v6 && is_public(address));
    if !has_public(stranger.is_ipv6()) && strangers.len() == addresses.len() {
        return Finding::warn(
            check,
            format!(
                "{host} is {}, which no interface of this host has; right if a router or provider \
                 forwards it",
                list(addresses)
            ),
            None,
        );
    }
    let record = if stranger.is_ipv6() { "AAAA" } else { "A" };
    let also = match stranger.is_ipv6() && strangers.len() < addresses.len() {
        true => "; an authority that checks the name tries IPv6 first",
        false => "",
    };
    Finding::fail(
        check,
        format!("{host} is {stranger}, which is not this host{also}"),
        format!("correct or remove the {record} record of {host}"),
    )
}

/// True if others than the neighbours can reach it.
fn is_public(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let shared = first == 100 && (64..128).contains(&second);
            !v4.is_private() && !v4.is_loopback() && !v4.is_link_local() && !shared
        }
        IpAddr::V6(v6) => v6.segments()[0] & 0xe000 == 0x2000,
    }
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_name_leads_here_or_somewhere_else() {
        let public = &["127.0.0.1", "::1", "203.0.113.7", "fe80::1"][..];
        let both = &["127.0.0.1", "203.0.113.7", "2001:db8::7"][..];
        let private = &["127.0.0.1", "10.0.0.7"][..];
        let (ok, warn, fail) = (Verdict::Ok, Verdict::Warn, Verdict::Fail);
        // (addresses of the name, of this host, verdict, part of the finding)
        let table: [(&[&str], _, _, _); 10] = [
            (&["203.0.113.7"], public, ok, "this host"),
            (&["203.0.113.7", "2001:db8::7"], both, ok, "this host"),
            (&["203.0.113.8"], public, fail, "203.0.113.8, which is not this host"),
            (&["203.0.113.7", "203.0.113.8"], public, fail, "203.0.113.8"),
            (&["203.0.113.7", "2001:db8::8"], public, fail, "IPv6 first"),
            (&["203.0.113.7", "2001:db8::8"], both, fail, "2001:db8::8"),
            (&["203.0.113.8"], private, warn, "forwards"),
            (&["10.0.0.7"], private, ok, "this host"),
            (&["127.0.1.1"], public, warn, "/etc/hosts"),
            (&[], public, fail, "no address"),
        ];
        let parsed = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        for (addresses, own, verdict, what) in table {
            let found = judge("a.test", &parsed(addresses), &parsed(own));
            assert_eq!(found.verdict, verdict, "{addresses:?}: {found:?}");
            assert!(found.what.contains(what), "{found:?}");
            assert!(found.mend.is_some() || verdict != fail, "{found:?}");
        }
    }

    #[test]
    fn this_host_has_a_loopback_address() {
        assert!(own_addresses().iter().any(IpAddr::is_loopback));
    }
}
