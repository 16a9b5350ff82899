//! The merge of a route's policy with the policy above it (`mergeType`).

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::envoy::{EnvoyPolicySpec, MergeType};
use crate::patch;

/// The fields that a merged policy does not inherit.
const OWN: [&str; 4] = ["targetRef", "targetRefs", "targetSelectors", "mergeType"];

/// Returns the spec of `parent` with the spec of `child` merged into it. Both are as written.
///
/// # Errors
///
/// The reason why the result is not a valid spec of its kind.
pub(super) fn merged<S: EnvoyPolicySpec + DeserializeOwned>(
    parent: &Value,
    child: &Value,
    merge_type: &MergeType,
) -> Result<S, String> {
    let mut spec = parent.clone();
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|field, _| !OWN.contains(&field.as_str()));
    }
    match merge_type {
        MergeType::StrategicMerge => {
            patch::strategic(&mut spec, child.clone(), S::MERGED_LISTS)?;
        }
        MergeType::JsonMerge => patch::merge(&mut spec, child.clone()),
        MergeType::Unknown(word) => return Err(format!("`{word}` is not a merge type")),
    }
    serde_json::from_value(spec).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::api::envoy::SecurityPolicySpec;

    use super::*;

    #[test]
    fn a_child_takes_what_it_does_not_say_from_its_parent() {
        let parent = json!({
            "targetRefs": [{ "kind": "Gateway", "name": "gw" }],
            "cors": { "allowOrigins": ["https://a.test"], "allowMethods": ["GET"], "maxAge": "1m" },
        });
        let target = json!([{ "kind": "HTTPRoute", "name": "web" }]);
        // (spec of the child beside its target, `cors` of the result)
        let table = [
            (json!({}), parent["cors"].clone()),
            (
                // Lists are replaced, other fields merged.
                json!({ "cors": { "allowMethods": ["PUT", "POST"], "allowCredentials": true } }),
                json!({ "allowOrigins": ["https://a.test"], "allowMethods": ["PUT", "POST"],
                        "maxAge": "1m", "allowCredentials": true }),
            ),
            (
                json!({ "cors": { "maxAge": "5m" } }),
                json!({ "allowOrigins": ["https://a.test"], "allowMethods": ["GET"],
                        "maxAge": "5m" }),
            ),
            // A field that is null is deleted (RFC 7396), and by Kubernetes' strategic merge.
            (json!({ "cors": null }), Value::Null),
        ];
        for (mut child, cors) in table {
            child["targetRefs"] = target.clone();
            child["mergeType"] = "StrategicMerge".into();
            let want: SecurityPolicySpec = serde_json::from_value(
                json!({ "targetRefs": target, "mergeType": "StrategicMerge", "cors": cors }),
            )
            .unwrap();
            for merge_type in [MergeType::StrategicMerge, MergeType::JsonMerge] {
                let got = merged::<SecurityPolicySpec>(&parent, &child, &merge_type);
                assert_eq!(got, Ok(want.clone()), "{merge_type} {child}");
            }
        }
    }

    #[test]
    fn a_result_that_is_no_spec_is_refused() {
        let (parent, child) = (json!({ "cors": { "maxAge": "1m" } }), json!({ "cors": "all" }));
        for merge_type in
            [MergeType::StrategicMerge, MergeType::JsonMerge, MergeType::from("Replace".to_owned())]
        {
            let got = merged::<SecurityPolicySpec>(&parent, &child, &merge_type);
            assert!(got.is_err(), "{merge_type} {got:?}");
        }
    }
}
