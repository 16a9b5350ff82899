//! A request for tests of filters.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderValue, request};

use crate::clock;
use crate::filters::{Exchange, HostName, Scheme};

/// A request to `host` over TLS, from 192.0.2.1.
pub(crate) fn exchange(host: &str) -> Exchange {
    let host = HostName::parse(&HeaderValue::from_str(host).unwrap()).unwrap();
    let port = host.port().unwrap_or(443);
    Exchange {
        client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        started: clock::now(),
        scheme: Scheme::Https,
        host,
        port,
        matched_prefix: 0,
        allowed_origin: None,
        details: None,
        limit: None,
        hides_limits: false,
        retry_after: None,
        is_delayed: false,
        coding: None,
        is_memory_short: false,
        passed: 0,
    }
}

/// The head of a GET for `target`.
pub(crate) fn head(target: &str) -> request::Parts {
    http::Request::get(target).body(()).unwrap().into_parts().0
}
