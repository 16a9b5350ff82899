//! ReferenceGrants: permissions for references across namespaces.

use super::index::ObjectIndex;

/// The source of a reference: a kind in a namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Referrer<'a> {
    pub group: &'a str,
    pub kind: &'a str,
    pub namespace: &'a str,
}

/// The object that a reference names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Referent<'a> {
    pub group: &'a str,
    pub kind: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl ObjectIndex<'_> {
    /// Returns true if `from` may refer to `to`: always in the same namespace, and across
    /// namespaces if a ReferenceGrant in the namespace of `to` permits it. Groups and kinds are
    /// compared exactly.
    ///
    /// Call this before looking up `to`: the result must not reveal to another namespace which
    /// objects exist.
    pub(super) fn permits(&self, from: Referrer<'_>, to: Referent<'_>) -> bool {
        from.namespace == to.namespace
            || self.grants(to.namespace).iter().any(|grant| {
                let by = grant.spec.from.iter().any(|by| {
                    by.group == from.group
                        && by.kind == from.kind
                        && by.namespace == from.namespace
                });
                by && grant.spec.to.iter().any(|on| {
                    on.group == to.group
                        && on.kind == to.kind
                        // An empty name means the same as none.
                        && on.name.as_deref().filter(|name| !name.is_empty()).is_none_or(|name| name == to.name)
                })
            })
    }
}

/// Returns the advice to add a ReferenceGrant by which `from` may refer to `to`.
pub(super) fn advice(from: Referrer<'_>, to: Referent<'_>) -> String {
    format!(
        "{} `{}/{}` is in another namespace and no ReferenceGrant in `{}` lets {}s of `{}` refer \
         to it; add one there",
        to.kind, to.namespace, to.name, to.namespace, from.kind, from.namespace
    )
}
