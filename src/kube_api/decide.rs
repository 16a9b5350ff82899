//! The decision about a call: an answer at once, a watch, or a change for the control loop.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Map, Value};

use crate::api::{Kind, ObjectKey};
use crate::config;

use super::answer::ApiAnswer;
use super::call::{ApiCall, CallPlace, CallTarget, place};
use super::change::{
    Change, ChangeOutcome, PATCHES, PreparedChange, Validation, Verb, WriteOptions,
};
use super::discovery;
use super::presenting::Presenting;
use super::refused::ApiError;
use super::secrets;
use super::selector::Selector;
use super::view::{Item, View};
use super::watch::Watching;

/// The permissions of the API of one gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ApiRules {
    /// True if objects may be changed.
    pub writable: bool,
    /// True if the values of Secrets are shown.
    pub secrets: bool,
}

/// The decision about a call.
#[derive(Debug)]
pub(super) enum Todo {
    Answer(ApiAnswer),
    Change(Change, Presenting),
    Watch(Watching),
}

/// Decides about a call. The body is read before; it is empty if the call has none.
///
/// # Errors
///
/// The reason why the call is refused.
pub(super) fn decide(
    view: &Arc<View>,
    call: &ApiCall,
    body: &[u8],
    rules: ApiRules,
    now: jiff::Timestamp,
) -> Result<Todo, ApiError> {
    let target = match place(&call.path)? {
        CallPlace::About(path) if call.method == Method::GET => {
            return discovery::about(path, call, rules.writable, view.version).map(Todo::Answer);
        }
        CallPlace::About(path) => {
            discovery::about(path, call, rules.writable, view.version)?;
            return Err(ApiError::method_not_allowed());
        }
        CallPlace::Of(target) => target,
    };
    let presenting = Presenting {
        resource: target.resource,
        version: target.version.to_owned(),
        shape: call.shape,
        secrets: rules.secrets,
        whole_rows: call.query.text("includeObject") == "Object",
        now: now.as_second(),
    };
    match (call.method.as_str(), target.name, target.part) {
        ("GET", None, None) => list(view, call, &target, presenting),
        ("GET", Some(name), None) => one(view, &target, name, &presenting).map(Todo::Answer),
        ("GET", Some(name), Some("status")) if target.resource.has_status() => {
            one(view, &target, name, &presenting).map(Todo::Answer)
        }
        ("PUT" | "PATCH", Some(_), Some("status")) if target.resource.has_status() => {
            Err(ApiError::forbidden("status is what the gateway says; it is not written"))
        }
        (_, _, Some(_)) => Err(ApiError::no_such_resource()),
        ("POST" | "PUT" | "PATCH" | "DELETE", ..) => {
            if !rules.writable {
                let why = "this gateway's objects can only be read over the API; start it with \
                           --api-writable to change them";
                return Err(ApiError::forbidden(why));
            }
            change(call, &target, body, now).map(|change| Todo::Change(change, presenting))
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn one(
    view: &View,
    target: &CallTarget<'_>,
    name: &str,
    of: &Presenting,
) -> Result<ApiAnswer, ApiError> {
    let item = view.item(target.resource.kind(), target.namespace.unwrap_or_default(), name);
    let item = item.ok_or_else(|| ApiError::not_found(target.resource, name))?;
    Ok(ApiAnswer::json(200, of.single(item)))
}

fn list(
    view: &Arc<View>,
    call: &ApiCall,
    target: &CallTarget<'_>,
    of: Presenting,
) -> Result<Todo, ApiError> {
    let query = &call.query;
    let selector = Selector::parse(query.text("labelSelector"), query.text("fieldSelector"))?;
    let namespace = target.namespace.map(str::to_owned);
    if query.is_true("watch") {
        return Watching::new(view, query, of, namespace, selector).map(Todo::Watch);
    }
    let number = |name: &str| match query.text(name) {
        "" => Ok(0),
        text => text
            .parse::<usize>()
            .map_err(|_| ApiError::bad_request(format!("invalid {name}: `{text}` is no number"))),
    };
    let limit = number("limit")?;
    let after = match query.text("continue") {
        "" => None,
        token => Some(continued(token, target.resource.kind())?),
    };
    let mut items = view
        .list(target.resource.kind(), target.namespace)
        .filter(|item| after.as_ref().is_none_or(|after| item.key > *after))
        .filter(|item| selector.is_empty() || selector.accepts(&item.value()))
        .peekable();
    let mut page: Vec<&Arc<Item>> = Vec::new();
    while let Some(item) = items.next_if(|_| limit == 0 || page.len() < limit) {
        page.push(item);
    }
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), view.version.to_string().into());
    if let (Some(last), Some(_)) = (page.last(), items.peek()) {
        metadata.insert("continue".into(), token(&last.key).into());
        metadata.insert("remainingItemCount".into(), items.count().into());
    }
    let page: Vec<&Item> = page.into_iter().map(|item| &**item).collect();
    Ok(Todo::Answer(ApiAnswer::json(200, of.list(&page, metadata.into()))))
}

/// Returns the token of the next page. Each page reflects the view at the time of its request.
fn token(last: &ObjectKey) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}/{}", last.namespace, last.name))
}

fn continued(token: &str, kind: Kind) -> Result<ObjectKey, ApiError> {
    let text = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let split = text.as_deref().and_then(|text| text.split_once('/'));
    let (namespace, name) =
        split.ok_or_else(|| ApiError::bad_request("continue key is not valid"))?;
    Ok(ObjectKey::new(kind, namespace, name))
}

impl Presenting {
    /// Returns the answer to a change that was made. `view` is the view after the change.
    ///
    /// # Errors
    ///
    /// The written object is not in the view.
    pub(super) fn changed(
        &self,
        prepared: PreparedChange,
        view: &View,
    ) -> Result<ApiAnswer, ApiError> {
        let PreparedChange { key, outcome, warnings, .. } = prepared;
        let written = || view.items.get(&key);
        let nowhere = || ApiError::internal("what was written was not loaded; see the log");
        let answer = match outcome {
            ChangeOutcome::Created => {
                ApiAnswer::json(201, self.single(written().ok_or_else(nowhere)?))
            }
            ChangeOutcome::Updated => {
                ApiAnswer::json(200, self.single(written().ok_or_else(nowhere)?))
            }
            ChangeOutcome::Deleted(status) => ApiAnswer::json(200, status),
            ChangeOutcome::DryRun { mut object, created } => {
                if self.resource.kind() == Kind::Secret && !self.secrets {
                    secrets::redact(&mut object);
                }
                ApiAnswer::json(if created { 201 } else { 200 }, object)
            }
        };
        Ok(ApiAnswer { warnings, ..answer })
    }
}

fn change(
    call: &ApiCall,
    target: &CallTarget<'_>,
    body: &[u8],
    now: jiff::Timestamp,
) -> Result<Change, ApiError> {
    let query = &call.query;
    let json = || match serde_json::from_slice::<Value>(body) {
        Ok(value) => Ok(value),
        Err(error) => Err(ApiError::bad_request(format!("the body is not JSON: {error}"))),
    };
    let yaml = || {
        let text = std::str::from_utf8(body);
        let text = text.map_err(|_| ApiError::bad_request("the body is not UTF-8"))?;
        let read = config::read_yaml(text);
        read.map_err(|problem| ApiError::bad_request(format!("the body is not YAML: {problem}")))
    };
    // kubectl sends the media type of its body; curl often does not.
    let object = || match &*call.content_type {
        "" | "application/json" | "application/x-www-form-urlencoded" => json(),
        "application/yaml" => yaml(),
        other => Err(ApiError::unsupported_media_type(other, "application/json, application/yaml")),
    };
    let mut options = WriteOptions {
        validation: match query.text("fieldValidation") {
            "" | "Warn" => Validation::Warn,
            "Ignore" => Validation::Ignore,
            "Strict" => Validation::Strict,
            other => {
                return Err(ApiError::bad_request(format!(
                    "fieldValidation: `{other}` is unknown"
                )));
            }
        },
        dry_run: match query.text("dryRun") {
            "" => false,
            "All" => true,
            other => return Err(ApiError::bad_request(format!("dryRun: `{other}` is unknown"))),
        },
        manager: query.text("fieldManager").to_owned(),
        force: query.is_true("force"),
        now: super::item_json::time(now),
    };
    let verb = match (call.method.as_str(), target.name, &*call.content_type) {
        ("POST", None, _) => Verb::Create(object()?),
        ("PUT", Some(_), _) => Verb::Update(object()?),
        ("PATCH", Some(_), "application/merge-patch+json") => Verb::MergePatch(json()?),
        ("PATCH", Some(_), "application/json-patch+json") => Verb::JsonPatch(json()?),
        ("PATCH", Some(_), "application/strategic-merge-patch+json") => {
            Verb::StrategicPatch(json()?)
        }
        ("PATCH", Some(_), "application/apply-patch+yaml") => Verb::Apply(yaml()?),
        ("PATCH", Some(_), other) => {
            return Err(ApiError::unsupported_media_type(other, PATCHES));
        }
        ("DELETE", Some(_), _) => {
            let wanted = if body.is_empty() { Value::Null } else { object()? };
            options.dry_run |=
                wanted["dryRun"].as_array().is_some_and(|all| all.contains(&"All".into()));
            let precondition = |name: &str| {
                wanted
                    .pointer(&format!("/preconditions/{name}"))
                    .and_then(Value::as_str)
                    .map(str::to_owned)
            };
            Verb::Delete { uid: precondition("uid"), version: precondition("resourceVersion") }
        }
        _ => return Err(ApiError::method_not_allowed()),
    };
    Ok(Change {
        resource: target.resource,
        version: target.version.into(),
        namespace: target.namespace.unwrap_or_default().into(),
        name: target.name.unwrap_or_default().into(),
        verb,
        options,
    })
}
