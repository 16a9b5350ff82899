//! Patches of JSON: merge patch (RFC 7396), JSON patch (RFC 6902), and the strategic merge patch of
//! Kubernetes.
//!
//! The crate `json-patch` could do the first two, but it removes a field by moving the last one
//! into its place. Objects are written to files that people read, so fields keep their order here.

use serde_json::{Map, Value};

/// The maximum number of operations of one JSON patch.
const OPERATIONS: usize = 1000;

/// The lists that a strategic merge patch merges, by path; every other list is replaced. Each list
/// has the field that identifies its items. Without such a field, its values are a set.
pub(crate) type MergedLists = [(&'static str, Option<&'static str>)];

/// Applies a merge patch (RFC 7396).
pub(crate) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Map::new().into();
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.shift_remove(&name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// Applies a strategic merge patch that merges `lists`.
///
/// # Errors
///
/// A directive is unknown, or an item of a merged list lacks its key.
pub(crate) fn strategic(
    target: &mut Value,
    patch: Value,
    lists: &MergedLists,
) -> Result<(), String> {
    strategic_at("", target, patch, lists)
}

fn strategic_at(
    path: &str,
    target: &mut Value,
    patch: Value,
    lists: &MergedLists,
) -> Result<(), String> {
    let Value::Object(mut patch) = patch else {
        *target = patch;
        return Ok(());
    };
    match patch.shift_remove("$patch").as_ref().map(|word| word.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("replace") => {
            *target = patch.into();
            return Ok(());
        }
        Some("delete") => {
            *target = Map::new().into();
            return Ok(());
        }
        Some(other) => return Err(format!("unknown patch type: {other}")),
    }
    if !target.is_object() {
        *target = Map::new().into();
    }
    let Some(fields) = target.as_object_mut() else { return Ok(()) };
    if let Some(Value::Array(kept)) = patch.shift_remove("$retainKeys") {
        fields.retain(|name, _| kept.iter().any(|one| one == name.as_str()));
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(items)), Value::Array(gone)) = (fields.get_mut(list), &value)
            {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        // The order of the lists that are merged here has no meaning.
        if name.starts_with("$setElementOrder/") {
            continue;
        }
        if name.starts_with('$') {
            return Err(format!("unknown directive: {name}"));
        }
        if value.is_null() {
            fields.shift_remove(&name);
            continue;
        }
        let at = format!("{path}/{name}");
        let target = fields.entry(name).or_insert(Value::Null);
        match (lists.iter().find(|(list, _)| *list == at), value) {
            (Some((_, key)), Value::Array(items)) => merge_list(&at, *key, target, items, lists)?,
            (_, value) => strategic_at(&at, target, value, lists)?,
        }
    }
    Ok(())
}

fn merge_list(
    path: &str,
    key: Option<&str>,
    target: &mut Value,
    patch: Vec<Value>,
    lists: &MergedLists,
) -> Result<(), String> {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Some(items) = target.as_array_mut() else { return Ok(()) };
    let Some(key) = key else {
        for value in patch {
            if !items.contains(&value) {
                items.push(value);
            }
        }
        return Ok(());
    };
    for value in patch {
        let directive = value.get("$patch").and_then(Value::as_str);
        if directive == Some("replace") && value.get(key).is_none() {
            items.clear();
            continue;
        }
        let Some(name) = value.get(key) else {
            return Err(format!("{path}: an item has no `{key}`, which tells it from the others"));
        };
        let found = items.iter().position(|item| item.get(key) == Some(name));
        match (directive, found) {
            (Some("delete"), Some(at)) => {
                items.remove(at);
            }
            (Some("delete"), None) => {}
            (_, Some(at)) => strategic_at(path, &mut items[at], value, lists)?,
            (_, None) => {
                let mut item = Value::Null;
                strategic_at(path, &mut item, value, lists)?;
                items.push(item);
            }
        }
    }
    Ok(())
}

/// Applies a JSON patch (RFC 6902).
///
/// # Errors
///
/// The patch is invalid, or the first operation that cannot be done.
pub(crate) fn json_patch(target: &mut Value, patch: Value) -> Result<(), String> {
    let Value::Array(operations) = patch else { return Err("a JSON patch is a list".into()) };
    if operations.len() > OPERATIONS {
        return Err(format!("a JSON patch has at most {OPERATIONS} operations"));
    }
    for (number, operation) in operations.into_iter().enumerate() {
        let done = one_operation(target, operation);
        done.map_err(|problem| format!("operation {number}: {problem}"))?;
    }
    Ok(())
}

fn one_operation(target: &mut Value, mut operation: Value) -> Result<(), String> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str).map(str::to_owned);
    let (op, path) = (text("op").ok_or("no `op`")?, text("path").ok_or("no `path`")?);
    let from = text("from").ok_or("no `from`");
    let has_value = operation.get("value").is_some();
    let value = operation.get_mut("value").map(Value::take);
    let value = value.filter(|_| has_value).ok_or("no `value`");
    match &*op {
        "add" => add(target, &path, value?),
        "remove" => remove(target, &path).map(|_| ()),
        "replace" => {
            let place = target.pointer_mut(&path).ok_or_else(|| nothing_at(&path))?;
            *place = value?;
            Ok(())
        }
        "move" => {
            let moved = remove(target, &from?)?;
            add(target, &path, moved)
        }
        "copy" => {
            let from = from?;
            let copied = target.pointer(&from).cloned().ok_or_else(|| nothing_at(&from))?;
            add(target, &path, copied)
        }
        "test" if target.pointer(&path) == Some(&value?) => Ok(()),
        "test" => Err(format!("testing value {path} failed")),
        other => Err(format!("`{other}` is no operation")),
    }
}

fn nothing_at(path: &str) -> String {
    format!("there is nothing at {path}")
}

/// Returns the parent of the value at `path`, and the last step of the path.
fn place<'t>(target: &'t mut Value, path: &str) -> Result<(&'t mut Value, String), String> {
    let (parent, last) = path.rsplit_once('/').ok_or("the whole cannot be meant")?;
    let parent = target.pointer_mut(parent).ok_or_else(|| nothing_at(parent))?;
    Ok((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let (parent, last) = place(target, path)?;
    match parent {
        Value::Object(fields) => {
            fields.insert(last, value);
            Ok(())
        }
        Value::Array(items) if last == "-" => {
            items.push(value);
            Ok(())
        }
        Value::Array(items) => match last.parse::<usize>() {
            Ok(at) if at <= items.len() => {
                items.insert(at, value);
                Ok(())
            }
            _ => Err(nothing_at(path)),
        },
        _ => Err(nothing_at(path)),
    }
}

fn remove(target: &mut Value, path: &str) -> Result<Value, String> {
    let (parent, last) = place(target, path)?;
    let removed = match parent {
        Value::Object(fields) => fields.shift_remove(&last),
        Value::Array(items) => {
            let at = last.parse::<usize>().ok().filter(|at| *at < items.len());
            at.map(|at| items.remove(at))
        }
        _ => None,
    };
    removed.ok_or_else(|| nothing_at(path))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LISTS: [(&str, Option<&str>); 1] = [("/spec/ports", Some("port"))];

    #[test]
    fn a_merge_patch_does_what_rfc_7396_shows() {
        // Appendix A.
        let table = [
            (json!({ "a": "b" }), json!({ "a": "c" }), json!({ "a": "c" })),
            (json!({ "a": "b" }), json!({ "b": "c" }), json!({ "a": "b", "b": "c" })),
            (json!({ "a": "b" }), json!({ "a": null }), json!({})),
            (json!({ "a": ["b"] }), json!({ "a": "c" }), json!({ "a": "c" })),
            (json!({ "a": "c" }), json!({ "a": ["b"] }), json!({ "a": ["b"] })),
            (
                json!({ "a": { "b": "c" } }),
                json!({ "a": { "b": "d", "c": null } }),
                json!({ "a": { "b": "d" } }),
            ),
            (json!({ "a": [{ "b": "c" }] }), json!({ "a": [1] }), json!({ "a": [1] })),
            (json!(["a"]), json!(["c"]), json!(["c"])),
            (json!({ "e": null }), json!({ "a": 1 }), json!({ "e": null, "a": 1 })),
            (json!([1, 2]), json!({ "a": "b", "c": null }), json!({ "a": "b" })),
            (json!({}), json!({ "a": { "bb": { "c": null } } }), json!({ "a": { "bb": {} } })),
        ];
        for (mut target, patch, want) in table {
            let told = patch.to_string();
            merge(&mut target, patch);
            assert_eq!(target, want, "{told}");
        }
    }

    #[test]
    fn fields_keep_their_order_when_one_is_removed() {
        let object = json!({ "a": 1, "b": 2, "c": 3, "d": 4 });
        let mut merged = object.clone();
        merge(&mut merged, json!({ "b": null }));
        let mut patched = object;
        json_patch(&mut patched, json!([{ "op": "remove", "path": "/b" }])).unwrap();
        for left in [merged, patched] {
            assert_eq!(left.to_string(), r#"{"a":1,"c":3,"d":4}"#);
        }
    }

    #[test]
    fn a_strategic_patch_merges_ports_by_their_number() {
        let ports = json!([{ "port": 80, "name": "a" }, { "port": 81, "name": "b" }]);
        // (patch of spec, ports)
        let table = [
            (
                json!({ "ports": [{ "port": 81, "targetPort": 1 }, { "port": 82 }],
                        "$setElementOrder/ports": [{ "port": 81 }] }),
                json!([
                    { "port": 80, "name": "a" },
                    { "port": 81, "name": "b", "targetPort": 1 },
                    { "port": 82 },
                ]),
            ),
            (
                json!({ "ports": [{ "$patch": "delete", "port": 80 }] }),
                json!([{ "port": 81, "name": "b" }]),
            ),
            (json!({ "ports": [{ "$patch": "replace" }, { "port": 9 }] }), json!([{ "port": 9 }])),
        ];
        for (patch, want) in table {
            let mut service = json!({ "spec": { "ports": ports } });
            strategic(&mut service, json!({ "spec": patch }), &LISTS).unwrap();
            assert_eq!(service["spec"]["ports"], want, "{patch}");
        }
        let mut map = json!({ "data": { "a": "1", "b": "2" }, "list": [1, 2] });
        let patch = json!({ "data": { "a": null, "c": "3" }, "list": [3] });
        strategic(&mut map, patch, &LISTS).unwrap();
        assert_eq!(map, json!({ "data": { "b": "2", "c": "3" }, "list": [3] }));
        assert!(strategic(&mut map, json!({ "$patch": "x" }), &LISTS).is_err());
        let nameless = json!({ "spec": { "ports": [{ "name": "a" }] } });
        assert!(strategic(&mut map, nameless, &LISTS).is_err());
    }

    #[test]
    fn a_json_patch_does_its_operations_in_turn() {
        let target = json!({ "a": { "b": [1, 2] }, "c/d": 1 });
        let op = |op: &str, path: &str, more: Value| {
            let mut operation = json!({ "op": op, "path": path });
            merge(&mut operation, more);
            operation
        };
        // (operation, result)
        let table = [
            (
                op("add", "/a/b/1", json!({ "value": 9 })),
                json!({ "a": { "b": [1, 9, 2] }, "c/d": 1 }),
            ),
            (
                op("add", "/a/b/-", json!({ "value": 9 })),
                json!({ "a": { "b": [1, 2, 9] }, "c/d": 1 }),
            ),
            (op("remove", "/c~1d", json!({})), json!({ "a": { "b": [1, 2] } })),
            (op("replace", "/a/b", json!({ "value": 3 })), json!({ "a": { "b": 3 }, "c/d": 1 })),
            (
                op("move", "/e", json!({ "from": "/a/b" })),
                json!({ "a": {}, "c/d": 1, "e": [1, 2] }),
            ),
            (
                op("copy", "/e", json!({ "from": "/a/b/0" })),
                json!({ "a": { "b": [1, 2] }, "c/d": 1, "e": 1 }),
            ),
            (op("test", "/c~1d", json!({ "value": 1 })), target.clone()),
        ];
        for (operation, want) in table {
            let mut target = target.clone();
            json_patch(&mut target, json!([operation])).unwrap();
            assert_eq!(target, want, "{operation}");
        }
        for wrong in [
            op("test", "/a", json!({ "value": 1 })),
            op("remove", "/x", json!({})),
            op("add", "/a/b/7", json!({ "value": 1 })),
            op("replace", "/x/y", json!({ "value": 1 })),
            op("what", "/a", json!({})),
            json!({}),
        ] {
            assert!(json_patch(&mut target.clone(), json!([wrong])).is_err(), "{wrong}");
        }
    }
}
