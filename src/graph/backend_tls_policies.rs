//! BackendTLSPolicies, and the Services and Backends that they target.

use std::sync::Arc;

use crate::api::{
    BackendTlsPolicy, BackendTlsValidation, CORE_GROUP, ENVOY_GROUP, Kind, ObjectKey,
    SubjectAltNameType,
};
use crate::config::field_path;

use super::backend_tls::{
    AuthoritiesFound, Encryption, ExpectedAltName, UpstreamTls, authorities_of,
};
use super::facts::LoadFacts;
use super::index::ObjectIndex;
use super::policy::{
    Asking, Claim, Claims, Missing, NoTarget, OnConflict, PolicyTargets, TargetFound, TargetRef,
    attach,
};
use super::verdict::{ConditionResult, FalseCondition, Faults, refuse};

/// The BackendTLSPolicies of a load, by target.
#[derive(Debug)]
pub(super) struct BackendTlsPolicies<'a> {
    /// In tie-breaking order.
    pub all: Vec<ResolvedTlsPolicy<'a>>,
    claims: Claims,
}

/// A BackendTLSPolicy with its references looked up.
#[derive(Debug)]
pub(super) struct ResolvedTlsPolicy<'a> {
    pub object: &'a BackendTlsPolicy,
    pub key: ObjectKey,
    /// `None` if the policy cannot be used.
    tls: Option<Arc<UpstreamTls>>,
    /// Condition Accepted.
    pub accepted: ConditionResult,
    /// Condition ResolvedRefs.
    pub resolved: ConditionResult,
}

impl BackendTlsPolicies<'_> {
    /// Returns the policies that name an object, used or not.
    pub(super) fn naming(&self, target: &ObjectKey) -> &[usize] {
        self.claims.naming(target)
    }

    /// Returns the encryption for a section of an object, `None` without a policy. A policy for the
    /// section takes precedence over one for the whole object.
    pub(super) fn encryption(
        &self,
        target: &ObjectKey,
        section: Option<&str>,
    ) -> Option<Encryption> {
        let own = section.and_then(|section| self.claims.section(target, section));
        Some(match own.or_else(|| self.claims.whole(target))? {
            Claim::Policy(place) => match &self.all[place].tls {
                Some(tls) => Encryption::Tls(Arc::clone(tls)),
                None => Encryption::Refused,
            },
            Claim::Closed => Encryption::Refused,
        })
    }
}

/// Looks up the references of every policy and attaches it to its targets. If two policies have the
/// same target, the first in tie-breaking order applies (GEP-1897).
pub(super) fn policies<'a>(
    index: &ObjectIndex<'a>,
    facts: &LoadFacts<'_>,
    faults: &mut Faults,
) -> BackendTlsPolicies<'a> {
    let keys = index.tls_policies.iter().map(|object| {
        let metadata = &object.metadata;
        ObjectKey::new(Kind::BackendTlsPolicy, metadata.namespace(), &metadata.name)
    });
    let keys: Vec<ObjectKey> = keys.collect();
    let asking = index.tls_policies.iter().zip(&keys).map(|(object, policy)| {
        let named = object.spec.target_refs.iter().enumerate().map(|(number, target)| TargetRef {
            field: field_path!(spec.targetRefs[number]),
            group: &target.group,
            kind: &target.kind,
            name: &target.name,
            section: target.section_name.as_deref(),
        });
        Asking { policy, named: named.collect(), selected: Vec::new(), valid: Ok(()) }
    });
    let asking: Vec<Asking<'_>> = asking.collect();
    let find = |policy: &ObjectKey, target: &TargetRef<'_>| find(policy, target, index, facts);
    let (claims, targets) = attach(&asking, OnConflict::FirstWins, find, |_, _| None, faults);
    let all = index.tls_policies.iter().zip(&keys).zip(targets);
    let all = all.map(|((object, key), targets)| {
        let broken = index.broken(key).next();
        let mut accepted = match broken {
            Some(fault) => Err(FalseCondition::new("Invalid", fault.to_string())),
            None => accepted(targets),
        };
        // Faults of the authorities are reported even if the policy has others.
        let Validated { tls, resolved, valid } =
            validated(&object.spec.validation, key, index, facts, faults);
        accepted = accepted.and(valid);
        if let Some(option) = object.spec.options.keys().next() {
            let problem = format!("option `{option}` is not known here and changes nothing");
            faults.warning(key, "spec.options", problem);
        }
        let tls = tls.filter(|_| broken.is_none()).map(Arc::new);
        ResolvedTlsPolicy { object, key: key.clone(), tls, accepted, resolved }
    });
    BackendTlsPolicies { all: all.collect(), claims }
}

/// Returns condition Accepted as far as it depends on the targets: no conflict, and at least one
/// target exists.
fn accepted(targets: PolicyTargets) -> ConditionResult {
    let PolicyTargets { targets, valid } = targets;
    let judged = || targets.iter().map(|target| &target.attached);
    let conflict =
        judged().find(|judged| matches!(judged, Err(FalseCondition { reason: "Conflicted", .. })));
    if let Some(conflict) = conflict {
        return conflict.clone();
    }
    match judged().find(|judged| judged.is_err()) {
        _ if judged().any(Result::is_ok) => Ok(()),
        Some(missing) => missing.clone(),
        None => valid,
    }
}

/// Returns the Service or Backend that a target refers to.
fn find(
    policy: &ObjectKey,
    target: &TargetRef<'_>,
    index: &ObjectIndex<'_>,
    facts: &LoadFacts<'_>,
) -> Result<TargetFound, NoTarget> {
    let TargetRef { group, kind, name, section, .. } = *target;
    let namespace = &*policy.namespace;
    let no_object = |key: &ObjectKey| {
        let ObjectKey { kind, namespace, name } = key;
        Some(Missing::Object(format!("there is no {kind} `{namespace}/{name}`")))
    };
    match (group, kind) {
        (CORE_GROUP, "Service") => {
            let key = ObjectKey::new(Kind::Service, namespace, name);
            let missing = match (index.service(namespace, name), section) {
                (None, _) => no_object(&key),
                (Some(_), None) => None,
                (Some(service), Some(section)) => {
                    let mut ports = service.spec.ports.iter();
                    let is_there = ports.any(|port| port.name.as_deref() == Some(section));
                    (!is_there).then(|| {
                        Missing::Section(format!(
                            "Service `{namespace}/{name}` has no port of name `{section}`"
                        ))
                    })
                }
            };
            Ok(TargetFound { key, missing })
        }
        (ENVOY_GROUP, "Backend") if facts.enable_backend => {
            let key = ObjectKey::new(Kind::Backend, namespace, name);
            let missing = match index.backend(namespace, name) {
                None => no_object(&key),
                Some(_) if section.is_some() => {
                    Some(Missing::Section("a Backend has no sections; leave it out".into()))
                }
                Some(_) => None,
            };
            Ok(TargetFound { key, missing })
        }
        (group, kind) => {
            let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
            Err(("", format!("`{kind}` cannot be a target; use a Service or a Backend")))
        }
    }
}

struct Validated {
    tls: Option<UpstreamTls>,
    resolved: ConditionResult,
    valid: ConditionResult,
}

fn validated(
    validation: &BackendTlsValidation,
    key: &ObjectKey,
    index: &ObjectIndex<'_>,
    facts: &LoadFacts<'_>,
    faults: &mut Faults,
) -> Validated {
    let at = "spec.validation";
    let AuthoritiesFound { authorities, resolved, valid } = authorities_of(
        &validation.ca_certificate_refs,
        validation.well_known_ca_certificates.as_deref(),
        key,
        at,
        index,
        facts,
        faults,
    );
    let names = validation.subject_alt_names.iter().filter_map(|name| match name.kind {
        SubjectAltNameType::Hostname => {
            Some(ExpectedAltName::Hostname(name.hostname()?.to_owned()))
        }
        SubjectAltNameType::Uri => Some(ExpectedAltName::Uri(name.uri()?.to_owned())),
        // This breaks a rule of the kind: the policy cannot be used.
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
            refuse(&mut valid, FalseCondition::new("Invalid", message));
        }
    }
    let authorities = authorities.filter(|_| valid.is_ok());
    let tls = authorities.map(|authorities| UpstreamTls {
        authorities,
        server_name: Some(validation.hostname.clone()),
        names: names.collect(),
        client: None,
    });
    Validated { tls, resolved, valid }
}
