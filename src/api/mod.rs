//! The kinds of the Gateway API and of Envoy Gateway, as plain data.
//!
//! Each kind has its own file. A struct has exactly the fields of the YAML, in the order of the
//! specification. Defaults are methods, so that `None` still means "not written". `config` checks
//! the rules of the CRDs; `graph` and `compile` interpret the values.
//!
//! Enums that a later release may extend (filter types, protocols, methods) are open: they have an
//! `Unknown` variant, so an unknown value makes one object not accepted and leaves the file
//! readable. `untagged`, `tag` and `flatten` are not used, because each of them loses the place of
//! a fault.
//!
//! To add a kind: add its file, a row of [`KINDS`], a variant of [`Object`], and the arm in
//! `config/objects.rs` that the compiler then requires.

mod backend_tls_policy;
mod core;
mod duration;
pub(crate) mod envoy;
mod gateway;
mod grpc_route;
mod http_route;
mod kinds;
mod listener_set;
mod meta;
mod object;
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
    Backend, BackendTrafficPolicy, ClientTrafficPolicy, DirectBodyType, DirectResponse, EnvoyProxy,
    RouteFilter, SecurityPolicy,
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
pub(crate) use self::meta::{ObjectKey, ObjectMeta, TypeMeta};
pub(crate) use self::object::{Object, Unsupported};
pub(crate) use self::reference_grant::{ReferenceGrant, ReferenceGrantSpec};
#[cfg(test)]
pub(crate) use self::shared::BackendObjectReference;
pub(crate) use self::shared::{
    BackendName, BackendRef, Condition, ConditionStatus, CookieLifetime, DefaultScope,
    LabelSelector, LabelSelectorOperator, LocalObjectReference, MatchType, ObjectReference,
    ParentReference, PlainBackendRef, SecretObjectReference, SessionPersistence,
    SessionPersistenceType,
};
pub(crate) use self::tcp_route::{TcpRoute, TcpRouteSpec};
pub(crate) use self::tls_route::{TlsRoute, TlsRouteSpec};
pub(crate) use self::udp_route::{UdpRoute, UdpRouteSpec};
