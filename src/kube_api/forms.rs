//! Objects in the requested form: whole, as metadata only, or as a Table.

use serde_json::{Value, json};

use super::call::AnswerShape;
use super::presenting::Presenting;
use super::table;
use super::view::Item;

impl Presenting {
    /// Returns one object in the requested form.
    pub(super) fn single(&self, item: &Item) -> Value {
        match self.shape {
            AnswerShape::Table => {
                let metadata = json!({ "resourceVersion": item.version.to_string() });
                table::table(self, &[item], metadata)
            }
            AnswerShape::Metadata => self.metadata(item),
            AnswerShape::Object | AnswerShape::Discovery => self.object(item),
        }
    }

    /// Returns a list in the requested form.
    pub(super) fn list(&self, items: &[&Item], metadata: Value) -> Value {
        match self.shape {
            AnswerShape::Table => table::table(self, items, metadata),
            AnswerShape::Metadata => json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "items": items.iter().map(|item| self.metadata(item)).collect::<Vec<_>>(),
            }),
            AnswerShape::Object | AnswerShape::Discovery => json!({
                "kind": format!("{}List", self.resource.info.kind),
                "apiVersion": self.resource.api_version(&self.version),
                "metadata": metadata,
                "items": items.iter().map(|item| self.object(item)).collect::<Vec<_>>(),
            }),
        }
    }
}
