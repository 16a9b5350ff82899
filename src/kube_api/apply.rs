//! Server-side apply in its common case: field ownership, and lists that are merged by key.
//!
//! A manager owns the fields that it applies. A field that it leaves out of its next apply is
//! removed. Applying another value to a field of another manager is a conflict, unless the request
//! forces it. Items of lists such as listeners are fields of their own, identified by their keys
//! ([`lists`]); every other list is one field. One thing is simpler than in an API server: only
//! applied fields have an owner, not fields that were created, updated or patched.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::lists::{self, ListShape};

/// The path of a field in the notation of `FieldsV1`: `f:NAME` for a field, `k:{keys}` for an item
/// of a list that is merged, `v:VALUE` for an item of a set.
type Path = Vec<String>;

/// The maximum number of items of a merged list; the CRDs allow 64. Each item is searched for among
/// all.
const ITEMS: usize = 256;

/// A conflict with the fields of other managers.
pub(super) struct Conflict {
    /// The manager and the path of each field in conflict.
    pub owned: Vec<(String, String)>,
}

/// Returns `current` (if any), an object of `kind`, after `manager` applied `applied`, with its
/// `metadata.managedFields` updated.
///
/// # Errors
///
/// Without `force`: fields that another manager has applied with another value.
pub(super) fn apply(
    kind: &str,
    current: Option<&Value>,
    applied: &Value,
    manager: &str,
    force: bool,
    now: &str,
) -> Result<Value, Conflict> {
    let wanted = fields_of(kind, applied);
    let mut managers = current.map(|current| managed(kind, current)).unwrap_or_default();
    let mut owned = Vec::new();
    for (other, fields) in managers.iter_mut().filter(|(name, _)| name != manager) {
        // The existence of an item is not a value that two managers could disagree about. A list
        // whose items cannot be distinguished is refused for that reason, not as a conflict.
        let differs = |path: &&Path| {
            !is_item(path)
                && lists::shape(kind, path).is_none_or(|shape| shape == ListShape::Whole)
                && at(kind, current, path) != at(kind, Some(applied), path)
                && is_owned(fields, path)
        };
        let taken: BTreeSet<Path> = wanted.iter().filter(differs).cloned().collect();
        owned.extend(taken.iter().map(|path| (other.clone(), told(path))));
        fields.retain(|field| !is_taken(&taken, field));
    }
    if !owned.is_empty() && !force {
        return Err(Conflict { owned });
    }
    let before = managers.iter().position(|(name, _)| name == manager);
    let before = before.map(|at| managers.remove(at).1).unwrap_or_default();

    let mut result = current.cloned().unwrap_or_else(|| json!({}));
    let kept =
        |path: &Path| is_owned(&wanted, path) || managers.iter().any(|(_, f)| is_owned(f, path));
    // An item sorts before its fields: they are removed with it, or one by one if it is kept.
    for path in before.iter().filter(|path| !kept(path)) {
        remove(kind, &mut result, &mut Vec::new(), path);
    }
    merge(kind, &mut Vec::new(), &mut result, applied);
    managers.push((manager.to_owned(), wanted));
    managers.retain(|(_, fields)| !fields.is_empty());
    let api_version = applied.get("apiVersion").cloned().unwrap_or_default();
    let managed: Vec<Value> = managers
        .iter()
        .map(|(name, fields)| {
            json!({
                "apiVersion": api_version,
                "fieldsType": "FieldsV1",
                "fieldsV1": tree(fields),
                "manager": name,
                "operation": "Apply",
                "time": now,
            })
        })
        .collect();
    if let Some(metadata) = result.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("managedFields".into(), managed.into());
    }
    Ok(result)
}

/// Returns true for the path of a list item itself. The owner of an item does not own the fields
/// that others add to it.
fn is_item(path: &[String]) -> bool {
    path.last().is_some_and(|step| !step.starts_with("f:"))
}

/// Returns true if `fields` contain `path`, a field within it, or a field that holds it as a whole.
fn is_owned(fields: &BTreeSet<Path>, path: &Path) -> bool {
    let above = |length: usize| !is_item(&path[..length]) && fields.contains(&path[..length]);
    has_within(fields, path) || (0..path.len()).any(above)
}

/// Returns true if `field` is lost because another manager took the fields `taken`.
fn is_taken(taken: &BTreeSet<Path>, field: &Path) -> bool {
    (0..=field.len()).any(|length| taken.contains(&field[..length]))
        || (!is_item(field) && has_within(taken, field))
}

fn has_within(fields: &BTreeSet<Path>, path: &Path) -> bool {
    fields.range(path.clone()..).next().is_some_and(|first| first.starts_with(path))
}

/// Formats a path for messages, for example `.spec.listeners[name="http"].port`.
fn told(path: &Path) -> String {
    let step = |step: &String| match step.split_at_checked(2) {
        Some(("k:", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<_> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        Some(("v:", value)) => format!("[={value}]"),
        Some((_, name)) => format!(".{name}"),
        None => String::new(),
    };
    path.iter().map(step).collect()
}

/// Returns the step to an item of a list; `None` if the item lacks a key.
fn item_step(shape: ListShape, item: &Value) -> Option<String> {
    let ListShape::Map(keys) = shape else { return Some(format!("v:{item}")) };
    let value = |key: &lists::Key| {
        let (name, default) = *key;
        let value = item.get(name).cloned().or_else(|| default.map(Value::from))?;
        Some((name.to_owned(), value))
    };
    let keys: Option<Map<String, Value>> = keys.iter().map(value).collect();
    Some(format!("k:{}", Value::Object(keys?)))
}

/// Returns the steps to the items of a list, if its items are fields of their own.
///
/// They are not in a list with two items of the same key or in a very long list. Both are left to
/// validation, which refuses them.
fn steps(kind: &str, path: &[String], list: &[Value]) -> Option<Vec<String>> {
    let shape = lists::shape(kind, path).filter(|shape| *shape != ListShape::Whole)?;
    if list.len() > ITEMS {
        return None;
    }
    let steps: Option<Vec<_>> = list.iter().map(|item| item_step(shape, item)).collect();
    let steps = steps?;
    let are_different = steps.iter().collect::<BTreeSet<_>>().len() == steps.len();
    are_different.then_some(steps)
}

fn at<'v>(kind: &str, value: Option<&'v Value>, path: &Path) -> Option<&'v Value> {
    let mut value = value?;
    for (depth, step) in path.iter().enumerate() {
        value = match (value, step.strip_prefix("f:")) {
            (Value::Object(fields), Some(name)) => fields.get(name)?,
            (Value::Array(items), None) => &items[position(kind, &path[..depth], items, step)?],
            _ => return None,
        };
    }
    Some(value)
}

/// Returns the index of the item of a list that `step` refers to.
fn position(kind: &str, path: &[String], items: &[Value], step: &str) -> Option<usize> {
    let shape = lists::shape(kind, path)?;
    items.iter().position(|item| item_step(shape, item).is_some_and(|own| own == step))
}

/// Removes a field, and its parents if they become empty.
fn remove(kind: &str, value: &mut Value, way: &mut Path, path: &[String]) {
    let Some((step, rest)) = path.split_first() else { return };
    match (value, step.strip_prefix("f:")) {
        (Value::Object(fields), Some(name)) => {
            let Some(inner) = fields.get_mut(name) else { return };
            if rest.is_empty() || is_emptied(kind, inner, way, step, rest) {
                fields.shift_remove(name);
            }
        }
        (Value::Array(items), None) => {
            let Some(at) = position(kind, way, items, step) else { return };
            if rest.is_empty() || is_emptied(kind, &mut items[at], way, step, rest) {
                items.remove(at);
            }
        }
        _ => {}
    }
}

/// Removes a field from `inner`. Returns true if `inner` is then empty.
fn is_emptied(kind: &str, inner: &mut Value, way: &mut Path, step: &str, rest: &[String]) -> bool {
    way.push(step.to_owned());
    remove(kind, inner, way, rest);
    way.pop();
    inner.as_object().is_some_and(Map::is_empty) || inner.as_array().is_some_and(Vec::is_empty)
}

/// Merges the applied value into the current one. A null value removes the field.
fn merge(kind: &str, path: &mut Path, target: &mut Value, applied: &Value) {
    match applied {
        Value::Object(applied) if lists::shape(kind, path).is_none() => {
            if !target.is_object() {
                *target = Map::new().into();
            }
            let Some(fields) = target.as_object_mut() else { return };
            for (name, value) in applied {
                if value.is_null() {
                    fields.shift_remove(name);
                    continue;
                }
                path.push(format!("f:{name}"));
                merge(kind, path, fields.entry(name.as_str()).or_insert(Value::Null), value);
                path.pop();
            }
        }
        Value::Array(applied) => match (steps(kind, path, applied), target) {
            (Some(steps), Value::Array(items)) => {
                for (step, value) in steps.into_iter().zip(applied) {
                    let at = position(kind, path, items, &step).unwrap_or_else(|| {
                        items.push(Value::Null);
                        items.len() - 1
                    });
                    path.push(step);
                    merge(kind, path, &mut items[at], value);
                    path.pop();
                }
            }
            (_, target) => *target = applied.clone().into(),
        },
        _ => *target = applied.clone(),
    }
}

/// Returns the fields of an applied object, except for its identity, its status and the metadata
/// that the server sets.
fn fields_of(kind: &str, applied: &Value) -> BTreeSet<Path> {
    let mut fields = BTreeSet::new();
    leaves(kind, applied, &mut Vec::new(), &mut fields);
    fields.retain(|path| {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        !matches!(
            path[..],
            ["f:apiVersion" | "f:kind"]
                | ["f:status", ..]
                | ["f:metadata", "f:name" | "f:namespace" | "f:managedFields"]
                | ["f:metadata", "f:uid" | "f:resourceVersion"]
                | ["f:metadata", "f:creationTimestamp" | "f:generation"]
        )
    });
    fields
}

fn leaves(kind: &str, value: &Value, path: &mut Path, out: &mut BTreeSet<Path>) {
    match value {
        Value::Object(fields) if !fields.is_empty() && lists::shape(kind, path).is_none() => {
            for (name, value) in fields {
                path.push(format!("f:{name}"));
                leaves(kind, value, path, out);
                path.pop();
            }
        }
        Value::Array(items) => {
            let Some(steps) = steps(kind, path, items) else {
                out.insert(path.clone());
                return;
            };
            for (step, item) in steps.into_iter().zip(items) {
                path.push(step);
                out.insert(path.clone());
                if item.is_object() {
                    leaves(kind, item, path, out);
                }
                path.pop();
            }
        }
        _ if path.is_empty() => {}
        _ => {
            out.insert(path.clone());
        }
    }
}

/// Returns the managers and the fields that each has applied, according to `managedFields`.
fn managed(kind: &str, object: &Value) -> Vec<(String, BTreeSet<Path>)> {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let entries = entries.into_iter().flatten().filter(|entry| entry["operation"] == "Apply");
    entries
        .filter_map(|entry| {
            let mut fields = BTreeSet::new();
            read_tree(&entry["fieldsV1"], &mut Vec::new(), &mut fields);
            // Objects from earlier versions have a list as one field; its owner owns all items.
            for path in fields.clone() {
                if let Some(list @ Value::Array(_)) = at(kind, Some(object), &path)
                    && fields.remove(&path)
                {
                    leaves(kind, list, &mut path.clone(), &mut fields);
                }
            }
            Some((entry["manager"].as_str()?.to_owned(), fields))
        })
        .collect()
}

fn read_tree(tree: &Value, path: &mut Path, out: &mut BTreeSet<Path>) {
    let fields = tree.as_object().filter(|fields| !fields.is_empty());
    let Some(fields) = fields else {
        if !path.is_empty() {
            out.insert(path.clone());
        }
        return;
    };
    for (step, inner) in fields {
        if step == "." && is_item(path) {
            out.insert(path.clone());
        } else if step.starts_with("f:") || step.starts_with("k:") || step.starts_with("v:") {
            path.push(step.clone());
            read_tree(inner, path, out);
            path.pop();
        }
    }
}

fn tree(fields: &BTreeSet<Path>) -> Value {
    let mut root = Map::new();
    for path in fields {
        let itself = path.last().filter(|step| step.starts_with("k:")).map(|_| ".");
        let mut at = &mut root;
        for step in path.iter().map(String::as_str).chain(itself) {
            let next = at.entry(step).or_insert_with(|| Map::new().into());
            let Some(inner) = next.as_object_mut() else { break };
            at = inner;
        }
    }
    root.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(spec: Value) -> Value {
        let mut object = json!({ "apiVersion": "g/v1", "kind": "K", "metadata": { "name": "a" } });
        object["spec"] = spec;
        object
    }

    fn applied_to(
        current: Option<&Value>,
        applied: &Value,
        manager: &str,
        force: bool,
    ) -> Result<Value, Vec<String>> {
        let kind = applied["kind"].as_str().unwrap();
        apply(kind, current, applied, manager, force, "now")
            .map_err(|conflict| conflict.owned.into_iter().map(|(who, what)| who + &what).collect())
    }

    fn applied(
        current: Option<&Value>,
        spec: Value,
        manager: &str,
        force: bool,
    ) -> Result<Value, Vec<String>> {
        applied_to(current, &object(spec), manager, force)
    }

    /// Applies a Gateway with these listeners.
    fn listeners(
        current: Option<&Value>,
        listeners: &Value,
        who: &str,
    ) -> Result<Value, Vec<String>> {
        let mut gateway = object(json!({ "listeners": listeners }));
        gateway["kind"] = "Gateway".into();
        applied_to(current, &gateway, who, false)
    }

    fn manager<'v>(object: &'v Value, name: &str) -> Option<&'v Value> {
        let managed = object["metadata"]["managedFields"].as_array().unwrap();
        managed.iter().find(|entry| entry["manager"] == name).map(|entry| &entry["fieldsV1"])
    }

    #[test]
    fn what_is_left_out_the_next_time_goes() {
        let first =
            applied(None, json!({ "a": 1, "b": { "c": 2, "d": [1] } }), "me", false).unwrap();
        let second =
            applied(Some(&first), json!({ "a": 1, "b": { "d": [2] } }), "me", false).unwrap();
        assert_eq!(second["spec"], json!({ "a": 1, "b": { "d": [2] } }));
        let managed = second["metadata"]["managedFields"].as_array().unwrap();
        assert_eq!(managed.len(), 1);
        let fields = json!({ "f:spec": { "f:a": {}, "f:b": { "f:d": {} } } });
        assert_eq!(managed[0]["fieldsV1"], fields);
    }

    #[test]
    fn what_another_wrote_stays() {
        let mut first = applied(None, json!({ "a": 1 }), "me", false).unwrap();
        first["spec"]["theirs"] = json!(true);
        let second = applied(Some(&first), json!({ "b": 1 }), "me", false).unwrap();
        assert_eq!(second["spec"], json!({ "theirs": true, "b": 1 }));
    }

    #[test]
    fn two_managers_conflict_over_a_value_unless_one_forces() {
        let first = applied(None, json!({ "a": 1, "b": 1 }), "me", false).unwrap();
        assert_eq!(
            applied(Some(&first), json!({ "a": 2 }), "you", false),
            Err(vec!["me.spec.a".into()])
        );
        // The same value is not a conflict.
        assert!(applied(Some(&first), json!({ "a": 1 }), "you", false).is_ok());
        let forced = applied(Some(&first), json!({ "a": 2 }), "you", true).unwrap();
        assert_eq!(forced["spec"], json!({ "a": 2, "b": 1 }));
        // The field has another owner now, so leaving it out changes nothing.
        let third = applied(Some(&forced), json!({ "b": 2 }), "me", false).unwrap();
        assert_eq!(third["spec"], json!({ "a": 2, "b": 2 }));
    }

    #[test]
    fn a_listener_of_another_is_left_alone() {
        let http = json!({ "name": "http", "port": 80 });
        let tls = json!({ "name": "https", "port": 443 });
        let first = listeners(None, &json!([http]), "me").unwrap();
        let second = listeners(Some(&first), &json!([tls]), "you").unwrap();
        assert_eq!(second["spec"]["listeners"], json!([http, tls]));
        let mine = json!({ "f:spec": { "f:listeners": {
            r#"k:{"name":"http"}"#: { ".": {}, "f:name": {}, "f:port": {} },
        } } });
        assert_eq!(manager(&second, "me"), Some(&mine));

        // Each manager continues with its own listener, and removing one does not affect the
        // other's.
        let other = json!({ "name": "http", "port": 8080 });
        let third = listeners(Some(&second), &json!([other]), "me").unwrap();
        assert_eq!(third["spec"]["listeners"], json!([other, tls]));
        let conflict = listeners(Some(&third), &json!([http, tls]), "you");
        assert_eq!(conflict, Err(vec![r#"me.spec.listeners[name="http"].port"#.into()]));
        let fourth = listeners(Some(&third), &json!([]), "me").unwrap();
        assert_eq!(fourth["spec"]["listeners"], json!([tls]));
    }

    #[test]
    fn a_listener_of_two_has_the_fields_of_both() {
        let mine = json!([{ "name": "a", "port": 80 }]);
        let yours = json!([{ "name": "a", "hostname": "a.test" }]);
        let first = listeners(None, &mine, "me").unwrap();
        let second = listeners(Some(&first), &yours, "you").unwrap();
        let both = json!([{ "name": "a", "port": 80, "hostname": "a.test" }]);
        assert_eq!(second["spec"]["listeners"], both);
        // The fields that remain belong to the other manager alone, and the listener stays.
        let third = applied_to(Some(&second), &json!({ "kind": "Gateway" }), "me", false).unwrap();
        assert_eq!(third["spec"]["listeners"], yours);
        assert_eq!(manager(&third, "me"), None);
        let fourth = applied_to(Some(&third), &json!({ "kind": "Gateway" }), "you", false).unwrap();
        assert_eq!(fourth.get("spec"), None, "nothing is left that anybody wants");
    }

    #[test]
    fn an_object_that_is_one_field_is_taken_as_a_whole() {
        let selector = |labels: Value| {
            let namespaces = json!({ "from": "Selector", "selector": { "matchLabels": labels } });
            json!([{ "name": "a", "allowedRoutes": { "namespaces": namespaces } }])
        };
        let first = listeners(None, &selector(json!({ "a": "1" })), "me").unwrap();
        let second = listeners(Some(&first), &selector(json!({ "b": "1" })), "me").unwrap();
        assert_eq!(second["spec"]["listeners"], selector(json!({ "b": "1" })));
        assert!(listeners(Some(&second), &selector(json!({ "a": "1" })), "you").is_err());
    }

    #[test]
    fn a_list_whose_items_cannot_be_told_apart_is_one_field() {
        let current = listeners(None, &json!([{ "name": "a" }]), "me").unwrap();
        let many: Vec<Value> = (0..=ITEMS).map(|n| json!({ "name": n.to_string() })).collect();
        for list in [json!([{ "port": 1 }]), json!([{ "name": "a" }, { "name": "a" }]), many.into()]
        {
            let result = listeners(Some(&current), &list, "me").unwrap();
            assert_eq!(result["spec"]["listeners"], list);
        }
    }

    /// The object is from a version in which a list was always one field.
    #[test]
    fn a_list_that_was_owned_as_one_is_owned_item_by_item() {
        let mut current = object(json!({ "listeners": [{ "name": "a" }, { "name": "b" }] }));
        current["kind"] = "Gateway".into();
        current["metadata"]["managedFields"] = json!([{
            "manager": "me", "operation": "Apply",
            "fieldsV1": { "f:spec": { "f:listeners": {} } },
        }]);
        let next = listeners(Some(&current), &json!([{ "name": "b" }]), "me").unwrap();
        assert_eq!(next["spec"]["listeners"], json!([{ "name": "b" }]));
    }

    #[test]
    fn ports_of_a_service_are_told_apart_by_number_and_protocol() {
        let ports = |ports: Value| json!({ "kind": "Service", "spec": { "ports": ports } });
        let mut first = ports(json!([{ "port": 53, "protocol": "TCP" }]));
        first["metadata"] = json!({});
        let applied = |ports: &Value| applied_to(Some(&first), ports, "me", false).unwrap();
        let same = applied(&ports(json!([{ "port": 53, "name": "a" }])));
        let want = json!([{ "port": 53, "protocol": "TCP", "name": "a" }]);
        assert_eq!(same["spec"]["ports"], want);
        let udp = applied(&ports(json!([{ "port": 53, "protocol": "UDP" }])));
        assert_eq!(udp["spec"]["ports"].as_array().map(Vec::len), Some(2));
    }
}
