//! Backend: endpoints outside Kubernetes.

use serde::Deserialize;

use crate::api::ObjectMeta;
use crate::api::open_enum::open_enum;
use crate::api::shared::{LocalObjectReference, SecretObjectReference};

/// Endpoints by name, address or socket.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Backend {
    pub metadata: ObjectMeta,
    pub spec: BackendSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackendSpec {
    #[serde(rename = "type")]
    pub kind: Option<BackendType>,
    #[serde(default)]
    pub endpoints: Vec<BackendEndpoint>,
    #[serde(default)]
    pub app_protocols: Vec<AppProtocol>,
    /// True if the backend is used only while the other backends are down. Default: false.
    pub fallback: Option<bool>,
    pub tls: Option<BackendTls>,
}

impl BackendSpec {
    /// Returns the kind; default: `Endpoints`.
    pub(crate) fn kind(&self) -> &BackendType {
        self.kind.as_ref().unwrap_or(&BackendType::Endpoints)
    }
}

open_enum! {
    BackendType {
        Endpoints = "Endpoints",
        /// The host of the request is the endpoint.
        DynamicResolver = "DynamicResolver",
    }
}

/// An endpoint; exactly one of `fqdn`, `ip` and `unix` must be present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackendEndpoint {
    /// The name for TLS, if it differs from the `fqdn`.
    pub hostname: Option<String>,
    pub fqdn: Option<FqdnEndpoint>,
    pub ip: Option<IpEndpoint>,
    pub unix: Option<UnixEndpoint>,
    pub zone: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FqdnEndpoint {
    pub hostname: String,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IpEndpoint {
    pub address: String,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UnixEndpoint {
    /// At most 108 bytes.
    pub path: String,
}

open_enum! {
    AppProtocol {
        H2c = "gateway.envoyproxy.io/h2c",
        Ws = "gateway.envoyproxy.io/ws",
        Wss = "gateway.envoyproxy.io/wss",
    }
}

/// TLS to the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackendTls {
    /// ConfigMaps or Secrets with a `ca.crt`.
    #[serde(default)]
    pub ca_certificate_refs: Vec<LocalObjectReference>,
    /// `System`: the authorities that the host trusts.
    #[serde(rename = "wellKnownCACertificates")]
    pub well_known_ca_certificates: Option<String>,
    /// Default: false.
    pub insecure_skip_verify: Option<bool>,
    pub sni: Option<String>,
    pub client_certificate_ref: Option<SecretObjectReference>,
    pub min_version: Option<String>,
    pub max_version: Option<String>,
    #[serde(default)]
    pub ciphers: Vec<String>,
    #[serde(default)]
    pub ecdh_curves: Vec<String>,
    #[serde(default)]
    pub signature_algorithms: Vec<String>,
    #[serde(default)]
    pub alpn_protocols: Vec<String>,
}
