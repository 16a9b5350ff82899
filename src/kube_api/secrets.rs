//! Secrets over the API: their values are hidden, unless the gateway was started with
//! `--api-secrets`.
//!
//! A hidden value reads as a mark. If the mark is written back, the current value stays. So
//! `kubectl edit` and `kubectl apply` of a Secret do no damage, and no value leaves the gateway.

use serde_json::Value;

use crate::config::Rejected;

/// The mark: `redacted`, in base64 as all values are.
pub(super) const MARK: &str = "cmVkYWN0ZWQ=";

/// The annotation in which kubectl keeps the object that it applied, including its values.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Replaces every value with the mark.
pub(super) fn redact(secret: &mut Value) {
    if let Some(data) = secret.get_mut("data").and_then(Value::as_object_mut) {
        for value in data.values_mut() {
            *value = MARK.into();
        }
    }
    let annotations = secret.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    if let Some(Value::String(text)) = annotations.and_then(|all| all.get_mut(LAST_APPLIED)) {
        *text = last_applied(text);
    }
}

/// Returns the object that kubectl applied, without its values; an empty object if it cannot be
/// read.
fn last_applied(text: &str) -> String {
    let Ok(mut applied) = serde_json::from_str::<Value>(text) else { return "{}\n".into() };
    for field in ["data", "stringData"] {
        let values = applied.get_mut(field).and_then(Value::as_object_mut);
        for value in values.into_iter().flat_map(|values| values.values_mut()) {
            *value = MARK.into();
        }
    }
    format!("{applied}\n")
}

/// Replaces marks with the values of `current`.
///
/// # Errors
///
/// A mark has no current value.
pub(super) fn restore(secret: &mut Value, current: Option<&Value>) -> Result<(), Rejected> {
    let Some(data) = secret.get_mut("data").and_then(Value::as_object_mut) else { return Ok(()) };
    for (name, value) in data.iter_mut().filter(|(_, value)| *value == MARK) {
        match current.and_then(|current| current["data"].get(name)) {
            Some(kept) => *value = kept.clone(),
            None => {
                let problem = "this is the mark that stands for a value which is not told; write \
                               the value itself"
                    .into();
                return Err(Rejected { field: format!("data.{name}"), problem });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_value_is_told_anywhere() {
        let mut secret = json!({
            "metadata": { "annotations": {
                LAST_APPLIED: "{\"data\":{\"a\":\"aHVudGVyMg==\"},\"stringData\":{\"b\":\"hunter2\"}}\n",
                "other": "stays",
            } },
            "data": { "a": "aHVudGVyMg==" },
        });
        redact(&mut secret);
        let text = secret.to_string();
        assert!(!text.contains("aHVudGVyMg") && !text.contains("hunter2"), "{text}");
        assert!(text.contains("stays"), "{text}");
        let mut broken = json!({ "metadata": { "annotations": { LAST_APPLIED: "hunter2" } } });
        redact(&mut broken);
        assert!(!broken.to_string().contains("hunter2"));
    }

    #[test]
    fn a_mark_that_comes_back_is_the_value_that_was_there() {
        let current = json!({ "data": { "a": "YQ==", "b": "Yg==" } });
        let mut secret = json!({ "data": { "a": MARK, "b": "Yw==" } });
        restore(&mut secret, Some(&current)).unwrap();
        assert_eq!(secret, json!({ "data": { "a": "YQ==", "b": "Yw==" } }));
        let mut new = json!({ "data": { "c": MARK } });
        assert_eq!(restore(&mut new, Some(&current)).unwrap_err().field, "data.c");
        let mut first = json!({ "data": { "c": MARK } });
        assert!(restore(&mut first, None).is_err());
    }
}
