//! What an API server would say: the schema of a CRD held against an object.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use cel::objects::{Key, Map};
use cel::{Context, Env, ExecutionError, Program, Value};
use regex::Regex;
use serde_json::{Value as Json, json};

use super::yaml;

/// The schemas of one channel, by kind and `apiVersion`.
pub(crate) struct Crds {
    schemas: HashMap<(String, String), Json>,
    env: Arc<Env>,
    rules: HashMap<String, Program>,
    pub patterns: HashMap<String, Regex>,
    messages: BTreeSet<String>,
}

/// Something that an API server refuses.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub field: String,
    pub message: String,
    /// True if the message is that of a CEL rule, false if the words are our own.
    pub is_upstreams: bool,
    /// True if an API server asks no rule of a whole object in which it found this.
    blocks: bool,
}

impl Crds {
    /// Reads every CRD of an API group, and compiles every rule in it.
    pub(crate) fn read(directory: &Path, group: &str) -> Self {
        let mut env = Env::stdlib();
        env.add_extension(cel::extensions::strings).expect("declared once");
        let mut crds = Self {
            schemas: HashMap::new(),
            env: Arc::new(env),
            rules: HashMap::new(),
            patterns: HashMap::new(),
            messages: BTreeSet::new(),
        };
        for file in super::files(directory) {
            for crd in yaml(&file) {
                if crd["kind"] == "CustomResourceDefinition" && crd["spec"]["group"] == group {
                    crds.add(&crd["spec"]);
                }
            }
        }
        crds
    }

    fn add(&mut self, spec: &Json) {
        for version in items(&spec["versions"]).iter().filter(|version| version["served"] == true) {
            let schema = &version["schema"]["openAPIV3Schema"];
            // What is written in `status` is no matter of the writer's.
            self.prepare(&schema["properties"]["spec"]);
            let kind = text(&spec["names"]["kind"]).to_owned();
            let api_version = format!("{}/{}", text(&spec["group"]), text(&version["name"]));
            self.schemas.insert((kind, api_version), schema.clone());
        }
    }

    /// Compiles what a schema holds.
    fn prepare(&mut self, schema: &Json) {
        items(&schema["allOf"]).iter().for_each(|part| self.prepare(part));
        if let Some(pattern) = schema["pattern"].as_str() {
            let regex =
                || Regex::new(pattern).expect("upstream's patterns are regular expressions");
            self.patterns.entry(pattern.into()).or_insert_with(regex);
        }
        for rule in items(&schema["x-kubernetes-validations"]) {
            let (rule, message) = (text(&rule["rule"]), text(&rule["message"]));
            if !rule.contains("oldSelf") {
                self.messages.insert(message.into());
            }
            let compiled = || {
                // A field of this name is escaped, for the word is CEL's own.
                let escaped = rule.replace(".namespace", ".__namespace__");
                self.env.compile(&escaped).unwrap_or_else(|error| panic!("{rule}: {error}"))
            };
            self.rules.entry(rule.into()).or_insert_with(compiled);
        }
        schema.get("items").into_iter().for_each(|items| self.prepare(items));
        schema.get("additionalProperties").into_iter().for_each(|items| self.prepare(items));
        for (_, property) in properties(schema) {
            self.prepare(property);
        }
    }

    /// The message of every rule that one object can break.
    pub(crate) fn messages(&self) -> BTreeSet<String> {
        self.messages.clone()
    }

    pub(crate) fn schema(&self, object: &Json) -> Option<&Json> {
        let [kind, api_version] = ["kind", "apiVersion"].map(|field| text(&object[field]).into());
        self.schemas.get(&(kind, api_version))
    }

    /// By kind the places in its `spec` that server-side apply does not take apart as their like.
    pub(crate) fn shapes(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut all: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for ((kind, _), schema) in &self.schemas {
            shapes(&schema["properties"]["spec"], "spec", all.entry(kind.clone()).or_default());
        }
        all
    }

    /// The defaults of a kind, by field.
    pub(crate) fn defaults(&self, kind: &str) -> BTreeMap<String, Json> {
        let mut all = BTreeMap::new();
        for ((of, _), schema) in &self.schemas {
            if of == kind {
                defaults(&schema["properties"]["spec"], "spec", &mut all);
            }
        }
        all
    }

    /// What is wrong with the `spec` of an object; None if its kind or version is not served.
    pub(crate) fn refusals(&self, object: &Json) -> Option<Vec<Refusal>> {
        let schema = self.schema(object)?;
        let mut found = Vec::new();
        let required = items(&schema["required"]).iter().any(|field| field == "spec");
        match object.get("spec") {
            Some(spec) => {
                let schema = &schema["properties"]["spec"];
                let spec = defaulted(schema, spec.clone());
                self.openapi(schema, &spec, "spec", &mut found);
                // Rules may take for granted that what they read is there and has its type.
                if !found.iter().any(|refusal| refusal.blocks) {
                    self.rules(schema, &spec, "spec", &mut found);
                }
            }
            None if required => found.push(Refusal::blocking("spec", "required".into())),
            None => {}
        }
        Some(found)
    }

    fn openapi(&self, schema: &Json, value: &Json, field: &str, found: &mut Vec<Refusal>) {
        let fits = match (text(&schema["type"]), value) {
            ("object", Json::Object(_))
            | ("array", Json::Array(_))
            | ("string", Json::String(_))
            | ("boolean", Json::Bool(_))
            | ("number", Json::Number(_)) => true,
            ("", Json::Number(number)) if is_either(schema) => number.is_i64() || number.is_u64(),
            ("", value) => !is_either(schema) || value.is_string(),
            ("integer", Json::Number(number)) => number.is_i64() || number.is_u64(),
            _ => false,
        };
        if !fits {
            return found.push(Refusal::blocking(field, format!("{} is needed", schema["type"])));
        }
        let length = match value {
            Json::Array(items) => Some((items.len(), "minItems", "maxItems")),
            Json::Object(fields) => Some((fields.len(), "minProperties", "maxProperties")),
            Json::String(text) => Some((text.chars().count(), "minLength", "maxLength")),
            Json::Null | Json::Bool(_) | Json::Number(_) => None,
        };
        if let Some((length, least, most)) = length {
            let length = length as u64;
            if schema[least].as_u64().is_some_and(|least| length < least) {
                found.push(Refusal::ours(field, format!("{least}, not {length}")));
            }
            if schema[most].as_u64().is_some_and(|most| length > most) {
                found.push(Refusal::blocking(field, format!("{most}, not {length}")));
            }
        }
        if let Some(number) = value.as_i64() {
            let format = (schema["format"] == "int32").then_some(i64::from(i32::MIN));
            let least = schema["minimum"].as_i64().or(format);
            let format = (schema["format"] == "int32").then_some(i64::from(i32::MAX));
            let most = schema["maximum"].as_i64().or(format);
            if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
                let message = format!("{number} is not from {least:?} to {most:?}");
                found.push(Refusal::ours(field, message));
            }
        }
        for part in std::iter::once(schema).chain(items(&schema["allOf"])) {
            if let Some(words) = part["enum"].as_array()
                && !words.contains(value)
            {
                found.push(Refusal::blocking(field, format!("not one of {}", part["enum"])));
            }
            if let (Some(pattern), Some(text)) = (part["pattern"].as_str(), value.as_str())
                && !self.patterns[pattern].is_match(text)
            {
                found.push(Refusal::ours(field, format!("pattern {pattern}")));
            }
        }
        if schema["format"] == "byte" && !value.as_str().is_some_and(is_base64) {
            found.push(Refusal::ours(field, "not base64".into()));
        }
        // The one `oneOf` there is: an IPAddress has an address for its value.
        if schema.get("oneOf").is_some() {
            let is_address = is_ip(text(&value["value"]));
            if value["type"] == "IPAddress" && value.get("value").is_some() && !is_address {
                found.push(Refusal::ours(field, "oneOf".into()));
            }
        }
        if let (Json::Object(fields), Json::Array(required)) = (value, &schema["required"]) {
            for name in required.iter().map(text).filter(|name| !fields.contains_key(*name)) {
                found.push(Refusal::blocking(field, format!("{name} is required")));
            }
        }
        self.openapi_inside(schema, value, field, found);
    }

    fn openapi_inside(&self, schema: &Json, value: &Json, field: &str, found: &mut Vec<Refusal>) {
        match value {
            Json::Array(list) => {
                let mut seen = Vec::new();
                for item in list {
                    let key = match text(&schema["x-kubernetes-list-type"]) {
                        "set" => item.clone(),
                        "map" => items(&schema["x-kubernetes-list-map-keys"])
                            .iter()
                            .map(|key| item.get(text(key)).cloned().unwrap_or_default())
                            .collect(),
                        _ => break,
                    };
                    if seen.contains(&key) {
                        found.push(Refusal::ours(field, format!("{key} stands here twice")));
                    }
                    seen.push(key);
                }
                for (index, item) in list.iter().enumerate() {
                    self.openapi(&schema["items"], item, &format!("{field}[{index}]"), found);
                }
            }
            Json::Object(fields) => {
                for (name, value) in fields {
                    let field = format!("{field}.{name}");
                    match member(schema, name) {
                        Some(schema) => self.openapi(schema, value, &field, found),
                        None if schema["x-kubernetes-preserve-unknown-fields"] == true => {}
                        // kubectl asks for strict validation of fields, unless it is told not to.
                        None => found.push(Refusal::blocking(&field, "unknown field".into())),
                    }
                }
            }
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }

    fn rules(&self, schema: &Json, value: &Json, field: &str, found: &mut Vec<Refusal>) {
        for rule in items(&schema["x-kubernetes-validations"]) {
            let source = text(&rule["rule"]);
            // There is no older object here.
            if source.contains("oldSelf") {
                continue;
            }
            let mut context = Context::with_env(Arc::clone(&self.env));
            context.add_variable_from_value("self", cel_value(value));
            let declared = [
                context.add_function("isIP", |text: Arc<String>| text.parse::<IpAddr>().is_ok()),
                context.add_function("duration", |text: Arc<String>| nanoseconds(&text)),
            ];
            assert!(declared.iter().all(Result::is_ok), "{declared:?}");
            match self.rules[source].execute(&context) {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => found.push(Refusal {
                    field: field.into(),
                    message: text(&rule["message"]).into(),
                    is_upstreams: true,
                    blocks: false,
                }),
                // An API server refuses what it cannot judge.
                other => found.push(Refusal::ours(field, format!("{source}: {other:?}"))),
            }
        }
        match value {
            Json::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.rules(&schema["items"], item, &format!("{field}[{index}]"), found);
                }
            }
            Json::Object(fields) => {
                for (name, value) in fields {
                    if let Some(schema) = member(schema, name) {
                        self.rules(schema, value, &format!("{field}.{name}"), found);
                    }
                }
            }
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }
}

impl Refusal {
    fn ours(field: &str, message: String) -> Self {
        Self { field: field.into(), message, is_upstreams: false, blocks: false }
    }

    fn blocking(field: &str, message: String) -> Self {
        Self { blocks: true, ..Self::ours(field, message) }
    }
}

fn shapes(schema: &Json, place: &str, found: &mut BTreeMap<String, String>) {
    if let word @ ("map" | "set") = text(&schema["x-kubernetes-list-type"]) {
        let keys = items(&schema["x-kubernetes-list-map-keys"]).iter().map(text);
        found.insert(place.into(), [word].into_iter().chain(keys).collect::<Vec<_>>().join(" "));
        shapes(&schema["items"], &format!("{place}[]"), found);
    }
    if schema["x-kubernetes-map-type"] == "atomic" {
        found.insert(place.into(), "atomic".into());
        return;
    }
    for (name, schema) in properties(schema) {
        shapes(schema, &format!("{place}.{name}"), found);
    }
}

fn defaults(schema: &Json, place: &str, found: &mut BTreeMap<String, Json>) {
    if let Some(default) = schema.get("default") {
        found.insert(place.into(), default.clone());
    }
    schema.get("items").into_iter().for_each(|of| defaults(of, &format!("{place}[]"), found));
    if let Some(schema) = schema.get("additionalProperties") {
        defaults(schema, &format!("{place}.{{}}"), found);
    }
    for (name, schema) in properties(schema) {
        defaults(schema, &format!("{place}.{name}"), found);
    }
}

/// The value with the defaults of its schema, as far down as it is written.
fn defaulted(schema: &Json, mut value: Json) -> Json {
    match &mut value {
        Json::Array(list) => {
            for item in list {
                *item = defaulted(&schema["items"], item.take());
            }
        }
        Json::Object(fields) => {
            for (name, property) in properties(schema) {
                if let Some(default) = property.get("default") {
                    fields.entry(name).or_insert_with(|| default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                if let Some(schema) = member(schema, name) {
                    *value = defaulted(schema, value.take());
                }
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
    value
}

/// The schema of a field.
pub(crate) fn member<'s>(schema: &'s Json, name: &str) -> Option<&'s Json> {
    let property = schema.get("properties").and_then(|properties| properties.get(name));
    property.or_else(|| schema.get("additionalProperties"))
}

/// Names and schemas of the fields that have a name.
pub(crate) fn properties(schema: &Json) -> impl Iterator<Item = (&String, &Json)> {
    schema["properties"].as_object().into_iter().flatten()
}

fn items(list: &Json) -> &[Json] {
    list.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whole numbers are `int` in a CRD, and the name of a namespace is escaped.
fn cel_value(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => number
            .as_i64()
            .map_or_else(|| Value::Float(number.as_f64().unwrap_or_default()), Value::Int),
        Json::String(text) => Value::String(Arc::new(text.clone())),
        Json::Array(items) => Value::List(Arc::new(items.iter().map(cel_value).collect())),
        Json::Object(fields) => {
            let escaped = |name: &String| match name.as_str() {
                "namespace" => "__namespace__".to_owned(),
                _ => name.clone(),
            };
            let entry = |(name, value)| (Key::String(Arc::new(escaped(name))), cel_value(value));
            Value::Map(Map { map: Arc::new(fields.iter().map(entry).collect()) })
        }
    }
}

/// True if a number and a text are both right.
fn is_either(schema: &Json) -> bool {
    schema["x-kubernetes-int-or-string"] == true
}

/// The format `byte`, which is not empty.
fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    let is_digit = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    !text.is_empty()
        && text.len().is_multiple_of(4)
        && text.len() - digits.len() <= 2
        && digits.chars().all(is_digit)
}

/// The formats `ipv4` and `ipv6`. Zeros may lead the parts of the first, as they could in old Go.
fn is_ip(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').map(|part| part.trim_start_matches('0')).collect();
    let zeros = parts.iter().map(|part| if part.is_empty() { "0" } else { part });
    let sloppy = zeros.collect::<Vec<_>>().join(".");
    let has_gap = text.split('.').any(str::is_empty);
    text.parse::<IpAddr>().is_ok() || (!has_gap && sloppy.parse::<Ipv4Addr>().is_ok())
}

/// CEL's `duration`, of which the rules ask only which is longer and which is the same.
fn nanoseconds(text: &str) -> Result<i64, ExecutionError> {
    let bad = || ExecutionError::function_error("duration", text);
    let mut rest = text;
    let mut total = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: i64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "h" => 3_600_000_000_000,
                "m" => 60_000_000_000,
                "s" => 1_000_000_000,
                "ms" => 1_000_000,
                _ => return Err(bad()),
            };
        rest = &rest[end..];
    }
    Ok(total)
}

#[test]
fn the_walk_finds_what_a_schema_forbids() {
    let schema = json!({
        "type": "object", "required": ["a"],
        "properties": {
            "a": { "type": "integer", "maximum": 9 },
            "b": { "type": "array", "x-kubernetes-list-type": "map",
                   "x-kubernetes-list-map-keys": ["k"], "maxItems": 2,
                   "items": { "type": "object", "properties": {
                       "k": { "type": "string", "pattern": "^[a-z]+$", "default": "x" } } } },
        },
        "x-kubernetes-validations": [{ "rule": "self.a != 3 || has(self.b)", "message": "no" }],
    });
    let mut crds = Crds {
        schemas: HashMap::new(),
        env: Arc::new(Env::stdlib()),
        rules: HashMap::new(),
        patterns: HashMap::new(),
        messages: BTreeSet::new(),
    };
    crds.prepare(&schema);
    let whole = json!({ "properties": { "spec": schema }, "required": ["spec"] });
    crds.schemas.insert(("K".into(), "v1".into()), whole);

    // (spec, what its one refusal says)
    let table = [
        (json!({ "a": 1 }), None),
        (json!({ "a": 3, "b": [{ "k": "a" }, { "k": "b" }] }), None),
        (json!({ "a": 3 }), Some("no")),
        (json!({ "a": 10 }), Some("10 is not from")),
        (json!({ "a": "1" }), Some("\"integer\" is needed")),
        (json!({}), Some("a is required")),
        (json!({ "a": 1, "c": 1 }), Some("unknown field")),
        (json!({ "a": 1, "b": [{ "k": "A" }] }), Some("pattern")),
        (json!({ "a": 1, "b": [{ "k": "x" }, {}] }), Some("stands here twice")),
        (json!({ "a": 1, "b": [{}, { "k": "b" }, { "k": "c" }] }), Some("maxItems")),
    ];
    for (spec, want) in table {
        let object = json!({ "kind": "K", "apiVersion": "v1", "spec": spec });
        let found = crds.refusals(&object).expect("the kind is there");
        assert_eq!(found.len(), usize::from(want.is_some()), "{spec}: {found:?}");
        for (refusal, want) in found.iter().zip(want) {
            assert!(refusal.message.contains(want), "{spec}: {found:?}");
        }
    }
}
