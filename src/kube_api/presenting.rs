//! The presentation of one object to a caller: in the requested version, without the values of
//! Secrets.

use serde_json::{Value, json};

use crate::api::Kind;

use super::call::AnswerShape;
use super::kinds::ApiResource;
use super::secrets;
use super::view::Item;

/// Settings for the presentation of objects of one resource.
#[derive(Clone, Debug)]
pub(super) struct Presenting {
    pub resource: &'static ApiResource,
    pub version: String,
    pub shape: AnswerShape,
    /// True if the values of Secrets are shown.
    pub secrets: bool,
    /// True if rows of a Table have the whole object in place of its metadata.
    pub whole_rows: bool,
    /// The current time in seconds since 1970, for ages.
    pub now: i64,
}

impl Presenting {
    /// Returns the object as JSON, in the requested version.
    pub(super) fn object(&self, item: &Item) -> Value {
        let mut object = item.value();
        let fields = object.as_object_mut();
        if let Some(fields) = fields {
            fields.insert("apiVersion".into(), self.resource.api_version(&self.version).into());
            if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.insert("resourceVersion".into(), item.version.to_string().into());
            }
        }
        if self.resource.kind() == Kind::Secret && !self.secrets {
            secrets::redact(&mut object);
        }
        object
    }

    /// Returns only the metadata of the object: name, labels and so on.
    pub(super) fn metadata(&self, item: &Item) -> Value {
        let mut object = self.object(item);
        json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": object["metadata"].take(),
        })
    }
}
