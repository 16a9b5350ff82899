//! Objects that were held against the rules of their kind.

use crate::api::Object;

use super::fault::Fault;
use super::validate;

/// An object with the rules of its kind that it breaks, wherever it came from.
///
/// Rules that need no other object are judged here and nowhere else.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CheckedObject {
    pub object: Object,
    /// An API server would not take an object that has any: what is wrong must not be served.
    pub faults: Vec<Fault>,
}

impl CheckedObject {
    pub(crate) fn new(object: Object) -> Self {
        let faults = validate::object(&object);
        Self { object, faults }
    }
}
