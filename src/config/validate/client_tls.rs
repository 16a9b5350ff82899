//! The rules of `tls` of a ClientTrafficPolicy: those of Envoy Gateway's CRD.

use crate::api::SecretObjectReference;
use crate::api::envoy::client_tls::{
    ClientCertificateMode, ClientCertificates, ClientTls, TlsFingerprint, TlsVersion,
};
use crate::config::path::Path;

use super::string_match::{string_match, string_matches};
use super::violations::{Reference, Violations};

pub(super) fn tls(tls: &ClientTls, at: Path<'_>, found: &mut Violations) {
    versions(tls, at, found);
    for (index, fingerprint) in tls.fingerprints.iter().enumerate() {
        let at = at.field("fingerprints");
        found.word(at.item(index), fingerprint.unknown(), TlsFingerprint::WORDS);
    }
    if let Some(of) = &tls.client_validation {
        client_validation(of, at.field("clientValidation"), found);
    }
}

fn versions(tls: &ClientTls, at: Path<'_>, found: &mut Violations) {
    let (min, max) = (tls.min_version.as_ref(), tls.max_version.as_ref());
    found.word(at.field("minVersion"), min.and_then(TlsVersion::unknown), TlsVersion::WORDS);
    found.word(at.field("maxVersion"), max.and_then(TlsVersion::unknown), TlsVersion::WORDS);
    let problem = "setting ciphers has no effect if the minimum possible TLS version is 1.3";
    found.require(min != Some(&TlsVersion::V13) || tls.ciphers.is_none(), at, problem);
    let least = min.map_or(Some(3), |version| rank(version, 0));
    let most = max.map_or(Some(5), |version| rank(version, 5));
    if let (Some(least), Some(most)) = (least, most) {
        let problem = "minVersion must be smaller or equal to maxVersion";
        found.require(least <= most, at, problem);
    }
}

/// Returns the rank of a version, of which `Auto` has `auto`; `None` if it is unknown.
fn rank(version: &TlsVersion, auto: u8) -> Option<u8> {
    match version {
        TlsVersion::Auto => Some(auto),
        TlsVersion::V10 => Some(1),
        TlsVersion::V11 => Some(2),
        TlsVersion::V12 => Some(3),
        TlsVersion::V13 => Some(4),
        TlsVersion::Unknown(_) => None,
    }
}

fn client_validation(of: &ClientCertificates, at: Path<'_>, found: &mut Violations) {
    let mode = of.mode.as_ref();
    let unknown = mode.and_then(ClientCertificateMode::unknown);
    found.word(at.field("mode"), unknown, ClientCertificateMode::WORDS);
    let verifies = matches!(
        mode,
        None | Some(ClientCertificateMode::VerifyIfGiven | ClientCertificateMode::RequireAndVerify)
    );
    let problem =
        "allowExpiredCertificate can only be set when mode is VerifyIfGiven or RequireAndVerify";
    found.require(verifies || of.allow_expired_certificate != Some(true), at, problem);
    references(&of.ca_certificate_refs, at.field("caCertificateRefs"), 0, found);
    if let Some(of) = &of.crl {
        references(&of.refs, at.field("crl").field("refs"), 1, found);
    }
    let Some(names) = &of.subject_alt_names else { return };
    let at = at.field("subjectAltNames");
    for (field, list) in [
        ("dnsNames", &names.dns_names),
        ("emailAddresses", &names.email_addresses),
        ("ipAddresses", &names.ip_addresses),
        ("uris", &names.uris),
    ] {
        string_matches(list, at.field(field), found);
    }
    for (index, of) in names.other_names.iter().enumerate() {
        let at = at.field("otherNames");
        string_match(of.kind.as_ref(), &of.value, at.item(index), found);
    }
}

fn references(refs: &[SecretObjectReference], at: Path<'_>, least: usize, found: &mut Violations) {
    found.count(at, refs.len(), least..=8);
    for (index, of) in refs.iter().enumerate() {
        let to = Reference {
            group: of.group.as_deref(),
            kind: of.kind.as_deref(),
            name: &of.name,
            namespace: of.namespace.as_deref(),
        };
        found.reference(at.item(index), to);
    }
}
