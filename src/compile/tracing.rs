//! Tracing of requests, from `spec.telemetry.tracing` of EnvoyProxies.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::api::ObjectKey;
use crate::api::envoy::{self, CustomTag, CustomTagType, TracingProviderType};
use crate::config::Environment;
use crate::graph::{Gateway, Graph, Proxy};
use crate::snapshot::Carried;
use crate::trace::{Collector, CollectorSettings, Sampling, Tag, TagValue, TracingSettings};
use crate::upstream::{Cluster, EndpointSettings};

use super::clusters::{Carries, Clusters};
use super::connection::ConnectionSettings;

/// The tracing settings of each Gateway.
#[derive(Debug)]
pub(super) struct Tracings {
    by_gateway: HashMap<ObjectKey, Arc<TracingSettings>>,
    pub collectors: Vec<Arc<Collector>>,
}

impl Tracings {
    pub(super) fn new(
        graph: &Graph<'_>,
        clusters: &mut Clusters<'_>,
        carried: &Carried,
        environment: Environment<'_>,
    ) -> Self {
        let mut tracings = Self { by_gateway: HashMap::new(), collectors: Vec::new() };
        for gateway in graph.gateways.iter().filter(|gateway| gateway.is_served()) {
            let Some(proxy) = gateway.proxy.and_then(|place| graph.proxies.get(place)) else {
                continue;
            };
            let Some(written) = proxy.object.tracing() else { continue };
            let Some(cluster) = cluster(written, proxy, gateway, clusters) else { continue };
            let settings = settings(written, gateway, &cluster);
            let tracing = TracingSettings {
                collector: tracings.collector(settings, cluster, carried),
                sampling: sampling(written),
                tags: tags(written, environment),
            };
            tracings.by_gateway.insert(gateway.key.clone(), Arc::new(tracing));
        }
        tracings
    }

    /// Returns the tracing of a Gateway; `None` if its requests are not traced.
    pub(super) fn of(&self, gateway: &ObjectKey) -> Option<Arc<TracingSettings>> {
        self.by_gateway.get(gateway).cloned()
    }

    /// Returns the collector with these settings: an existing one of this load or the previous one,
    /// or a new one.
    fn collector(
        &mut self,
        settings: CollectorSettings,
        cluster: Arc<Cluster>,
        carried: &Carried,
    ) -> Arc<Collector> {
        let make = |settings: &CollectorSettings| {
            Collector::new(settings.clone(), cluster, Arc::clone(&carried.spans))
        };
        let collector = carried.collectors.get_or_make(settings, make);
        if !self.collectors.iter().any(|known| Arc::ptr_eq(known, &collector)) {
            self.collectors.push(Arc::clone(&collector));
        }
        collector
    }
}

/// Returns the cluster that receives spans; `None` if there is no usable one, which the graph has
/// reported.
fn cluster(
    written: &envoy::Tracing,
    proxy: &Proxy<'_>,
    gateway: &Gateway<'_>,
    clusters: &mut Clusters<'_>,
) -> Option<Arc<Cluster>> {
    let provider = &written.provider;
    if *provider.kind() != TracingProviderType::OpenTelemetry {
        return None;
    }
    if proxy.collectors.is_empty() {
        let host = provider.host.as_deref()?;
        return Some(clusters.at(host, provider.port()));
    }
    let target = proxy.collectors.first()?.as_ref().ok()?;
    let client = gateway.client_certificate.as_ref();
    clusters.get(target, Carries::Grpc, client, ConnectionSettings::default(), None)
}

fn settings(
    written: &envoy::Tracing,
    gateway: &Gateway<'_>,
    cluster: &Cluster,
) -> CollectorSettings {
    let provider = &written.provider;
    let telemetry = provider.open_telemetry.as_ref();
    let headers = telemetry.into_iter().flat_map(|of| &of.headers).filter_map(|header| {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        let mut value = HeaderValue::from_str(&header.value).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    });
    let resource = telemetry.into_iter().flat_map(|of| &of.resource_attributes);
    let service = match &provider.service_name {
        Some(name) => name.as_str().into(),
        None => format!("{}.{}", gateway.key.name, gateway.key.namespace).into(),
    };
    CollectorSettings {
        cluster: cluster.settings().clone(),
        authority: authority(cluster),
        headers: headers.collect(),
        service,
        resource: resource.map(|(name, value)| (name.clone(), value.clone())).collect(),
    }
}

/// Returns the authority that a client of the first endpoint would send.
fn authority(cluster: &Cluster) -> HeaderValue {
    let written = match cluster.settings().endpoints.first() {
        Some(EndpointSettings::Address(address)) => address.to_string(),
        Some(EndpointSettings::Name { host, port }) => format!("{host}:{port}"),
        Some(EndpointSettings::Unix(_)) | None => "localhost".into(),
    };
    HeaderValue::from_str(&written).unwrap_or(HeaderValue::from_static("localhost"))
}

fn sampling(written: &envoy::Tracing) -> Sampling {
    let fraction = written.sampling();
    // A fraction with denominator 0 is rejected with the object.
    let denominator = NonZeroU32::new(fraction.denominator()).unwrap_or(NonZeroU32::MIN);
    Sampling { numerator: fraction.numerator, denominator }
}

fn tags(written: &envoy::Tracing, environment: Environment<'_>) -> Box<[Tag]> {
    let tags = written.custom_tags.iter().filter_map(|(name, tag)| {
        Some(Tag { name: name.as_str().into(), value: value(tag, environment)? })
    });
    tags.collect()
}

/// Returns the value of a tag; `None` if there is no value, or it was not found, which the graph
/// has reported.
fn value(tag: &CustomTag, environment: Environment<'_>) -> Option<TagValue> {
    match tag.kind() {
        CustomTagType::Literal => {
            Some(TagValue::Fixed(tag.literal.as_ref()?.value.as_str().into()))
        }
        CustomTagType::Environment => {
            let of = tag.environment.as_ref()?;
            let value = environment(&of.name).or_else(|| of.default_value.clone())?;
            Some(TagValue::Fixed(value.into()))
        }
        CustomTagType::RequestHeader => {
            let of = tag.request_header.as_ref()?;
            let name = HeaderName::from_bytes(of.name.as_bytes()).ok()?;
            let default = of.default_value.as_deref().map(Arc::from);
            Some(TagValue::Header { name, default })
        }
        CustomTagType::Unknown(_) => None,
    }
}
