//! An object of any kind.

use super::backend_tls_policy::BackendTlsPolicy;
use super::core::{ConfigMap, EndpointSlice, Namespace, Secret, Service};
use super::envoy::{
    Backend, BackendTrafficPolicy, ClientTrafficPolicy, EnvoyProxy, RouteFilter, SecurityPolicy,
};
use super::gateway::{Gateway, GatewayClass};
use super::grpc_route::GrpcRoute;
use super::http_route::HttpRoute;
use super::kinds::{Kind, Scope};
use super::listener_set::ListenerSet;
use super::meta::{ObjectKey, ObjectMeta};
use super::reference_grant::ReferenceGrant;
use super::tcp_route::TcpRoute;
use super::tls_route::TlsRoute;
use super::udp_route::UdpRoute;

/// A decoded object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Object {
    GatewayClass(GatewayClass),
    Gateway(Gateway),
    ListenerSet(ListenerSet),
    HttpRoute(HttpRoute),
    GrpcRoute(GrpcRoute),
    TlsRoute(TlsRoute),
    TcpRoute(TcpRoute),
    UdpRoute(UdpRoute),
    ReferenceGrant(ReferenceGrant),
    Backend(Backend),
    RouteFilter(RouteFilter),
    EnvoyProxy(EnvoyProxy),
    Secret(Secret),
    ConfigMap(ConfigMap),
    Service(Service),
    EndpointSlice(EndpointSlice),
    Namespace(Namespace),
    SecurityPolicy(SecurityPolicy),
    BackendTlsPolicy(BackendTlsPolicy),
    BackendTrafficPolicy(Box<BackendTrafficPolicy>),
    ClientTrafficPolicy(Box<ClientTrafficPolicy>),
    /// A known kind that is not supported.
    Unsupported(Unsupported),
}

impl Object {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::GatewayClass(_) => Kind::GatewayClass,
            Self::Gateway(_) => Kind::Gateway,
            Self::ListenerSet(_) => Kind::ListenerSet,
            Self::HttpRoute(_) => Kind::HttpRoute,
            Self::GrpcRoute(_) => Kind::GrpcRoute,
            Self::TlsRoute(_) => Kind::TlsRoute,
            Self::TcpRoute(_) => Kind::TcpRoute,
            Self::UdpRoute(_) => Kind::UdpRoute,
            Self::ReferenceGrant(_) => Kind::ReferenceGrant,
            Self::Backend(_) => Kind::Backend,
            Self::RouteFilter(_) => Kind::RouteFilter,
            Self::EnvoyProxy(_) => Kind::EnvoyProxy,
            Self::Secret(_) => Kind::Secret,
            Self::ConfigMap(_) => Kind::ConfigMap,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Namespace(_) => Kind::Namespace,
            Self::SecurityPolicy(_) => Kind::SecurityPolicy,
            Self::BackendTlsPolicy(_) => Kind::BackendTlsPolicy,
            Self::BackendTrafficPolicy(_) => Kind::BackendTrafficPolicy,
            Self::ClientTrafficPolicy(_) => Kind::ClientTrafficPolicy,
            Self::Unsupported(object) => object.kind,
        }
    }

    pub(crate) fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::GatewayClass(object) => &object.metadata,
            Self::Gateway(object) => &object.metadata,
            Self::ListenerSet(object) => &object.metadata,
            Self::HttpRoute(object) => &object.metadata,
            Self::GrpcRoute(object) => &object.metadata,
            Self::TlsRoute(object) => &object.metadata,
            Self::TcpRoute(object) => &object.metadata,
            Self::UdpRoute(object) => &object.metadata,
            Self::ReferenceGrant(object) => &object.metadata,
            Self::Backend(object) => &object.metadata,
            Self::RouteFilter(object) => &object.metadata,
            Self::EnvoyProxy(object) => &object.metadata,
            Self::Secret(object) => &object.metadata,
            Self::ConfigMap(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::Namespace(object) => &object.metadata,
            Self::SecurityPolicy(object) => &object.metadata,
            Self::BackendTlsPolicy(object) => &object.metadata,
            Self::BackendTrafficPolicy(object) => &object.metadata,
            Self::ClientTrafficPolicy(object) => &object.metadata,
            Self::Unsupported(object) => &object.metadata,
        }
    }

    /// Returns the key: kind, namespace and name.
    pub(crate) fn key(&self) -> ObjectKey {
        let (kind, metadata) = (self.kind(), self.metadata());
        ObjectKey {
            kind,
            namespace: match kind.scope() {
                Scope::Cluster => String::new(),
                Scope::Namespaced => metadata.namespace().into(),
            },
            name: metadata.name.clone(),
        }
    }
}

/// An object of a known kind that is not supported yet. Only its metadata is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unsupported {
    pub kind: Kind,
    pub metadata: ObjectMeta,
}
