//! One object as it is shown to a caller: in the version asked for, without the values of Secrets.

use serde_json::{Value, json};

use crate::api::Kind;

use super::call::AnswerShape;
use super::kinds::ApiResource;
use super::secrets;
use super::view::Item;

/// How objects of one resource are shown.
#[derive(Clone, Debug)]
pub(super) struct Presenting {
    pub resource: &'static ApiResource,
    pub version: String,
    pub shape: AnswerShape,
    /// Values of Secrets are told.
    pub secrets: bool,
    /// Rows of a Table hold the whole object, in place of its metadata.
    pub whole_rows: bool,
    /// Seconds since 1970, for ages.
    pub now: i64,
}

impl Presenting {
    /// The object as JSON, in the version that was asked for.
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

    /// Name, labels and so on alone.
    pub(super) fn metadata(&self, item: &Item) -> Value {
        let mut object = self.object(item);
        json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": object["metadata"].take(),
        })
    }
}
