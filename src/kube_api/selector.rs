//! Label selectors and field selectors, which select objects of a list.

use serde_json::Value;

use super::refused::ApiError;

/// Requirements, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, bool, String)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq)]
enum Operator {
    Exists,
    In(Vec<String>),
    Missing,
    NotIn(Vec<String>),
}

/// The supported fields of field selectors, and their JSON pointers. Not every object has them.
const FIELDS: [(&str, &str); 4] = [
    ("metadata.name", "/metadata/name"),
    ("metadata.namespace", "/metadata/namespace"),
    ("status.phase", "/status/phase"),
    ("type", "/type"),
];

impl Selector {
    /// Parses `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    ///
    /// A selector is malformed, or names an unsupported field.
    pub(super) fn parse(labels: &str, fields: &str) -> Result<Self, ApiError> {
        let labels = parts(labels).map(requirement).collect::<Option<_>>();
        let labels = labels.ok_or_else(|| ApiError::bad_request("unable to parse requirement"))?;
        let fields = fields.split(',').filter(|part| !part.trim().is_empty());
        let fields = fields.map(field).collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    /// Returns true if the selector accepts every object.
    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn accepts(&self, object: &Value) -> bool {
        let label = |key: &str| {
            let labels = object.pointer("/metadata/labels");
            labels.and_then(|labels| labels.get(key)).and_then(Value::as_str)
        };
        self.labels.iter().all(|Requirement { key, operator }| {
            let value = label(key);
            let among =
                |values: &[String]| value.is_some_and(|v| values.iter().any(|one| one == v));
            match operator {
                Operator::Exists => value.is_some(),
                Operator::Missing => value.is_none(),
                Operator::In(values) => among(values),
                Operator::NotIn(values) => !among(values),
            }
        }) && self.fields.iter().all(|(path, equal, value)| {
            let found = object.pointer(path).and_then(Value::as_str).unwrap_or_default();
            (found == value) == *equal
        })
    }
}

/// Returns the parts between commas outside of parentheses.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

fn requirement(part: &str) -> Option<Requirement> {
    let one = |key: &str, operator| {
        is_key(key.trim()).then(|| Requirement { key: key.trim().into(), operator })
    };
    if let Some(key) = part.strip_prefix('!') {
        return one(key, Operator::Missing);
    }
    if let Some(inside) = part.strip_suffix(')') {
        let (before, values) = inside.split_once('(')?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        let (key, word) = before.trim_end().rsplit_once(char::is_whitespace)?;
        return match word {
            "in" => one(key, Operator::In(values)),
            "notin" => one(key, Operator::NotIn(values)),
            _ => None,
        };
    }
    for (sign, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((key, value)) = part.split_once(sign) {
            let values = vec![value.trim().to_owned()];
            return one(key, if equal { Operator::In(values) } else { Operator::NotIn(values) });
        }
    }
    one(part, Operator::Exists)
}

fn is_key(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    !text.is_empty() && text.bytes().all(allowed)
}

fn field(part: &str) -> Result<(String, bool, String), ApiError> {
    let signs = [("!=", false), ("==", true), ("=", true)];
    let split = signs.iter().find_map(|(sign, equal)| Some((part.split_once(sign)?, *equal)));
    let Some(((name, value), equal)) = split else {
        return Err(ApiError::bad_request(format!("invalid field selector `{part}`")));
    };
    let Some((_, path)) = FIELDS.iter().find(|(known, _)| *known == name.trim()) else {
        return Err(ApiError::bad_request(format!("field label not supported: {name}")));
    };
    Ok(((*path).into(), equal, value.trim().into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_selected_by_every_form() {
        let object = json!({ "metadata": { "labels": { "app": "cart", "tier": "web" } } });
        // (selector, accepted)
        let table = [
            ("", true),
            ("app=cart", true),
            ("app==cart,tier=web", true),
            ("app = cart , tier = api", false),
            ("app!=cart", false),
            ("team!=a", true),
            ("app in (cart, shop)", true),
            ("app in (shop),tier=web", false),
            ("app notin (shop,blog)", true),
            ("app", true),
            ("team", false),
            ("!team", true),
            ("!app", false),
        ];
        for (selector, want) in table {
            let parsed = Selector::parse(selector, "").unwrap();
            assert_eq!(parsed.accepts(&object), want, "{selector}");
        }
        for wrong in ["a b", "app in cart", "=x", "app near (a)"] {
            assert_eq!(Selector::parse(wrong, "").unwrap_err().code, 400, "{wrong}");
        }
    }

    #[test]
    fn fields_are_selected_by_name() {
        let object = json!({ "metadata": { "name": "cart", "namespace": "shop" } });
        let table = [
            ("metadata.name=cart", true),
            ("metadata.name=blog", false),
            ("metadata.name!=blog,metadata.namespace==shop", true),
        ];
        for (selector, want) in table {
            let parsed = Selector::parse("", selector).unwrap();
            assert_eq!(parsed.accepts(&object), want, "{selector}");
        }
        assert_eq!(Selector::parse("", "spec.x=1").unwrap_err().code, 400);
    }
}
