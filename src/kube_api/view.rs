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

use serde_json::{Value, json};

use crate::api::{Condition, Kind, ObjectKey};
use crate::config::Written;
use crate::graph::ObjectStatus;

use super::item_json::ItemJson;
use super::{kinds, services};

/// The number of changes that are kept for watches. A client that is further behind lists again.
const HISTORY: usize = 4096;

/// An object as it was written.
pub(crate) struct SourceObject {
    pub key: ObjectKey,
    /// The document, with variables replaced.
    pub written: Written,
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
    /// The object without a status that the gateway computes.
    pub json: Arc<ItemJson>,
    /// The status that the gateway computes, with the times of its conditions.
    pub status: Option<Arc<ObjectStatus>>,
    /// A hash of the source of `json`. An equal hash means an equal `json`.
    pub print: u64,
}

impl Item {
    pub(super) fn value(&self) -> Value {
        value(&self.json.text(&self.key), self.status.as_deref())
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
            let Some(mut draft) = self.draft(&key, origin, written, None, now) else { continue };
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
        written: Written,
        own: Option<&Value>,
        now: jiff::Timestamp,
    ) -> Option<Draft> {
        kinds::of(key.kind)?;
        let mut hasher = DefaultHasher::new();
        written.hash(&mut hasher);
        let print = hasher.finish();
        let json = match self.items.get(key) {
            Some(before) if before.print == print => {
                before.json.renew(&written);
                None
            }
            Some(before) => Some(ItemJson::new(key, Some(&before.value()), &written, own, now)),
            None if own.is_some() => Some(ItemJson::new(key, None, &written, own, now)),
            None => Some(ItemJson::later(written, now)),
        };
        Some(Draft { origin, print, json: json.map(Arc::new), status: None })
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
            let draft = self.draft(&key, origin, Written::new(&written), None, now);
            drafts.extend(draft.map(|draft| (key, draft)));
        }
    }

    /// Adds a Service for each served Gateway, which describes the gateway's own sockets.
    fn add_services(&self, drafts: &mut Drafts, now: jiff::Timestamp) {
        let gateways = drafts.iter().filter(|(key, _)| key.kind == Kind::Gateway);
        let gateways = gateways.filter_map(|(key, draft)| {
            let json =
                draft.json.as_ref().or_else(|| self.items.get(key).map(|item| &item.json))?;
            Some(value(&json.text(key), draft.status.as_deref()))
        });
        let made: Vec<_> = gateways.filter_map(|gateway| services::of(&gateway)).collect();
        for (key, written) in made {
            let own = written.get("status");
            let origin =
                ItemOrigin::Made("it describes the gateway's own sockets; change the Gateway");
            let draft = self.draft(&key, origin, Written::new(&written), own, now);
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
                // It must not keep the text of its file in memory.
                item.json.text(key);
                events.push_back(Event { version, before: Some(Arc::clone(item)), after: None });
            }
        }
        for (key, Draft { origin, print, json, status }) in drafts {
            let before = self.items.get(&key);
            let same = before.filter(|before| {
                let is_same = |json: &Arc<ItemJson>| json.text(&key) == before.json.text(&key);
                before.status == status && json.as_ref().is_none_or(is_same)
            });
            if let Some(before) = same {
                let item = if before.origin == origin && before.print == print {
                    Arc::clone(before)
                } else {
                    let (version, json) = (before.version, Arc::clone(&before.json));
                    Arc::new(Item { key: key.clone(), version, origin, json, status, print })
                };
                items.insert(key, item);
                continue;
            }
            version += 1;
            // Without a previous object, there is always a text.
            let json = json.or_else(|| before.map(|before| Arc::clone(&before.json)));
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
    json: Option<Arc<ItemJson>>,
    status: Option<Arc<ObjectStatus>>,
}

type Drafts = BTreeMap<ObjectKey, Draft>;

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
    use crate::api::Object;
    use crate::config::{self, FileOrigin};
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
        SourceObject {
            key: ObjectKey::new(kind, "shop", name),
            written: Written::new(&written),
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
    fn a_view_keeps_no_text_of_an_older_load() {
        let load = |view: &View, names: &[&str]| {
            let document = |name: &&str| {
                format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n")
            };
            let text: Arc<str> = names.iter().map(document).collect::<String>().into();
            let read = config::read(&Path::new("/etc/a.yaml").into(), &text, &|_| None);
            let source = |(object, origin): (Object, FileOrigin)| SourceObject {
                key: object.key(),
                written: origin.written,
                file: origin.file,
                alone: false,
            };
            let sources = read.objects.into_iter().map(source).collect();
            (view.next(sources, [], None, at(1)), Arc::downgrade(&text))
        };
        let (first, of_first) = load(&View::new(at(0)), &["same", "gone"]);
        assert!(of_first.upgrade().is_some(), "the JSON is made when it is asked for");
        let (second, _) = load(&first, &["new", "same"]);
        assert!(of_first.upgrade().is_none());
        for (view, name) in [(&first, "same"), (&first, "gone"), (&second, "new")] {
            let item = view.item(Kind::ConfigMap, "default", name).unwrap();
            assert_eq!(item.value()["metadata"]["name"], name);
        }
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
}
