//! `/clusters`: backends with their endpoints and the state of each.

use std::collections::HashMap;

use serde::Serialize;

use crate::snapshot::{Choice, Snapshot, Transport, WeightedClusters};
use crate::upstream::{Cluster, EndpointState, Protocol};

/// The answer to `GET /clusters`.
#[derive(Debug, Serialize)]
pub(crate) struct Clusters {
    pub clusters: Vec<One>,
}

#[derive(Debug, Serialize)]
pub(crate) struct One {
    pub name: String,
    /// `http/1.1`, `h2c` or `h2`; `tcp` or `udp` if the bytes are not parsed.
    pub protocol: &'static str,
    pub tls: bool,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Endpoint {
    /// The form of the access log: `10.0.0.7:8080`, `unix:/run/app.sock`, `keycloak.local:8080`.
    pub address: String,
    /// The name that resolved to the address.
    pub name: Option<String>,
    /// `healthy`, `unchecked`, `unhealthy`, `ejected`, `unreachable` or `unresolved`.
    pub health: &'static str,
}

impl Clusters {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        // Clusters of routes that are not HTTP are not shared with others.
        let mut plain = HashMap::new();
        for forward in snapshot.forwards.values() {
            for (_, choice) in forward.backends.iter().flat_map(WeightedClusters::weighted) {
                if let Choice::Cluster { cluster, .. } = choice {
                    plain.insert(&*cluster.settings().name, forward.transport);
                }
            }
        }
        let of = |cluster: &Cluster| One::of(cluster, plain.get(&*cluster.settings().name));
        let mut clusters: Vec<_> = snapshot.clusters.values().map(|cluster| of(cluster)).collect();
        clusters.sort_by(|a, b| a.name.cmp(&b.name));
        Self { clusters }
    }
}

impl One {
    fn of(cluster: &Cluster, plain: Option<&Transport>) -> Self {
        let settings = cluster.settings();
        let endpoints = cluster.states().into_iter().map(|state| {
            let EndpointState { address, name, health } = state;
            let address = address.or_else(|| name.clone()).unwrap_or_default();
            Endpoint { address, name, health: health.as_str() }
        });
        let tls = settings.tls.is_some();
        Self {
            name: settings.name.to_string(),
            protocol: match (plain, settings.protocol, tls) {
                (Some(Transport::Tcp), ..) => "tcp",
                (Some(Transport::Udp), ..) => "udp",
                (None, Protocol::Http1, _) => "http/1.1",
                (None, _, false) => "h2c",
                (None, _, true) => "h2",
            },
            tls,
            endpoints: endpoints.collect(),
        }
    }
}
