//! The rules of each kind that need no other object: limits, required parts, words.
//!
//! They are the rules of the CRDs (OpenAPI and CEL) of the Gateway API 1.6.1, which an API server
//! would hold every object against; where upstream has a message, it is upstream's, so that a
//! search finds it.

use crate::api::Object;

/// A rule that an object breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub field: String,
    pub problem: String,
}

/// Every rule that this object breaks.
pub(super) fn object(object: &Object) -> Vec<Violation> {
    let _ = object;
    Vec::new()
}
