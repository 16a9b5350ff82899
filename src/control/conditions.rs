//! Conditions that are not as they should be, for people.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The answer to `GET /conditions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Conditions {
    /// As of the last load, in the order of the objects; the first thousand.
    pub conditions: Vec<Condition>,
}

/// A condition of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Condition {
    /// `HTTPRoute namespace/name`.
    pub object: String,
    /// `listener https`, `on eg`; empty where it is the object's own.
    pub part: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, part, kind, status, reason, message } = self;
        f.write_str(object)?;
        if !part.is_empty() {
            write!(f, ", {part}")?;
        }
        write!(f, ": {kind} is {status}, {reason}: {message}")
    }
}

/// Conditions that one answer holds.
const MOST: usize = 1000;
/// True of these is what is True of no object that is in order.
const BAD: [&str; 2] = ["Conflicted", "PartiallyInvalid"];
/// Neither True nor False of these is trouble. A client may reuse a connection for another listener's
/// name; such a request is answered 421 and sent again.
const HINTS: [&str; 1] = ["OverlappingTLSConfig"];

impl Conditions {
    /// Those of `object` that are not as they should be, of its `status`.
    pub(crate) fn add(&mut self, object: &str, status: &Value) {
        self.tell(object, "", status);
        for listener in status["listeners"].as_array().into_iter().flatten() {
            let name = listener["name"].as_str().unwrap_or_default();
            self.tell(object, &format!("listener {name}"), listener);
        }
        for (list, reference) in [("parents", "parentRef"), ("ancestors", "ancestorRef")] {
            for parent in status[list].as_array().into_iter().flatten() {
                let to = parent[reference]["name"].as_str().unwrap_or_default();
                self.tell(object, &format!("on {to}"), parent);
            }
        }
    }

    fn tell(&mut self, object: &str, part: &str, holder: &Value) {
        for condition in holder["conditions"].as_array().into_iter().flatten() {
            let word = |field: &str| condition[field].as_str().unwrap_or_default();
            let in_order = (word("status") == "True") != BAD.contains(&word("type"));
            let is_hint = HINTS.contains(&word("type"));
            if in_order || is_hint || self.conditions.len() == MOST {
                continue;
            }
            self.conditions.push(Condition {
                object: object.into(),
                part: part.into(),
                kind: word("type").into(),
                status: word("status").into(),
                reason: word("reason").into(),
                message: word("message").into(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_hint_is_no_trouble() {
        // (type, status, is told)
        let table = [
            ("Accepted", "True", false),
            ("Accepted", "False", true),
            ("Programmed", "Unknown", true),
            ("Conflicted", "True", true),
            ("Conflicted", "False", false),
            ("PartiallyInvalid", "True", true),
            ("OverlappingTLSConfig", "True", false),
            ("OverlappingTLSConfig", "False", false),
        ];
        for (kind, status, told) in table {
            let condition = json!({ "type": kind, "status": status });
            let mut conditions = Conditions::default();
            conditions.add("Gateway a/b", &json!({ "listeners": [{ "conditions": [condition] }] }));
            assert_eq!(conditions.conditions.len(), usize::from(told), "{kind} {status}");
        }
    }
}
