//! GatewayClass and Gateway.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::kinds::{ENVOY_GROUP, GATEWAY_GROUP, Kind};
use super::meta::{ObjectKey, ObjectMeta};
use super::open_enum::open_enum;
use super::shared::{
    DefaultScope, LabelSelector, LocalObjectReference, ObjectReference, SecretObjectReference,
};

/// A class of Gateways; it names the controller that serves them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct GatewayClass {
    pub metadata: ObjectMeta,
    pub spec: GatewayClassSpec,
}

impl GatewayClass {
    /// Returns the EnvoyProxy that `spec.parametersRef` refers to, if it refers to one.
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

/// A Gateway: listeners on addresses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Gateway {
    pub metadata: ObjectMeta,
    pub spec: GatewaySpec,
}

impl Gateway {
    /// Returns the EnvoyProxy that `spec.infrastructure.parametersRef` refers to, if it refers to
    /// one.
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
    /// 1 to 64, each with a unique name.
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
    /// Default: any host.
    pub hostname: Option<String>,
    pub port: u16,
    pub protocol: Protocol,
    pub tls: Option<ListenerTls>,
    pub allowed_routes: Option<AllowedRoutes>,
}

impl Listener {
    /// Returns the hostname, if one is written and not empty.
    pub(crate) fn hostname(&self) -> Option<&str> {
        self.hostname.as_deref().filter(|name| !name.is_empty())
    }

    /// Returns the namespaces that routes may come from; default: `Same`.
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
    /// Returns the mode; default: `Terminate`.
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
    /// Default: `{from: Same}`.
    pub namespaces: Option<ListenerNamespaces>,
    /// If empty, the kinds that the listener's protocol supports.
    #[serde(default)]
    pub kinds: Vec<RouteGroupKind>,
}

/// `namespaces` of `allowedRoutes` and of `allowedListeners`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListenerNamespaces {
    /// Default: `Same` in `allowedRoutes`, `None` in `allowedListeners`.
    pub from: Option<FromNamespaces>,
    /// Used if `from` is `Selector`.
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
    /// Returns the group; default: `gateway.networking.k8s.io`.
    pub(crate) fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(GATEWAY_GROUP)
    }
}

/// `spec.addresses[]`: an address that the Gateway requests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GatewayAddress {
    #[serde(rename = "type")]
    pub kind: Option<AddressType>,
    /// If absent, the gateway chooses one. An empty value is not an IP address.
    pub value: Option<String>,
}

impl GatewayAddress {
    /// Returns the kind; default: `IPAddress`.
    pub(crate) fn kind(&self) -> &AddressType {
        self.kind.as_ref().unwrap_or(&AddressType::IpAddress)
    }

    /// Returns the value, if one is written and not empty.
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

/// The namespaces whose ListenerSets may add listeners. Default: none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AllowedListeners {
    pub namespaces: Option<ListenerNamespaces>,
}

/// `spec.tls`: TLS settings that do not belong to one listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GatewayTls {
    pub backend: Option<GatewayBackendTls>,
    pub frontend: Option<FrontendTls>,
}

/// The client certificate of the gateway for TLS backends.
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
    /// Replaces the default on its port.
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
