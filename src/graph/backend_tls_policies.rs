//! BackendTLSPolicies, and the Services and Backends that they are for.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::api::{
    BackendTlsPolicy, BackendTlsValidation, CORE_GROUP, ENVOY_GROUP, Kind, ObjectKey,
    PolicyTargetReference, SubjectAltNameType,
};

use super::backend_tls::{AltName, BackendTls, Encryption, Found, authorities_of};
use super::facts::Facts;
use super::index::Index;
use super::verdict::{Faults, Judged, Refusal, refuse};

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
        let mut accepted =
            broken.map_or(Ok(()), |fault| Err(Refusal::new("Invalid", fault.to_string())));
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
