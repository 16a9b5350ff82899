//! Check of DNS: the host names resolve to this host.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;

use crate::clock;
use crate::net::is_public;

use super::finding::Finding;
use super::subject::Subject;

/// A public name server.
pub(super) const RESOLVER: &str = "1.1.1.1";
const PATIENCE: Duration = Duration::from_secs(5);

/// A name and its addresses, or the reason why it has none.
pub(super) type LookedUp = (String, Result<Vec<IpAddr>, String>);

/// Resolves names in parallel, in a few seconds at most.
pub(super) fn look_up(
    subject: &Subject,
    hosts: impl IntoIterator<Item = impl Into<String>>,
) -> Vec<LookedUp> {
    let deadline = clock::now() + PATIENCE;
    // All lookups are started before the first result is awaited.
    let mut asked = Vec::new();
    for host in hosts {
        let host: String = host.into();
        let (found, heard) = mpsc::channel();
        let fixed = subject.resolve.iter().find(|(name, _)| name.eq_ignore_ascii_case(&host));
        match fixed {
            Some((_, addresses)) => {
                let _ = found.send(Ok(addresses.clone()));
            }
            // The system resolver cannot be cancelled; a hanging thread ends with the process.
            None => {
                let host = host.clone();
                thread::spawn(move || found.send(resolve(&host)));
            }
        }
        asked.push((host, heard));
    }
    let answers = asked.into_iter().map(|(host, heard)| {
        let left = deadline.saturating_duration_since(clock::now());
        let answer = match heard.recv_timeout(left) {
            Ok(Ok(addresses)) if addresses.is_empty() => Err("its name server knows none".into()),
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("no name server answers".into()),
        };
        (host, answer)
    });
    answers.collect()
}

pub(super) fn look(names: &[LookedUp]) -> Vec<Finding> {
    if names.is_empty() {
        let what = "no listener and no route names a host, so there is nothing to look up";
        return vec![Finding::ok("DNS", what)];
    }
    let own = own_addresses();
    let judged = names.iter().map(|(host, answer)| match answer {
        Ok(addresses) => judge(host, addresses, &own),
        Err(why) => unknown(host, why),
    });
    judged.collect()
}

fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<_> = (host, 0).to_socket_addrs()?.map(|found| found.ip()).collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

/// Returns the addresses of this host's interfaces.
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
        |v6: bool| own.iter().any(|address| address.is_ipv6() == v6 && is_public(*address));
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

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Rating;

    #[test]
    fn a_name_leads_here_or_somewhere_else() {
        let public = &["127.0.0.1", "::1", "203.0.113.7", "fe80::1"][..];
        let both = &["127.0.0.1", "203.0.113.7", "2001:db8::7"][..];
        let private = &["127.0.0.1", "10.0.0.7"][..];
        let (ok, warn, fail) = (Rating::Ok, Rating::Warn, Rating::Fail);
        // (addresses of the name, of this host, rating, part of the finding)
        let table: [(&[&str], _, _, _); 9] = [
            (&["203.0.113.7"], public, ok, "this host"),
            (&["203.0.113.7", "2001:db8::7"], both, ok, "this host"),
            (&["203.0.113.8"], public, fail, "203.0.113.8, which is not this host"),
            (&["203.0.113.7", "203.0.113.8"], public, fail, "203.0.113.8"),
            (&["203.0.113.7", "2001:db8::8"], public, fail, "IPv6 first"),
            (&["203.0.113.7", "2001:db8::8"], both, fail, "2001:db8::8"),
            (&["203.0.113.8"], private, warn, "forwards"),
            (&["10.0.0.7"], private, ok, "this host"),
            (&["127.0.1.1"], public, warn, "/etc/hosts"),
        ];
        let parsed = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        for (addresses, own, rating, what) in table {
            let found = judge("a.test", &parsed(addresses), &parsed(own));
            assert_eq!(found.rating, rating, "{addresses:?}: {found:?}");
            assert!(found.what.contains(what), "{found:?}");
            assert!(found.repair.is_some() || rating != fail, "{found:?}");
        }
    }

    #[test]
    fn a_name_without_an_address_cannot_be_reached() {
        let found = look(&[("a.test".into(), Err("unknown".into()))]);
        assert_eq!(found[0].rating, Rating::Fail);
        assert!(found[0].what.contains("a.test has no address: unknown"), "{found:?}");
        assert_eq!(look(&[])[0].rating, Rating::Ok);
    }

    #[test]
    fn this_host_has_a_loopback_address() {
        assert!(own_addresses().iter().any(IpAddr::is_loopback));
    }
}
