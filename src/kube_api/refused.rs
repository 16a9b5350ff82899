//! Refused calls: the errors of an API server, `metav1.Status`.

use serde_json::{Value, json};

use crate::config::Rejected;

use super::kinds::ApiResource;

/// A refused call, in the terms of an API server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    /// The HTTP status code.
    pub code: u16,
    reason: &'static str,
    pub message: String,
    details: Option<Value>,
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn about(self, resource: &ApiResource, name: &str) -> Self {
        let details =
            json!({ "name": name, "group": resource.info.group, "kind": resource.plural });
        Self { details: Some(details), ..self }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// Returns the error for an operation that is not permitted here for any caller.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, "Forbidden", message)
    }

    /// Returns the error for an object that the API does not change, with the reason.
    pub(super) fn not_ours(resource: &ApiResource, name: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", resource.qualified());
        Self::new(403, "Forbidden", message).about(resource, name)
    }

    pub(super) fn not_found(resource: &ApiResource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", resource.qualified());
        Self::new(404, "NotFound", message).about(resource, name)
    }

    /// Returns the error for an unknown path.
    pub(super) fn no_such_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message)
    }

    pub(super) fn not_acceptable() -> Self {
        let message = "only application/json is served, as objects and as Tables";
        Self::new(406, "NotAcceptable", message)
    }

    pub(super) fn already_exists(resource: &ApiResource, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", resource.qualified());
        Self::new(409, "AlreadyExists", message).about(resource, name)
    }

    /// Returns the error for an object that was changed after the caller read it.
    pub(super) fn conflict(resource: &ApiResource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version \
                   and try again";
        Self::conflict_because(resource, name, why)
    }

    pub(super) fn conflict_because(resource: &ApiResource, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified());
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// Returns the error for fields that another manager applied (server-side apply).
    pub(super) fn owned_by_others(owned: &[(String, String)]) -> Self {
        let s = if owned.len() == 1 { "" } else { "s" };
        let told: Vec<String> = owned
            .iter()
            .map(|(manager, field)| format!("conflict with \"{manager}\": {field}"))
            .collect();
        let message = format!("Apply failed with {} conflict{s}: {}", owned.len(), told.join("; "));
        let causes: Vec<Value> = owned
            .iter()
            .map(|(manager, field)| {
                let message = format!("conflict with \"{manager}\"");
                json!({ "reason": "FieldManagerConflict", "message": message, "field": field })
            })
            .collect();
        Self { details: Some(json!({ "causes": causes })), ..Self::new(409, "Conflict", message) }
    }

    /// Returns the error for history that is no longer kept.
    pub(super) fn expired(version: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {version} ({oldest})"))
    }

    pub(super) fn too_large() -> Self {
        Self::new(413, "RequestEntityTooLarge", "the body is larger than 3 MiB")
    }

    pub(super) fn unsupported_media_type(found: &str, supported: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: \
             {supported}; this is `{found}`"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// Returns the error for an object that breaks rules of its kind.
    pub(super) fn invalid(resource: &ApiResource, name: &str, rejected: &[Rejected]) -> Self {
        let told = |one: &Rejected| match &*one.field {
            "" => one.problem.clone(),
            field => format!("{field}: Invalid value: {}", one.problem),
        };
        let problems = match rejected {
            [one] => told(one),
            all => format!("[{}]", all.iter().map(told).collect::<Vec<_>>().join(", ")),
        };
        let message = format!("{} \"{name}\" is invalid: {problems}", resource.qualified_kind());
        let causes: Vec<Value> = rejected
            .iter()
            .map(|one| {
                let message = format!("Invalid value: {}", one.problem);
                json!({ "reason": "FieldValueInvalid", "message": message, "field": one.field })
            })
            .collect();
        let details = json!({
            "name": name,
            "group": resource.info.group,
            "kind": resource.info.kind.as_str(),
            "causes": causes,
        });
        Self { details: Some(details), ..Self::new(422, "Invalid", message) }
    }

    pub(super) fn too_many(what: &str) -> Self {
        Self::new(429, "TooManyRequests", format!("there are too many {what} already"))
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", message)
    }

    /// Returns the error for a change whose file cannot be written.
    pub(crate) fn nowhere(why: impl Into<String>) -> Self {
        Self::internal(why)
    }

    /// Returns the error for a change with which the configuration does not load. The change was
    /// undone.
    pub(crate) fn not_loaded(why: &str) -> Self {
        Self::internal(format!("the configuration cannot be loaded so, nothing was changed: {why}"))
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    pub(super) fn timeout() -> Self {
        Self::new(504, "Timeout", "the gateway did not answer in time")
    }

    /// Returns the body of the answer.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status["code"] = self.code.into();
        status
    }
}

/// Returns the body of the answer to a deletion.
pub(super) fn deleted(resource: &ApiResource, name: &str, uid: &str) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {
            "name": name,
            "group": resource.info.group,
            "kind": resource.plural,
            "uid": uid,
        },
    })
}
