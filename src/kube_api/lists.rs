//! Which lists are merged by the keys of their items, as `x-kubernetes-list-type` of the CRDs says,
//! and which objects are one field, as `x-kubernetes-map-type` does.
//!
//! What is not named here is as it is by default: an object has its fields, a list is one. Below a
//! list that is one field nothing needs a name. `tests/crds` holds the kinds of the Gateway API
//! beside their CRDs.

/// How a value is taken apart that is not as its like are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListShape {
    /// A list whose items are told apart by these fields.
    Map(&'static [Key]),
    /// A list whose items are their own keys.
    Set,
    /// An object that is one field.
    Whole,
}

/// A field, and what it is where it is not written.
pub(crate) type Key = (&'static str, Option<&'static str>);

/// Kind (empty for all), place, shape.
const SHAPES: &[(&str, &str, ListShape)] = &[
    ("", "metadata.finalizers", ListShape::Set),
    ("", "metadata.ownerReferences", ListShape::Map(&[("uid", None)])),
    ("", "metadata.ownerReferences[]", ListShape::Whole),
    ("Gateway", "spec.allowedListeners.namespaces.selector", ListShape::Whole),
    ("Gateway", "spec.listeners", ListShape::Map(&[("name", None)])),
    ("Gateway", "spec.listeners[].allowedRoutes.namespaces.selector", ListShape::Whole),
    ("Gateway", "spec.tls.frontend.perPort", ListShape::Map(&[("port", None)])),
    ("ListenerSet", "spec.listeners", ListShape::Map(&[("name", None)])),
    ("ListenerSet", "spec.listeners[].allowedRoutes.namespaces.selector", ListShape::Whole),
    ("Service", "spec.ports", ListShape::Map(&[("port", None), ("protocol", Some("TCP"))])),
    ("Service", "spec.selector", ListShape::Whole),
];

/// The shape of what stands at `path` (steps of `FieldsV1`) in an object of `kind`.
pub(super) fn shape(kind: &str, path: &[String]) -> Option<ListShape> {
    let mut place = String::new();
    for step in path {
        match step.strip_prefix("f:") {
            Some(name) if place.is_empty() => place.push_str(name),
            Some(name) => place.extend([".", name]),
            None => place.push_str("[]"),
        }
    }
    let mut shapes = SHAPES.iter();
    let found = shapes.find(|(of, at, _)| *at == place && (of.is_empty() || *of == kind));
    found.map(|(_, _, shape)| *shape)
}

/// Places and shapes in the `spec` of a kind.
pub(crate) fn shapes(kind: &str) -> impl Iterator<Item = (&'static str, ListShape)> {
    let of_kind = SHAPES.iter().filter(move |(of, _, _)| *of == kind);
    of_kind.map(|(_, place, shape)| (*place, *shape))
}
