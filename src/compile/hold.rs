//! Requests that wait while a backend restarts, from annotations of a Backend or Service.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api;
use crate::api::ObjectKey;
use crate::config::{Fault, field_path};
use crate::upstream::HoldSettings;

/// The annotation with the maximum time that a request waits.
const FOR: &str = "edge-gateway.io/hold-requests-for";

/// The annotation with the maximum number of requests that wait.
const LIMIT: &str = "edge-gateway.io/hold-requests-limit";

/// The default of [`LIMIT`].
const DEFAULT_LIMIT: usize = 1000;

/// The greatest values of the annotations.
const LONGEST: Duration = Duration::from_secs(300);
const MOST: usize = 100_000;

/// Returns the setting of an object; `None` if its requests do not wait. A value that cannot be used
/// is a fault, and requests do not wait.
pub(super) fn hold(
    object: &ObjectKey,
    annotations: &BTreeMap<String, String>,
    faults: &mut Vec<Fault>,
) -> Option<HoldSettings> {
    let mut fault = |annotation: &'static str, problem: String| {
        let field = field_path!(metadata.annotations).field(annotation);
        let fault = Fault::error(object.clone(), field, problem);
        // An object has several clusters if policies differ.
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    };
    let limit = annotations.get(LIMIT);
    let Some(written) = annotations.get(FOR) else {
        if limit.is_some() {
            fault(LIMIT, format!("no request waits without `{FOR}`; write it, too"));
        }
        return None;
    };
    let patience = written.parse().map(api::Duration::get).ok();
    let patience = patience.filter(|time| !time.is_zero() && *time <= LONGEST);
    if patience.is_none() {
        let problem = "expected a duration of at most 5m, like `10s`";
        fault(FOR, format!("{problem}, found `{written}`"));
    }
    let most = match limit {
        None => Some(DEFAULT_LIMIT),
        Some(written) => {
            let most = written.parse().ok().filter(|most| (1..=MOST).contains(most));
            if most.is_none() {
                let problem = "expected a number from 1 to 100000";
                fault(LIMIT, format!("{problem}, found `{written}`"));
            }
            most
        }
    };
    Some(HoldSettings { patience: patience?, most: most? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Kind;

    #[test]
    fn a_value_that_cannot_be_used_is_a_fault_and_nothing_waits() {
        let seconds = |seconds, most| HoldSettings { patience: Duration::from_secs(seconds), most };
        // (hold-requests-for, hold-requests-limit, setting, faults)
        let table = [
            (None, None, None, 0),
            (Some("10s"), None, Some(seconds(10, 1000)), 0),
            (Some("5m"), Some("100000"), Some(seconds(300, 100_000)), 0),
            (Some("5m1ms"), None, None, 1),
            (Some("0s"), None, None, 1),
            (Some("10"), None, None, 1),
            (Some("10s"), Some("0"), None, 1),
            (Some("10s"), Some("100001"), None, 1),
            (Some("soon"), Some("many"), None, 2),
            (None, Some("9"), None, 1),
        ];
        let object = ObjectKey::new(Kind::Backend, "default", "shop");
        for (time, limit, want, count) in table {
            let entries = [(FOR, time), (LIMIT, limit)];
            let entries = entries.into_iter().filter_map(|(name, value)| Some((name, value?)));
            let annotations = entries.map(|(name, value)| (name.into(), value.into())).collect();
            let mut faults = Vec::new();
            for _ in 0..2 {
                assert_eq!(hold(&object, &annotations, &mut faults), want, "{time:?} {limit:?}");
            }
            assert_eq!(faults.len(), count, "{time:?} {limit:?} {faults:?}");
        }
    }
}
