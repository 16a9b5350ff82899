//! Objects with the documents that they were written in.

use std::path::Path;
use std::sync::Arc;

use super::json::Written;
use super::path;

/// Something that stands in a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Located<T> {
    pub object: T,
    pub file: Arc<Path>,
    /// Which document of the file, from 0.
    pub document: usize,
    /// `items[3]` where the object is an item of a list, else empty.
    pub prefix: String,
    /// All of it as it was written.
    pub written: Written,
    /// The rules of its kind that the object breaks, as `field: problem`. An API server would not
    /// have taken it: it must not be served, and is Accepted=False.
    pub faults: Vec<String>,
}

impl<T> Located<T> {
    /// The path of a field from the root of the document.
    pub(super) fn field(&self, field: &str) -> String {
        path::join(&self.prefix, field)
    }
}
