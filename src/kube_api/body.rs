//! The body of a change: check of its kind, removal of fields that are not stored, and validation.

use serde_json::{Map, Value};

use crate::api::{Kind, ObjectKey};
use crate::config;

use super::change::{Change, Validation};
use super::defaults;
use super::refused::ApiError;
use super::secrets;

impl Change {
    /// Returns the body as an object of this resource, of its kind and in its namespace.
    pub(super) fn checked(&self, mut body: Value) -> Result<Value, ApiError> {
        let Self { resource, version, namespace, .. } = self;
        let wanted = resource.api_version(version);
        let Some(fields) = body.as_object_mut() else {
            return Err(ApiError::bad_request("the body is no object"));
        };
        for (name, wanted) in [("apiVersion", &*wanted), ("kind", resource.info.kind.as_str())] {
            match fields.get(name) {
                None => {
                    fields.insert(name.into(), wanted.into());
                }
                Some(found) if *found == wanted => {}
                Some(found) => {
                    return Err(ApiError::bad_request(format!(
                        "the {name} in the data ({}) does not match the expected {name} ({wanted})",
                        found.as_str().unwrap_or_default()
                    )));
                }
            }
        }
        // A null field counts as absent. Go clients send many of them.
        fields.values_mut().for_each(without_nulls);
        fields.retain(|_, value| !value.is_null());
        // Objects are written, and read, in the version that is stored.
        fields.insert("apiVersion".into(), resource.info.api_version().into());
        fields.shift_remove("status");
        let metadata = fields.entry("metadata").or_insert_with(|| Map::new().into());
        let Some(metadata) = metadata.as_object_mut() else {
            return Err(ApiError::bad_request("metadata is no object"));
        };
        if !resource.is_namespaced() {
            metadata.shift_remove("namespace");
        } else if namespace.is_empty() {
            return Err(ApiError::bad_request("an empty namespace may not be set during creation"));
        } else {
            match text(metadata, "namespace") {
                Some(found) if !found.is_empty() && found != *namespace => {
                    return Err(ApiError::bad_request(format!(
                        "the namespace of the provided object does not match the namespace sent on \
                         the request ({namespace})"
                    )));
                }
                _ => metadata.insert("namespace".into(), namespace.as_str().into()),
            };
        }
        Ok(body)
    }

    /// Returns the object without the fields that are not stored, if an API server would accept it.
    pub(super) fn valid(
        &self,
        mut object: Value,
        current: Option<&Value>,
        name: &str,
    ) -> Result<(Value, ObjectKey, Vec<String>), ApiError> {
        let resource = self.resource;
        if let Ok(metadata) = metadata_of(&mut object) {
            for field in
                ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"]
            {
                metadata.shift_remove(field);
            }
        }
        if resource.kind() == Kind::Service {
            without_zero_ports(&mut object);
        }
        if resource.kind() == Kind::Secret {
            defaults::fill("Secret", &mut object);
            let kept = secrets::restore(&mut object, current);
            kept.map_err(|wrong| ApiError::invalid(resource, name, &[wrong]))?;
        }
        let offered = config::offered(object);
        if self.options.validation == Validation::Strict && !offered.unknown.is_empty() {
            let told: Vec<_> = offered.unknown.iter().map(|one| &*one.problem).collect();
            return Err(ApiError::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
                resource.info.kind,
                self.version,
                resource.info.kind,
                told.join(", ")
            )));
        }
        if !offered.faults.is_empty() {
            return Err(ApiError::invalid(resource, name, &offered.faults));
        }
        let Some(object) = offered.object else {
            return Err(ApiError::bad_request("the body is no object of this kind"));
        };
        let warnings = match self.options.validation {
            Validation::Warn => offered.unknown.into_iter().map(|one| one.problem).collect(),
            _ => Vec::new(),
        };
        Ok((offered.known, object.key(), warnings))
    }
}

pub(super) fn metadata_of(object: &mut Value) -> Result<&mut Map<String, Value>, ApiError> {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    metadata.ok_or_else(|| ApiError::bad_request("metadata is no object"))
}

pub(super) fn text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    fields.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// Removes null fields at every depth.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(without_nulls);
            fields.retain(|_, value| !value.is_null());
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Removes a `targetPort` that is 0 or empty: Go clients send it if they name none.
fn without_zero_ports(service: &mut Value) {
    let ports = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        if port.get("targetPort").is_some_and(|target| *target == 0 || *target == "") {
            port.shift_remove("targetPort");
        }
    }
}
