//! The view: every object of the last load as an API server shows it, with defaults, metadata and
//! status, and the changes of the loads before.
//!
//! A [`View`] is immutable; each load makes the next one from it. Unchanged objects are shared, and
//! keep their version.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::api::{Condition, Kind, ObjectKey};
use crate::graph::ObjectStatus;
use crate::stable_hash::hash_128;

use super::kinds::{self, ApiResource};
use super::{defaults, services};

/// The number of changes that are kept for watches. A client that is further behind lists again.
const HISTORY: usize = 4096;

/// An object as it was written.
pub(crate) struct SourceObject {
    pub key: ObjectKey,
    /// The document as JSON, with variables replaced.
    pub written: Box<str>,
    pub file: Arc<Path>,
    /// True if the file contains nothing else.
    pub alone: bool,
}

impl fmt::Debug for SourceObject {
    // The text is omitted because it may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.key, self.file.display())
    }
}

/// The origin of an object, which decides whether the API may change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ItemOrigin {
    /// Written by the API, into this file.
    Api(PathBuf),
    /// Written by a user, in this file.
    File(Arc<Path>),
    /// Not in any file. The text explains why.
    Made(&'static str),
}

/// One object, complete except for `metadata.resourceVersion`.
pub(super) struct Item {
    pub key: ObjectKey,
    pub version: u64,
    pub origin: ItemOrigin,
    /// The object without a status that the gateway computes. It is kept as text: a tree of values
    /// takes ten times the memory, and is seldom needed.
    pub json: Box<str>,
    /// The status that the gateway computes, with the times of its conditions.
    pub status: Option<Arc<ObjectStatus>>,
    /// A hash of the source of `json`. An equal hash means an equal `json`.
    pub print: u64,
}

impl Item {
    pub(super) fn value(&self) -> Value {
        value(&self.json, self.status.as_deref())
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.key, self.version)
    }
}

fn value(json: &str, status: Option<&ObjectStatus>) -> Value {
    // The text was written from a value.
    let mut value: Value = serde_json::from_str(json).unwrap_or_default();
    if let (Some(status), Some(fields)) = (status, value.as_object_mut()) {
        fields.insert("status".into(), status.json());
    }
    value
}

/// A change of one object.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub version: u64,
    /// `None` if the object was created.
    pub before: Option<Arc<Item>>,
    /// `None` if the object was deleted.
    pub after: Option<Arc<Item>>,
}

/// All objects at one moment, and the changes before it.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// The `resourceVersion` of all lists.
    pub(super) version: u64,
    pub(super) items: BTreeMap<ObjectKey, Arc<Item>>,
    pub(super) events: VecDeque<Event>,
    /// Changes up to this version are not in `events`.
    pub(super) oldest: u64,
}

impl View {
    /// Creates the view of a process that has loaded nothing. Versions count from its start time in
    /// milliseconds, so that all versions of the previous process are smaller, and known to be
    /// expired.
    pub(crate) fn new(start: jiff::Timestamp) -> Self {
        let version = u64::try_from(start.as_millisecond()).unwrap_or_default();
        Self { version, oldest: version, ..Self::default() }
    }

    pub(super) fn item(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Arc<Item>> {
        self.items.get(&ObjectKey::new(kind, namespace, name))
    }

    /// Returns the objects of a kind by namespace and name; only those of one namespace, if it is
    /// given.
    pub(super) fn list(
        &self,
        kind: Kind,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = &Arc<Item>> {
        let from = ObjectKey::new(kind, namespace.unwrap_or_default(), "");
        let items = self.items.range(from..).map(|(_, item)| item);
        items.take_while(move |item| {
            item.key.kind == kind && namespace.is_none_or(|one| item.key.namespace == one)
        })
    }

    /// Returns the view after a load. `api` is the directory with the objects that the API has
    /// written.
    pub(crate) fn next(
        &self,
        sources: Vec<SourceObject>,
        statuses: impl IntoIterator<Item = ObjectStatus>,
        api: Option<&Path>,
        now: jiff::Timestamp,
    ) -> Self {
        let statuses = statuses.into_iter().map(|status| (status.key().clone(), status));
        let mut statuses: BTreeMap<ObjectKey, ObjectStatus> = statuses.collect();
        let mut drafts = Drafts::new();
        for SourceObject { key, written, file, alone } in sources {
            let is_api = alone && api.is_some() && file.parent() == api;
            let origin =
                if is_api { ItemOrigin::Api(file.to_path_buf()) } else { ItemOrigin::File(file) };
            let Some(mut draft) = self.draft(&key, origin, &written, None, now) else { continue };
            draft.status = statuses.remove(&key).map(|status| self.dated(&key, status, now));
            // If a policy is written twice, the first one is shown.
            drafts.entry(key).or_insert(draft);
        }
        self.add_namespaces(&mut drafts, now);
        self.add_services(&mut drafts, now);
        self.with(drafts)
    }

    /// Returns the draft for a document. `own` is a status that is part of the document.
    fn draft(
        &self,
        key: &ObjectKey,
        origin: ItemOrigin,
        written: &str,
        own: Option<&Value>,
        now: jiff::Timestamp,
    ) -> Option<Draft> {
        let resource = kinds::of(key.kind)?;
        let mut hasher = DefaultHasher::new();
        written.hash(&mut hasher);
        let print = hasher.finish();
        let before = self.items.get(key);
        if before.is_some_and(|before| before.print == print) {
            return Some(Draft { origin, print, json: None, status: None });
        }
        let before = before.map(|before| before.value());
        let json = complete(key, resource, before.as_ref(), written, own, &time(now));
        Some(Draft { origin, print, json: Some(json.to_string().into()), status: None })
    }

    /// Returns a status with the times of its conditions. A condition with an unchanged status
    /// keeps its time.
    fn dated(
        &self,
        key: &ObjectKey,
        mut status: ObjectStatus,
        now: jiff::Timestamp,
    ) -> Arc<ObjectStatus> {
        let before = self.items.get(key).and_then(|before| before.status.as_ref());
        keep_times(before.map(|before| &**before), &mut status, now);
        match before {
            Some(before) if **before == status => Arc::clone(before),
            _ => Arc::new(status),
        }
    }

    /// Adds namespaces that are not written: a namespace exists as soon as an object is in it.
    fn add_namespaces(&self, drafts: &mut Drafts, now: jiff::Timestamp) {
        let mut named: BTreeSet<String> = drafts.keys().map(|key| key.namespace.clone()).collect();
        named.insert("default".into());
        for name in named.into_iter().filter(|name| !name.is_empty()) {
            let key = ObjectKey::new(Kind::Namespace, "", &name);
            if drafts.contains_key(&key) {
                continue;
            }
            let metadata = json!({ "name": name });
            let written = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata });
            let origin =
                ItemOrigin::Made("it is written nowhere, and there because objects are in it");
            let draft = self.draft(&key, origin, &written.to_string(), None, now);
            drafts.extend(draft.map(|draft| (key, draft)));
        }
    }

    /// Adds a Service for each served Gateway, which describes the gateway's own sockets.
    fn add_services(&self, drafts: &mut Drafts, now: jiff::Timestamp) {
        let gateways = drafts.iter().filter(|(key, _)| key.kind == Kind::Gateway);
        let gateways = gateways.filter_map(|(key, draft)| {
            let json =
                draft.json.as_ref().or_else(|| self.items.get(key).map(|item| &item.json))?;
            Some(value(json, draft.status.as_deref()))
        });
        let made: Vec<_> = gateways.filter_map(|gateway| services::of(&gateway)).collect();
        for (key, written) in made {
            let own = written.get("status");
            let origin =
                ItemOrigin::Made("it describes the gateway's own sockets; change the Gateway");
            let draft = self.draft(&key, origin, &written.to_string(), own, now);
            if let Some(draft) = draft {
                // A Service that a user wrote takes precedence.
                drafts.entry(key).or_insert(draft);
            }
        }
    }

    fn with(&self, drafts: Drafts) -> Self {
        let mut version = self.version;
        let mut events = self.events.clone();
        let mut items = BTreeMap::new();
        for (key, item) in &self.items {
            if !drafts.contains_key(key) {
                version += 1;
                events.push_back(Event { version, before: Some(Arc::clone(item)), after: None });
            }
        }
        for (key, Draft { origin, print, json, status }) in drafts {
            let before = self.items.get(&key);
            let same = before.filter(|before| {
                before.status == status && json.as_ref().is_none_or(|json| *json == before.json)
            });
            if let Some(before) = same {
                let item = if before.origin == origin && before.print == print {
                    Arc::clone(before)
                } else {
                    let (version, json) = (before.version, before.json.clone());
                    Arc::new(Item { key: key.clone(), version, origin, json, status, print })
                };
                items.insert(key, item);
                continue;
            }
            version += 1;
            // Without a previous object, there is always a text.
            let json = json.or_else(|| before.map(|before| before.json.clone()));
            let json = json.unwrap_or_default();
            let item = Arc::new(Item { key: key.clone(), version, origin, json, status, print });
            let after = Some(Arc::clone(&item));
            events.push_back(Event { version, before: before.cloned(), after });
            items.insert(key, item);
        }
        let mut oldest = self.oldest;
        while events.len() > HISTORY {
            oldest = events.pop_front().map_or(oldest, |event| event.version);
        }
        Self { version, items, events, oldest }
    }
}

/// An object of the next view.
struct Draft {
    origin: ItemOrigin,
    print: u64,
    /// `None` if it is the same as before.
    json: Option<Box<str>>,
    status: Option<Arc<ObjectStatus>>,
}

type Drafts = BTreeMap<ObjectKey, Draft>;

/// Returns the object of a document, with its defaults, its metadata and the status `own`.
fn complete(
    key: &ObjectKey,
    resource: &ApiResource,
    before: Option<&Value>,
    written: &str,
    own: Option<&Value>,
    now: &str,
) -> Value {
    // The text was written from a value.
    let mut json: Value = serde_json::from_str(written).unwrap_or_default();
    let Some(fields) = json.as_object_mut() else { return json };
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

/// Sets the time of the last transition of every condition. A condition with an unchanged status
/// keeps its time.
fn keep_times(before: Option<&ObjectStatus>, status: &mut ObjectStatus, now: jiff::Timestamp) {
    let before = before.map(ObjectStatus::parts).unwrap_or_default();
    let known: Vec<&[Condition]> = status
        .parts()
        .into_iter()
        .map(|(part, _)| {
            let old = before.iter().find(|(old, _)| old.is_same(&part));
            old.map_or(&[][..], |(_, conditions)| *conditions)
        })
        .collect();
    for (conditions, known) in status.conditions_mut().into_iter().zip(known) {
        for condition in conditions {
            let same =
                |old: &&Condition| (old.kind, old.status) == (condition.kind, condition.status);
            let since = known.iter().find(same).and_then(|old| old.last_transition);
            condition.last_transition = since.or(Some(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::api::ConditionStatus::{self, False, True};
    use crate::graph::{ParentStatus, RouteStatus};

    use super::*;

    fn at(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(second).unwrap()
    }

    fn source(kind: Kind, name: &str, spec: Value) -> SourceObject {
        let resource = kinds::of(kind).unwrap();
        let mut written = json!({
            "apiVersion": resource.info.api_version(),
            "kind": kind.as_str(),
            "metadata": { "name": name, "namespace": "shop" },
        });
        written["spec"] = spec;
        let written = written.to_string().into();
        SourceObject {
            key: ObjectKey::new(kind, "shop", name),
            written,
            file: Path::new("/etc/routes/a.yaml").into(),
            alone: false,
        }
    }

    fn status(name: &str, status: ConditionStatus) -> ObjectStatus {
        let condition = Condition {
            kind: "Accepted",
            status,
            reason: "Accepted",
            message: String::new(),
            last_transition: None,
        };
        let parent = ParentStatus {
            parent: serde_json::from_value(json!({ "name": "eg" })).unwrap(),
            controller: "us".into(),
            conditions: vec![condition],
        };
        let key = ObjectKey::new(Kind::HttpRoute, "shop", name);
        ObjectStatus::Route(RouteStatus { key, generation: 1, parents: vec![parent] })
    }

    fn time_of(view: &View, name: &str) -> String {
        let item = view.item(Kind::HttpRoute, "shop", name).unwrap();
        let path = "/status/parents/0/conditions/0/lastTransitionTime";
        item.value().pointer(path).unwrap().as_str().unwrap().into()
    }

    #[test]
    fn a_load_that_changes_nothing_changes_no_version() {
        let load = |view: &View, second| {
            let sources = vec![source(Kind::HttpRoute, "cart", json!({}))];
            view.next(sources, [status("cart", True)], None, at(second))
        };
        let first = load(&View::new(at(1000)), 1001);
        // The route, its namespace, and `default`.
        assert_eq!(first.version, 1_000_003);
        let second = load(&first, 1100);
        assert_eq!(second.version, first.version);
        assert_eq!(second.events.len(), 3);
        let key = ObjectKey::new(Kind::HttpRoute, "shop", "cart");
        assert!(Arc::ptr_eq(&first.items[&key], &second.items[&key]));
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let load = |view: &View, word, second| {
            let sources = vec![source(Kind::HttpRoute, "cart", json!({}))];
            view.next(sources, [status("cart", word)], None, at(second))
        };
        let view = load(&View::new(at(0)), True, 10);
        assert_eq!(time_of(&view, "cart"), "1970-01-01T00:00:10Z");
        let view = load(&view, True, 20);
        assert_eq!(time_of(&view, "cart"), "1970-01-01T00:00:10Z");
        let view = load(&view, False, 30);
        assert_eq!(time_of(&view, "cart"), "1970-01-01T00:00:30Z");
    }

    #[test]
    fn what_comes_changes_and_goes_is_an_event() {
        let load = |view: &View, names: &[(&str, i64)]| {
            let sources = names
                .iter()
                .map(|(name, n)| source(Kind::HttpRoute, name, json!({ "rules": n })))
                .collect();
            view.next(sources, [], None, at(1))
        };
        let view = load(&View::new(at(0)), &[("a", 1), ("b", 1)]);
        let before = view.version;
        let view = load(&view, &[("a", 2), ("c", 1)]);
        let new: Vec<_> = view
            .events
            .iter()
            .filter(|event| event.version > before)
            .map(|event| {
                let of = event.after.as_ref().or(event.before.as_ref()).unwrap();
                (&*of.key.name, event.before.is_some(), event.after.is_some())
            })
            .collect();
        assert_eq!(new, [("b", true, false), ("a", true, true), ("c", false, true)]);
    }

    #[test]
    fn history_is_bounded() {
        let mut view = View::new(at(0));
        for n in 0..HISTORY {
            let sources = vec![source(Kind::HttpRoute, "a", json!({ "rules": n }))];
            view = view.next(sources, [], None, at(1));
        }
        assert_eq!(view.events.len(), HISTORY);
        assert_eq!(view.oldest, view.events[0].version - 1);
    }

    #[test]
    fn a_namespace_is_there_once_something_is_in_it() {
        let sources = vec![source(Kind::HttpRoute, "cart", json!({}))];
        let view = View::new(at(0)).next(sources, [], None, at(1));
        let names: Vec<_> = view.list(Kind::Namespace, None).map(|item| &*item.key.name).collect();
        assert_eq!(names, ["default", "shop"]);
        let shop = view.item(Kind::Namespace, "", "shop").unwrap();
        let labels = json!({ "kubernetes.io/metadata.name": "shop" });
        assert_eq!(shop.value()["metadata"]["labels"], labels);
        assert!(matches!(shop.origin, ItemOrigin::Made(_)));
    }

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
