//! Server-side apply, its common case: fields with owners, and lists as a whole.
//!
//! What a manager applies is its own from then on; what it leaves out the next time goes. Who
//! applies what another applied gets a conflict, unless it forces. Two things are simpler than in
//! an API server: a list is one field, whoever applied one item of it, and only what was applied
//! has an owner, not what was created, updated or patched.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::patch;

/// The way to a field. A list is a field.
type Path = Vec<String>;

/// Whose fields another manager's are.
pub(super) struct Conflict {
    /// Manager and field.
    pub owned: Vec<(String, String)>,
}

/// `current` (or nothing) after `manager` applied `applied`, its `metadata.managedFields` brought up
/// to date.
///
/// # Errors
///
/// Without `force`, fields that another manager has applied with another value.
pub(super) fn apply(
    current: Option<&Value>,
    applied: &Value,
    manager: &str,
    force: bool,
    now: &str,
) -> Result<Value, Conflict> {
    let wanted = fields_of(applied);
    let mut managers = current.map(managed).unwrap_or_default();
    let mut owned = Vec::new();
    for (other, fields) in managers.iter_mut().filter(|(name, _)| name != manager) {
        let differs =
            |path: &&Path| at(current, path) != at(Some(applied), path) && overlaps(fields, path);
        let taken: Vec<Path> = wanted.iter().filter(differs).cloned().collect();
        for path in taken {
            owned.push((other.clone(), format!(".{}", path.join("."))));
            fields.retain(|field| !field.starts_with(&path) && !path.starts_with(field));
        }
    }
    if !owned.is_empty() && !force {
        return Err(Conflict { owned });
    }
    let before = managers.iter().position(|(name, _)| name == manager);
    let before = before.map(|at| managers.remove(at).1).unwrap_or_default();

    let mut result = current.cloned().unwrap_or_else(|| json!({}));
    let kept =
        |path: &Path| overlaps(&wanted, path) || managers.iter().any(|(_, f)| overlaps(f, path));
    for path in before.iter().filter(|path| !kept(path)) {
        remove(&mut result, path);
    }
    patch::merge(&mut result, applied.clone());
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

/// True if one of `fields` is `path`, stands in it, or holds it.
fn overlaps(fields: &BTreeSet<Path>, path: &Path) -> bool {
    fields.iter().any(|field| field.starts_with(path) || path.starts_with(field))
}

fn at<'v>(value: Option<&'v Value>, path: &Path) -> Option<&'v Value> {
    path.iter().try_fold(value?, |value, step| value.get(step))
}

fn remove(value: &mut Value, path: &[String]) {
    let Some((step, rest)) = path.split_first() else { return };
    let Some(fields) = value.as_object_mut() else { return };
    if rest.is_empty() {
        fields.shift_remove(step);
    } else if let Some(inner) = fields.get_mut(step) {
        remove(inner, rest);
    }
}

/// The fields of what was applied, but for what names the object.
fn fields_of(applied: &Value) -> BTreeSet<Path> {
    let mut fields = BTreeSet::new();
    leaves(applied, &mut Vec::new(), &mut fields);
    fields.retain(|path| {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        !matches!(
            path[..],
            ["apiVersion" | "kind"]
                | ["status", ..]
                | ["metadata", "name" | "namespace" | "managedFields" | "uid" | "resourceVersion"]
                | ["metadata", "creationTimestamp" | "generation"]
        )
    });
    fields
}

fn leaves(value: &Value, path: &mut Path, out: &mut BTreeSet<Path>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                path.push(name.clone());
                leaves(value, path, out);
                path.pop();
            }
        }
        _ if path.is_empty() => {}
        _ => {
            out.insert(path.clone());
        }
    }
}

/// Who has applied which fields, as `managedFields` says.
fn managed(object: &Value) -> Vec<(String, BTreeSet<Path>)> {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let entries = entries.into_iter().flatten().filter(|entry| entry["operation"] == "Apply");
    entries
        .filter_map(|entry| {
            let mut fields = BTreeSet::new();
            read_tree(&entry["fieldsV1"], &mut Vec::new(), &mut fields);
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
    for (name, inner) in fields {
        let Some(name) = name.strip_prefix("f:") else { continue };
        path.push(name.to_owned());
        read_tree(inner, path, out);
        path.pop();
    }
}

fn tree(fields: &BTreeSet<Path>) -> Value {
    let mut root = Map::new();
    for path in fields {
        let mut at = &mut root;
        for step in path {
            let next = at.entry(format!("f:{step}")).or_insert_with(|| Map::new().into());
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

    fn applied(
        current: Option<&Value>,
        spec: Value,
        manager: &str,
        force: bool,
    ) -> Result<Value, Vec<String>> {
        apply(current, &object(spec), manager, force, "now")
            .map_err(|conflict| conflict.owned.into_iter().map(|(who, what)| who + &what).collect())
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
        // The same value is nobody's loss.
        assert!(applied(Some(&first), json!({ "a": 1 }), "you", false).is_ok());
        let forced = applied(Some(&first), json!({ "a": 2 }), "you", true).unwrap();
        assert_eq!(forced["spec"], json!({ "a": 2, "b": 1 }));
        // It is not mine any more, so leaving it out changes nothing.
        let third = applied(Some(&forced), json!({ "b": 2 }), "me", false).unwrap();
        assert_eq!(third["spec"], json!({ "a": 2, "b": 2 }));
    }
}
