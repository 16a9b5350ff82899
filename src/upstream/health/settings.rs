//! Settings of the health of a cluster's hosts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, StatusCode};

/// The checks that decide whether the hosts of a cluster are healthy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HealthSettings {
    /// The name of the backend. The hosts of one backend with equal settings keep their state across
    /// a reload, and clusters that differ in other settings share it.
    pub backend: Arc<str>,
    /// Checks that the gateway sends.
    pub active: Option<ActiveCheck>,
    /// Ejection of hosts because of the answers that requests get from them.
    pub passive: Option<PassiveCheck>,
}

/// Checks that the gateway sends to each host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ActiveCheck {
    pub probe: Probe,
    /// Time from the start of a check to that of the next.
    pub interval: Duration,
    /// Limit on a check, including the connection and the TLS handshake.
    pub timeout: Duration,
    /// The first check of a host starts after a random part of this time.
    pub initial_jitter: Duration,
    /// Number of failed checks in a row after which a healthy host is unhealthy; at least 1.
    pub unhealthy_threshold: u32,
    /// Number of passed checks in a row after which an unhealthy host is healthy; at least 1.
    pub healthy_threshold: u32,
    /// The port of the checks; `None` for that of the endpoint. Does not apply to Unix sockets.
    pub port: Option<u16>,
    /// The `Host` of the checks; `None` for the name or address of the endpoint.
    pub authority: Option<Box<str>>,
    /// The `Host` for single endpoints, by their names; these come before `authority`.
    pub own_authorities: BTreeMap<String, Box<str>>,
}

impl ActiveCheck {
    /// Returns the `Host` of the checks of an endpoint, by the endpoint's name.
    pub(crate) fn authority_of(&self, endpoint: &str) -> Box<str> {
        let own = self.own_authorities.get(endpoint).or(self.authority.as_ref());
        own.cloned().unwrap_or_else(|| match endpoint.starts_with("unix:") {
            true => "localhost".into(),
            false => endpoint.into(),
        })
    }
}

/// Ejection of hosts because of the answers that requests get from them: outlier detection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PassiveCheck {
    /// Number of responses of 500 and above in a row that ejects a host; `None` for no limit.
    pub errors: Option<u32>,
    /// The same for 502, 503 and 504.
    pub gateway_errors: Option<u32>,
    /// The same for requests without a response. With `None` these count as responses of 503, or
    /// of 504 after a timeout.
    pub local_failures: Option<u32>,
    /// Percentage of failed requests in an interval that ejects a host; `None` for no limit.
    pub failure_percentage: Option<u8>,
    /// Time between two sweeps, which end ejections and compare the hosts.
    pub interval: Duration,
    /// Time of the first ejection; the next ones in a row last longer.
    pub base_ejection: Duration,
    /// Maximum percentage of hosts that are ejected.
    pub max_percent: u8,
    /// True if one host may be ejected whatever `max_percent` is.
    pub always_one: bool,
    /// False if at least one host is left.
    pub may_eject_all: bool,
}

/// The request of a check, and the answer with which a host passes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Probe {
    /// The health service of gRPC; an empty name asks for the whole server.
    Grpc {
        service: Box<str>,
    },
    Http(Box<HttpProbe>),
    Tcp(TcpProbe),
}

/// Bytes to send, and bytes that the answer must contain; both may be empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TcpProbe {
    pub send: Bytes,
    pub receive: Bytes,
}

/// Prints the request of the check and its `Host`, as `GET /health for shop.test every 3s`.
impl fmt::Display for ActiveCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.probe {
            Probe::Grpc { service } if service.is_empty() => f.write_str("grpc.health.v1")?,
            Probe::Grpc { service } => write!(f, "grpc.health.v1 of {service}")?,
            Probe::Http(probe) => write!(f, "{} {}", probe.method, probe.path)?,
            Probe::Tcp(_) => f.write_str("a connection")?,
        }
        if !matches!(self.probe, Probe::Tcp(_)) {
            let own = self.own_authorities.values().chain(&self.authority);
            let names: Vec<&str> = own.map(|name| &**name).collect();
            match &*names {
                [] => f.write_str(" with its address as Host")?,
                names => write!(f, " with Host {}", names.join(" or "))?,
            }
        }
        if let Some(port) = self.port {
            write!(f, " at port {port}")?;
        }
        write!(f, " every {:?}", self.interval)
    }
}

/// A request over the HTTP version of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HttpProbe {
    /// True for HTTP/2.
    pub http2: bool,
    pub method: Method,
    pub path: PathAndQuery,
    pub body: Bytes,
    /// The statuses with which a host passes.
    pub expected: Box<[StatusCode]>,
    /// Statuses that count towards the threshold; any other status fails the host at once.
    pub retriable: Box<[StatusCode]>,
    /// The response must contain these bytes. If empty, its body has no effect.
    pub receive: Bytes,
}
