//! Objects that policies of Envoy Gateway may target: Gateways, ListenerSets, routes.

use std::collections::HashMap;

use crate::api::envoy::PolicySelector;
use crate::api::{self, ENVOY_GROUP, FromNamespaces, GATEWAY_GROUP, Kind, ObjectKey, ObjectMeta};
use crate::config::{FieldPath, nearest};
use crate::graph::grants::{Referent, Referrer};
use crate::graph::index::ObjectIndex;
use crate::graph::listeners::{Namespaces, selector_faults};
use crate::graph::verdict::{FalseCondition, Faults};
use crate::observe::listed;

use super::attachment::{Missing, NoTarget, TargetFound, TargetRef};

/// The maximum number of names in a message.
const MOST: usize = 5;

/// The objects of a load that policies may target.
pub(super) struct Targetable<'i, 'a> {
    index: &'i ObjectIndex<'a>,
    /// The kinds that the policies may target.
    kinds: &'static [Kind],
    /// In tie-breaking order.
    all: Vec<(ObjectKey, &'a ObjectMeta)>,
    sections: HashMap<ObjectKey, Vec<&'a str>>,
}

impl<'i, 'a> Targetable<'i, 'a> {
    pub(super) fn new(index: &'i ObjectIndex<'a>, kinds: &'static [Kind]) -> Self {
        let mut found = Self { index, kinds, all: Vec::new(), sections: HashMap::new() };
        let listeners = |of: &'a [api::Listener]| of.iter().map(|one| &*one.name).collect();
        for of in &index.gateways {
            found.add(Kind::Gateway, &of.metadata, listeners(&of.spec.listeners));
        }
        for of in &index.listener_sets {
            found.add(Kind::ListenerSet, &of.metadata, listeners(&of.spec.listeners));
        }
        for of in &index.routes {
            found.add(of.kind(), of.metadata(), of.rule_names().into_iter().flatten().collect());
        }
        found
    }

    fn add(&mut self, kind: Kind, metadata: &'a ObjectMeta, sections: Vec<&'a str>) {
        let key = ObjectKey::new(kind, metadata.namespace(), &metadata.name);
        self.all.push((key.clone(), metadata));
        self.sections.entry(key).or_insert(sections);
    }

    /// Returns the object that a policy names, always in the policy's own namespace.
    pub(super) fn find(
        &self,
        policy: &ObjectKey,
        target: &TargetRef<'_>,
    ) -> Result<TargetFound, NoTarget> {
        let TargetRef { group, kind, name, section, .. } = target;
        let kind = self.kind(group, kind).map_err(|problem| ("kind", problem))?;
        let key = ObjectKey::new(kind, &policy.namespace, name);
        let Some(sections) = self.sections.get(&key) else {
            let missing = Some(Missing::Object(self.does_not_exist(&key)));
            return Ok(TargetFound { key, missing });
        };
        let missing = section.filter(|name| !sections.contains(name)).map(|section| {
            let what = match kind {
                Kind::Gateway | Kind::ListenerSet => "listener",
                _ => "rule",
            };
            let meant = meant(section, sections);
            Missing::Section(format!("{key} has no {what} named `{section}`{meant}"))
        });
        Ok(TargetFound { key, missing })
    }

    fn does_not_exist(&self, key: &ObjectKey) -> String {
        let of_kind = || self.all.iter().filter(|(of, _)| of.kind == key.kind);
        let elsewhere = of_kind().find(|(of, _)| of.name == key.name);
        if let Some((elsewhere, _)) = elsewhere {
            return format!(
                "{key} does not exist; {elsewhere} does, but a policy can name only targets of its \
                 own namespace"
            );
        }
        let near = of_kind().filter(|(of, _)| of.namespace == key.namespace);
        let names: Vec<&str> = near.map(|(of, _)| &*of.name).collect();
        format!("{key} does not exist{}", meant(&key.name, &names))
    }

    /// Returns the kind of a target, if policies may target it.
    fn kind(&self, group: &str, kind: &str) -> Result<Kind, String> {
        let is_ours = group == GATEWAY_GROUP;
        let known = self.kinds.iter().find(|known| is_ours && known.as_str() == kind);
        known.copied().ok_or_else(|| {
            let kinds: Vec<_> = self.kinds.iter().map(|kind| kind.as_str()).collect();
            format!("`{kind}` cannot be a target; use {} of {GATEWAY_GROUP}", kinds.join(", "))
        })
    }

    /// Returns the objects that a selector of a policy selects, in tie-breaking order. Objects of
    /// another namespace need a ReferenceGrant there.
    ///
    /// # Errors
    ///
    /// The policies cannot target the kind of the selector.
    pub(super) fn selected(
        &self,
        policy: &ObjectKey,
        selector: &PolicySelector,
        field: &FieldPath,
        faults: &mut Faults,
    ) -> Result<Vec<ObjectKey>, FalseCondition> {
        let group = selector.group.as_deref().unwrap_or(GATEWAY_GROUP);
        let kind = self.kind(group, &selector.kind).map_err(|problem| {
            faults.error(policy, field.clone().field("kind"), &*problem);
            FalseCondition::new("Invalid", problem)
        })?;
        let labels = selector.labels();
        for (rest, problem) in selector_faults(&labels) {
            faults.error(policy, field.clone().join(&*rest), problem);
        }
        let namespaces = namespaces(selector);
        if let Namespaces::Selected(selector) = namespaces {
            for (rest, problem) in selector_faults(selector) {
                let selector = field.clone().field("namespaces").field("selector");
                faults.error(policy, selector.join(&*rest), problem);
            }
        }
        let matching = self.all.iter().filter(|(key, metadata)| {
            key.kind == kind
                && labels.accepts(&metadata.labels)
                && namespaces.take(&key.namespace, &policy.namespace, self.index)
        });
        let (granted, refused): (Vec<_>, Vec<_>) = matching
            .map(|(key, _)| key.clone())
            .partition(|target| self.index.permits(from(policy), to(target)));
        if let Some(first) = refused.first() {
            let problem = format!(
                "no ReferenceGrant lets a {} of `{}` apply to {}, which these labels select; add \
                 one in `{}`",
                policy.kind,
                policy.namespace,
                listed(refused.iter().map(ToString::to_string), MOST),
                first.namespace,
            );
            faults.warning(policy, field.clone(), problem);
        }
        Ok(granted)
    }
}

/// Returns the namespaces from which a selector may select objects.
fn namespaces(selector: &PolicySelector) -> Namespaces<'_> {
    let Some(written) = &selector.namespaces else { return Namespaces::Same };
    match written.from.as_ref().unwrap_or(&FromNamespaces::Same) {
        FromNamespaces::All => Namespaces::All,
        FromNamespaces::Same => Namespaces::Same,
        FromNamespaces::Selector => {
            written.selector.as_ref().map_or(Namespaces::None, Namespaces::Selected)
        }
        FromNamespaces::None | FromNamespaces::Unknown(_) => Namespaces::None,
    }
}

fn from(policy: &ObjectKey) -> Referrer<'_> {
    Referrer { group: ENVOY_GROUP, kind: policy.kind.as_str(), namespace: &policy.namespace }
}

fn to(target: &ObjectKey) -> Referent<'_> {
    let ObjectKey { kind, namespace, name } = target;
    Referent { group: GATEWAY_GROUP, kind: kind.as_str(), namespace, name }
}

/// Returns `; did you mean ...?` if a known name is similar, else an empty string.
fn meant(name: &str, known: &[&str]) -> String {
    nearest(name, known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}
