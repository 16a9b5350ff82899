//! GatewayClass and Gateway.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::kinds::{ENVOY_GROUP, GATEWAY_GROUP, Kind};
use super::meta::{ObjectKey, ObjectMeta};
use super::open_enum::open_enum;
use super::shared::{
    DefaultScope, LabelSelector, LocalObjectReference, ObjectReference, SecretObjectReference,
};

/// Names the controller that serves the Gateways of this class.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct GatewayClass {
    pub metadata: ObjectMeta,
    pub spec: GatewayClassSpec,
}

impl GatewayClass {
    /// The EnvoyProxy that `spec.parametersRef` means, if it means one.
    pub(crate) fn envoy_proxy(&self) -> Option<ObjectKey> {
        let reference = self.spec.parameters_ref.as_ref()?;
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        let is_one = (&*reference.group, &*reference.kind) == (ENVOY_GROUP, "EnvoyProxy");
        is_one.then(|| ObjectKey::new(Kind::EnvoyProxy, namespace, &reference.name))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GatewayClassSpec {
    pub controller_name: String,
    pub parameters_ref: Option<ParametersReference>,
    pub description: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParametersReference {
    pub group: String,
    pub kind: String,
    pub name: String,
    pub namespace: Option<String>,
}

/// Listeners on addresses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Gateway {
    pub metadata: ObjectMeta,
    pub spec: GatewaySpec,
}

impl Gateway {
    /// The EnvoyProxy that `spec.infrastructure.parametersRef` means, if it means one.
    pub(crate) fn envoy_proxy(&self) -> Option<ObjectKey> {
        let reference = self.spec.infrastructure.as_ref()?.parameters_ref.as_ref()?;
        let is_one = (&*reference.group, &*reference.kind) == (ENVOY_GROUP, "EnvoyProxy");
        let namespace = self.metadata.namespace();
        is_one.then(|| ObjectKey::new(Kind::EnvoyProxy, namespace, &reference.name))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GatewaySpec {
    pub gateway_class_name: String,
    /// 1 to 64, each with a name of its own.
    pub listeners: Vec<Listener>,
    #[serde(default)]
    pub addresses: Vec<GatewayAddress>,
    pub infrastructure: Option<GatewayInfrastructure>,
    pub allowed_listeners: Option<AllowedListeners>,
    pub tls: Option<GatewayTls>,
    /// Experimental.
    pub default_scope: Option<DefaultScope>,
}

/// One port, protocol and hostname.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listener {
    pub name: String,
    /// Any host where absent or empty.
    pub hostname: Option<String>,
    pub port: u16,
    pub protocol: Protocol,
    pub tls: Option<ListenerTls>,
    pub allowed_routes: Option<AllowedRoutes>,
}

impl Listener {
    /// The hostname, if one is written and not empty.
    pub(crate) fn hostname(&self) -> Option<&str> {
        self.hostname.as_deref().filter(|name| !name.is_empty())
    }

    /// Which namespaces routes may come from; `Same` where absent.
    pub(crate) fn allowed_from(&self) -> &FromNamespaces {
        self.allowed_routes
            .as_ref()
            .and_then(|allowed| allowed.namespaces.as_ref())
            .and_then(|namespaces| namespaces.from.as_ref())
            .unwrap_or(&FromNamespaces::Same)
    }
}

open_enum! {
    Protocol {
        Http = "HTTP",
        Https = "HTTPS",
        Tls = "TLS",
        Tcp = "TCP",
        Udp = "UDP",
    }
}

/// `listeners[].tls`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListenerTls {
    pub mode: Option<TlsMode>,
    #[serde(default)]
    pub certificate_refs: Vec<SecretObjectReference>,
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl ListenerTls {
    /// `Terminate` where absent.
    pub(crate) fn mode(&self) -> &TlsMode {
        self.mode.as_ref().unwrap_or(&TlsMode::Terminate)
    }
}

open_enum! {
    TlsMode {
        Terminate = "Terminate",
        Passthrough = "Passthrough",
    }
}

/// `listeners[].allowedRoutes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AllowedRoutes {
    /// `{from: Same}` where absent.
    pub namespaces: Option<ListenerNamespaces>,
    /// Where empty, the kinds that fit the listener's protocol.
    #[serde(default)]
    pub kinds: Vec<RouteGroupKind>,
}

/// `namespaces` of `allowedRoutes` and of `allowedListeners`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListenerNamespaces {
    /// `Same` where absent in `allowedRoutes`, `None` where absent in `allowedListeners`.
    pub from: Option<FromNamespaces>,
    /// Meant where `from` is `Selector`.
    pub selector: Option<LabelSelector>,
}

open_enum! {
    FromNamespaces {
        All = "All",
        Selector = "Selector",
        Same = "Same",
        /// Only in `allowedListeners`.
        None = "None",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteGroupKind {
    pub group: Option<String>,
    pub kind: String,
}

impl RouteGroupKind {
    /// `gateway.networking.k8s.io` where absent.
    pub(crate) fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(GATEWAY_GROUP)
    }
}

/// `spec.addresses[]`: an address the Gateway asks for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GatewayAddress {
    #[serde(rename = "type")]
    pub kind: Option<AddressType>,
    /// Where absent, the gateway chooses one. An empty one is no IP address.
    pub value: Option<String>,
}

impl GatewayAddress {
    /// `IPAddress` where absent.
    pub(crate) fn kind(&self) -> &AddressType {
        self.kind.as_ref().unwrap_or(&AddressType::IpAddress)
    }

    /// The value, if one is written and not empty.
    pub(crate) fn value(&self) -> Option<&str> {
        self.value.as_deref().filter(|value| !value.is_empty())
    }
}

open_enum! {
    AddressType {
        IpAddress = "IPAddress",
        Hostname = "Hostname",
        NamedAddress = "NamedAddress",
    }
}

/// Labels and annotations of the infrastructure of a Gateway, and its parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GatewayInfrastructure {
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    pub parameters_ref: Option<LocalObjectReference>,
}

/// Which ListenerSets may add listeners; none where absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AllowedListeners {
    pub namespaces: Option<ListenerNamespaces>,
}

/// `spec.tls`: TLS settings that are not one listener's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GatewayTls {
    pub backend: Option<GatewayBackendTls>,
    pub frontend: Option<FrontendTls>,
}

/// The certificate that the gateway shows to TLS backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GatewayBackendTls {
    pub client_certificate_ref: Option<SecretObjectReference>,
}

/// Client certificates on HTTPS listeners (GEP-91).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FrontendTls {
    pub default: FrontendTlsSettings,
    /// Replaces the default on that port.
    #[serde(default)]
    pub per_port: Vec<FrontendTlsPort>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FrontendTlsPort {
    pub port: u16,
    pub tls: FrontendTlsSettings,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FrontendTlsSettings {
    pub validation: Option<FrontendTlsValidation>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FrontendTlsValidation {
    pub ca_certificate_refs: Vec<ObjectReference>,
    pub mode: Option<FrontendValidationMode>,
}

open_enum! {
    FrontendValidationMode {
        AllowValidOnly = "AllowValidOnly",
        AllowInsecureFallback = "AllowInsecureFallback",
    }
}
