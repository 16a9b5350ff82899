//! Resolution of backendRefs. A broken reference stays in the graph, with its fault.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::api::envoy::{AppProtocol as Written, BackendEndpoint, BackendType};
use crate::api::{
    Backend, BackendName, CORE_GROUP, ENVOY_GROUP, EndpointAddressType, EndpointSlice, Kind,
    ObjectKey, Service, ServicePort,
};
use crate::config::Origin;

use super::backend_encryption::BackendEncryption;
use super::backend_tls::Encryption;
use super::facts::LoadFacts;
use super::grants::{Referent, Referrer, advice};
use super::index::{ObjectIndex, SERVICE_LABEL};
use super::verdict::Faults;

/// Advice on how to configure TLS to a backend.
const ENCRYPT: &str = "write a BackendTLSPolicy for it, so that it is known whom to believe";

/// A reference that resolves to a backend.
#[derive(Clone, Debug)]
pub(crate) enum BackendTarget<'a> {
    Backend {
        object: &'a Backend,
        protocol: Option<AppProtocol>,
        encryption: Encryption,
    },
    Service {
        object: &'a Service,
        port: &'a ServicePort,
        /// All EndpointSlices of the Service, in the order of their names.
        slices: Arc<[&'a EndpointSlice]>,
        protocol: Option<AppProtocol>,
        encryption: Encryption,
    },
}

/// The application protocol of a backend, if its object names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AppProtocol {
    H2c,
    /// HTTP/2 without TLS or HTTP/1.1, as the request requires.
    H2cAndHttp1,
    /// HTTP/1.1, for WebSockets.
    Http1,
}

/// The payload that a kind of route carries to its backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Payload {
    Bytes,
    Datagrams,
    Requests,
}

fn carries(route: Kind) -> Payload {
    match route {
        Kind::TcpRoute | Kind::TlsRoute => Payload::Bytes,
        Kind::UdpRoute => Payload::Datagrams,
        _ => Payload::Requests,
    }
}

/// A reference that cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BrokenRef {
    /// The reason of condition ResolvedRefs=False.
    pub reason: &'static str,
    /// The field of the reference that is wrong; empty for the whole reference.
    pub field: &'static str,
    pub problem: String,
    /// The object that the reference names, if that object is missing or at fault.
    referent: Option<Box<ObjectKey>>,
}

impl BrokenRef {
    pub(super) fn new(
        reason: &'static str,
        field: &'static str,
        problem: impl Into<String>,
    ) -> Self {
        Self { reason, field, problem: problem.into(), referent: None }
    }

    pub(super) fn of(self, referent: ObjectKey) -> Self {
        Self { referent: Some(Box::new(referent)), ..self }
    }

    pub(super) fn origin(&self) -> Origin {
        self.referent.as_deref().cloned().map_or(Origin::Written, Origin::Referent)
    }
}

/// A backend reference after its lookup.
pub(crate) type Resolved<'a> = Result<BackendTarget<'a>, BrokenRef>;

impl BackendTarget<'_> {
    /// Returns the encryption of connections to the endpoints.
    pub(crate) fn encryption(&self) -> &Encryption {
        match self {
            Self::Backend { encryption, .. } | Self::Service { encryption, .. } => encryption,
        }
    }

    /// Returns the reason why requests are not answered although the reference is valid.
    pub(super) fn lacks(&self, route: Kind) -> Option<String> {
        let Self::Service { object, slices, .. } = self else { return None };
        let (namespace, name) = (object.metadata.namespace(), &object.metadata.name);
        let so = match carries(route) {
            Payload::Requests => "requests are answered 503",
            Payload::Bytes => "connections are closed",
            Payload::Datagrams => "datagrams are dropped",
        };
        slices.is_empty().then(|| {
            format!(
                "no EndpointSlice belongs to Service `{namespace}/{name}`, so {so}; add one with \
                 the label `{SERVICE_LABEL}: {name}`"
            )
        })
    }
}

/// Reports EndpointSlices with endpoints that cannot be used. Their other endpoints are used.
pub(super) fn judge_slices(index: &ObjectIndex<'_>, faults: &mut Faults) {
    for slice in &index.all_slices {
        let metadata = &slice.metadata;
        let key = ObjectKey::new(Kind::EndpointSlice, metadata.namespace(), &metadata.name);
        if !metadata.labels.contains_key(SERVICE_LABEL) {
            let problem =
                format!("it belongs to no Service; name one by the label `{SERVICE_LABEL}`");
            faults.warning(&key, "metadata.labels", problem);
        }
        let fits: fn(&str) -> bool = match &slice.address_type {
            EndpointAddressType::Fqdn => |name| !name.is_empty(),
            EndpointAddressType::Ipv4 => |text| text.parse::<Ipv4Addr>().is_ok(),
            EndpointAddressType::Ipv6 => |text| text.parse::<Ipv6Addr>().is_ok(),
            EndpointAddressType::Unknown(word) => {
                let problem = format!("`{word}` is not an address type; use IPv4, IPv6 or FQDN");
                faults.error(&key, "addressType", problem);
                continue;
            }
        };
        for (place, endpoint) in slice.endpoints.iter().enumerate() {
            let field = format!("endpoints[{place}].addresses");
            match endpoint.addresses.first() {
                Some(address) if fits(address) => {}
                Some(address) => {
                    let problem = format!(
                        "`{address}` is not an address of type {}; no request goes there",
                        slice.address_type
                    );
                    faults.error(&key, format!("{field}[0]"), problem);
                }
                None => faults.error(&key, field, "there is no address; write one"),
            }
        }
    }
}

/// The inputs for resolving a reference to a backend.
#[derive(Clone, Copy)]
pub(super) struct BackendLookup<'l, 'a> {
    pub index: &'l ObjectIndex<'a>,
    pub facts: &'l LoadFacts<'l>,
    pub encryption: &'l BackendEncryption<'a>,
}

/// Resolves a reference of `route`, or of another object that causes requests.
///
/// # Errors
///
/// The reference cannot be resolved. The error is the first of: unknown kind, not permitted, not
/// found, not usable. Permission is checked before existence, so that a route of another namespace
/// cannot find out which objects exist.
pub(super) fn resolve<'a>(
    reference: BackendName<'_>,
    route: &ObjectKey,
    lookup: BackendLookup<'_, 'a>,
) -> Resolved<'a> {
    let BackendLookup { index, facts, encryption } = lookup;
    let (group, kind) = (reference.group(), reference.kind());
    let is_backend = match (group, kind) {
        (CORE_GROUP, "Service") => false,
        (ENVOY_GROUP, "Backend") if facts.enable_backend => true,
        (ENVOY_GROUP, "Backend") => {
            let problem = "Backend is turned off; write `extensionApis: {enableBackend: true}` in \
                           the EnvoyGateway document";
            return Err(BrokenRef::new("InvalidKind", "kind", problem));
        }
        (CORE_GROUP, "Backend") => {
            let problem = format!(
                "`Backend` without a group is looked for in the core group; add \
                 `group: {ENVOY_GROUP}`"
            );
            return Err(BrokenRef::new("InvalidKind", "kind", problem));
        }
        (CORE_GROUP, kind) => {
            let problem = format!("`{kind}` is no backend; refer to a Service or a Backend");
            return Err(BrokenRef::new("InvalidKind", "kind", problem));
        }
        (group, kind) => {
            let problem =
                format!("`{kind}.{group}` is no backend; refer to a Service or a Backend");
            return Err(BrokenRef::new("InvalidKind", "kind", problem));
        }
    };
    let namespace = reference.namespace.unwrap_or(&route.namespace);
    let from = Referrer {
        group: route.kind.group(),
        kind: route.kind.as_str(),
        namespace: &route.namespace,
    };
    let to = Referent { group, kind, namespace, name: reference.name };
    if !index.permits(from, to) {
        let broken = BrokenRef::new("RefNotPermitted", "namespace", advice(from, to));
        // Any ReferenceGrant in that namespace could permit it.
        return Err(broken.of(ObjectKey::new(Kind::ReferenceGrant, namespace, "")));
    }
    if is_backend {
        let object = index
            .backend(namespace, reference.name)
            .ok_or_else(|| not_found(Kind::Backend, namespace, reference.name))?;
        let key = ObjectKey::new(Kind::Backend, namespace, reference.name);
        keeps_rules(&key, index)?;
        let encryption = encryption.of_backend(&key).map_err(|why| {
            let problem =
                format!("Backend `{namespace}/{}` cannot be spoken to by TLS: {why}", key.name);
            BrokenRef::new("InvalidBackendRef", "", problem).of(key.clone())
        })?;
        let is_encrypted = encryption != Encryption::Clear;
        let protocol = usable(object, &key, carries(route.kind), is_encrypted)?;
        return Ok(BackendTarget::Backend { object, protocol, encryption });
    }
    let object = index
        .service(namespace, reference.name)
        .ok_or_else(|| not_found(Kind::Service, namespace, reference.name))?;
    let key = ObjectKey::new(Kind::Service, namespace, reference.name);
    keeps_rules(&key, index)?;
    let port = service_port(object, reference, carries(route.kind))?;
    let encryption = encryption.of_service(&key, port.name.as_deref());
    let is_encrypted = encryption != Encryption::Clear;
    let protocol = port_protocol(object, port, carries(route.kind), is_encrypted)?;
    let slices = index.slices(object);
    Ok(BackendTarget::Service { object, port, slices, protocol, encryption })
}

fn not_found(kind: Kind, namespace: &str, name: &str) -> BrokenRef {
    BrokenRef::new("BackendNotFound", "name", format!("there is no {kind} `{namespace}/{name}`"))
        .of(ObjectKey::new(kind, namespace, name))
}

/// Returns an error if an object breaks the rules of its kind. Such an object is not used.
fn keeps_rules(key: &ObjectKey, index: &ObjectIndex<'_>) -> Result<(), BrokenRef> {
    match index.broken(key).next() {
        None => Ok(()),
        Some(fault) => {
            let ObjectKey { kind, namespace, name } = key;
            let problem = format!("{kind} `{namespace}/{name}` is not valid: {fault}");
            Err(BrokenRef::new("InvalidBackendRef", "", problem).of(key.clone()))
        }
    }
}

/// Returns the application protocol of a Backend, or an error if the Backend cannot be used.
fn usable(
    backend: &Backend,
    key: &ObjectKey,
    carries: Payload,
    is_encrypted: bool,
) -> Result<Option<AppProtocol>, BrokenRef> {
    let name = || format!("Backend `{}/{}`", key.namespace, key.name);
    let invalid = |what: String| {
        BrokenRef::new("InvalidBackendRef", "", format!("{} {what}", name())).of(key.clone())
    };
    let spec = &backend.spec;
    match spec.kind() {
        BackendType::Endpoints => {}
        kind => return Err(invalid(format!("is of type `{kind}`; use Endpoints"))),
    }
    if spec.endpoints.is_empty() {
        return Err(invalid("has no `spec.endpoints`; add one".into()));
    }
    if let Some(place) = spec.endpoints.iter().position(|endpoint| !is_one(endpoint)) {
        return Err(invalid(format!(
            "names no place to go in `spec.endpoints[{place}]`; write one of `fqdn`, `ip` (with an \
             address) and `unix` (with an absolute path)"
        )));
    }
    let unsupported =
        |what: String| BrokenRef::new("UnsupportedProtocol", "", format!("{} {what}", name()));
    if carries == Payload::Datagrams
        && let Some(place) = spec.endpoints.iter().position(|endpoint| endpoint.unix.is_some())
    {
        return Err(unsupported(format!(
            "has a UNIX socket in `spec.endpoints[{place}]`, which takes no datagrams of a \
             UDPRoute; write `ip` or `fqdn`"
        )));
    }
    // The payload of TCP and UDP routes is opaque to the gateway.
    if carries != Payload::Requests {
        return Ok(None);
    }
    let (mut h2c, mut ws) = (false, false);
    for written in &spec.app_protocols {
        match written {
            Written::H2c => h2c = true,
            Written::Ws => ws = true,
            Written::Wss if is_encrypted => ws = true,
            Written::Wss => {
                return Err(unsupported(format!("speaks `{written}`, which needs TLS; {ENCRYPT}")));
            }
            Written::Unknown(_) => {
                return Err(unsupported(format!(
                    "speaks `{written}`, which is not known; use {}",
                    Written::WORDS.join(" or ")
                )));
            }
        }
    }
    Ok(match (h2c, ws) {
        (true, true) => Some(AppProtocol::H2cAndHttp1),
        (true, false) => Some(AppProtocol::H2c),
        (false, true) => Some(AppProtocol::Http1),
        (false, false) => None,
    })
}

/// Returns true for an endpoint with exactly one valid destination.
fn is_one(endpoint: &BackendEndpoint) -> bool {
    match (&endpoint.fqdn, &endpoint.ip, &endpoint.unix) {
        (Some(fqdn), None, None) => !fqdn.hostname.is_empty() && fqdn.port != 0,
        (None, Some(ip), None) => ip.address.parse::<IpAddr>().is_ok() && ip.port != 0,
        (None, None, Some(unix)) => unix.path.starts_with('/'),
        _ => false,
    }
}

fn service_port<'a>(
    service: &'a Service,
    reference: BackendName<'_>,
    carries: Payload,
) -> Result<&'a ServicePort, BrokenRef> {
    let metadata = &service.metadata;
    let name = || format!("Service `{}/{}`", metadata.namespace(), metadata.name);
    if service.spec.kind.as_deref() == Some("ExternalName") {
        let problem =
            format!("{} is an ExternalName, which could point anywhere; use a Backend", name());
        return Err(BrokenRef::new("InvalidBackendRef", "", problem));
    }
    let Some(number) = reference.port else {
        let problem =
            format!("a reference to a Service needs a port; {} has {}", name(), ports(service));
        return Err(BrokenRef::new("BackendNotFound", "", problem));
    };
    let mut of_number = service.spec.ports.iter().filter(|port| port.port == number).peekable();
    if of_number.peek().is_none() {
        let problem = format!("{} has no port {number}; it has {}", name(), ports(service));
        return Err(BrokenRef::new("BackendNotFound", "port", problem));
    }
    // A port number may be listed for both TCP and UDP.
    let wanted = if carries == Payload::Datagrams { "UDP" } else { "TCP" };
    let port = of_number.find(|port| port.protocol.as_deref().unwrap_or("TCP") == wanted);
    let Some(port) = port else {
        let problem = format!("port {number} of {} is not {wanted}", name());
        return Err(BrokenRef::new("UnsupportedProtocol", "port", problem));
    };
    Ok(port)
}

/// Returns the application protocol of a port of a Service, if it names one.
fn port_protocol(
    service: &Service,
    port: &ServicePort,
    carries: Payload,
    is_encrypted: bool,
) -> Result<Option<AppProtocol>, BrokenRef> {
    if carries != Payload::Requests {
        return Ok(None);
    }
    let name = format!("Service `{}/{}`", service.metadata.namespace(), service.metadata.name);
    let number = port.port;
    Ok(match port.app_protocol.as_deref() {
        None | Some("" | "http" | "HTTP") => None,
        Some("kubernetes.io/h2c" | "gateway.envoyproxy.io/h2c" | "grpc") => Some(AppProtocol::H2c),
        Some("kubernetes.io/ws" | "gateway.envoyproxy.io/ws") => Some(AppProtocol::Http1),
        Some("https" | "HTTPS") if is_encrypted => None,
        Some("kubernetes.io/wss" | "gateway.envoyproxy.io/wss") if is_encrypted => {
            Some(AppProtocol::Http1)
        }
        Some(written @ ("https" | "HTTPS" | "kubernetes.io/wss" | "gateway.envoyproxy.io/wss")) => {
            let problem =
                format!("port {number} of {name} speaks `{written}`, which needs TLS; {ENCRYPT}");
            return Err(BrokenRef::new("UnsupportedProtocol", "port", problem));
        }
        Some(written) => {
            let problem = format!(
                "port {number} of {name} speaks `{written}`, which is not known; use \
                 kubernetes.io/h2c or kubernetes.io/ws, or leave `appProtocol` out"
            );
            return Err(BrokenRef::new("UnsupportedProtocol", "port", problem));
        }
    })
}

fn ports(service: &Service) -> String {
    let ports: Vec<_> = service.spec.ports.iter().map(|port| port.port.to_string()).collect();
    if ports.is_empty() { "none".into() } else { ports.join(", ") }
}
