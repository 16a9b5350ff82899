//! Statuses as an API server's JSON: the value that `kubectl get -o yaml` shows under `status`.
//!
//! Fields are in alphabetical order, as with kubectl. `lastTransitionTime` is absent if the load
//! before is not known.

use serde_json::{Map, Value, json};

use crate::api::{Condition, GATEWAY_GROUP, ObjectKey, ParentReference};
use crate::yaml::Yaml;

use super::features::FEATURES;
use super::object_status::ObjectStatus;
use super::status::{
    AncestorStatus, GatewayClassStatus, GatewayStatus, ListenerSetStatus, ListenerStatus,
    ObjectStatuses, ParentStatus, PolicyStatus, RouteStatus,
};

impl ObjectStatus {
    /// Returns the value of the `status` field, as an API server has it.
    pub(crate) fn json(&self) -> Value {
        match self {
            Self::Class(status) => class(status),
            Self::Gateway(status) => gateway(status),
            Self::ListenerSet(status) => listener_set(status),
            Self::Policy(status) => policy(status),
            Self::Route(status) => route(status),
        }
    }
}

impl std::fmt::Display for ObjectStatuses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, status) in self.clone().into_objects().enumerate() {
            if number > 0 {
                f.write_str("---\n")?;
            }
            let ObjectKey { kind, namespace, name } = status.key();
            let mut metadata = Map::new();
            metadata.insert("name".into(), name.as_str().into());
            if !namespace.is_empty() {
                metadata.insert("namespace".into(), namespace.as_str().into());
            }
            let document = json!({
                "apiVersion": kind.api_version(),
                "kind": kind.as_str(),
                "metadata": metadata,
                "status": status.json(),
            });
            write!(f, "{}", Yaml(&document))?;
        }
        Ok(())
    }
}

fn class(status: &GatewayClassStatus) -> Value {
    let features: Vec<Value> = FEATURES.iter().map(|name| json!({ "name": name })).collect();
    json!({
        "conditions": conditions(&status.conditions, status.generation),
        "supportedFeatures": features,
    })
}

fn gateway(status: &GatewayStatus) -> Value {
    let mut fields = Map::new();
    let addresses = status.addresses.iter();
    let addresses: Vec<Value> =
        addresses.map(|address| json!({ "type": "IPAddress", "value": address })).collect();
    if !addresses.is_empty() {
        fields.insert("addresses".into(), addresses.into());
    }
    fields.insert("attachedListenerSets".into(), status.attached_listener_sets.into());
    fields.insert("conditions".into(), conditions(&status.conditions, status.generation));
    let listeners = status.listeners.iter().map(|one| listener(one, status.generation));
    fields.insert("listeners".into(), listeners.collect());
    fields.into()
}

fn listener_set(status: &ListenerSetStatus) -> Value {
    let listeners = status.listeners.iter().map(|one| listener(one, status.generation));
    json!({
        "conditions": conditions(&status.conditions, status.generation),
        "listeners": listeners.collect::<Vec<_>>(),
    })
}

fn listener(status: &ListenerStatus, generation: i64) -> Value {
    let kinds = status.supported_kinds.iter();
    let kinds: Vec<Value> =
        kinds.map(|kind| json!({ "group": GATEWAY_GROUP, "kind": kind })).collect();
    json!({
        "attachedRoutes": status.attached_routes,
        "conditions": conditions(&status.conditions, generation),
        "name": status.name,
        "supportedKinds": kinds,
    })
}

fn route(status: &RouteStatus) -> Value {
    let parents: Vec<Value> =
        status.parents.iter().map(|one| parent(one, status.generation)).collect();
    json!({ "parents": parents })
}

fn parent(status: &ParentStatus, generation: i64) -> Value {
    let ParentStatus { parent, controller, conditions: all } = status;
    json!({
        "conditions": conditions(all, generation),
        "controllerName": &**controller,
        "parentRef": reference(parent),
    })
}

fn policy(status: &PolicyStatus) -> Value {
    let ancestors: Vec<Value> =
        status.ancestors.iter().map(|one| ancestor(one, status.generation)).collect();
    json!({ "ancestors": ancestors })
}

fn ancestor(status: &AncestorStatus, generation: i64) -> Value {
    let AncestorStatus { ancestor, section, controller, conditions: all } = status;
    let ObjectKey { kind, namespace, name } = ancestor;
    let mut reference = Map::new();
    reference.insert("group".into(), kind.group().into());
    reference.insert("kind".into(), kind.as_str().into());
    reference.insert("name".into(), name.as_str().into());
    reference.insert("namespace".into(), namespace.as_str().into());
    if let Some(section) = section {
        reference.insert("sectionName".into(), section.as_str().into());
    }
    json!({
        "ancestorRef": reference,
        "conditions": conditions(all, generation),
        "controllerName": &**controller,
    })
}

fn reference(parent: &ParentReference) -> Value {
    let ParentReference { namespace, name, section_name, port, .. } = parent;
    let mut fields = Map::new();
    fields.insert("group".into(), parent.group().into());
    fields.insert("kind".into(), parent.kind().into());
    fields.insert("name".into(), name.as_str().into());
    if let Some(namespace) = namespace {
        fields.insert("namespace".into(), namespace.as_str().into());
    }
    if let Some(port) = port {
        fields.insert("port".into(), (*port).into());
    }
    if let Some(section_name) = section_name {
        fields.insert("sectionName".into(), section_name.as_str().into());
    }
    fields.into()
}

fn conditions(all: &[Condition], generation: i64) -> Value {
    let each = all.iter().map(|condition| {
        let Condition { kind, status, reason, message, last_transition } = condition;
        let mut fields = Map::new();
        if let Some(since) = last_transition {
            let since = since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            fields.insert("lastTransitionTime".into(), since.into());
        }
        fields.insert("message".into(), message.as_str().into());
        fields.insert("observedGeneration".into(), generation.into());
        fields.insert("reason".into(), (*reason).into());
        fields.insert("status".into(), status.to_string().into());
        fields.insert("type".into(), (*kind).into());
        Value::from(fields)
    });
    each.collect()
}
