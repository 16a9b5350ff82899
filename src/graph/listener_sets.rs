//! ListenerSets of this controller's Gateways, and the check of `allowedListeners`.

use std::collections::HashMap;

use crate::api::{self, FromNamespaces, GATEWAY_GROUP, Kind, ObjectKey};
use crate::config::Origin;

use super::facts::LoadFacts;
use super::frontend;
use super::gateways::Gateway;
use super::index::ObjectIndex;
use super::listeners::{self, Listener, ListenerOwner, Namespaces};
use super::verdict::{ConditionResult, FalseCondition, Faults};

/// A ListenerSet whose parent is a Gateway of this controller.
#[derive(Debug)]
pub(crate) struct ListenerSet<'a> {
    pub object: &'a api::ListenerSet,
    pub key: ObjectKey,
    /// The index of its Gateway in `Graph::gateways`.
    pub gateway: usize,
    /// The listeners, in the order in which they are written.
    pub listeners: Vec<Listener<'a>>,
    /// `Ok` if the set keeps the rules of its kind and the Gateway accepts it. Its listeners are
    /// judged separately.
    pub(super) valid: ConditionResult,
}

/// Returns all listeners of the Gateways and of their ListenerSets.
pub(super) fn all_listeners<'g, 'a>(
    gateways: &'g [Gateway<'a>],
    sets: &'g [ListenerSet<'a>],
) -> impl Iterator<Item = &'g Listener<'a>> {
    let own = gateways.iter().flat_map(|gateway| &gateway.listeners);
    own.chain(sets.iter().flat_map(|set| &set.listeners))
}

/// Returns the listeners that are served, each with its Gateway.
pub(super) fn served_listeners<'g, 'a>(
    gateways: &'g [Gateway<'a>],
    sets: &'g [ListenerSet<'a>],
) -> impl Iterator<Item = (&'g Gateway<'a>, &'g Listener<'a>)> {
    let own = gateways.iter().filter(|gateway| gateway.is_served());
    let own =
        own.flat_map(|gateway| gateway.listeners.iter().map(move |listener| (gateway, listener)));
    let sets = sets.iter().map(|set| (&gateways[set.gateway], set));
    let sets = sets.filter(|(gateway, set)| set.is_served(gateway));
    let added = sets.flat_map(|(gateway, set)| set.listeners.iter().map(move |of| (gateway, of)));
    own.chain(added).filter(|(_, listener)| listener.accepted.is_ok())
}

impl ListenerSet<'_> {
    /// Returns condition Accepted: the reason if it is True, the refusal if it is False.
    ///
    /// A set without any listener that can be served is not accepted (conformance
    /// ListenerSetHostnameConflict, ListenerSetReferenceGrant).
    pub(super) fn accepted(&self, gateway: &Gateway<'_>) -> Result<&'static str, FalseCondition> {
        self.valid.clone()?;
        if let Err(refusal) = gateway.accepted() {
            let message = format!("its Gateway is not accepted: {}", refusal.message);
            return Err(FalseCondition::new("ParentNotAccepted", message));
        }
        let valid = self.listeners.iter().filter(|listener| listener.can_be_served()).count();
        if valid == self.listeners.len() {
            return Ok("Accepted");
        }
        let refused = self.listeners.iter().filter(|listener| !listener.can_be_served());
        let refused: Vec<_> = refused.map(|listener| format!("`{}`", listener.spec.name)).collect();
        if valid > 0 {
            return Ok("ListenersNotValid");
        }
        let message = format!("no listener is valid: {}", refused.join(", "));
        Err(FalseCondition::new("ListenersNotValid", message))
    }

    /// Returns true if the Gateway serves the valid listeners of the set.
    pub(crate) fn is_served(&self, gateway: &Gateway<'_>) -> bool {
        self.valid.is_ok() && gateway.is_served()
    }
}

/// Returns the ListenerSets of `gateways` in tie-breaking order, each with its listeners judged by
/// themselves.
pub(super) fn listener_sets<'a>(
    index: &ObjectIndex<'a>,
    facts: &LoadFacts<'_>,
    gateways: &[Gateway<'a>],
    faults: &mut Faults,
) -> Vec<ListenerSet<'a>> {
    let by_name: HashMap<(&str, &str), usize> = gateways
        .iter()
        .enumerate()
        .map(|(place, gateway)| ((&*gateway.key.namespace, &*gateway.key.name), place))
        .collect();
    let mut sets = Vec::new();
    for object in &index.listener_sets {
        let metadata = &object.metadata;
        let key = ObjectKey::new(Kind::ListenerSet, metadata.namespace(), &metadata.name);
        let parent = &object.spec.parent_ref;
        if (parent.group(), parent.kind()) != (GATEWAY_GROUP, "Gateway") {
            let problem = "a ListenerSet adds listeners to a Gateway; name one, without `group` \
                           and `kind`";
            faults.error(&key, "spec.parentRef.kind", problem);
            continue;
        }
        let namespace = parent.namespace.as_deref().unwrap_or(&key.namespace);
        let Some(gateway) = by_name.get(&(namespace, &*parent.name)).copied() else {
            // If the Gateway exists, it has a fault of its own that explains why it is not served.
            if !index.has_gateway(namespace, &parent.name) {
                let problem = format!("there is no Gateway `{namespace}/{}`", parent.name);
                let parent = ObjectKey::new(Kind::Gateway, namespace, &parent.name);
                let origin = Origin::Referent(parent);
                faults.error_of(origin, &key, "spec.parentRef.name", problem);
            }
            continue;
        };
        let allowed = allowed(&key, &gateways[gateway], index, faults);
        let valid = judge_rules(&key, index).and(allowed);
        let owner = ListenerOwner {
            gateway: gateways[gateway].key.clone(),
            listener_set: Some(key.clone()),
        };
        let specs = object.spec.listeners.iter().enumerate();
        let mut listeners: Vec<_> = specs
            .map(|(place, spec)| listeners::judge(&owner, spec, place, index, facts, faults))
            .collect();
        // Faults of the Gateway's client validation were reported with the Gateway.
        let Gateway { object: of, key: named, .. } = &gateways[gateway];
        frontend::apply(of, named, &mut listeners, index, facts, &mut Faults::default());
        sets.push(ListenerSet { object, key, gateway, listeners, valid });
    }
    sets
}

/// Judges the set by the rules of its kind, except for those that concern a single listener.
fn judge_rules(key: &ObjectKey, index: &ObjectIndex<'_>) -> ConditionResult {
    let mut broken = index.broken(key).filter(|fault| listeners::place_of(&fault.field).is_none());
    broken.next().map_or(Ok(()), |fault| Err(FalseCondition::new("Invalid", fault.to_string())))
}

/// Judges the set by `allowedListeners` of the Gateway.
fn allowed(
    set: &ObjectKey,
    gateway: &Gateway<'_>,
    index: &ObjectIndex<'_>,
    faults: &mut Faults,
) -> ConditionResult {
    let (namespaces, taken) = namespaces(gateway.object);
    if namespaces.take(&set.namespace, &gateway.key.namespace, index) {
        return Ok(());
    }
    let ObjectKey { namespace, name, .. } = &gateway.key;
    let problem = format!(
        "Gateway `{namespace}/{name}` takes {taken}, not of `{}`; see its `spec.allowedListeners`",
        set.namespace
    );
    let origin = Origin::Referent(gateway.key.clone());
    faults.error_of(origin, set, "spec.parentRef", &*problem);
    Err(FalseCondition::new("NotAllowed", problem))
}

/// Returns the namespaces from which ListenerSets are accepted, and their description for messages.
fn namespaces(gateway: &api::Gateway) -> (Namespaces<'_>, &'static str) {
    let allowed = gateway.spec.allowed_listeners.as_ref().and_then(|of| of.namespaces.as_ref());
    match allowed.and_then(|of| of.from.as_ref()) {
        Some(FromNamespaces::All) => (Namespaces::All, "ListenerSets of every namespace"),
        Some(FromNamespaces::Same) => (Namespaces::Same, "ListenerSets of its own namespace"),
        Some(FromNamespaces::Selector) => {
            let selector = allowed.and_then(|of| of.selector.as_ref());
            let selected = selector.map_or(Namespaces::None, Namespaces::Selected);
            (selected, "ListenerSets of the namespaces that its selector takes")
        }
        None | Some(FromNamespaces::None | FromNamespaces::Unknown(_)) => {
            (Namespaces::None, "no ListenerSets")
        }
    }
}
