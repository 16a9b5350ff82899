//! Clusters of backends.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::api::{
    Backend, EndpointAddressType, EndpointSlice, IntOrString, Kind, ObjectKey, ObjectMeta,
    ServicePort,
};
use crate::clock;
use crate::config::Fault;
use crate::filters::Filter;
use crate::graph::{AppProtocol, AppliedTraffic, BackendTarget, Encryption, NamedCertificate};
use crate::snapshot::Carried;
use crate::stats::{Sharded, Upstream};
use crate::upstream::{
    Cluster, ClusterSettings, EndpointSettings, HoldSettings, Protocol, Upstreams,
};

use super::connection::ConnectionSettings;
use super::filters;
use super::health::HealthChecks;
use super::hold::hold;
use super::slots::Slots;
use super::trust::Trust;

/// The clusters of the snapshot that is being built.
#[derive(Debug)]
pub(super) struct Clusters<'a> {
    carried: &'a Carried,
    upstreams: &'a Upstreams,
    slots: &'a Slots<'a>,
    trust: &'a Trust,
    by_name: HashMap<Arc<str>, Arc<Cluster>>,
    /// Faults of the settings that an object has for its cluster.
    faults: Vec<Fault>,
}

/// The traffic of a route towards its backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    Bytes,
    Datagrams,
    /// Bytes that a listener has decrypted and that a policy requires to be encrypted again.
    Decrypted,
    Grpc,
    Http,
}

impl<'a> Clusters<'a> {
    pub(super) fn new(
        carried: &'a Carried,
        upstreams: &'a Upstreams,
        slots: &'a Slots<'a>,
        trust: &'a Trust,
    ) -> Self {
        Self { carried, upstreams, slots, trust, by_name: HashMap::new(), faults: Vec::new() }
    }

    /// Returns the cluster of `target` for the traffic of a route. gRPC uses HTTP/2 even if the
    /// backend does not declare it (GEP-1911).
    ///
    /// All rules that refer to one backend share one cluster, and so its connections and the state
    /// of its endpoints; but the clusters of a Gateway with its own client certificate for
    /// backends, `client`, are shared only among rules of such Gateways, and those with settings of
    /// a policy, `connection` and `health`, only among rules with the same settings.
    ///
    /// `None` if TLS is required and not possible: then no request may be sent.
    pub(super) fn get(
        &mut self,
        target: &BackendTarget<'_>,
        carries: Carries,
        client: Option<&NamedCertificate>,
        connection: ConnectionSettings,
        health: Option<&HealthChecks>,
    ) -> Option<Arc<Cluster>> {
        let tls = match (carries, target.encryption()) {
            // The gateway does not interpret these bytes.
            (Carries::Bytes | Carries::Datagrams, _) | (_, Encryption::Clear) => None,
            (_, Encryption::Refused) => return None,
            (_, Encryption::Tls(tls)) => Some(self.trust.to_backend(tls, client, self.slots)?),
        };
        let (name, written) = match target {
            BackendTarget::Backend { object, protocol, .. } => {
                let metadata = &object.metadata;
                (format!("backend/{}/{}", metadata.namespace(), metadata.name), protocol)
            }
            BackendTarget::Service { object, port, protocol, .. } => {
                let (metadata, port) = (&object.metadata, port.port);
                let (namespace, name) = (metadata.namespace(), &metadata.name);
                (format!("service/{namespace}/{name}/{port}"), protocol)
            }
        };
        let spoken = match written {
            Some(AppProtocol::H2c) => Protocol::H2c,
            Some(AppProtocol::H2cAndHttp1) => Protocol::H2cOrUpgrade,
            Some(AppProtocol::Http1) | None => Protocol::Http1,
        };
        let h2c = spoken != Protocol::Http1;
        let name = match carries {
            // The backend's declared protocol does not apply to these.
            Carries::Bytes => format!("{name}/tcp"),
            Carries::Decrypted if tls.is_some() => format!("{name}/tls"),
            Carries::Decrypted => format!("{name}/tcp"),
            Carries::Datagrams => format!("{name}/udp"),
            Carries::Grpc if !h2c => format!("{name}/grpc"),
            Carries::Grpc | Carries::Http => name,
        };
        let shown = tls.as_ref().filter(|_| client.is_some()).and_then(|of| of.identity.as_ref());
        let name = match shown {
            Some(identity) => format!("{name}/showing/{}", identity.object().replace(' ', "/")),
            None => name,
        };
        let backend = name.clone();
        // Nothing answers a check of datagrams.
        let health = health.filter(|_| carries != Carries::Datagrams);
        let name = connection.name(name);
        let name = health.map_or_else(|| name.clone(), |health| health.name(&name));
        if let Some(cluster) = self.by_name.get(&*name) {
            return Some(Arc::clone(cluster));
        }
        let (endpoints, object) = match target {
            BackendTarget::Backend { object, .. } => (of_backend(object), Some(*object)),
            BackendTarget::Service { port, slices, .. } => (of_slices(port, slices), None),
        };
        let hold = match (carries, target) {
            (Carries::Bytes | Carries::Datagrams | Carries::Decrypted, _) => None,
            (_, BackendTarget::Backend { object, .. }) => {
                self.hold(Kind::Backend, &object.metadata)
            }
            (_, BackendTarget::Service { object, .. }) => {
                self.hold(Kind::Service, &object.metadata)
            }
        };
        let protocol = if carries == Carries::Grpc && !h2c { Protocol::H2c } else { spoken };
        // The only place where the cluster of an object gets its settings.
        let bounds = self.upstreams.bounds();
        let new = ClusterSettings::new(name, endpoints);
        let mut settings = ClusterSettings { protocol, tls, bounds, hold, ..new };
        if let Some(health) = health {
            settings.health = Some(health.for_backend(&backend, object, protocol));
            settings.panic_threshold = health.panic_threshold;
        }
        Some(self.kept_or_new(connection.over(settings)))
    }

    fn hold(&mut self, kind: Kind, metadata: &ObjectMeta) -> Option<HoldSettings> {
        let object = ObjectKey::new(kind, metadata.namespace(), &metadata.name);
        hold(&object, &metadata.annotations, &mut self.faults)
    }

    /// Returns an HTTP/2 cluster for an address or name that does not belong to an object.
    pub(super) fn at(&mut self, host: &str, port: u16) -> Arc<Cluster> {
        let name = format!("host/{host}/{port}");
        if let Some(cluster) = self.by_name.get(&*name) {
            return Arc::clone(cluster);
        }
        let endpoints = vec![named(host, port)];
        let (protocol, bounds) = (Protocol::H2c, self.upstreams.bounds());
        let settings =
            ClusterSettings { protocol, bounds, ..ClusterSettings::new(name, endpoints) };
        self.kept_or_new(settings)
    }

    fn kept_or_new(&mut self, settings: ClusterSettings) -> Arc<Cluster> {
        let name = Arc::clone(&settings.name);
        let make = |settings: &ClusterSettings| Cluster::new(settings.clone(), self.upstreams);
        let cluster = self.carried.clusters.get_or_make(settings, make);
        self.by_name.insert(name, Arc::clone(&cluster));
        cluster
    }

    /// Returns the counters of a rule, shared by all its compilations and by the previous rule of
    /// this name.
    pub(super) fn counts(&self, rule: &Arc<str>) -> Arc<Sharded<Upstream>> {
        self.carried.rule_counts.get_or_make(Arc::clone(rule), |_| Arc::default())
    }

    /// Returns the rate limit of a policy for a rule, with the buckets of the previous rule of this
    /// name.
    pub(super) fn rate_limit(
        &self,
        policy: &AppliedTraffic<'_>,
        rule: &Arc<str>,
    ) -> Option<Filter> {
        filters::rate_limit(policy, rule, self.carried, clock::now())
    }

    /// Returns the other filters of a policy.
    pub(super) fn traffic_filters(&self, policy: &AppliedTraffic<'_>) -> Vec<Filter> {
        filters::of_traffic(policy, self.carried)
    }

    /// Returns all clusters by their settings, and the faults of the latter.
    pub(super) fn finish(self) -> (HashMap<ClusterSettings, Arc<Cluster>>, Vec<Fault>) {
        let clusters = self.by_name.into_values();
        let clusters = clusters.map(|cluster| (cluster.settings().clone(), cluster));
        (clusters.collect(), self.faults)
    }
}

fn of_backend(backend: &Backend) -> Vec<EndpointSettings> {
    let mut endpoints = Endpoints::default();
    for endpoint in &backend.spec.endpoints {
        let ip = endpoint.ip.as_ref();
        let ip = ip.and_then(|ip| Some(SocketAddr::new(ip.address.parse().ok()?, ip.port)));
        let fqdn = endpoint.fqdn.as_ref().map(|fqdn| named(&fqdn.hostname, fqdn.port));
        let unix = endpoint.unix.as_ref().map(|unix| PathBuf::from(&unix.path));
        // The graph accepts only endpoints that have exactly one of the three.
        let (ip, unix) = (ip.map(EndpointSettings::Address), unix.map(EndpointSettings::Unix));
        endpoints.add(ip.or(fqdn).or(unix));
    }
    endpoints.all
}

/// Returns the ready endpoints of a Service. Ports are matched by name, since each slice may have
/// its own number for a name (EndpointSlice `ports`).
fn of_slices(port: &ServicePort, slices: &[&EndpointSlice]) -> Vec<EndpointSettings> {
    let wanted = port.name.as_deref().unwrap_or_default();
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let mut endpoints = Endpoints::default();
    for slice in slices {
        let of_name = slice.ports.iter().find(|of| {
            of.name.as_deref().unwrap_or_default() == wanted
                && of.protocol.as_deref().unwrap_or("TCP") == protocol
        });
        let Some(of_name) = of_name else { continue };
        // Without a number the entry covers every port, and the number comes from the Service.
        let number = of_name.port.unwrap_or(match port.target_port {
            Some(IntOrString::Int(number)) => number,
            Some(IntOrString::String(_)) | None => port.port,
        });
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.conditions.ready()) {
            // Of several addresses only the first is used (EndpointSlice `endpoints[].addresses`).
            let Some(address) = endpoint.addresses.first() else { continue };
            let socket = |ip: IpAddr| EndpointSettings::Address(SocketAddr::new(ip, number));
            // The graph has reported the addresses that do not fit.
            let settings = match &slice.address_type {
                EndpointAddressType::Fqdn => Some(named(address, number)),
                EndpointAddressType::Ipv4 => {
                    address.parse::<Ipv4Addr>().ok().map(|ip| socket(ip.into()))
                }
                EndpointAddressType::Ipv6 => {
                    address.parse::<Ipv6Addr>().ok().map(|ip| socket(ip.into()))
                }
                EndpointAddressType::Unknown(_) => None,
            };
            endpoints.add(settings);
        }
    }
    endpoints.all
}

/// Returns the endpoint of a name, or of the address if the name is one.
fn named(host: &str, port: u16) -> EndpointSettings {
    match host.parse() {
        Ok(ip) => EndpointSettings::Address(SocketAddr::new(ip, port)),
        Err(_) => EndpointSettings::Name { host: host.into(), port },
    }
}

/// Endpoints without duplicates, in the order in which they were added.
#[derive(Default)]
struct Endpoints {
    all: Vec<EndpointSettings>,
    known: HashSet<EndpointSettings>,
}

impl Endpoints {
    /// Adds an endpoint, unless another slice already has it.
    fn add(&mut self, endpoint: Option<EndpointSettings>) {
        if let Some(endpoint) = endpoint
            && self.known.insert(endpoint.clone())
        {
            self.all.push(endpoint);
        }
    }
}
