//! Rules that the kinds of routes share.

use crate::api::{
    BackendName, CookieLifetime, DefaultScope, HeaderModifier, LocalObjectReference, MatchType,
    ParentReference, RequestMirrorFilter, SessionPersistence, SessionPersistenceType,
};
use crate::config::path::Path;

use super::violations::{Reference, Violations};

/// The number of items that are compared with each other. A longer list is already rejected for its
/// length.
const MOST_COMPARED: usize = 64;

pub(super) fn parents(parents: &[ParentReference], at: Path<'_>, found: &mut Violations) {
    found.count(at, parents.len(), 0..=32);
    for (index, parent) in parents.iter().enumerate() {
        let at = at.item(index);
        let to = Reference {
            group: parent.group.as_deref(),
            kind: parent.kind.as_deref(),
            name: &parent.name,
            namespace: parent.namespace.as_deref(),
        };
        found.reference(at, to);
        if let Some(port) = parent.port {
            found.port(at.field("port"), port);
        }
        if let Some(section) = &parent.section_name {
            found.section_name(at.field("sectionName"), section);
        }
    }

    let same = |a: &ParentReference, b: &ParentReference| {
        (a.group(), a.kind(), &a.name, &a.namespace) == (b.group(), b.kind(), &b.name, &b.namespace)
    };
    for (index, parent) in parents.iter().enumerate().take(MOST_COMPARED) {
        let others = || parents[..index].iter().filter(|other| same(parent, other));
        let mixed = |other: &ParentReference| {
            other.section_name.is_some() != parent.section_name.is_some()
                || other.port.is_some() != parent.port.is_some()
        };
        if others().any(mixed) {
            let problem = "sectionName or port must be specified when parentRefs includes 2 or \
                           more references to the same parent";
            found.add(at.item(index), problem);
        }
        let section = |of: &ParentReference| (of.section_name.clone(), of.port);
        if others().any(|other| section(other) == section(parent)) {
            let problem = "sectionName or port must be unique when parentRefs includes 2 or more \
                           references to the same parent";
            found.add(at.item(index), problem);
        }
    }
}

pub(super) fn default_gateways(scope: Option<&DefaultScope>, at: Path<'_>, found: &mut Violations) {
    found.word(at, scope.and_then(DefaultScope::unknown), DefaultScope::WORDS);
}

pub(super) fn hostnames(hostnames: &[String], at: Path<'_>, found: &mut Violations) {
    found.count(at, hostnames.len(), 0..=16);
    for (index, hostname) in hostnames.iter().enumerate() {
        found.hostname(at.item(index), hostname);
    }
}

/// Checks the names of rules: DNS names, each unique.
pub(super) fn rule_names<'a>(
    names: impl Iterator<Item = Option<&'a str>>,
    at: Path<'_>,
    found: &mut Violations,
) {
    let names: Vec<Option<&str>> = names.take(MOST_COMPARED).collect();
    for (index, name) in names.iter().enumerate() {
        let Some(name) = name else { continue };
        let at = at.item(index);
        found.section_name(at.field("name"), name);
        if names[..index].contains(&Some(name)) {
            found.add(at.field("name"), "Rule name must be unique within the route");
        }
    }
}

pub(super) fn total_matches(total: usize, at: Path<'_>, found: &mut Violations) {
    let problem = "While 16 rules and 64 matches per rule are allowed, the total number of matches \
                   across all rules in a route must be less than 128";
    found.require(total <= 128, at, problem);
}

pub(super) fn backend(reference: BackendName<'_>, at: Path<'_>, found: &mut Violations) {
    let BackendName { group, kind, name, namespace, .. } = reference;
    let to = Reference { group, kind, name, namespace };
    found.reference(at, to);
    match reference.port {
        Some(port) => found.port(at.field("port"), port),
        None => {
            let is_service = reference.group().is_empty() && reference.kind() == "Service";
            found.require(!is_service, at, "Must have port for Service reference");
        }
    }
}

pub(super) fn weight(weight: u32, at: Path<'_>, found: &mut Violations) {
    found.number(at, weight, 0..=1_000_000);
}

/// Checks `headers[]` of a match: the name and value of each, and that no name is repeated.
pub(super) fn header_matches<'a>(
    headers: impl ExactSizeIterator<Item = (Option<&'a MatchType>, &'a str, &'a str)> + Clone,
    at: Path<'_>,
    found: &mut Violations,
) {
    found.count(at, headers.len(), 0..=16);
    for (index, (kind, name, value)) in headers.clone().enumerate() {
        let at = at.item(index);
        found.word(at.field("type"), kind.and_then(MatchType::unknown), MatchType::WORDS);
        found.header_name(at.field("name"), name);
        found.header_value(at.field("value"), value);
    }
    let names = headers.map(|(_, name, _)| name);
    found.unique(at, names, "duplicate name; the first one counts, remove the other");
}

pub(super) fn header_modifier(modifier: &HeaderModifier, at: Path<'_>, found: &mut Violations) {
    for (field, headers) in [("set", &modifier.set), ("add", &modifier.add)] {
        let at = at.field(field);
        found.count(at, headers.len(), 0..=16);
        for (index, header) in headers.iter().enumerate() {
            let at = at.item(index);
            found.header_name(at.field("name"), &header.name);
            found.header_value(at.field("value"), &header.value);
        }
        let names = headers.iter().map(|header| &header.name);
        found.unique(at, names, "duplicate name; remove one");
    }
    let at = at.field("remove");
    found.count(at, modifier.remove.len(), 0..=16);
    for (index, name) in modifier.remove.iter().enumerate() {
        found.header_name(at.item(index), name);
    }
    found.unique(at, &modifier.remove, "duplicate name; remove one");
}

pub(super) fn mirror(mirror: &RequestMirrorFilter, at: Path<'_>, found: &mut Violations) {
    backend(mirror.backend_ref.object(), at.field("backendRef"), found);
    if let Some(percent) = mirror.percent {
        found.number(at.field("percent"), percent, 0..=100);
    }
    if let Some(fraction) = mirror.fraction {
        let at = at.field("fraction");
        if fraction.denominator() == 0 {
            found.add(at.field("denominator"), "0 is out of range; use 1 or more");
        }
        let problem = "numerator must be less than or equal to denominator";
        found.require(fraction.numerator <= fraction.denominator(), at, problem);
    }
    let problem = "Only one of percent or fraction may be specified in HTTPRequestMirrorFilter";
    found.require(mirror.percent.is_none() || mirror.fraction.is_none(), at, problem);
}

pub(super) fn extension(reference: &LocalObjectReference, at: Path<'_>, found: &mut Violations) {
    let to = Reference {
        group: Some(&reference.group),
        kind: Some(&reference.kind),
        name: &reference.name,
        namespace: None,
    };
    found.reference(at, to);
}

pub(super) fn session_persistence(
    session: &SessionPersistence,
    at: Path<'_>,
    found: &mut Violations,
) {
    if let Some(kind) = &session.kind {
        found.word(at.field("type"), kind.unknown(), SessionPersistenceType::WORDS);
    }
    if let Some(name) = &session.session_name {
        found.length(at.field("sessionName"), name, 0..=128);
    }
    let Some(cookie) = &session.cookie_config else { return };
    if let Some(lifetime) = &cookie.lifetime_type {
        let at = at.field("cookieConfig");
        found.word(at.field("lifetimeType"), lifetime.unknown(), CookieLifetime::WORDS);
    }
    let is_permanent = cookie.lifetime_type == Some(CookieLifetime::Permanent);
    let problem = "AbsoluteTimeout must be specified when cookie lifetimeType is Permanent";
    found.require(!is_permanent || session.absolute_timeout.is_some(), at, problem);
    let is_cookie = *session.kind() == SessionPersistenceType::Cookie;
    found.require(is_cookie, at, "cookieConfig can only be set with type Cookie");
}

/// Checks a filter's `type` against the settings beside it: those of the type are required, others
/// are rejected.
pub(super) fn union(
    kind: &str,
    settings: &[(&str, &str, bool)],
    at: Path<'_>,
    found: &mut Violations,
) {
    for (of, field, is_set) in settings {
        match (*of == kind, is_set) {
            (true, false) => {
                found.add(at, format!("filter.{field} must be specified for {of} filter.type"));
            }
            (false, true) => {
                let problem = format!("filter.{field} must be nil if the filter.type is not {of}");
                found.add(at.field(field), problem);
            }
            _ => {}
        }
    }
}

/// Checks the filter types that may occur only once in a list.
pub(super) fn not_repeated(kinds: &[&str], once: &[&str], at: Path<'_>, found: &mut Violations) {
    for (index, kind) in kinds.iter().enumerate().take(MOST_COMPARED) {
        if once.contains(kind) && kinds[..index].contains(kind) {
            found.incompatible(at.item(index), format!("{kind} filter cannot be repeated"));
        }
    }
}
