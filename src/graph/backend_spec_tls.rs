//! TLS settings in `spec.tls` of Backends.

use std::collections::HashMap;
use std::sync::Arc;

use crate::api::envoy::BackendTls as Written;
use crate::api::{Backend, Kind, ObjectKey};

use super::backend_tls::{AuthoritiesFound, UpstreamTls, authorities_of};
use super::certificate_refs;
use super::credentials::NamedAuthorities;
use super::facts::LoadFacts;
use super::index::ObjectIndex;
use super::verdict::Faults;

/// Judges `spec.tls` of every Backend that has it. A policy for the Backend replaces it.
pub(super) fn backends<'a>(
    index: &ObjectIndex<'a>,
    facts: &LoadFacts<'_>,
    faults: &mut Faults,
) -> HashMap<ObjectKey, Result<Arc<UpstreamTls>, String>> {
    let mut judged = HashMap::new();
    for backend in index.all_backends() {
        let Some(written) = &backend.spec.tls else { continue };
        let metadata = &backend.metadata;
        let key = ObjectKey::new(Kind::Backend, metadata.namespace(), &metadata.name);
        let tls = of_backend(backend, written, &key, index, facts, faults).map(Arc::new);
        judged.insert(key, tls);
    }
    judged
}

fn of_backend(
    backend: &Backend,
    written: &Written,
    key: &ObjectKey,
    index: &ObjectIndex<'_>,
    facts: &LoadFacts<'_>,
    faults: &mut Faults,
) -> Result<UpstreamTls, String> {
    let mut problem = Ok(());
    let mut wrong = |field: &str, message: String, faults: &mut Faults| {
        faults.error(key, format!("spec.tls.{field}"), &*message);
        if problem.is_ok() {
            problem = Err(format!("`spec.tls.{field}`: {message}"));
        }
    };
    for (field, is_written) in [
        ("minVersion", written.min_version.is_some()),
        ("maxVersion", written.max_version.is_some()),
        ("ciphers", !written.ciphers.is_empty()),
        ("ecdhCurves", !written.ecdh_curves.is_empty()),
        ("signatureAlgorithms", !written.signature_algorithms.is_empty()),
        ("alpnProtocols", !written.alpn_protocols.is_empty()),
    ] {
        if is_written {
            let message = "not supported yet; leave it out to have TLS 1.2 or 1.3 with the \
                           gateway's own choice of ciphers";
            wrong(field, message.into(), faults);
        }
    }
    let sni = written.sni.clone().filter(|name| !name.is_empty());
    if let Some(name) = sni.as_ref().filter(|name| !(facts.server_name)(name)) {
        let message = format!("`{name}` is no name that TLS can ask for; use that of a host");
        wrong("sni", message, faults);
    }
    let server_name = sni.or_else(|| one_name(backend));
    let skips = written.insecure_skip_verify == Some(true);
    let authorities = if skips {
        let message = "whoever answers at this address is believed to be the backend; give it a \
                       certificate of an authority and name that under `caCertificateRefs`";
        faults.warning(key, "spec.tls.insecureSkipVerify", message);
        Some(NamedAuthorities::Nobody)
    } else {
        let well_known = written.well_known_ca_certificates.as_deref();
        let references = &written.ca_certificate_refs;
        if references.is_empty() && well_known.is_none_or(str::is_empty) {
            let message = "nothing says whom to believe; name CA certificates under \
                           `caCertificateRefs`, or write `wellKnownCACertificates: System`";
            wrong("caCertificateRefs", message.into(), faults);
            None
        } else {
            let at = "spec.tls";
            let AuthoritiesFound { authorities, valid, .. } =
                authorities_of(references, well_known, key, at, index, facts, faults);
            // Already reported.
            if let Err(refusal) = valid {
                return Err(refusal.message);
            }
            if server_name.is_none() {
                let message = "nothing says whose certificate to expect; write it here";
                wrong("sni", message.into(), faults);
            }
            authorities
        }
    };
    let client = match &written.client_certificate_ref {
        None => None,
        Some(reference) => match certificate_refs::of_client(key, reference, index, facts) {
            Ok(certificate) => Some(certificate),
            Err(refusal) => {
                wrong("clientCertificateRef", refusal.message, faults);
                None
            }
        },
    };
    problem?;
    let authorities = authorities.ok_or("there is no CA to check the backend by")?;
    Ok(UpstreamTls { authorities, server_name, names: Vec::new(), client })
}

/// Returns the hostname of the endpoints, if all have the same one.
fn one_name(backend: &Backend) -> Option<String> {
    let mut names = backend.spec.endpoints.iter().map(|endpoint| {
        let fqdn = endpoint.fqdn.as_ref().map(|fqdn| &fqdn.hostname);
        endpoint.hostname.as_ref().or(fqdn)
    });
    let first = names.next()??;
    names.all(|name| name == Some(first)).then(|| first.clone())
}
