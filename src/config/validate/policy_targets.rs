//! The rules for targets and `mergeType` of Envoy Gateway's policies, which the CRDs of all kinds
//! share.

use crate::api::FromNamespaces;
use crate::api::envoy::{EnvoyPolicySpec, MergeType, PolicySelector, PolicyTarget};
use crate::config::path::Path;

use super::violations::{Reference, Violations};

pub(super) fn spec(spec: &impl EnvoyPolicySpec, at: Path<'_>, found: &mut Violations) {
    let (one, many) = (spec.target_ref(), spec.target_refs());
    let selectors = spec.target_selectors();
    let is_targeted = one.is_some() || !many.is_empty() || !selectors.is_empty();
    let problem = "either targetRef or targetRefs must be used";
    found.require(is_targeted && (one.is_none() || many.is_empty()), at, problem);
    if let Some(reference) = one {
        target(reference, at.field("targetRef"), found);
    }
    for (index, reference) in many.iter().enumerate() {
        target(reference, at.field("targetRefs").item(index), found);
    }
    for (index, selector) in selectors.iter().enumerate() {
        namespaces(selector, at.field("targetSelectors").item(index), found);
    }
    if let Some(merge_type) = spec.merge_type() {
        let field = at.field("mergeType");
        found.word(field, merge_type.unknown(), MergeType::WORDS);
        let named = one.into_iter().chain(many).map(|target| &target.kind);
        let mut kinds = named.chain(selectors.iter().map(|selector| &selector.kind));
        let problem = "mergeType can only be used with xRoute targets";
        found.require(kinds.all(|kind| is_route(kind)), field, problem);
    }
}

fn is_route(kind: &str) -> bool {
    ["HTTPRoute", "GRPCRoute", "UDPRoute", "TCPRoute", "TLSRoute"].contains(&kind)
}

fn target(target: &PolicyTarget, at: Path<'_>, found: &mut Violations) {
    let PolicyTarget { group, kind, name, section_name } = target;
    let to = Reference { group: group.as_deref(), kind: Some(kind), name, namespace: None };
    found.reference(at, to);
    if let Some(section) = section_name {
        found.section_name(at.field("sectionName"), section);
    }
}

fn namespaces(selector: &PolicySelector, at: Path<'_>, found: &mut Violations) {
    let Some(namespaces) = &selector.namespaces else { return };
    let at = at.field("namespaces");
    let words = ["All", "Same", "Selector"];
    let from = namespaces.from.as_ref().map_or("Same", FromNamespaces::as_str);
    found.word(at.field("from"), Some(from).filter(|from| !words.contains(from)), &words);
    let problem = "selector must be specified when from is set to 'Selector'";
    let selects = from == FromNamespaces::Selector.as_str();
    found.require(!selects || namespaces.selector.is_some(), at, problem);
    let problem = "selector must not be specified when from is not set to 'Selector'";
    found.require(selects || namespaces.selector.is_none(), at, problem);
}
