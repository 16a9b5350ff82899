//! Documents as JSON.

use serde_json::{Map, Number, Value};

use super::decode::Environment;
use super::diagnostic::Position;
use super::scalar::{Word, interpolate, word};
use super::tree::{self, Entry, Node};
use super::variables::Variables;
use super::yaml;

/// Reads `text`, a document of YAML or JSON, in which every `$` is a dollar sign.
///
/// # Errors
///
/// The reason why the text is not one document.
pub(crate) fn read_yaml(text: &str) -> Result<Value, String> {
    let mut documents = yaml::documents(text);
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

/// Returns the content of a document. Null fields are left out, as everywhere in Kubernetes.
pub(super) fn value(node: &Node, environment: Environment<'_>, variables: Variables) -> Value {
    match &node.value {
        tree::Value::Scalar { text, plain } if variables.are_replaced() => {
            let replaced = interpolate(text, environment).ok().flatten();
            scalar(replaced.as_deref().unwrap_or(text), *plain)
        }
        tree::Value::Scalar { text, plain } => scalar(text, *plain),
        tree::Value::List(items) => {
            items.iter().map(|item| value(item, environment, variables)).collect()
        }
        tree::Value::Map(entries) => {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_kept_as_it_says() {
        let text = "kind: X\nport: ${PORT}\ntext: \"443\"\nno: no\nnothing: ~\n\
                    list: [1.5, -1, 0x10, '${A}', '$${A}']\n";
        let documents: Vec<_> = yaml::documents(text).collect();
        let environment = |name: &str| match name {
            "PORT" => Some("8080".into()),
            "A" => Some("a".into()),
            _ => None,
        };
        let root = documents[0].root.as_ref().unwrap();
        let read = value(root, &environment, Variables::Replaced);
        let want = json!({
            "kind": "X",
            "port": 8080,
            "text": "443",
            "no": false,
            "list": [1.5, -1, 16, "a", "${A}"],
        });
        assert_eq!(read.to_string(), want.to_string());
    }
}
