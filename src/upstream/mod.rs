//! Backends: endpoints, names, connections and the choice between them.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::body::{Request, Response};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClusterSettings {
    pub name: Arc<str>,
    pub endpoints: Vec<EndpointSettings>,
    pub protocol: Protocol,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
    pub max_idle_per_endpoint: usize,
}

impl ClusterSettings {
    pub(crate) fn new(name: impl Into<Arc<str>>, endpoints: Vec<EndpointSettings>) -> Self {
        Self {
            name: name.into(),
            endpoints,
            protocol: Protocol::Http1,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(4),
            max_idle_per_endpoint: 256,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Http1,
    H2c,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EndpointSettings {
    Address(SocketAddr),
    Name { host: Arc<str>, port: u16 },
    Unix(PathBuf),
}

#[derive(Debug)]
pub(crate) struct Names;

impl Names {
    pub(crate) fn new(_: impl IntoIterator<Item = (String, Vec<IpAddr>)>) -> Arc<Self> {
        Arc::new(Self)
    }
}

#[derive(Debug)]
pub(crate) struct Cluster {
    settings: ClusterSettings,
}

impl Cluster {
    pub(crate) fn new(settings: ClusterSettings, _names: &Names) -> Arc<Self> {
        Arc::new(Self { settings })
    }

    pub(crate) async fn send(self: &Arc<Self>, _request: Request) -> Result<Answer, SendFailure> {
        Err(SendFailure { kind: FailureKind::NoEndpoint, endpoint: None, details: "".into() })
    }

    pub(crate) fn settings(&self) -> &ClusterSettings {
        &self.settings
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub response: Response,
    pub endpoint: EndpointName,
    pub tunnel: Option<Tunnel>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    ConnectRefused,
    ConnectTimeout,
    InvalidRequest(&'static str),
    InvalidResponse(&'static str),
    NoEndpoint,
    RequestBody,
    ResetBeforeHead,
    Unresolved,
}

#[derive(Debug)]
pub(crate) struct SendFailure {
    pub kind: FailureKind,
    pub endpoint: Option<EndpointName>,
    pub details: Cow<'static, str>,
}

#[derive(Clone, Debug)]
pub(crate) struct EndpointName(SocketAddr);

impl EndpointName {
    pub(crate) fn socket_addr(&self) -> Option<SocketAddr> {
        Some(self.0)
    }
}

impl std::fmt::Display for EndpointName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

pub(crate) type Tunnel = tokio::io::DuplexStream;

pub(crate) mod pool {
    pub(crate) fn sweep(_: super::Instant) {}
    pub(crate) fn drain() {}
}
