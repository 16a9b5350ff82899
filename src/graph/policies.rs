//! What is not served, since what is to protect it is not supported.
//!
//! A SecurityPolicy says who may come in. Without it everybody could, so what it targets is closed:
//! its rules answer 500, as those of Envoy Gateway do while a policy cannot be applied.

use crate::api::{Kind, ObjectMeta, SecurityPolicy};

use super::index::Index;
use super::listeners::Owner;

/// True if a policy targets the route, or one of its rules.
pub(super) fn close_route(kind: Kind, metadata: &ObjectMeta, index: &Index<'_>) -> bool {
    let policies = index.policies(metadata.namespace());
    policies.iter().any(|policy| targets(policy, kind, metadata, |_| true))
}

/// True if a policy targets the owner of this listener or the listener itself, or the Gateway of a
/// ListenerSet.
pub(super) fn close_listener(owner: Owner<'_>, listener: &str, index: &Index<'_>) -> bool {
    let Owner { key, metadata, gateway } = owner;
    let mut policies = index.policies(metadata.namespace()).iter();
    let is_it = |section: Option<&str>| section.is_none_or(|section| section == listener);
    if policies.any(|policy| targets(policy, key.kind, metadata, is_it)) {
        return true;
    }
    let mut policies = index.policies(gateway.metadata.namespace()).iter();
    let all = |section: Option<&str>| section.is_none();
    policies.any(|policy| targets(policy, Kind::Gateway, &gateway.metadata, all))
}

fn targets(
    policy: &SecurityPolicy,
    kind: Kind,
    metadata: &ObjectMeta,
    section: impl Fn(Option<&str>) -> bool,
) -> bool {
    let spec = &policy.spec;
    let mut by_name = spec.target_ref.iter().chain(&spec.target_refs);
    by_name.any(|target| {
        target.kind == kind.as_str()
            && target.name == metadata.name
            && section(target.section_name.as_deref())
    }) || spec.target_selectors.iter().any(|selector| {
        selector.kind == kind.as_str() && selector.labels().accepts(&metadata.labels)
    })
}
