//! The claims of a proxy about its client: `X-Forwarded-*` as received.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::filters::{HostName, Scheme};
use crate::net::Cidr;

pub(super) const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(super) const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The claims of a trusted proxy about its client. Each field is a list to which every proxy may
/// have added.
pub(super) struct Claims<'a> {
    pub client: Option<IpAddr>,
    /// `X-Forwarded-For` as received.
    pub hops: Vec<&'a str>,
    pub scheme: Option<Scheme>,
    pub host: Option<HostName>,
    pub port: Option<u16>,
}

impl<'a> Claims<'a> {
    /// Parses the claims of a proxy, where proxies have addresses in `trusted`.
    ///
    /// The right-most hop that is not a trusted proxy is the client; hops further left cannot be
    /// trusted. If all hops are trusted proxies, the first hop is the client.
    pub(super) fn by_ranges(headers: &'a HeaderMap, trusted: &[Cidr]) -> Self {
        let hops = members(headers, &FOR);
        let (mut client, mut back) = (None, 0);
        for hop in hops.iter().rev() {
            let Some(address) = address(hop) else { break };
            (client, back) = (Some(address), back + 1);
            if !trusted.iter().any(|range| range.contains(address)) {
                break;
            }
        }
        Self::of(headers, hops, client, back)
    }

    /// Parses the claims of the proxy in front of the client, where `count` proxies append to
    /// `X-Forwarded-For`. `None` if there are fewer hops, or if that hop is not an address: then the
    /// request did not come through these proxies.
    pub(super) fn by_count(headers: &'a HeaderMap, count: usize) -> Option<Self> {
        let hops = members(headers, &FOR);
        let client = address(hops[hops.len().checked_sub(count)?..].first()?)?;
        Some(Self::of(headers, hops, Some(client), count))
    }

    /// Parses the claims of the proxy that the client reached, whose hop is the one with the number
    /// `back` from the right.
    fn of(headers: &'a HeaderMap, hops: Vec<&'a str>, client: Option<IpAddr>, back: usize) -> Self {
        // For a proxy that adds to one list and replaces another, it is the right-most value.
        let by_that_proxy = |name: HeaderName| -> Option<&'a str> {
            let all = members(headers, &name);
            let at = match all.len() == hops.len() {
                true => all.len().checked_sub(back.max(1)),
                false => all.len().checked_sub(1),
            };
            at.map(|at| all[at])
        };
        let scheme = match by_that_proxy(PROTO).map(str::to_ascii_lowercase).as_deref() {
            Some("https" | "wss") => Some(Scheme::Https),
            Some("http" | "ws") => Some(Scheme::Http),
            _ => None,
        };
        let host = by_that_proxy(HOST).and_then(|host| HeaderValue::from_str(host).ok());
        let host = host.and_then(|host| HostName::parse(&host));
        let port = by_that_proxy(PORT).and_then(|port| port.parse().ok());
        let port = port.filter(|port| *port != 0);
        Self { client, hops, scheme, host, port }
    }
}

/// Returns the address in a field that has one line and one address in it, without a port.
pub(super) fn address_in(headers: &HeaderMap, name: &HeaderName) -> Option<IpAddr> {
    let mut lines = headers.get_all(name).iter();
    let (first, second) = (lines.next()?, lines.next());
    let address: IpAddr = first.to_str().ok().filter(|_| second.is_none())?.trim().parse().ok()?;
    Some(address.to_canonical())
}

/// Returns the members of a list, over all lines of the field.
fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|one| !one.is_empty()).collect()
}

/// Parses the address of a hop, in the forms that proxies write: alone, in brackets, with a port,
/// in quotes.
fn address(hop: &str) -> Option<IpAddr> {
    let hop = hop.strip_prefix('"').and_then(|hop| hop.strip_suffix('"')).unwrap_or(hop);
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    let address = match hop.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            let fits = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            address.parse().ok().filter(|address: &IpAddr| fits && address.is_ipv6())?
        }
        None => match hop.parse() {
            Ok(address) => address,
            Err(_) => {
                let (address, _) = hop.split_once(':').filter(|(_, port)| is_port(port))?;
                IpAddr::V4(address.parse().ok()?)
            }
        },
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_is_an_address_however_it_is_written() {
        // (hop, address)
        let table = [
            ("203.0.113.9", Some("203.0.113.9")),
            ("203.0.113.9:51234", Some("203.0.113.9")),
            ("2001:db8::9", Some("2001:db8::9")),
            ("[2001:db8::9]", Some("2001:db8::9")),
            ("[2001:db8::9]:51234", Some("2001:db8::9")),
            ("\"[2001:db8::9]:51234\"", Some("2001:db8::9")),
            ("::ffff:203.0.113.9", Some("203.0.113.9")),
            ("[::ffff:203.0.113.9]:80", Some("203.0.113.9")),
            ("203.0.113.9:", None),
            ("203.0.113.9:x", None),
            ("203.0.113.9:99999", None),
            ("[203.0.113.9]:80", None),
            ("[2001:db8::9]x", None),
            ("[2001:db8::9", None),
            ("203.0.113", None),
            ("unknown", None),
            ("_hidden", None),
            ("", None),
        ];
        for (hop, want) in table {
            assert_eq!(address(hop).map(|address| address.to_string()).as_deref(), want, "{hop}");
        }
    }

    #[test]
    fn an_address_in_a_field_is_alone() {
        // (lines, address)
        let table: [(&[&str], Option<&str>); 8] = [
            (&["203.0.113.9"], Some("203.0.113.9")),
            (&[" 2001:db8::9 "], Some("2001:db8::9")),
            (&["::ffff:203.0.113.9"], Some("203.0.113.9")),
            (&["203.0.113.9:80"], None),
            (&["203.0.113.9, 192.0.2.1"], None),
            (&["203.0.113.9", "192.0.2.1"], None),
            (&[""], None),
            (&[], None),
        ];
        let name = HeaderName::from_static("x-client");
        for (lines, want) in table {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(&name, HeaderValue::from_str(line).unwrap());
            }
            let found = address_in(&headers, &name).map(|address| address.to_string());
            assert_eq!(found.as_deref(), want, "{lines:?}");
        }
    }
}
