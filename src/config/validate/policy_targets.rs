//! The rules for targets and `mergeType` of Envoy Gateway's policies, which the CRDs of all kinds
//! share.

use crate::api::envoy::{EnvoyPolicySpec, MergeType, PolicySelector, PolicyTarget};
use crate::api::{FromNamespaces, GATEWAY_GROUP, Kind};
use crate::config::path::Path;

use super::violations::{Reference, Violations};

pub(super) fn spec<S: EnvoyPolicySpec>(spec: &S, at: Path<'_>, found: &mut Violations) {
    let (one, many) = (spec.target_ref(), spec.target_refs());
    let selectors = spec.target_selectors();
    let is_targeted = one.is_some() != many.is_some() || !selectors.is_empty();
    found.require(is_targeted, at, "either targetRef or targetRefs must be used");
    if let Some(reference) = one {
        target::<S>(reference, "targetRef", at.field("targetRef"), found);
    }
    for (index, reference) in many.into_iter().flatten().enumerate() {
        target::<S>(reference, "targetRefs[*]", at.field("targetRefs").item(index), found);
    }
    for (index, of) in selectors.iter().enumerate() {
        selector(of, at.field("targetSelectors").item(index), found);
    }
    if let Some(merge_type) = spec.merge_type() {
        let field = at.field("mergeType");
        if merge_type.unknown() == Some("Replace") {
            // The CRDs differ.
            let of = if S::KIND == Kind::BackendTrafficPolicy { "Spec" } else { "" };
            let problem = format!("Replace is not a valid MergeType for {}{of}", S::KIND);
            found.add(field, problem);
        } else {
            found.word(field, merge_type.unknown(), MergeType::WORDS);
        }
        let named = one.into_iter().chain(many.into_iter().flatten()).map(|target| &target.kind);
        let mut kinds = named.chain(selectors.iter().map(|selector| &selector.kind));
        let problem = "mergeType can only be used with xRoute targets";
        found.require(kinds.all(|kind| is_route(kind)), field, problem);
    }
}

fn is_route(kind: &str) -> bool {
    ["HTTPRoute", "GRPCRoute", "UDPRoute", "TCPRoute", "TLSRoute"].contains(&kind)
}

fn target<S: EnvoyPolicySpec>(
    target: &PolicyTarget,
    word: &str,
    at: Path<'_>,
    found: &mut Violations,
) {
    let PolicyTarget { group, kind, name, section_name } = target;
    let to = Reference { group: group.as_deref(), kind: Some(kind), name, namespace: None };
    found.reference(at, to);
    if group.as_deref().is_some_and(|group| group != GATEWAY_GROUP) {
        let problem = format!("this policy can only have a {word}.group of {GATEWAY_GROUP}");
        found.add(at.field("group"), problem);
    }
    if !S::TARGETS.iter().any(|known| known.as_str() == kind) {
        let kinds: Vec<_> = S::TARGETS.iter().map(|kind| kind.as_str()).collect();
        // The CRDs differ.
        let or = if S::KIND == Kind::ClientTrafficPolicy { " or " } else { "/" };
        let problem = format!("this policy can only have a {word}.kind of {}", kinds.join(or));
        found.add(at.field("kind"), problem);
    }
    if let Some(section) = section_name {
        found.section_name(at.field("sectionName"), section);
    }
}

fn selector(selector: &PolicySelector, at: Path<'_>, found: &mut Violations) {
    found.kind(at.field("kind"), &selector.kind);
    if selector.group.as_deref().is_some_and(|group| group != GATEWAY_GROUP) {
        found.add(at.field("group"), format!("group must be {GATEWAY_GROUP}"));
    }
    let Some(namespaces) = &selector.namespaces else { return };
    let at = at.field("namespaces");
    let words = ["All", "Same", "Selector"];
    let from = namespaces.from.as_ref().map_or("Same", FromNamespaces::as_str);
    found.word(at.field("from"), Some(from).filter(|from| !words.contains(from)), &words);
    let problem = "selector must be specified when from is Selector";
    let selects = from == FromNamespaces::Selector.as_str();
    found.require(!selects || namespaces.selector.is_some(), at, problem);
}
