//! TLS to backends: BackendTLSPolicies, whom they are for, and `spec.tls` of Backends.
//!
//! A backend that something asks TLS for is never spoken to in clear: where what asks cannot be
//! used, no request goes there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::api::envoy::BackendTls as Written;
use crate::api::{
    Backend, BackendTlsPolicy, BackendTlsValidation, CORE_GROUP, ENVOY_GROUP, Kind,
    LocalObjectReference, ObjectKey, PolicyTargetReference, SubjectAltNameType,
};
use crate::config::Origin;

use super::authorities::{self, Unusable};
use super::certificates::{self, Certificate};
use super::facts::Facts;
use super::gateways::Gateway;
use super::index::Index;
use super::listener_sets::ListenerSet;
use super::routes::Route;
use super::verdict::{Authorities, Faults, Judged, Refusal, refuse};

/// The word for the authorities that the host trusts.
const SYSTEM: &str = "System";

/// Gateways that one policy tells its status for (`PolicyStatus.ancestors`, at most 16).
pub(super) const MAX_ANCESTORS: usize = 16;

/// Whether the endpoints of a backend are spoken to by TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encryption {
    #[default]
    Clear,
    /// TLS is asked for by something that cannot be used: no request may go there.
    Refused,
    Tls(Arc<BackendTls>),
}

/// How a backend is spoken to by TLS, and how it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackendTls {
    pub authorities: Authorities,
    /// What the handshake asks for. None where nothing is verified and no name is known.
    pub server_name: Option<String>,
    /// Of these the certificate must have one. Where there are none it must be for `server_name`.
    pub names: Vec<AltName>,
    /// What is shown to this backend in place of the Gateway's client certificate.
    pub client: Option<Certificate>,
}

/// A name that a certificate may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AltName {
    /// Possibly with a wildcard as its first label.
    Hostname(String),
    Uri(String),
}

/// The policies of a load, and whom they are for.
#[derive(Debug, Default)]
pub(super) struct Policies<'a> {
    /// In the order of ties.
    pub all: Vec<Policy<'a>>,
    by_target: HashMap<ObjectKey, OfTarget>,
}

/// The policies for one object, each by its place in `Policies::all`.
#[derive(Debug, Default)]
struct OfTarget {
    /// Every one that names it, whether or not another takes precedence.
    named: Vec<usize>,
    /// The first for all of it.
    whole: Option<usize>,
    /// The first for each section.
    sections: HashMap<String, usize>,
}

/// A policy, judged.
#[derive(Debug)]
pub(crate) struct Policy<'a> {
    pub object: &'a BackendTlsPolicy,
    pub key: ObjectKey,
    /// The Gateways with a route that refers to what it targets, by their places in the graph.
    pub ancestors: BTreeSet<usize>,
    /// None if it cannot be used.
    pub(super) tls: Option<Arc<BackendTls>>,
    /// Condition Accepted.
    pub(super) accepted: Judged,
    /// Condition ResolvedRefs.
    pub(super) resolved: Judged,
}

impl Policies<'_> {
    /// The policies that name an object, used or not.
    pub(super) fn naming(&self, target: &ObjectKey) -> &[usize] {
        self.by_target.get(target).map_or(&[], |of| &of.named)
    }

    /// What is asked for a section of an object; a policy for the section comes before one for all
    /// of it. None if nobody asks.
    pub(super) fn encryption(
        &self,
        target: &ObjectKey,
        section: Option<&str>,
    ) -> Option<Encryption> {
        let of = self.by_target.get(target)?;
        let place = section.and_then(|section| of.sections.get(section)).or(of.whole.as_ref())?;
        Some(match &self.all[*place].tls {
            Some(tls) => Encryption::Tls(Arc::clone(tls)),
            None => Encryption::Refused,
        })
    }
}

/// Judges every policy, and settles which of several counts.
pub(super) fn policies<'a>(
    index: &Index<'a>,
    facts: &Facts<'_>,
    faults: &mut Faults,
) -> Policies<'a> {
    let mut policies = Policies::default();
    for object in &index.tls_policies {
        let metadata = &object.metadata;
        let key = ObjectKey::new(Kind::BackendTlsPolicy, metadata.namespace(), &metadata.name);
        let broken = index.broken(&key).next();
        let mut accepted = broken.map_or(Ok(()), |(field, problem)| {
            Err(Refusal::new("Invalid", format!("{field}: {problem}")))
        });
        let place = policies.all.len();
        let judged = claim(object, &key, place, &mut policies, index, facts, faults);
        accepted = accepted.and(judged);
        // Authorities are told of also where nothing else is right.
        let Validated { tls, resolved, valid } =
            validated(&object.spec.validation, &key, index, facts, faults);
        accepted = accepted.and(valid);
        if let Some(option) = object.spec.options.keys().next() {
            let problem = format!("option `{option}` is not known here and changes nothing");
            faults.warning(&key, "spec.options", problem);
        }
        let tls = tls.filter(|_| broken.is_none()).map(Arc::new);
        let ancestors = BTreeSet::new();
        policies.all.push(Policy { object, key, ancestors, tls, accepted, resolved });
    }
    policies
}

/// Takes the targets of a policy that no earlier one has.
fn claim(
    policy: &BackendTlsPolicy,
    key: &ObjectKey,
    place: usize,
    policies: &mut Policies<'_>,
    index: &Index<'_>,
    facts: &Facts<'_>,
    faults: &mut Faults,
) -> Judged {
    let mut conflict = Ok(());
    let mut missing = Ok(());
    let mut is_found = false;
    for (number, reference) in policy.spec.target_refs.iter().enumerate() {
        let field = format!("spec.targetRefs[{number}]");
        let found = match target(reference, &key.namespace, index, facts) {
            Ok(found) => found,
            Err((rest, refusal)) => {
                faults.error(key, format!("{field}{rest}"), &*refusal.message);
                refuse(&mut missing, refusal);
                continue;
            }
        };
        let of = policies.by_target.entry(found.key).or_default();
        of.named.push(place);
        if let Err((rest, refusal)) = found.exists {
            faults.error(key, format!("{field}{rest}"), &*refusal.message);
            refuse(&mut missing, refusal);
        } else {
            is_found = true;
        }
        // What is not there yet is taken all the same: it must not be served in clear meanwhile.
        let first = match &reference.section_name {
            Some(section) => *of.sections.entry(section.clone()).or_insert(place),
            None => *of.whole.get_or_insert(place),
        };
        if first != place {
            let first = &policies.all[first].key;
            let message = format!(
                "`{}` is what {first} is for already, which is older or comes first by its name; \
                 remove one of them",
                reference.name
            );
            faults.error(key, field, &*message);
            refuse(&mut conflict, Refusal::new("Conflicted", message));
        }
    }
    conflict?;
    if is_found { Ok(()) } else { missing }
}

/// What a targetRef names.
struct Named {
    key: ObjectKey,
    /// Whether it is there: the rest of the field that is wrong, and why.
    exists: Result<(), (&'static str, Refusal)>,
}

fn target(
    reference: &PolicyTargetReference,
    namespace: &str,
    index: &Index<'_>,
    facts: &Facts<'_>,
) -> Result<Named, (&'static str, Refusal)> {
    let PolicyTargetReference { group, kind, name, section_name } = reference;
    let not_found = |rest, message: String| Err((rest, Refusal::new("TargetNotFound", message)));
    match (&**group, &**kind) {
        (CORE_GROUP, "Service") => {
            let key = ObjectKey::new(Kind::Service, namespace, name);
            let exists = match (index.service(namespace, name), section_name) {
                (None, _) => {
                    not_found(".name", format!("there is no Service `{namespace}/{name}`"))
                }
                (Some(_), None) => Ok(()),
                (Some(service), Some(section)) => {
                    let mut ports = service.spec.ports.iter();
                    if ports.any(|port| port.name.as_ref() == Some(section)) {
                        Ok(())
                    } else {
                        let message =
                            format!("Service `{namespace}/{name}` has no port of name `{section}`");
                        not_found(".sectionName", message)
                    }
                }
            };
            Ok(Named { key, exists })
        }
        (ENVOY_GROUP, "Backend") if facts.enable_backend => {
            let key = ObjectKey::new(Kind::Backend, namespace, name);
            let exists = match index.backend(namespace, name) {
                None => not_found(".name", format!("there is no Backend `{namespace}/{name}`")),
                Some(_) if section_name.is_some() => {
                    not_found(".sectionName", "a Backend has no sections; leave it out".into())
                }
                Some(_) => Ok(()),
            };
            Ok(Named { key, exists })
        }
        (group, kind) => {
            let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
            let message = format!(
                "`{kind}` is nothing that TLS can be spoken to; target a Service or a Backend"
            );
            Err(("", Refusal::new("Invalid", message)))
        }
    }
}

struct Validated {
    tls: Option<BackendTls>,
    resolved: Judged,
    valid: Judged,
}

fn validated(
    validation: &BackendTlsValidation,
    key: &ObjectKey,
    index: &Index<'_>,
    facts: &Facts<'_>,
    faults: &mut Faults,
) -> Validated {
    let at = "spec.validation";
    let Found { authorities, resolved, valid } = authorities_of(
        &validation.ca_certificate_refs,
        validation.well_known_ca_certificates.as_deref(),
        key,
        at,
        index,
        facts,
        faults,
    );
    let names = validation.subject_alt_names.iter().filter_map(|name| match name.kind {
        SubjectAltNameType::Hostname => Some(AltName::Hostname(name.hostname()?.to_owned())),
        SubjectAltNameType::Uri => Some(AltName::Uri(name.uri()?.to_owned())),
        // A rule of the kind is broken: the policy cannot be used.
        SubjectAltNameType::Unknown(_) => None,
    });
    let hosts = validation.subject_alt_names.iter().enumerate().filter_map(|(place, name)| {
        Some((format!("subjectAltNames[{place}].hostname"), name.hostname()?))
    });
    let mut valid = valid;
    for (field, host) in [("hostname".to_owned(), &*validation.hostname)].into_iter().chain(hosts) {
        if !(facts.server_name)(host) {
            let message = format!("`{host}` is no name that TLS can ask for; use that of a host");
            faults.error(key, format!("{at}.{field}"), &*message);
            refuse(&mut valid, Refusal::new("Invalid", message));
        }
    }
    let authorities = authorities.filter(|_| valid.is_ok());
    let tls = authorities.map(|authorities| BackendTls {
        authorities,
        server_name: Some(validation.hostname.clone()),
        names: names.collect(),
        client: None,
    });
    Validated { tls, resolved, valid }
}

/// Whom to believe, looked up.
struct Found {
    /// None if there is nobody.
    authorities: Option<Authorities>,
    /// Whether every reference can be used.
    resolved: Judged,
    /// Whether there is anybody.
    valid: Judged,
}

/// Reasons are those of a BackendTLSPolicy.
fn authorities_of(
    references: &[LocalObjectReference],
    well_known: Option<&str>,
    key: &ObjectKey,
    at: &str,
    index: &Index<'_>,
    facts: &Facts<'_>,
    faults: &mut Faults,
) -> Found {
    if references.is_empty() {
        let field = format!("{at}.wellKnownCACertificates");
        let valid = match well_known {
            Some(SYSTEM) => (facts.authorities)(&Authorities::System)
                .map_err(|why| Refusal::new("NoValidCACertificate", why)),
            Some(word) => {
                let message =
                    format!("`{word}` is no set of authorities known here; use `{SYSTEM}`");
                Err(Refusal::new("Invalid", message))
            }
            // A rule of the kind is broken, and told.
            None => {
                let valid = Err(Refusal::new("Invalid", "no authorities are named"));
                return Found { authorities: None, resolved: Ok(()), valid };
            }
        };
        if let Err(refusal) = &valid {
            let origin = match well_known {
                Some(SYSTEM) => Origin::Host,
                _ => Origin::Written,
            };
            faults.error_of(origin, key, field, &*refusal.message);
        }
        let authorities = valid.is_ok().then_some(Authorities::System);
        return Found { authorities, resolved: Ok(()), valid };
    }
    let mut resolved = Ok(());
    let mut bundles = Vec::new();
    for (place, reference) in references.iter().enumerate() {
        let LocalObjectReference { group, kind, name } = reference;
        match authorities::look_up((group, kind), &key.namespace, name, index, facts) {
            Ok(bundle) => bundles.push(bundle),
            Err(unusable) => {
                let (reason, problem) = match unusable {
                    Unusable::Kind(problem) => ("InvalidKind", problem),
                    Unusable::Content(problem) => ("InvalidCACertificateRef", problem),
                };
                faults.error(key, format!("{at}.caCertificateRefs[{place}]"), &*problem);
                refuse(&mut resolved, Refusal::new(reason, problem));
            }
        }
    }
    let valid = match (&resolved, bundles.is_empty()) {
        (Err(refusal), true) => {
            let message = format!("there is no CA to check the backend by: {}", refusal.message);
            Err(Refusal::new("NoValidCACertificate", message))
        }
        _ => Ok(()),
    };
    let authorities = (!bundles.is_empty()).then_some(Authorities::Pem(bundles));
    Found { authorities, resolved, valid }
}

/// `spec.tls` of every Backend that has it, judged. A policy for the Backend replaces it.
pub(super) fn backends<'a>(
    index: &Index<'a>,
    facts: &Facts<'_>,
    faults: &mut Faults,
) -> HashMap<ObjectKey, Result<Arc<BackendTls>, String>> {
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
    index: &Index<'_>,
    facts: &Facts<'_>,
    faults: &mut Faults,
) -> Result<BackendTls, String> {
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
        Some(Authorities::Nobody)
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
            let Found { authorities, valid, .. } =
                authorities_of(references, well_known, key, at, index, facts, faults);
            // Told already.
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
        Some(reference) => match certificates::of_client(key, reference, index, facts) {
            Ok(certificate) => Some(certificate),
            Err(refusal) => {
                wrong("clientCertificateRef", refusal.message, faults);
                None
            }
        },
    };
    problem?;
    let authorities = authorities.ok_or("there is no CA to check the backend by")?;
    Ok(BackendTls { authorities, server_name, names: Vec::new(), client })
}

/// The name of the endpoints, where all have the same.
fn one_name(backend: &Backend) -> Option<String> {
    let mut names = backend.spec.endpoints.iter().map(|endpoint| {
        let fqdn = endpoint.fqdn.as_ref().map(|fqdn| &fqdn.hostname);
        endpoint.hostname.as_ref().or(fqdn)
    });
    let first = names.next()??;
    names.all(|name| name == Some(first)).then(|| first.clone())
}

/// Notes with each policy the Gateways whose routes refer to what it targets.
pub(super) fn find_ancestors(
    policies: &mut Policies<'_>,
    gateways: &[Gateway<'_>],
    sets: &[ListenerSet<'_>],
    routes: &[Route<'_>],
) {
    let own = gateways.iter().map(|gateway| &gateway.listeners).enumerate();
    let added = sets.iter().map(|set| (set.gateway, &set.listeners));
    for (place, listeners) in own.chain(added) {
        for on in listeners.iter().flat_map(|listener| &listener.routes) {
            for policy in routes[on.route].rules.iter().flat_map(|refs| &refs.policies) {
                let ancestors = &mut policies.all[*policy].ancestors;
                if ancestors.len() < MAX_ANCESTORS {
                    ancestors.insert(place);
                }
            }
        }
    }
}
