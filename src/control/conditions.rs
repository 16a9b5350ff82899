//! Conditions that report a problem: the answer to `GET /conditions`.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::graph::{ObjectStatus, StatusPart};

/// The answer to `GET /conditions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct BadConditions {
    /// The conditions after the last load, in the order of the objects; at most 1000.
    pub conditions: Vec<BadCondition>,
}

/// A condition of an object that reports a problem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct BadCondition {
    /// `HTTPRoute namespace/name`.
    pub object: String,
    /// `listener https`, `on eg`; empty for a condition of the object itself.
    pub part: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
}

impl fmt::Display for BadCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, part, kind, status, reason, message } = self;
        f.write_str(object)?;
        if !part.is_empty() {
            write!(f, ", {part}")?;
        }
        write!(f, ": {kind} is {status}, {reason}: {message}")
    }
}

/// The maximum number of conditions in one answer.
const MOST: usize = 1000;
/// Condition types for which True is the problem.
const BAD: [&str; 3] = ["Conflicted", "PartiallyInvalid", "Warning"];
/// Condition types that never report a problem. A client may reuse a connection for another
/// listener's name; such a request is answered with 421 and sent again.
const HINTS: [&str; 1] = ["OverlappingTLSConfig"];

impl BadConditions {
    /// Adds the conditions of an object that report a problem.
    pub(crate) fn add(&mut self, status: &ObjectStatus) {
        let object = status.key().to_string();
        for (part, conditions) in status.parts() {
            for condition in conditions {
                let status = condition.status.to_string();
                if !is_trouble(condition.kind, &status) || self.conditions.len() == MOST {
                    continue;
                }
                self.conditions.push(BadCondition {
                    object: object.clone(),
                    part: name_of(part),
                    kind: condition.kind.into(),
                    status,
                    reason: condition.reason.into(),
                    message: condition.message.clone(),
                });
            }
        }
    }

    /// Reads the conditions from the `status` of an object, as a client gets it from an API server.
    pub(crate) fn of_json(object: &str, status: &Value) -> Self {
        let mut conditions = Self::default();
        conditions.add_json(object, "", status);
        for listener in status["listeners"].as_array().into_iter().flatten() {
            let name = listener["name"].as_str().unwrap_or_default();
            conditions.add_json(object, &format!("listener {name}"), listener);
        }
        for (list, reference) in [("parents", "parentRef"), ("ancestors", "ancestorRef")] {
            for parent in status[list].as_array().into_iter().flatten() {
                let to = parent[reference]["name"].as_str().unwrap_or_default();
                conditions.add_json(object, &format!("on {to}"), parent);
            }
        }
        conditions
    }

    fn add_json(&mut self, object: &str, part: &str, holder: &Value) {
        for condition in holder["conditions"].as_array().into_iter().flatten() {
            let word = |field: &str| condition[field].as_str().unwrap_or_default();
            if !is_trouble(word("type"), word("status")) || self.conditions.len() == MOST {
                continue;
            }
            self.conditions.push(BadCondition {
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

/// True if a condition of this type and status reports a problem.
fn is_trouble(kind: &str, status: &str) -> bool {
    (status == "True") == BAD.contains(&kind) && !HINTS.contains(&kind)
}

/// `listener https`, `on eg`; empty for the object itself.
fn name_of(part: StatusPart<'_>) -> String {
    match part {
        StatusPart::Whole => String::new(),
        StatusPart::Ancestor(of) => format!("on {}", of.ancestor.name),
        StatusPart::Listener(name) => format!("listener {name}"),
        StatusPart::Parent(reference) => format!("on {}", reference.name),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_hint_is_no_trouble() {
        // (type, status, is reported)
        let table = [
            ("Accepted", "True", false),
            ("Accepted", "False", true),
            ("Programmed", "Unknown", true),
            ("Conflicted", "True", true),
            ("Conflicted", "False", false),
            ("PartiallyInvalid", "True", true),
            ("Warning", "True", true),
            ("Warning", "False", false),
            ("Overridden", "True", false),
            ("OverlappingTLSConfig", "True", false),
            ("OverlappingTLSConfig", "False", false),
        ];
        for (kind, status, told) in table {
            let condition = json!({ "type": kind, "status": status });
            let status = json!({ "listeners": [{ "conditions": [condition] }] });
            let conditions = BadConditions::of_json("Gateway a/b", &status);
            assert_eq!(conditions.conditions.len(), usize::from(told), "{kind} {status}");
        }
    }
}
