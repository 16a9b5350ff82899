//! The rules of ReferenceGrant.

use crate::api::ReferenceGrantSpec;
use crate::config::path::Path;

use super::violations::{Reference, Violations};

pub(super) fn spec(spec: &ReferenceGrantSpec, at: Path<'_>, found: &mut Violations) {
    let from = at.field("from");
    found.count(from, spec.from.len(), 1..=16);
    for (index, entry) in spec.from.iter().enumerate() {
        // `from` has no name; any valid name passes the check.
        let to = Reference {
            group: Some(&entry.group),
            kind: Some(&entry.kind),
            name: "any",
            namespace: Some(&entry.namespace),
        };
        found.reference(from.item(index), to);
    }
    let to = at.field("to");
    found.count(to, spec.to.len(), 1..=16);
    for (index, entry) in spec.to.iter().enumerate() {
        let name = entry.name.as_deref().unwrap_or("any");
        let (group, kind) = (Some(&*entry.group), Some(&*entry.kind));
        found.reference(to.item(index), Reference { group, kind, name, namespace: None });
    }
}
