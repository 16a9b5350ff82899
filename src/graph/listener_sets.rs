//! ListenerSets of our Gateways, as far as `allowedListeners` takes them.

use std::collections::HashMap;

use crate::api::{self, FromNamespaces, GATEWAY_GROUP, Kind, ObjectKey};
use crate::config::Origin;

use super::facts::LoadFacts;
use super::frontend;
use super::gateways::Gateway;
use super::index::ObjectIndex;
use super::listeners::{self, Listener, ListenerOwner, Namespaces};
use super::verdict::{Faults, Judged, Refusal};

/// A ListenerSet whose parent is a Gateway of ours.
#[derive(Debug)]
pub(crate) struct ListenerSet<'a> {
    pub object: &'a api::ListenerSet,
    pub key: ObjectKey,
    /// The place of its Gateway in `Graph::gateways`.
    pub gateway: usize,
    /// In the order in which they are written.
    pub listeners: Vec<Listener<'a>>,
    /// True where the Gateway takes it, its listeners aside.
    pub(super) valid: Judged,
}

impl ListenerSet<'_> {
    /// Condition Accepted, and the reason that goes with it where it is True.
    ///
    /// A set without any listener that can be served is not accepted (conformance
    /// ListenerSetHostnameConflict, ListenerSetReferenceGrant).
    pub(super) fn accepted(&self, gateway: &Gateway<'_>) -> Result<&'static str, Refusal> {
        self.valid.clone()?;
        if let Err(refusal) = gateway.accepted() {
            let message = format!("its Gateway is not accepted: {}", refusal.message);
            return Err(Refusal::new("ParentNotAccepted", message));
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
        Err(Refusal::new("ListenersNotValid", message))
    }

    /// True if the Gateway serves its valid listeners.
    pub(crate) fn is_served(&self, gateway: &Gateway<'_>) -> bool {
        self.valid.is_ok() && gateway.is_served()
    }
}

/// The ListenerSets of `gateways`, in the order of ties, each with its listeners judged by
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
            // The Gateway itself says why it is not served.
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

/// The rules of its kind that the set breaks, those of single listeners aside.
fn judge_rules(key: &ObjectKey, index: &ObjectIndex<'_>) -> Judged {
    let mut broken = index.broken(key).filter(|fault| listeners::place_of(&fault.field).is_none());
    broken.next().map_or(Ok(()), |fault| Err(Refusal::new("Invalid", fault.to_string())))
}

/// `allowedListeners` of the Gateway.
fn allowed(
    set: &ObjectKey,
    gateway: &Gateway<'_>,
    index: &ObjectIndex<'_>,
    faults: &mut Faults,
) -> Judged {
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
    Err(Refusal::new("NotAllowed", problem))
}

/// The namespaces that ListenerSets may come from, and the same in words.
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
