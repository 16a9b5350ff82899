//! The core kinds that routes and listeners refer to: Secret, ConfigMap, Service, EndpointSlice and
//! Namespace.
//!
//! Fields that have no effect without Kubernetes are declared as [`IgnoredAny`], so that a manifest
//! from a cluster loads unchanged and a misspelt field is still found.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};

use super::meta::ObjectMeta;
use super::open_enum::open_enum;

/// Certificates, keys and passwords.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Secret {
    pub metadata: ObjectMeta,
    /// Default: `Opaque`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Written in base64.
    #[serde(default)]
    pub data: BTreeMap<String, SecretBytes>,
    /// Written in clear; takes precedence over `data`.
    #[serde(default)]
    pub string_data: BTreeMap<String, SecretText>,
    pub immutable: Option<bool>,
}

impl Secret {
    /// Returns the kind; default: `Opaque`.
    pub(crate) fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Opaque")
    }

    /// Returns the bytes of `key`, from `stringData` or `data`.
    pub(crate) fn value(&self, key: &str) -> Option<&[u8]> {
        let text = self.string_data.get(key).map(|text| text.0.as_bytes());
        text.or_else(|| self.data.get(key).map(|bytes| &*bytes.0))
    }
}

/// Bytes that print as `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretBytes(pub Vec<u8>);

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    /// The error never contains the value.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(from)?;
        text.retain(|c| !c.is_ascii_whitespace());
        STANDARD.decode(text).map(Self).map_err(|_| {
            de::Error::custom(
                "the value is not base64; encode it, or write it in clear under `stringData`",
            )
        })
    }
}

/// A text that prints as `[redacted]`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct SecretText(pub String);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Texts by name, such as `ca.crt`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfigMap {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub data: BTreeMap<String, String>,
    pub binary_data: Option<IgnoredAny>,
    pub immutable: Option<bool>,
}

/// A namespace with its labels.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Namespace {
    pub metadata: ObjectMeta,
    pub spec: Option<IgnoredAny>,
}

/// A name for endpoints, with the ports they serve.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Service {
    pub metadata: ObjectMeta,
    pub spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceSpec {
    /// Default: `ClusterIP`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    #[serde(default)]
    pub ports: Vec<ServicePort>,
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
    /// `None` for a headless Service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// The DNS name of a Service of type ExternalName.
    pub external_name: Option<String>,

    pub allocate_load_balancer_node_ports: Option<IgnoredAny>,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Option<IgnoredAny>,
    #[serde(rename = "externalIPs")]
    pub external_ips: Option<IgnoredAny>,
    pub external_traffic_policy: Option<IgnoredAny>,
    pub health_check_node_port: Option<IgnoredAny>,
    pub internal_traffic_policy: Option<IgnoredAny>,
    pub ip_families: Option<IgnoredAny>,
    pub ip_family_policy: Option<IgnoredAny>,
    pub load_balancer_class: Option<IgnoredAny>,
    #[serde(rename = "loadBalancerIP")]
    pub load_balancer_ip: Option<IgnoredAny>,
    pub load_balancer_source_ranges: Option<IgnoredAny>,
    pub publish_not_ready_addresses: Option<IgnoredAny>,
    pub session_affinity: Option<IgnoredAny>,
    pub session_affinity_config: Option<IgnoredAny>,
    pub traffic_distribution: Option<IgnoredAny>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServicePort {
    /// The name by which the ports of EndpointSlices refer to this port. Optional if there is only
    /// one port.
    pub name: Option<String>,
    /// Default: `TCP`.
    pub protocol: Option<String>,
    pub port: u16,
    /// Default: `port`.
    pub target_port: Option<IntOrString>,
    pub app_protocol: Option<String>,
    pub node_port: Option<IgnoredAny>,
}

/// A number, or a name that is resolved by lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IntOrString {
    Int(u16),
    String(String),
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = IntOrString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port number or a port name")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<IntOrString, E> {
                u16::try_from(value)
                    .map(IntOrString::Int)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<IntOrString, E> {
                u16::try_from(value)
                    .map(IntOrString::Int)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<IntOrString, E> {
                Ok(IntOrString::String(value.into()))
            }
        }

        from.deserialize_any(Either)
    }
}

/// Addresses behind a Service, named by the label `kubernetes.io/service-name`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointSlice {
    pub metadata: ObjectMeta,
    pub address_type: EndpointAddressType,
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    #[serde(default)]
    pub ports: Vec<EndpointPort>,
}

open_enum! {
    EndpointAddressType {
        Ipv4 = "IPv4",
        Ipv6 = "IPv6",
        Fqdn = "FQDN",
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Endpoint {
    pub addresses: Vec<String>,
    #[serde(default)]
    pub conditions: EndpointConditions,
    pub hostname: Option<String>,
    pub zone: Option<String>,

    pub deprecated_topology: Option<IgnoredAny>,
    pub hints: Option<IgnoredAny>,
    pub node_name: Option<IgnoredAny>,
    pub target_ref: Option<IgnoredAny>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointConditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

impl EndpointConditions {
    /// Returns the condition `ready`; default: true.
    pub(crate) fn ready(&self) -> bool {
        self.ready.unwrap_or(true)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointPort {
    /// Absent or empty for a port without a name.
    pub name: Option<String>,
    /// Default: `TCP`.
    pub protocol: Option<String>,
    /// Default: every port.
    pub port: Option<u16>,
    pub app_protocol: Option<String>,
}
