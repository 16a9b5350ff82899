//! The JSON of an object, complete except for its version and its computed status.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

use crate::api::{Kind, ObjectKey};
use crate::config::Written;
use crate::stable_hash::hash_128;

use super::defaults;
use super::kinds;

/// The JSON of an object, made when it is first read. The first list after a start therefore takes
/// longer than the next one, by the time to parse the objects again.
///
/// It is kept as text: a tree of values takes ten times the memory, and is seldom needed.
#[derive(Default)]
pub(super) struct ItemJson(Mutex<Stage>);

enum Stage {
    Made(Arc<str>),
    /// Not asked for yet.
    Written {
        written: Written,
        /// The time at which the object was first read.
        since: jiff::Timestamp,
    },
}

impl Default for Stage {
    fn default() -> Self {
        Self::Made("".into())
    }
}

impl ItemJson {
    /// Creates the JSON of an object that is read for the first time.
    pub(super) fn later(written: Written, since: jiff::Timestamp) -> Self {
        Self(Mutex::new(Stage::Written { written, since }))
    }

    /// Creates the JSON of an object with the status `own`. `before` is the object as of the load
    /// before.
    pub(super) fn new(
        key: &ObjectKey,
        before: Option<&Value>,
        written: &Written,
        own: Option<&Value>,
        now: jiff::Timestamp,
    ) -> Self {
        let json = complete(key, before, &written.json(), own, &time(now));
        Self(Mutex::new(Stage::Made(json.to_string().into())))
    }

    /// Returns the text. `key` is that of the object.
    pub(super) fn text(&self, key: &ObjectKey) -> Arc<str> {
        let mut stage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let made = match &*stage {
            Stage::Made(text) => return Arc::clone(text),
            Stage::Written { written, since } => {
                complete(key, None, &written.json(), None, &time(*since))
            }
        };
        let made: Arc<str> = made.to_string().into();
        *stage = Stage::Made(Arc::clone(&made));
        made
    }

    /// Takes the same object as written in the files of the next load. Otherwise the text of the
    /// files of this load would stay in memory.
    pub(super) fn renew(&self, next: &Written) {
        let mut stage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Stage::Written { written, .. } = &mut *stage {
            written.clone_from(next);
        }
    }
}

impl fmt::Debug for ItemJson {
    // The object may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ItemJson")
    }
}

/// Returns the object of a document, with its defaults, its metadata and the status `own`.
fn complete(
    key: &ObjectKey,
    before: Option<&Value>,
    written: &str,
    own: Option<&Value>,
    now: &str,
) -> Value {
    // The text was written from a value.
    let mut json: Value = serde_json::from_str(written).unwrap_or_default();
    let Some(fields) = json.as_object_mut() else { return json };
    let Some(resource) = kinds::of(key.kind) else { return json };
    fields.insert("apiVersion".into(), resource.info.api_version().into());
    // A written status is from another controller and another time.
    fields.shift_remove("status");
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("resourceVersion");
        metadata.shift_remove("selfLink");
        if resource.is_namespaced() {
            metadata.entry("namespace").or_insert_with(|| key.namespace.as_str().into());
        }
        stamp(metadata, key, before, now);
        if resource.has_generation() {
            metadata.entry("generation").or_insert_with(|| 1.into());
        }
        if resource.kind() == Kind::Namespace {
            label_namespace(metadata, &key.name);
        }
    }
    if let Some(own) = own {
        fields.insert("status".into(), own.clone());
    }
    defaults::fill(resource.info.kind.as_str(), &mut json);
    json
}

/// Sets `uid` and `creationTimestamp` if they are not written. For an object in a user's file, the
/// UID is derived from its name, and the timestamp is the time at which it was first read.
fn stamp(metadata: &mut Map<String, Value>, key: &ObjectKey, before: Option<&Value>, now: &str) {
    metadata.entry("uid").or_insert_with(|| named_uid(key).into());
    let known = || before.and_then(|before| before.pointer("/metadata/creationTimestamp").cloned());
    metadata.entry("creationTimestamp").or_insert_with(|| known().unwrap_or_else(|| now.into()));
}

/// Returns a UUID (version 8, RFC 9562) that is always the same for an object of this name.
fn named_uid(key: &ObjectKey) -> String {
    let bytes = hash_128(&key.to_string()).to_be_bytes();
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// Returns a random UUID.
pub(super) fn new_uid() -> String {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid().to_string()
}

fn label_namespace(metadata: &mut Map<String, Value>, name: &str) {
    let labels = metadata.entry("labels").or_insert_with(|| Map::new().into());
    if let Some(labels) = labels.as_object_mut() {
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
    }
}

/// Formats a time as RFC 3339 in UTC, with whole seconds.
pub(super) fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_uuids() {
        let key = ObjectKey::new(Kind::HttpRoute, "shop", "cart");
        let (named, again, new) = (named_uid(&key), named_uid(&key), new_uid());
        assert_eq!(named, again);
        assert_ne!(new, new_uid());
        for (uid, version) in [(named, '8'), (new, '4')] {
            let lengths: Vec<_> = uid.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{uid}");
            assert_eq!(uid.chars().nth(14), Some(version), "{uid}");
            assert!("89ab".contains(uid.chars().nth(19).unwrap()), "{uid}");
        }
    }
}
