//! Objects as JSON: what a document says, and what somebody offers in place of a document.
//!
//! A document of a file is kept as JSON beside the object that was decoded of it, for whoever shows
//! it: whatever kind it is, with every field in its place. An object that comes as JSON is read by
//! the same rules as one in a file, except that no variable is replaced in it.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Number, Value};

use crate::api::{Kind, Object, TypeMeta};

use super::decode::Environment;
use super::diagnostic::{Position, Severity};
use super::objects::Reading;
use super::scalar::{Word, interpolate, word};
use super::variables::Variables;
use super::yaml::{self, Document, Entry, Node};
use super::{path, validate};

/// Rounds in which fields that are not known are taken out: each finds at most 50.
const ROUNDS: usize = 20;

/// A document as the text of a JSON value, its variables replaced, its fields in order: as text,
/// since a tree of values takes ten times the memory. Prints as `[written]`: it may be a Secret.
#[derive(Clone, PartialEq)]
pub(crate) struct Written(pub Box<str>);

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[written]")
    }
}

/// What an object that was offered as JSON is by the rules of its kind.
pub(crate) struct Offered {
    /// None where it does not decode.
    pub object: Option<Object>,
    /// What is wrong with it; it must not be taken then.
    pub faults: Vec<Rejected>,
    /// Fields that its kind does not have; taken out of [`known`](Self::known).
    pub unknown: Vec<Rejected>,
    /// The object without those.
    pub known: Value,
}

impl fmt::Debug for Offered {
    // The object may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered")
            .field("faults", &self.faults)
            .field("unknown", &self.unknown)
            .finish_non_exhaustive()
    }
}

/// A field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub field: String,
    pub problem: String,
}

/// Holds an object against the rules of its kind, as if it stood in a file.
pub(crate) fn offered(value: Value) -> Offered {
    let mut known = value;
    let mut unknown = Vec::new();
    for _ in 0..ROUNDS {
        let mut numbers = Numbers::default();
        let Some(root) = numbers.node(&known) else {
            let fault = Rejected { field: String::new(), problem: "it is nested too deep".into() };
            return Offered { object: None, faults: vec![fault], unknown, known };
        };
        let file: Arc<Path> = Path::new("").into();
        let mut reading = Reading {
            file: &file,
            environment: &|_| None,
            lenient: true,
            verbatim: true,
            objects: Vec::new(),
            diagnostics: Vec::new(),
        };
        reading.document(0, &Document { root: Some(root), faults: Vec::new() });
        let (warnings, errors): (Vec<_>, Vec<_>) = reading
            .diagnostics
            .into_iter()
            .partition(|diagnostic| diagnostic.severity == Severity::Warning);
        // Only a field has a number; what else is warned of is said when a file is read.
        let found: HashSet<usize> = warnings
            .iter()
            .filter_map(|warning| warning.place.position)
            .map(|position| position.line)
            .filter(|line| *line > 0)
            .collect();
        if !found.is_empty() {
            let mut next = 0;
            prune(&mut known, &found, &mut next, "", &mut unknown);
            continue;
        }
        let object = reading.objects.pop().map(|located| located.object);
        let mut faults: Vec<Rejected> = errors
            .into_iter()
            .filter(|error| error.fatal)
            .map(|error| Rejected { field: error.field, problem: error.problem })
            .collect();
        if let Some(object) = object.as_ref().filter(|_| faults.is_empty()) {
            let violations = validate::object(object).into_iter();
            faults
                .extend(violations.map(|one| Rejected { field: one.field, problem: one.problem }));
        }
        return Offered { object, faults, unknown, known };
    }
    let fault = Rejected { field: String::new(), problem: "it has too many unknown fields".into() };
    Offered { object: None, faults: vec![fault], unknown, known }
}

/// What `text` says, a document of YAML or of JSON, where every `$` is a dollar sign.
///
/// # Errors
///
/// Why it is no single document.
pub(crate) fn read_yaml(text: &str) -> Result<Value, String> {
    let mut documents = yaml::documents(text).into_iter();
    let (Some(document), None) = (documents.next(), documents.next()) else {
        return Err("expected one document".into());
    };
    if let Some(fault) = document.faults.first() {
        let Position { line, column } = fault.at;
        return Err(format!("line {line}, column {column}: {}", fault.problem));
    }
    let root = document.root.ok_or("expected one document")?;
    Ok(value(&root, &|_| None, Variables::Kept))
}

/// What a document says. Fields that are null are not there, as everywhere in Kubernetes.
pub(super) fn written(root: &Node, environment: Environment<'_>, variables: Variables) -> Written {
    Written(value(root, environment, variables).to_string().into())
}

fn value(node: &Node, environment: Environment<'_>, variables: Variables) -> Value {
    match &node.value {
        yaml::Value::Scalar { text, plain } if variables.are_replaced() => {
            let replaced = interpolate(text, environment).ok().flatten();
            scalar(replaced.as_deref().unwrap_or(text), *plain)
        }
        yaml::Value::Scalar { text, plain } => scalar(text, *plain),
        yaml::Value::List(items) => {
            items.iter().map(|item| value(item, environment, variables)).collect()
        }
        yaml::Value::Map(entries) => {
            let entries = entries.iter().filter(|entry| !entry.value.is_null());
            let value =
                |entry: &Entry| value(&entry.value, environment, variables.field(&entry.key));
            let fields = entries.map(|entry| (entry.key.clone(), value(entry)));
            fields.collect::<Map<_, _>>().into()
        }
    }
}

fn scalar(text: &str, plain: bool) -> Value {
    if !plain {
        return text.into();
    }
    let number = |number: Option<Number>| number.map_or_else(|| text.into(), Value::Number);
    match word(text) {
        Word::Null => Value::Null,
        Word::Bool(value) => value.into(),
        Word::Int(value) => number(match i64::try_from(value) {
            Ok(value) => Some(value.into()),
            Err(_) => u64::try_from(value).ok().map(Into::into),
        }),
        Word::Float => number(text.parse().ok().and_then(Number::from_f64)),
        Word::Text => text.into(),
    }
}

/// Makes the tree of a document. What stands in no file has no places, so each field has a number in
/// place of a line, from 1 in the order of the fields, and every value has 0.
#[derive(Default)]
struct Numbers(usize);

impl Numbers {
    /// None for what is nested deeper than a file may be.
    fn node(&mut self, value: &Value) -> Option<Arc<Node>> {
        let at = Position { line: 0, column: 0 };
        let plain = |text: String| yaml::Value::Scalar { text, plain: true };
        let value = match value {
            Value::Null => plain("null".into()),
            Value::Bool(value) => plain(value.to_string()),
            Value::Number(value) => plain(value.to_string()),
            Value::String(text) => yaml::Value::Scalar { text: text.clone(), plain: false },
            Value::Array(items) => {
                let items: Option<_> = items.iter().map(|item| self.node(item)).collect();
                yaml::Value::List(items?)
            }
            Value::Object(fields) => {
                let mut entries = Vec::with_capacity(fields.len());
                for (key, value) in fields {
                    self.0 += 1;
                    let key_at = Position { line: self.0, column: 0 };
                    entries.push(Entry { key: key.clone(), key_at, value: self.node(value)? });
                }
                yaml::Value::Map(entries)
            }
        };
        Node::new(at, value).map(Arc::new)
    }
}

/// An object as it must be written into a file to be read back as it is: with the dollar signs
/// doubled in the fields whose variables are replaced (see [`interpolate`]).
pub(crate) fn for_file(mut object: Value) -> Value {
    let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
    let types = TypeMeta { api_version: text("apiVersion"), kind: text("kind") };
    let variables = Kind::find(types.group(), &types.kind)
        .map_or(Variables::Replaced, |info| Variables::of(info.kind));
    double_dollars(&mut object, variables);
    object
}

fn double_dollars(value: &mut Value, variables: Variables) {
    match value {
        Value::String(text)
            if variables.are_replaced() && (text.contains("$$") || text.contains("${")) =>
        {
            *text = text.replace('$', "$$");
        }
        Value::Array(items) => items.iter_mut().for_each(|item| double_dollars(item, variables)),
        Value::Object(fields) => {
            fields
                .iter_mut()
                .for_each(|(name, value)| double_dollars(value, variables.field(name)));
        }
        _ => {}
    }
}

/// Takes out the fields whose numbers were found, counted as [`Numbers`] counts.
fn prune(
    value: &mut Value,
    found: &HashSet<usize>,
    next: &mut usize,
    at: &str,
    out: &mut Vec<Rejected>,
) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                prune(item, found, next, &format!("{at}[{index}]"), out);
            }
        }
        Value::Object(fields) => fields.retain(|key, value| {
            *next += 1;
            let is_unknown = found.contains(next);
            let at = path::join(at, key);
            // What stands in it is counted all the same.
            let before = out.len();
            prune(value, found, next, &at, out);
            if is_unknown {
                out.truncate(before);
                out.push(Rejected { problem: format!("unknown field \"{at}\""), field: at });
            }
            !is_unknown
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn route(spec: Value) -> Value {
        let mut route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": { "name": "cart", "labels": { "a": "1" } },
        });
        route["spec"] = spec;
        route
    }

    #[test]
    fn a_document_is_kept_as_it_says() {
        let text = "kind: X\nport: ${PORT}\ntext: \"443\"\nno: no\nnothing: ~\n\
                    list: [1.5, -1, 0x10, '${A}', '$${A}']\n";
        let documents = yaml::documents(text);
        let environment = |name: &str| match name {
            "PORT" => Some("8080".into()),
            "A" => Some("a".into()),
            _ => None,
        };
        let Written(text) =
            written(documents[0].root.as_ref().unwrap(), &environment, Variables::Replaced);
        let want = json!({
            "kind": "X",
            "port": 8080,
            "text": "443",
            "no": false,
            "list": [1.5, -1, 16, "a", "${A}"],
        });
        assert_eq!(*text, want.to_string());
    }

    #[test]
    fn what_a_kind_does_not_have_is_taken_out_and_told() {
        let value = route(json!({
            "rules": [
                { "naem": { "x": 1 }, "matches": [{ "path": { "value": "/", "typo": 2 } }] },
                { "backendRefs": [{ "name": "a", "port": 80, "prot": 1 }] },
            ],
        }));
        let offered = offered(value);
        assert_eq!(offered.faults, []);
        let unknown: Vec<_> = offered.unknown.iter().map(|one| &*one.field).collect();
        let want = [
            "spec.rules[0].naem",
            "spec.rules[0].matches[0].path.typo",
            "spec.rules[1].backendRefs[0].prot",
        ];
        assert_eq!(unknown, want);
        let want = route(json!({
            "rules": [
                { "matches": [{ "path": { "value": "/" } }] },
                { "backendRefs": [{ "name": "a", "port": 80 }] },
            ],
        }));
        assert_eq!(offered.known, want);
    }

    #[test]
    fn what_breaks_a_rule_is_a_fault() {
        // (spec, field)
        let table = [
            (
                json!({ "rules": [{ "matches": [{ "path": { "value": 7 } }] }] }),
                "spec.rules[0].matches[0].path.value",
            ),
            (json!({ "parentRefs": "x" }), "spec.parentRefs"),
            (json!({ "hostnames": ["A.example.com"] }), "spec.hostnames[0]"),
        ];
        for (spec, field) in table {
            let offered = offered(route(spec));
            assert_eq!(offered.faults.len(), 1, "{:?}", offered.faults);
            assert_eq!(offered.faults[0].field, field);
        }
        let mut value = route(json!({}));
        value["metadata"]["name"] = "Cart".into();
        assert_eq!(offered(value).faults[0].field, "metadata.name");
    }

    #[test]
    fn a_dollar_sign_is_one() {
        let value = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": "text" },
            "data": { "a": "${HOME} $$ $x", "b": "^/a$" },
        });
        let offered = offered(value.clone());
        assert_eq!(offered.faults, []);
        let Some(Object::ConfigMap(map)) = offered.object else { panic!("a ConfigMap") };
        assert_eq!(map.data["a"], "${HOME} $$ $x");
        assert_eq!(map.data["b"], "^/a$");
        assert_eq!(offered.known, value);
    }

    #[test]
    fn what_is_nested_without_end_is_refused() {
        let mut value = json!(1);
        for _ in 0..100 {
            value = json!([value]);
        }
        assert_eq!(offered(route(json!({ "rules": value }))).faults.len(), 1);
    }
}
