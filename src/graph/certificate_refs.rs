//! Resolution of certificateRefs: the certificates of listeners, and client certificates for
//! backends.

use crate::api::{self, CORE_GROUP, Kind, ObjectKey, Protocol, Secret, SecretObjectReference};
use crate::secret;

use super::credentials::{NamedCertificate, Readiness};
use super::facts::LoadFacts;
use super::grants::{Referent, Referrer, advice};
use super::index::ObjectIndex;
use super::verdict::{ConditionResult, FalseCondition, Faults, refuse};

/// The annotation that names a certbot lineage, on a Secret that holds no key pair itself.
const LINEAGE_ANNOTATION: &str = "edge-gateway.io/lineage";
const TLS_SECRET: &str = "kubernetes.io/tls";
const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";

/// The certificates of a listener.
#[derive(Debug)]
pub(super) struct CertificatesFound {
    /// The certificates whose references are permitted, ready or not, in the order of the
    /// references.
    pub certificates: Vec<NamedCertificate>,
    /// True if at least one certificate can be served now.
    pub ready: bool,
    /// Condition ResolvedRefs.
    pub resolved: ConditionResult,
}

/// Looks up the certificateRefs of a listener that terminates TLS.
pub(super) fn look_up(
    gateway: &ObjectKey,
    listener: &api::Listener,
    place: usize,
    index: &ObjectIndex<'_>,
    facts: &LoadFacts<'_>,
    faults: &mut Faults,
) -> CertificatesFound {
    let mut found = CertificatesFound { certificates: Vec::new(), ready: false, resolved: Ok(()) };
    let references = listener.tls.as_ref().map_or(&[][..], |tls| &tls.certificate_refs);
    if references.is_empty() {
        let problem = match listener.protocol {
            Protocol::Tls => {
                "a TLS listener of mode Terminate needs a certificate; name a Secret under \
                 `tls.certificateRefs`"
            }
            _ => "an HTTPS listener needs a certificate; name a Secret under `tls.certificateRefs`",
        };
        faults.error(gateway, format!("spec.listeners[{place}].tls"), problem);
        found.resolved = Err(FalseCondition::new("InvalidCertificateRef", problem));
        return found;
    }
    for (number, reference) in references.iter().enumerate() {
        let field = format!("spec.listeners[{place}].tls.certificateRefs[{number}]");
        let certificate = match source(gateway, listener, reference, index, facts) {
            Ok(certificate) => certificate,
            Err(refusal) => {
                faults.error(gateway, field, &*refusal.message);
                refuse(&mut found.resolved, refusal);
                continue;
            }
        };
        let Readiness { ready, problem } = (facts.certificate)(&certificate);
        let problem = problem.or_else(|| (!ready).then(|| "it cannot be served".into()));
        if let Some(problem) = problem {
            let problem = describe(&certificate, &problem, gateway, reference, index);
            // A certificate that certbot has not issued yet is a warning: these files are right.
            match certificate {
                NamedCertificate::Inline { .. } if !ready => {
                    faults.error(gateway, field, &*problem);
                }
                _ => faults.warning(gateway, field, &*problem),
            }
            // While an older version is still served, the reference counts as resolved.
            if !ready {
                refuse(&mut found.resolved, FalseCondition::new("InvalidCertificateRef", problem));
            }
        }
        found.ready |= ready;
        found.certificates.push(certificate);
    }
    found
}

/// Looks up the certificate that `from` presents to backends.
///
/// # Errors
///
/// The reference cannot be used. That includes a Secret that is not written: there is no indication
/// that certbot has a client certificate.
pub(super) fn of_client(
    from: &ObjectKey,
    reference: &SecretObjectReference,
    index: &ObjectIndex<'_>,
    facts: &LoadFacts<'_>,
) -> Result<NamedCertificate, FalseCondition> {
    let invalid = |message: String| FalseCondition::new("InvalidClientCertificateRef", message);
    let (object, secret) = secret(from, reference, index, invalid)?;
    let Some(secret) = secret else {
        return Err(invalid(format!("there is no {object}; write it with `{CHAIN}` and `{KEY}`")));
    };
    let certificate = inline(object.clone(), secret, None).map_err(invalid)?;
    let Readiness { ready, problem } = (facts.client_certificate)(&certificate);
    if ready {
        return Ok(certificate);
    }
    let problem = problem.unwrap_or_else(|| "it cannot be shown".into());
    Err(invalid(format!("{object}: {problem}")))
}

fn source(
    gateway: &ObjectKey,
    listener: &api::Listener,
    reference: &SecretObjectReference,
    index: &ObjectIndex<'_>,
    facts: &LoadFacts<'_>,
) -> Result<NamedCertificate, FalseCondition> {
    let invalid = |message: String| FalseCondition::new("InvalidCertificateRef", message);
    let (object, secret) = secret(gateway, reference, index, invalid)?;
    match secret {
        None => {
            let names = lineages(&reference.name, listener, facts);
            let host = listener.hostname().map(Into::into);
            Ok(NamedCertificate::Lineage { object, names, host, chosen: false })
        }
        Some(secret) => inline(object, secret, listener.hostname()).map_err(invalid),
    }
}

/// Returns the Secret that a reference names, if it is written, and its name for messages.
///
/// # Errors
///
/// The reference is not to a Secret or is not permitted, or the Secret breaks the rules of its
/// kind.
fn secret<'a>(
    from: &ObjectKey,
    reference: &SecretObjectReference,
    index: &ObjectIndex<'a>,
    invalid: impl Fn(String) -> FalseCondition,
) -> Result<(String, Option<&'a Secret>), FalseCondition> {
    if (reference.group(), reference.kind()) != (CORE_GROUP, "Secret") {
        let kind = match reference.group() {
            CORE_GROUP => reference.kind().to_owned(),
            group => format!("{}.{group}", reference.kind()),
        };
        return Err(invalid(format!("`{kind}` holds no certificates; refer to a Secret")));
    }
    let namespace = reference.namespace.as_deref().unwrap_or(&from.namespace);
    let (group, kind) = (from.kind.group(), from.kind.as_str());
    let from = Referrer { group, kind, namespace: &from.namespace };
    let to = Referent { group: CORE_GROUP, kind: "Secret", namespace, name: &reference.name };
    if !index.permits(from, to) {
        return Err(FalseCondition::new("RefNotPermitted", advice(from, to)));
    }
    let object = format!("Secret {namespace}/{}", reference.name);
    let found = index.secret(namespace, &reference.name);
    let key = ObjectKey::new(Kind::Secret, namespace, &reference.name);
    if let (Some(_), Some(fault)) = (found, index.broken(&key).next()) {
        return Err(invalid(format!("{object} is not valid: {fault}")));
    }
    Ok((object, found))
}

/// Returns the key pair of a Secret, or the lineage that its annotation names.
fn inline(object: String, secret: &Secret, host: Option<&str>) -> Result<NamedCertificate, String> {
    if let Some(name) = secret.metadata.annotations.get(LINEAGE_ANNOTATION) {
        let host = host.map(Into::into);
        return Ok(NamedCertificate::Lineage {
            object,
            names: vec![name.clone()],
            host,
            chosen: true,
        });
    }
    if secret.kind() != TLS_SECRET {
        let kind = secret.kind();
        return Err(format!(
            "{object} is of type `{kind}`; use `{TLS_SECRET}` with `{CHAIN}` and `{KEY}`, or name \
             a certbot lineage by the annotation `{LINEAGE_ANNOTATION}`"
        ));
    }
    let value = |key: &str| {
        let value = secret.value(key).filter(|value| !value.is_empty());
        value.map(<[u8]>::to_vec).ok_or_else(|| {
            format!(
                "{object} has no `{key}`; write `{CHAIN}` and `{KEY}`, or name a certbot lineage \
                 by the annotation `{LINEAGE_ANNOTATION}`"
            )
        })
    };
    let (chain, key) = (value(CHAIN)?, secret::Secret::new(value(KEY)?));
    Ok(NamedCertificate::Inline { object, chain, key })
}

/// Returns the names of lineages to try for a Secret that is not written: the name of the Secret,
/// `${DOMAIN}`, and the hostname of the listener.
///
/// certbot names the lineage of `*.example.com` `example.com`.
fn lineages(secret: &str, listener: &api::Listener, facts: &LoadFacts<'_>) -> Vec<String> {
    let hostname = listener.hostname().map(|name| name.strip_prefix("*.").unwrap_or(name));
    let candidates = [Some(secret), facts.domain.filter(|domain| !domain.is_empty()), hostname];
    let mut names: Vec<String> = Vec::new();
    for name in candidates.into_iter().flatten() {
        if !names.iter().any(|known| known == name) {
            names.push(name.into());
        }
    }
    names
}

fn describe(
    certificate: &NamedCertificate,
    problem: &str,
    gateway: &ObjectKey,
    reference: &SecretObjectReference,
    index: &ObjectIndex<'_>,
) -> String {
    let (NamedCertificate::Inline { object, .. } | NamedCertificate::Lineage { object, .. }) =
        certificate;
    let namespace = reference.namespace.as_deref().unwrap_or(&gateway.namespace);
    if index.secret(namespace, &reference.name).is_some() {
        format!("{object}: {problem}")
    } else {
        format!("{object} is not written, so certbot should have its certificate: {problem}")
    }
}
