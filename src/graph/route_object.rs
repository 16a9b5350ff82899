//! Routes of all kinds, as they are written.

use crate::api::{
    DefaultScope, GrpcRoute, HttpRoute, Kind, ObjectMeta, ParentReference, PlainBackendRef,
    TcpRoute, TlsRoute, UdpRoute,
};

/// A route of a supported kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RouteObject<'a> {
    Grpc(&'a GrpcRoute),
    Http(&'a HttpRoute),
    Tcp(&'a TcpRoute),
    Tls(&'a TlsRoute),
    Udp(&'a UdpRoute),
}

impl<'a> RouteObject<'a> {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Grpc(_) => Kind::GrpcRoute,
            Self::Http(_) => Kind::HttpRoute,
            Self::Tcp(_) => Kind::TcpRoute,
            Self::Tls(_) => Kind::TlsRoute,
            Self::Udp(_) => Kind::UdpRoute,
        }
    }

    pub(crate) fn metadata(self) -> &'a ObjectMeta {
        match self {
            Self::Grpc(route) => &route.metadata,
            Self::Http(route) => &route.metadata,
            Self::Tcp(route) => &route.metadata,
            Self::Tls(route) => &route.metadata,
            Self::Udp(route) => &route.metadata,
        }
    }

    pub(super) fn parent_refs(self) -> &'a [ParentReference] {
        match self {
            Self::Grpc(route) => &route.spec.parent_refs,
            Self::Http(route) => &route.spec.parent_refs,
            Self::Tcp(route) => &route.spec.parent_refs,
            Self::Tls(route) => &route.spec.parent_refs,
            Self::Udp(route) => &route.spec.parent_refs,
        }
    }

    pub(crate) fn hostnames(self) -> &'a [String] {
        match self {
            Self::Grpc(route) => &route.spec.hostnames,
            Self::Http(route) => &route.spec.hostnames,
            Self::Tls(route) => &route.spec.hostnames,
            Self::Tcp(_) | Self::Udp(_) => &[],
        }
    }

    /// Returns the `backendRefs` of each rule for kinds whose rules have nothing else; `None` for
    /// HTTPRoutes and GRPCRoutes.
    pub(crate) fn plain_rules(self) -> Option<Vec<&'a [PlainBackendRef]>> {
        Some(match self {
            Self::Grpc(_) | Self::Http(_) => return None,
            Self::Tcp(route) => route.spec.rules.iter().map(|rule| &*rule.backend_refs).collect(),
            Self::Tls(route) => route.spec.rules.iter().map(|rule| &*rule.backend_refs).collect(),
            Self::Udp(route) => route.spec.rules.iter().map(|rule| &*rule.backend_refs).collect(),
        })
    }

    /// Returns true if `useDefaultGateways` is written with a known value.
    pub(crate) fn uses_default_gateways(self) -> bool {
        match self {
            Self::Grpc(route) => is_scope(route.spec.use_default_gateways.as_ref()),
            Self::Http(route) => is_scope(route.spec.use_default_gateways.as_ref()),
            Self::Tcp(route) => is_scope(route.spec.use_default_gateways.as_ref()),
            Self::Tls(route) => is_scope(route.spec.use_default_gateways.as_ref()),
            Self::Udp(route) => is_scope(route.spec.use_default_gateways.as_ref()),
        }
    }

    /// Returns the name of each rule, `None` for a rule without one.
    pub(super) fn rule_names(self) -> Vec<Option<&'a str>> {
        fn names<'r>(of: impl Iterator<Item = &'r Option<String>>) -> Vec<Option<&'r str>> {
            of.map(Option::as_deref).collect()
        }
        match self {
            Self::Grpc(of) => names(of.spec.rules.iter().map(|rule| &rule.name)),
            Self::Http(of) => names(of.spec.rules().iter().map(|rule| &rule.name)),
            Self::Tcp(of) => names(of.spec.rules.iter().map(|rule| &rule.name)),
            Self::Tls(of) => names(of.spec.rules.iter().map(|rule| &rule.name)),
            Self::Udp(of) => names(of.spec.rules.iter().map(|rule| &rule.name)),
        }
    }

    /// Returns the name of the rule at `place`, if it has one.
    pub(super) fn rule_name(self, place: usize) -> Option<&'a str> {
        let name = match self {
            Self::Grpc(of) => of.spec.rules.get(place).map(|rule| &rule.name),
            Self::Http(of) => of.spec.rules().get(place).map(|rule| &rule.name),
            Self::Tcp(of) => of.spec.rules.get(place).map(|rule| &rule.name),
            Self::Tls(of) => of.spec.rules.get(place).map(|rule| &rule.name),
            Self::Udp(of) => of.spec.rules.get(place).map(|rule| &rule.name),
        };
        name.and_then(Option::as_deref)
    }
}

fn is_scope(written: Option<&DefaultScope>) -> bool {
    written.is_some_and(|scope| scope.unknown().is_none())
}
