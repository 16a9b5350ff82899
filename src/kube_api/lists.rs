//! Lists that are merged by the keys of their items (`x-kubernetes-list-type` of the CRDs), and
//! objects that are one field (`x-kubernetes-map-type`).
//!
//! All other values have the default: an object has separate fields, a list is one field. Nothing
//! below a list that is one field needs an entry. `tests/crds` compares the kinds of the Gateway
//! API, BackendTrafficPolicy and ClientTrafficPolicy with their CRDs.

/// The structure of a value that differs from the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListShape {
    /// A list whose items are identified by these fields.
    Map(&'static [Key]),
    /// A list whose items are their own keys.
    Set,
    /// An object that is one field.
    Whole,
}

/// A field, and its default if it is not written.
pub(crate) type Key = (&'static str, Option<&'static str>);

const BY_NAME: ListShape = ListShape::Map(&[("name", None)]);

/// Kind (empty for all), path, shape.
const SHAPES: &[(&str, &str, ListShape)] = &[
    ("", "metadata.finalizers", ListShape::Set),
    ("", "metadata.ownerReferences", ListShape::Map(&[("uid", None)])),
    ("", "metadata.ownerReferences[]", ListShape::Whole),
    ("BackendTrafficPolicy", "spec.healthCheck.active.healthCheckLog.matches", ListShape::Set),
    (
        "BackendTrafficPolicy",
        "spec.loadBalancer.zoneAware.weightedZones",
        ListShape::Map(&[("zone", None)]),
    ),
    ("ClientTrafficPolicy", "spec.headers.earlyRequestHeaders.add", BY_NAME),
    ("ClientTrafficPolicy", "spec.headers.earlyRequestHeaders.addIfAbsent", BY_NAME),
    ("ClientTrafficPolicy", "spec.headers.earlyRequestHeaders.remove", ListShape::Set),
    ("ClientTrafficPolicy", "spec.headers.earlyRequestHeaders.set", BY_NAME),
    ("ClientTrafficPolicy", "spec.headers.lateResponseHeaders.add", BY_NAME),
    ("ClientTrafficPolicy", "spec.headers.lateResponseHeaders.addIfAbsent", BY_NAME),
    ("ClientTrafficPolicy", "spec.headers.lateResponseHeaders.remove", ListShape::Set),
    ("ClientTrafficPolicy", "spec.headers.lateResponseHeaders.set", BY_NAME),
    ("Gateway", "spec.allowedListeners.namespaces.selector", ListShape::Whole),
    ("Gateway", "spec.listeners", ListShape::Map(&[("name", None)])),
    ("Gateway", "spec.listeners[].allowedRoutes.namespaces.selector", ListShape::Whole),
    ("Gateway", "spec.tls.frontend.perPort", ListShape::Map(&[("port", None)])),
    ("ListenerSet", "spec.listeners", ListShape::Map(&[("name", None)])),
    ("ListenerSet", "spec.listeners[].allowedRoutes.namespaces.selector", ListShape::Whole),
    ("Service", "spec.ports", ListShape::Map(&[("port", None), ("protocol", Some("TCP"))])),
    ("Service", "spec.selector", ListShape::Whole),
];

/// Returns the shape of the value at `path` (steps of `FieldsV1`) in an object of `kind`.
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

/// Returns the paths and shapes in the `spec` of a kind.
pub(crate) fn shapes(kind: &str) -> impl Iterator<Item = (&'static str, ListShape)> {
    let of_kind = SHAPES.iter().filter(move |(of, _, _)| *of == kind);
    of_kind.map(|(_, place, shape)| (*place, *shape))
}
