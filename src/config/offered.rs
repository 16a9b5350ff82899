//! Objects that arrive as JSON and not from a file.
//!
//! They are read by the same rules as objects in files, except that variables are not replaced.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::api::{Kind, Object, TypeMeta};

use super::diagnostic::Position;
use super::fault::Severity;
use super::field_path::FieldPath;
use super::objects::DocumentReader;
use super::tree::{self, Entry, Node};
use super::validate;
use super::variables::Variables;
use super::yaml::{Document, DocumentSpan};

/// The maximum number of rounds that remove unknown fields; each round finds at most 50.
const ROUNDS: usize = 20;

/// The result of checking an object that arrived as JSON.
pub(crate) struct Offered {
    /// `None` if it does not decode.
    pub object: Option<Object>,
    /// The faults of the object; an object with any must be rejected.
    pub faults: Vec<Rejected>,
    /// Fields that the kind does not have; they are removed from [`known`](Self::known).
    pub unknown: Vec<Rejected>,
    /// The object without the unknown fields.
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

/// A field and its problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub field: String,
    pub problem: String,
}

/// Checks an object against the rules of its kind, as if it were in a file.
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
        let mut reading = DocumentReader {
            file: &file,
            text: None,
            environment: &|_| None,
            lenient: true,
            verbatim: true,
            objects: Vec::new(),
            diagnostics: Vec::new(),
        };
        reading.document(&Document {
            root: Some(root),
            faults: Vec::new(),
            span: DocumentSpan::default(),
        });
        let (warnings, errors): (Vec<_>, Vec<_>) = reading
            .diagnostics
            .into_iter()
            .partition(|diagnostic| diagnostic.severity == Severity::Warning);
        // Only the warning about an unknown field has a number; other warnings are reported when
        // the file is read.
        let found: HashSet<usize> = warnings
            .iter()
            .filter_map(|warning| warning.place.position)
            .map(|position| position.line)
            .filter(|line| *line > 0)
            .collect();
        if !found.is_empty() {
            let mut next = 0;
            prune(&mut known, &found, &mut next, &FieldPath::default(), &mut unknown);
            continue;
        }
        let object = reading.objects.pop().map(|(object, _)| object);
        let mut faults: Vec<Rejected> = errors
            .into_iter()
            .filter(|error| error.fatal)
            .map(|error| Rejected { field: error.field, problem: error.problem })
            .collect();
        if let Some(object) = object.as_ref().filter(|_| faults.is_empty()) {
            let broken = validate::object(object).into_iter();
            faults.extend(
                broken.map(|one| Rejected { field: one.field.to_string(), problem: one.problem }),
            );
        }
        return Offered { object, faults, unknown, known };
    }
    let fault = Rejected { field: String::new(), problem: "it has too many unknown fields".into() };
    Offered { object: None, faults: vec![fault], unknown, known }
}

/// Builds the tree of a document. An object without a file has no places, so each field has a
/// number in place of a line, from 1 in the order of the fields, and every value has 0.
#[derive(Default)]
struct Numbers(usize);

impl Numbers {
    /// Returns `None` for a value nested deeper than a file may be.
    fn node(&mut self, value: &Value) -> Option<Arc<Node>> {
        let at = Position { line: 0, column: 0 };
        let plain = |text: String| tree::Value::Scalar { text, plain: true };
        let value = match value {
            Value::Null => plain("null".into()),
            Value::Bool(value) => plain(value.to_string()),
            Value::Number(value) => plain(value.to_string()),
            Value::String(text) => tree::Value::Scalar { text: text.clone(), plain: false },
            Value::Array(items) => {
                let items: Option<_> = items.iter().map(|item| self.node(item)).collect();
                tree::Value::List(items?)
            }
            Value::Object(fields) => {
                let mut entries = Vec::with_capacity(fields.len());
                for (key, value) in fields {
                    self.0 += 1;
                    let key_at = Position { line: self.0, column: 0 };
                    entries.push(Entry { key: key.clone(), key_at, value: self.node(value)? });
                }
                tree::Value::Map(entries)
            }
        };
        Node::new(at, value).map(Arc::new)
    }
}

/// Returns an object in the form in which a file must contain it to be read back unchanged: with
/// the dollar signs doubled in the fields whose variables are replaced (see
/// [`interpolate`](super::scalar::interpolate)).
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

/// Removes the fields whose numbers are in `found`, counted as [`Numbers`] counts.
fn prune(
    value: &mut Value,
    found: &HashSet<usize>,
    next: &mut usize,
    at: &FieldPath,
    out: &mut Vec<Rejected>,
) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                prune(item, found, next, &at.clone().item(index), out);
            }
        }
        Value::Object(fields) => fields.retain(|key, value| {
            *next += 1;
            let is_unknown = found.contains(next);
            let at = at.clone().field(key.clone());
            // The fields of a removed field are counted too.
            let before = out.len();
            prune(value, found, next, &at, out);
            if is_unknown {
                out.truncate(before);
                let (field, problem) = (at.to_string(), format!("unknown field \"{at}\""));
                out.push(Rejected { field, problem });
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
