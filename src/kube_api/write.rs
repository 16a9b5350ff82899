//! Changes: calls that change objects, translated into changes of files.
//!
//! [`Change::prepare`] decides everything that can be decided without side effects: whether the
//! object exists, whether it may be changed, what it will be, and whether an API server would
//! accept it. The control loop then writes the files and loads them, and only then the call is
//! answered.

use std::path::Path;

use serde_json::{Map, Value};

use crate::api::Kind;
use crate::config::Rejected;
use crate::patch::{self, MergedLists};

use super::apply::{self, Conflict};
use super::body::{metadata_of, text};
use super::change::{Change, ChangeOutcome, PATCHES, PreparedChange, Verb, WriteOptions};
use super::defaults;
use super::files::{self, FileChange};
use super::item_json::new_uid;
use super::kinds::ApiResource;
use super::refused::{self, ApiError};
use super::view::{Item, ItemOrigin, View};

/// The lists that a strategic merge patch of `kubectl apply` merges, for the core kinds.
const MERGED_LISTS: &MergedLists = &[
    ("/metadata/finalizers", None),
    ("/metadata/ownerReferences", Some("uid")),
    // Of the kinds that are patched this way, only Services have it.
    ("/spec/ports", Some("port")),
];

impl Change {
    /// Determines the result of the change, based on `view`. New objects are placed in `directory`.
    ///
    /// # Errors
    ///
    /// The reason why an API server would refuse the change, or why this gateway does.
    pub(crate) fn prepare(
        &self,
        view: &View,
        directory: &Path,
    ) -> Result<PreparedChange, ApiError> {
        let Self { resource, namespace, name, .. } = self;
        let current = view.item(resource.kind(), namespace, name).filter(|_| !name.is_empty());
        match (&self.verb, current) {
            (Verb::Create(body), _) => self.create(view, directory, body),
            (Verb::Delete { .. }, Some(current)) => self.delete(view, current),
            (Verb::Apply(body), None) => {
                let applied = self.applied(None, body)?;
                self.create(view, directory, &applied)
            }
            (_, None) => Err(ApiError::not_found(resource, name)),
            (Verb::Apply(body), Some(current)) => {
                let applied = self.applied(Some(&current.value()), body)?;
                self.update(current, directory, applied)
            }
            (Verb::Update(body), Some(current)) => self.update(current, directory, body.clone()),
            (Verb::MergePatch(body), Some(current)) => {
                let mut object = self.read(current);
                patch::merge(&mut object, body.clone());
                self.update(current, directory, object)
            }
            (Verb::StrategicPatch(body), Some(current)) => {
                if !resource.info.group.is_empty() && resource.kind() != Kind::EndpointSlice {
                    let found = "application/strategic-merge-patch+json";
                    return Err(ApiError::unsupported_media_type(found, PATCHES));
                }
                let mut object = self.read(current);
                let patched = patch::strategic(&mut object, body.clone(), MERGED_LISTS);
                patched.map_err(ApiError::bad_request)?;
                self.update(current, directory, object)
            }
            (Verb::JsonPatch(body), Some(current)) => {
                let mut object = self.read(current);
                let patched = patch::json_patch(&mut object, body.clone());
                let wrong = |problem| vec![Rejected { field: String::new(), problem }];
                patched.map_err(|problem| ApiError::invalid(resource, name, &wrong(problem)))?;
                self.update(current, directory, object)
            }
        }
    }

    /// Returns the object as the caller would read it, as the target of a patch.
    fn read(&self, current: &Item) -> Value {
        let mut object = current.value();
        object["apiVersion"] = self.resource.api_version(&self.version).into();
        object["metadata"]["resourceVersion"] = current.version.to_string().into();
        object
    }

    fn applied(&self, current: Option<&Value>, body: &Value) -> Result<Value, ApiError> {
        let WriteOptions { manager, force, now, .. } = &self.options;
        if manager.is_empty() {
            return Err(ApiError::bad_request("fieldManager is required for apply patch"));
        }
        if body.pointer("/metadata/managedFields").is_some() {
            let why = "metadata.managedFields must be nil";
            return Err(ApiError::bad_request(why));
        }
        let kind = self.resource.info.kind.as_str();
        apply::apply(kind, current, body, manager, *force, now)
            .map_err(|Conflict { owned }| ApiError::owned_by_others(&owned))
    }

    fn create(
        &self,
        view: &View,
        directory: &Path,
        body: &Value,
    ) -> Result<PreparedChange, ApiError> {
        let resource = self.resource;
        let mut object = self.checked(body.clone())?;
        let metadata = metadata_of(&mut object)?;
        let generate = metadata.shift_remove("generateName");
        let name = match (text(metadata, "name"), &generate) {
            (Some(name), _) if !name.is_empty() => name,
            (_, Some(Value::String(prefix))) => format!("{prefix}{}", random_suffix()),
            _ => {
                let problem = "name or generateName is required".into();
                let wrong = [Rejected { field: "metadata.name".into(), problem }];
                return Err(ApiError::invalid(resource, "", &wrong));
            }
        };
        if !self.name.is_empty() && self.name != name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                self.name
            )));
        }
        metadata.insert("name".into(), name.as_str().into());
        metadata.insert("uid".into(), new_uid().into());
        metadata.insert("creationTimestamp".into(), self.options.now.as_str().into());
        if resource.has_generation() {
            metadata.insert("generation".into(), 1.into());
        }
        let is_applied = matches!(self.verb, Verb::Apply(_));
        if !is_applied {
            metadata.shift_remove("managedFields");
        }
        let existing = view.item(resource.kind(), &self.namespace, &name);
        if existing.is_some_and(|item| !self.is_implicit(item)) {
            return Err(ApiError::already_exists(resource, &name));
        }
        let (object, key, warnings) = self.valid(object, None, &name)?;
        let file = FileChange {
            path: files::path(directory, &key),
            text: Some(files::text(&object)),
            secret: files::is_secret(key.kind),
        };
        if self.options.dry_run {
            let outcome = ChangeOutcome::DryRun { object: self.shown(object, None), created: true };
            return Ok(PreparedChange { files: Vec::new(), key, outcome, warnings });
        }
        Ok(PreparedChange { files: vec![file], key, outcome: ChangeOutcome::Created, warnings })
    }

    /// Returns true for a namespace that exists only because objects are in it. It can still be
    /// written.
    fn is_implicit(&self, item: &Item) -> bool {
        self.resource.kind() == Kind::Namespace && matches!(item.origin, ItemOrigin::Made(_))
    }

    fn update(
        &self,
        current: &Item,
        directory: &Path,
        body: Value,
    ) -> Result<PreparedChange, ApiError> {
        let Self { resource, name, .. } = self;
        let path = match &current.origin {
            ItemOrigin::Api(path) => path.clone(),
            // A namespace that is not written gets labels: it is written now.
            ItemOrigin::Made(_) if self.is_implicit(current) => {
                files::path(directory, &current.key)
            }
            other => return Err(not_ours(resource, name, other)),
        };
        let mut object = self.checked(body)?;
        let stored = current.value();
        let before = &stored["metadata"];
        let metadata = metadata_of(&mut object)?;
        let version = current.version.to_string();
        if text(metadata, "resourceVersion").is_some_and(|one| !one.is_empty() && one != version) {
            return Err(ApiError::conflict(resource, name));
        }
        if text(metadata, "uid").is_some_and(|uid| !uid.is_empty() && before["uid"] != uid) {
            let why = format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                text(metadata, "uid").unwrap_or_default(),
                before["uid"].as_str().unwrap_or_default()
            );
            return Err(ApiError::conflict_because(resource, name, &why));
        }
        if text(metadata, "name").is_none_or(|one| one != *name) {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                text(metadata, "name").unwrap_or_default()
            )));
        }
        for field in ["uid", "creationTimestamp", "generation"] {
            match before.get(field) {
                Some(value) => metadata.insert(field.into(), value.clone()),
                None => metadata.shift_remove(field),
            };
        }
        if !matches!(self.verb, Verb::Apply(_)) {
            match before.get("managedFields") {
                Some(value) => metadata.insert("managedFields".into(), value.clone()),
                None => metadata.shift_remove("managedFields"),
            };
        }
        let (mut object, key, warnings) = self.valid(object, Some(&stored), name)?;
        if key.kind == Kind::GatewayClass
            && object.pointer("/spec/controllerName") != stored.pointer("/spec/controllerName")
        {
            let problem = "Value is immutable".into();
            let wrong = [Rejected { field: "spec.controllerName".into(), problem }];
            return Err(ApiError::invalid(resource, name, &wrong));
        }
        let mut complete = object.clone();
        defaults::fill(resource.info.kind.as_str(), &mut complete);
        let outcome = ChangeOutcome::Updated;
        if same(&complete, &stored, &["status"]) {
            let outcome = match self.options.dry_run {
                true => ChangeOutcome::DryRun {
                    object: self.shown(object, Some(current)),
                    created: false,
                },
                false => outcome,
            };
            return Ok(PreparedChange { files: Vec::new(), key, outcome, warnings });
        }
        let is_changed = !same(&complete, &stored, &["apiVersion", "kind", "metadata", "status"]);
        if is_changed && resource.has_generation() {
            let generation = before["generation"].as_i64().unwrap_or(1) + 1;
            object["metadata"]["generation"] = generation.into();
        }
        if self.options.dry_run {
            let outcome =
                ChangeOutcome::DryRun { object: self.shown(object, Some(current)), created: false };
            return Ok(PreparedChange { files: Vec::new(), key, outcome, warnings });
        }
        let secret = files::is_secret(key.kind);
        let file = FileChange { path, text: Some(files::text(&object)), secret };
        Ok(PreparedChange { files: vec![file], key, outcome, warnings })
    }

    fn delete(&self, view: &View, current: &Item) -> Result<PreparedChange, ApiError> {
        let Self { resource, name, .. } = self;
        let stored = current.value();
        let current_uid = stored["metadata"]["uid"].as_str().unwrap_or_default();
        if let Verb::Delete { uid, version } = &self.verb {
            let other_uid = uid.as_ref().is_some_and(|uid| uid != current_uid);
            let other_version =
                version.as_ref().is_some_and(|version| *version != current.version.to_string());
            if other_uid || other_version {
                return Err(ApiError::conflict(resource, name));
            }
        }
        let mut items = vec![current];
        if resource.kind() == Kind::Namespace {
            items = self.inhabitants(view, current)?;
        }
        let mut changes = Vec::with_capacity(items.len());
        for item in items {
            match &item.origin {
                ItemOrigin::Api(path) => changes.push(FileChange {
                    path: path.clone(),
                    text: None,
                    secret: files::is_secret(item.key.kind),
                }),
                other => return Err(not_ours(resource, name, other)),
            }
        }
        let outcome = ChangeOutcome::Deleted(refused::deleted(resource, name, current_uid));
        if self.options.dry_run {
            changes.clear();
        }
        let (key, warnings) = (current.key.clone(), Vec::new());
        Ok(PreparedChange { files: changes, key, outcome, warnings })
    }

    /// Returns the objects to delete with a namespace. All of them are deleted, or none.
    fn inhabitants<'v>(
        &self,
        view: &'v View,
        namespace: &'v Item,
    ) -> Result<Vec<&'v Item>, ApiError> {
        let mut going = Vec::new();
        if !matches!(namespace.origin, ItemOrigin::Made(_)) {
            going.push(namespace);
        }
        for item in view.items.values().filter(|item| item.key.namespace == namespace.key.name) {
            match &item.origin {
                ItemOrigin::Api(_) => going.push(item),
                ItemOrigin::Made(_) => {}
                ItemOrigin::File(file) => {
                    let why = format!("{} is in it, and stands in {}", item.key, file.display());
                    return Err(ApiError::not_ours(self.resource, &self.name, &why));
                }
            }
        }
        if going.is_empty() {
            return Err(not_ours(self.resource, &self.name, &namespace.origin));
        }
        Ok(going)
    }

    /// Returns the answer to a dry run: the object as it would be read, with its current status.
    fn shown(&self, mut object: Value, current: Option<&Item>) -> Value {
        object["apiVersion"] = self.resource.api_version(&self.version).into();
        if let Some(current) = current {
            object["metadata"]["resourceVersion"] = current.version.to_string().into();
            if let Some(status) = current.value().get("status") {
                object["status"] = status.clone();
            }
        }
        defaults::fill(self.resource.info.kind.as_str(), &mut object);
        object
    }
}

fn not_ours(resource: &ApiResource, name: &str, origin: &ItemOrigin) -> ApiError {
    let why = match origin {
        ItemOrigin::Api(_) => "it cannot be changed".into(),
        ItemOrigin::File(file) => format!(
            "it stands in {}, which is yours and is not changed over the API; change the file",
            file.display()
        ),
        ItemOrigin::Made(why) => (*why).to_owned(),
    };
    ApiError::not_ours(resource, name, &why)
}

/// Returns five characters that make no word, which is how an API server ends a generated name.
fn random_suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5).map(|_| char::from(LETTERS[fastrand::usize(..LETTERS.len())])).collect()
}

/// Returns true if both are equal except for the fields `without`, in any order.
fn same(one: &Value, other: &Value, without: &[&str]) -> bool {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else { return false };
    let rest = |fields: &Map<String, Value>| -> usize {
        fields.keys().filter(|name| !without.contains(&name.as_str())).count()
    };
    rest(one) == rest(other)
        && one
            .iter()
            .filter(|(name, _)| !without.contains(&name.as_str()))
            .all(|(name, value)| other.get(name) == Some(value))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use crate::config;
    use crate::kube_api::kinds;
    use crate::kube_api::view::SourceObject;

    use super::*;

    const NOW: &str = "2026-01-31T12:00:00Z";

    fn change(kind: Kind, name: &str, verb: Verb) -> Change {
        Change {
            resource: kinds::of(kind).unwrap(),
            version: "v1".into(),
            namespace: if kind == Kind::GatewayClass { String::new() } else { "shop".into() },
            name: name.into(),
            verb,
            options: WriteOptions { now: NOW.into(), ..WriteOptions::default() },
        }
    }

    /// A view of the objects that were written over the API.
    fn view(written: &[Value]) -> View {
        let sources = written.iter().enumerate().map(|(number, written)| {
            let object = config::offered(written.clone()).object.unwrap();
            let file: Arc<Path> = Path::new("/api").join(format!("{number}.yaml")).into();
            SourceObject {
                key: object.key(),
                written: config::Written::new(written),
                file,
                alone: true,
            }
        });
        let start = jiff::Timestamp::from_second(1).unwrap();
        View::new(start).next(sources.collect(), [], Some(Path::new("/api")), start)
    }

    fn prepared(view: &View, change: &Change) -> Result<PreparedChange, ApiError> {
        change.prepare(view, Path::new("/api"))
    }

    /// The object that a change writes.
    fn written(prepared: &PreparedChange) -> Value {
        let [file] = &prepared.files[..] else { panic!("{prepared:?}") };
        config::read_yaml(file.text.as_ref().unwrap()).unwrap()
    }

    fn service() -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "cart", "namespace": "shop" },
            "spec": { "ports": [{ "port": 80 }] },
        })
    }

    #[test]
    fn what_a_client_in_go_leaves_empty_is_not_written() {
        let mut body = service();
        body["metadata"]["creationTimestamp"] = Value::Null;
        body["metadata"]["resourceVersion"] = "".into();
        body["spec"]["ports"][0]["targetPort"] = 0.into();
        body["spec"]["selector"] = Value::Null;
        body["status"] = json!({ "loadBalancer": {} });
        let made = prepared(&view(&[]), &change(Kind::Service, "", Verb::Create(body))).unwrap();
        let mut want = service();
        want["metadata"]["uid"] = written(&made)["metadata"]["uid"].clone();
        want["metadata"]["creationTimestamp"] = NOW.into();
        assert_eq!(written(&made), want);
    }

    #[test]
    fn what_changes_nothing_writes_nothing() {
        let view = view(&[service()]);
        let read = view.item(Kind::Service, "shop", "cart").unwrap().value();
        let same = [
            Verb::Update(read),
            Verb::Update(service()),
            Verb::MergePatch(json!({ "spec": { "ports": [{ "port": 80 }] } })),
            Verb::StrategicPatch(json!({ "spec": { "ports": [{ "port": 80 }] } })),
            Verb::JsonPatch(json!([])),
        ];
        for verb in same {
            let change = change(Kind::Service, "cart", verb);
            assert_eq!(prepared(&view, &change).unwrap().files, [], "{change:?}");
        }
    }

    #[test]
    fn a_class_keeps_its_controller() {
        let class = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": { "name": "eg" },
            "spec": { "controllerName": "example.com/a" },
        });
        let view = view(&[class]);
        let patch = |controller: &str| {
            let patch = json!({ "spec": { "controllerName": controller, "description": "x" } });
            prepared(&view, &change(Kind::GatewayClass, "eg", Verb::MergePatch(patch)))
        };
        assert_eq!(written(&patch("example.com/a").unwrap())["metadata"]["generation"], 2);
        let refused = patch("example.com/b").unwrap_err();
        assert_eq!(refused.code, 422);
        let message = "spec.controllerName: Invalid value: Value is immutable";
        assert!(refused.message.contains(message), "{}", refused.message);
    }

    #[test]
    fn a_name_is_made_up_where_one_is_asked_for() {
        let mut body = service();
        body["metadata"] = json!({ "generateName": "cart-" });
        let made = prepared(&view(&[]), &change(Kind::Service, "", Verb::Create(body))).unwrap();
        assert!(made.key.name.starts_with("cart-") && made.key.name.len() == 10, "{}", made.key);
    }

    #[test]
    fn a_deletion_holds_to_its_preconditions() {
        let view = view(&[service()]);
        let item = view.item(Kind::Service, "shop", "cart").unwrap();
        let uid = item.value()["metadata"]["uid"].as_str().map(str::to_owned);
        let delete = |uid: Option<String>, version: Option<String>| {
            let verb = Verb::Delete { uid, version };
            prepared(&view, &change(Kind::Service, "cart", verb)).map_err(|refused| refused.code)
        };
        assert!(delete(None, None).is_ok());
        assert!(delete(uid, Some(item.version.to_string())).is_ok());
        assert_eq!(delete(Some("other".into()), None).unwrap_err(), 409);
        assert_eq!(delete(None, Some("1".into())).unwrap_err(), 409);
    }
}
