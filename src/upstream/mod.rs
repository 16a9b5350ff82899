//! Backends: endpoints, names, connections and the choice between them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClusterSettings {
    pub name: Arc<str>,
    pub endpoints: Vec<EndpointSettings>,
    pub protocol: Protocol,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
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

#[derive(Debug)]
pub(crate) struct Cluster {
    pub settings: ClusterSettings,
}

impl Cluster {
    pub(crate) fn new(settings: ClusterSettings, _names: &Arc<Names>) -> Arc<Self> {
        Arc::new(Self { settings })
    }
}
