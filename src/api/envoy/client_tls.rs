//! `tls` of a ClientTrafficPolicy: TLS towards clients.

use serde::Deserialize;

use crate::api::open_enum::open_enum;
use crate::api::shared::SecretObjectReference;

use super::backend_traffic_policy::NoSettings;
use super::response_override::{StringMatch, StringMatchType};

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientTls {
    pub client_validation: Option<ClientCertificates>,
    /// Default: 1.2.
    pub min_version: Option<TlsVersion>,
    /// Default: 1.3.
    pub max_version: Option<TlsVersion>,
    pub ciphers: Option<Vec<String>>,
    #[serde(rename = "ecdhCurves")]
    pub ecdh_curves: Option<Vec<String>>,
    pub signature_algorithms: Option<Vec<String>>,
    /// Default: h2, http/1.1. An empty list turns ALPN off.
    pub alpn_protocols: Option<Vec<String>>,
    #[serde(default)]
    pub fingerprints: Vec<TlsFingerprint>,
    pub session: Option<TlsSession>,
}

open_enum! {
    TlsVersion {
        Auto = "Auto",
        V10 = "1.0",
        V11 = "1.1",
        V12 = "1.2",
        V13 = "1.3",
    }
}

open_enum! {
    TlsFingerprint {
        Ja3 = "JA3",
        Ja4 = "JA4",
    }
}

/// `clientValidation`: the check of client certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientCertificates {
    /// Deprecated form of `mode: VerifyIfGiven`.
    pub optional: Option<bool>,
    /// Default: RequireAndVerify.
    pub mode: Option<ClientCertificateMode>,
    #[serde(default)]
    pub ca_certificate_refs: Vec<SecretObjectReference>,
    #[serde(default)]
    pub spki_hashes: Vec<String>,
    #[serde(default)]
    pub certificate_hashes: Vec<String>,
    pub subject_alt_names: Option<ClientAltNames>,
    pub crl: Option<RevocationLists>,
    /// Default: false.
    pub allow_expired_certificate: Option<bool>,
}

open_enum! {
    ClientCertificateMode {
        Request = "Request",
        RequireAny = "RequireAny",
        VerifyIfGiven = "VerifyIfGiven",
        RequireAndVerify = "RequireAndVerify",
    }
}

/// Names of which a certificate must have one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientAltNames {
    #[serde(default)]
    pub dns_names: Vec<StringMatch>,
    #[serde(default)]
    pub email_addresses: Vec<StringMatch>,
    #[serde(default)]
    pub ip_addresses: Vec<StringMatch>,
    #[serde(default)]
    pub uris: Vec<StringMatch>,
    #[serde(default)]
    pub other_names: Vec<OtherNameMatch>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct OtherNameMatch {
    pub oid: String,
    /// Default: Exact.
    #[serde(rename = "type")]
    pub kind: Option<StringMatchType>,
    pub value: String,
}

/// `crl`: lists of revoked certificates, each the key `ca.crl` of its object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RevocationLists {
    pub refs: Vec<SecretObjectReference>,
    /// Default: false.
    pub only_verify_leaf_certificate: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct TlsSession {
    pub resumption: Option<SessionResumption>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct SessionResumption {
    pub stateless: Option<NoSettings>,
    pub stateful: Option<NoSettings>,
}
