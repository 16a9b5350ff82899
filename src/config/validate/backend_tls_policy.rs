//! The rules of BackendTLSPolicy.

use crate::api::{
    BackendTlsPolicySpec, BackendTlsValidation, PolicyTargetReference, SubjectAltName,
    SubjectAltNameType,
};
use crate::config::names;
use crate::config::path::Path;
use crate::config::scalar::shown;

use super::route;
use super::violations::{Reference, Violations};

pub(super) fn spec(spec: &BackendTlsPolicySpec, at: Path<'_>, found: &mut Violations) {
    targets(&spec.target_refs, at.field("targetRefs"), found);
    validation(&spec.validation, at.field("validation"), found);
    let options = at.field("options");
    found.count(options, spec.options.len(), 0..=16);
    for (key, value) in &spec.options {
        found.length(options.field(key), value, 0..=4096);
    }
}

fn targets(targets: &[PolicyTargetReference], at: Path<'_>, found: &mut Violations) {
    found.count(at, targets.len(), 1..=16);
    for (index, target) in targets.iter().enumerate() {
        let at = at.item(index);
        let to = Reference {
            group: Some(&target.group),
            kind: Some(&target.kind),
            name: &target.name,
            namespace: None,
        };
        found.reference(at, to);
        if let Some(section) = &target.section_name {
            found.section_name(at.field("sectionName"), section);
        }
    }
    let section =
        |of: &PolicyTargetReference| of.section_name.clone().filter(|section| !section.is_empty());
    let same = |a: &PolicyTargetReference, b: &PolicyTargetReference| {
        (&a.group, &a.kind, &a.name) == (&b.group, &b.kind, &b.name)
    };
    let mixed = targets.iter().any(|a| {
        targets.iter().any(|b| same(a, b) && section(a).is_some() != section(b).is_some())
    });
    let problem = "sectionName must be specified when targetRefs includes 2 or more references to \
                   the same target";
    found.require(!mixed, at, problem);
    let places = targets.iter().map(|of| (&of.group, &of.kind, &of.name, section(of)));
    let problem = "sectionName must be unique when targetRefs includes 2 or more references to the \
                   same target";
    found.unique(at, places, problem);
}

fn validation(validation: &BackendTlsValidation, at: Path<'_>, found: &mut Violations) {
    let refs = at.field("caCertificateRefs");
    found.count(refs, validation.ca_certificate_refs.len(), 0..=8);
    for (index, reference) in validation.ca_certificate_refs.iter().enumerate() {
        route::extension(reference, refs.item(index), found);
    }
    let has_refs = !validation.ca_certificate_refs.is_empty();
    let word = validation.well_known_ca_certificates.as_deref();
    let is_known = word.is_some_and(|word| !word.is_empty());
    let problem = "must not contain both CACertificateRefs and WellKnownCACertificates";
    found.require(!(has_refs && is_known), at, problem);
    let problem = "must specify either CACertificateRefs or WellKnownCACertificates";
    found.require(has_refs || is_known, at, problem);
    if let Some(word) = word.filter(|word| !is_authorities(word)) {
        let problem = format!(
            "`{}` names no set of authorities; use `System`, or a name with a domain in front of it",
            shown(word)
        );
        found.add(at.field("wellKnownCACertificates"), problem);
    }
    found.precise_hostname(at.field("hostname"), &validation.hostname);
    let names = at.field("subjectAltNames");
    found.count(names, validation.subject_alt_names.len(), 0..=5);
    for (index, name) in validation.subject_alt_names.iter().enumerate() {
        alt_name(name, names.item(index), found);
    }
}

/// Returns true for `System` and `domain/name`.
fn is_authorities(word: &str) -> bool {
    word == "System"
        || word.len() <= 253
            && word.split_once('/').is_some_and(|(domain, name)| {
                let ends = [name.bytes().next(), name.bytes().last()];
                names::subdomain(domain).is_ok()
                    && name.len() <= 63
                    && ends.iter().all(|b| b.is_some_and(|b| b.is_ascii_alphanumeric()))
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            })
}

fn alt_name(name: &SubjectAltName, at: Path<'_>, found: &mut Violations) {
    found.word(at.field("type"), name.kind.unknown(), SubjectAltNameType::WORDS);
    let (is_host, is_uri) =
        (name.kind == SubjectAltNameType::Hostname, name.kind == SubjectAltNameType::Uri);
    let (host, uri) = (name.hostname().is_some(), name.uri().is_some());
    for (holds, problem) in [
        (
            !is_host || host,
            "SubjectAltName element must contain Hostname, if Type is set to Hostname",
        ),
        (
            is_host || !host,
            "SubjectAltName element must not contain Hostname, if Type is not set to Hostname",
        ),
        (!is_uri || uri, "SubjectAltName element must contain URI, if Type is set to URI"),
        (is_uri || !uri, "SubjectAltName element must not contain URI, if Type is not set to URI"),
    ] {
        found.require(holds, at, problem);
    }
    if let Some(host) = name.hostname() {
        found.hostname(at.field("hostname"), host);
    }
    if let Some(uri) = name.uri() {
        let at = at.field("uri");
        found.length(at, uri, 1..=253);
        if !is_absolute(uri) {
            let problem = format!(
                "`{}` is not an absolute URI; write it like `spiffe://example.com/name`",
                shown(uri)
            );
            found.add(at, problem);
        }
    }
}

/// Returns true for a URI with a scheme followed by `//`.
fn is_absolute(uri: &str) -> bool {
    uri.split_once(':').is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !scheme.contains(['/', '?', '#']) && rest.starts_with("//")
    })
}
