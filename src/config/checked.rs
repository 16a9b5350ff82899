//! Objects that have been checked against the rules of their kind.

use crate::api::Object;

use super::fault::Fault;
use super::validate;

/// An object and the rules of its kind that it breaks, whatever its provider.
///
/// Rules that need no other object are checked only here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CheckedObject {
    pub object: Object,
    /// An API server would reject an object with any fault; the faulty parts must not be served.
    pub faults: Vec<Fault>,
}

impl CheckedObject {
    pub(crate) fn new(object: Object) -> Self {
        let faults = validate::object(&object);
        Self { object, faults }
    }
}
