//! Origins of objects in files: the document that an object was written in.

use std::path::Path;
use std::sync::Arc;

use super::field_path::FieldPath;
use super::json::Written;

/// Where an object was written, and how.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FileOrigin {
    pub file: Arc<Path>,
    /// Which document of the file, from 0.
    pub document: usize,
    /// `items[3]` where the object is an item of a list, else empty.
    pub prefix: FieldPath,
    /// All of the object as it was written.
    pub written: Written,
}

impl FileOrigin {
    /// The path of a field from the root of the document.
    pub(crate) fn in_document(&self, field: &FieldPath) -> FieldPath {
        self.prefix.clone().join(field.clone())
    }
}
