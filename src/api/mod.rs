//! What may be written: the kinds of the Gateway API and of Envoy Gateway as plain data.
//!
//! One file per kind. A struct here holds what stands in the file and nothing else: fields in the
//! order of the specification, serde attributes, and defaults as methods, so that `None` still
//! says "not written". What a value means is decided by `graph` and `compile`; whether it keeps
//! the limits of the CRDs is decided by `config`.
//!
//! Words that a later release may extend (filter types, protocols, methods) are open enums with an
//! `Unknown` variant: one strange word makes one object not accepted, it does not make a file
//! unreadable. There is no `untagged`, `tag` or `flatten` here, since each of them loses the place
//! of a fault.
//!
//! To add a kind: its file, a row of [`KINDS`], a variant of [`Object`], and the arm in
//! `config/objects.rs` that the compiler then asks for.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

mod backend_tls_policy;
mod core;
mod duration;
pub(crate) mod envoy;
mod gateway;
mod grpc_route;
mod http_route;
mod kinds;
mod listener_set;
mod open_enum;
mod reference_grant;
pub(crate) mod shared;
mod tcp_route;
mod tls_route;
mod udp_route;

pub(crate) use self::backend_tls_policy::{
    BackendTlsPolicy, BackendTlsPolicySpec, BackendTlsValidation, PolicyTargetReference,
    SubjectAltName, SubjectAltNameType,
};
pub(crate) use self::core::{
    ConfigMap, EndpointAddressType, EndpointSlice, IntOrString, Namespace, Secret, Service,
    ServicePort,
};
pub(crate) use self::duration::Duration;
pub(crate) use self::envoy::{
    Backend, DirectBodyType, DirectResponse, EnvoyProxy, RouteFilter, SecurityPolicy,
};
pub(crate) use self::gateway::{
    AddressType, FromNamespaces, FrontendTlsSettings, FrontendTlsValidation,
    FrontendValidationMode, Gateway, GatewayAddress, GatewayClass, GatewayClassSpec,
    GatewayInfrastructure, GatewaySpec, GatewayTls, Listener, ListenerNamespaces, ListenerTls,
    Protocol, TlsMode,
};
pub(crate) use self::grpc_route::{
    GrpcFilterType, GrpcMethodMatch, GrpcRoute, GrpcRouteFilter, GrpcRouteMatch, GrpcRouteRule,
    GrpcRouteSpec,
};
pub(crate) use self::http_route::{
    CorsFilter, ExternalAuthFilter, ExternalAuthProtocol, Header, HeaderModifier, HttpBackendRef,
    HttpFilterType, HttpMethod, HttpPathMatch, HttpPathModifier, HttpQueryParamMatch, HttpRoute,
    HttpRouteFilter, HttpRouteMatch, HttpRouteRetry, HttpRouteRule, HttpRouteSpec,
    HttpRouteTimeouts, PathMatchType, PathModifierType, RequestMirrorFilter, RequestRedirectFilter,
    Scheme, UrlRewriteFilter,
};
pub(crate) use self::kinds::{
    CORE_GROUP, ENVOY_GROUP, GATEWAY_GROUP, KINDS, Kind, KindInfo, Scope,
};
pub(crate) use self::listener_set::{ListenerSet, ListenerSetSpec};
pub(crate) use self::reference_grant::{ReferenceGrant, ReferenceGrantSpec};
pub(crate) use self::shared::{
    BackendObjectReference, BackendRef, Condition, ConditionStatus, CookieLifetime, DefaultScope,
    LabelSelector, LabelSelectorOperator, LocalObjectReference, MatchType, ObjectReference,
    ParentReference, PlainBackendRef, SecretObjectReference, SessionPersistence,
    SessionPersistenceType, Timestamp,
};
pub(crate) use self::tcp_route::{TcpRoute, TcpRouteSpec};
pub(crate) use self::tls_route::{TlsRoute, TlsRouteSpec};
pub(crate) use self::udp_route::{UdpRoute, UdpRouteSpec};

/// One document that was decoded.
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
    /// A kind that is known and that this gateway does nothing with.
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
            Self::Unsupported(object) => &object.metadata,
        }
    }

    /// Kind, namespace and name: what tells this object from every other.
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

/// An object of a kind that is known and does nothing yet: its name alone is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unsupported {
    pub kind: Kind,
    pub metadata: ObjectMeta,
}

/// `apiVersion` and `kind`, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TypeMeta {
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
}

impl TypeMeta {
    /// The part of `apiVersion` before the slash; empty for the core group (`v1`).
    pub(crate) fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The part of `apiVersion` after the slash.
    pub(crate) fn version(&self) -> &str {
        self.api_version.split_once('/').map_or(&*self.api_version, |(_, version)| version)
    }
}

/// `metadata`: the part that means something without an API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ObjectMeta {
    pub name: String,
    pub namespace: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Settles ties between routes: the older wins. Files seldom have it.
    pub creation_timestamp: Option<Timestamp>,
    pub generation: Option<i64>,
}

impl ObjectMeta {
    /// The namespace, `default` where none is written.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }
}

/// What tells one object from every other.
///
/// Prints as `HTTPRoute namespace/name`, or `GatewayClass name` where the kind has no namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjectKey {
    pub kind: Kind,
    /// Empty for kinds of cluster scope.
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub(crate) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let namespace = match kind.scope() {
            Scope::Cluster => "",
            Scope::Namespaced => namespace,
        };
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.scope() {
            Scope::Cluster => write!(f, "{} {}", self.kind, self.name),
            Scope::Namespaced => write!(f, "{} {}/{}", self.kind, self.namespace, self.name),
        }
    }
}
