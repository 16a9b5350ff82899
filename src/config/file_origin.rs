//! Origins of objects in files: the document that an object was written in.

use std::path::Path;
use std::sync::Arc;

use super::field_path::FieldPath;
use super::written::Written;
use super::yaml::DocumentSpan;

/// The place of an object in a file, and its text.
#[derive(Clone, Debug)]
pub(crate) struct FileOrigin {
    pub file: Arc<Path>,
    /// The document that the object is, or is an item of.
    pub document: DocumentSpan,
    /// `items[3]` if the object is an item of a list, else empty.
    pub prefix: FieldPath,
    /// The whole object as written.
    pub written: Written,
}

impl FileOrigin {
    /// Returns the path of a field from the root of the document.
    pub(crate) fn in_document(&self, field: &FieldPath) -> FieldPath {
        self.prefix.clone().join(field.clone())
    }
}
