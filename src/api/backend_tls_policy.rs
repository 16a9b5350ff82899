//! BackendTLSPolicy: TLS to backends, and the validation of their certificates (GEP-1897).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::meta::ObjectMeta;
use super::open_enum::open_enum;
use super::shared::LocalObjectReference;

/// TLS to the target backends, in the policy's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct BackendTlsPolicy {
    pub metadata: ObjectMeta,
    pub spec: BackendTlsPolicySpec,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackendTlsPolicySpec {
    /// 1 to 16; each has a different target or a different section of one.
    pub target_refs: Vec<PolicyTargetReference>,
    pub validation: BackendTlsValidation,
    /// Implementation-specific; none is supported here.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// `targetRefs[]`: a target of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyTargetReference {
    pub group: String,
    pub kind: String,
    pub name: String,
    /// For a Service, the name of one port. Default: the whole target.
    pub section_name: Option<String>,
}

/// The validation of the backend's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackendTlsValidation {
    /// ConfigMaps or Secrets with a `ca.crt`, at most 8. Excludes `well_known_ca_certificates`.
    #[serde(default)]
    pub ca_certificate_refs: Vec<LocalObjectReference>,
    /// `System`: the authorities that the host trusts.
    #[serde(rename = "wellKnownCACertificates")]
    pub well_known_ca_certificates: Option<String>,
    /// The server name of the handshake (SNI). The certificate must cover it, unless there are
    /// `subject_alt_names`.
    pub hostname: String,
    /// At most 5. If there are any, the certificate must have one of them, and `hostname` is not
    /// checked.
    #[serde(default)]
    pub subject_alt_names: Vec<SubjectAltName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SubjectAltName {
    #[serde(rename = "type")]
    pub kind: SubjectAltNameType,
    /// Used if the type is `Hostname`.
    pub hostname: Option<String>,
    /// Used if the type is `URI`.
    pub uri: Option<String>,
}

impl SubjectAltName {
    /// Returns the hostname, if one is written and not empty.
    pub(crate) fn hostname(&self) -> Option<&str> {
        self.hostname.as_deref().filter(|name| !name.is_empty())
    }

    /// Returns the URI, if one is written and not empty.
    pub(crate) fn uri(&self) -> Option<&str> {
        self.uri.as_deref().filter(|uri| !uri.is_empty())
    }
}

open_enum! {
    SubjectAltNameType {
        Hostname = "Hostname",
        Uri = "URI",
    }
}
