//! ReferenceGrant: who may refer to what across namespaces.

use super::index::Index;

/// Who refers: a kind in a namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct From<'a> {
    pub group: &'a str,
    pub kind: &'a str,
    pub namespace: &'a str,
}

/// What is referred to.
#[derive(Clone, Copy, Debug)]
pub(super) struct To<'a> {
    pub group: &'a str,
    pub kind: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl Index<'_> {
    /// True if `from` may refer to `to`: in the same namespace always, across namespaces where a
    /// ReferenceGrant in the namespace of `to` says so. Groups and kinds are compared exactly.
    ///
    /// Ask before whether `to` is there: the answer must not tell a stranger what exists.
    pub(super) fn permits(&self, from: From<'_>, to: To<'_>) -> bool {
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
                        // An empty name is written where none is meant.
                        && on.name.as_deref().filter(|name| !name.is_empty()).is_none_or(|name| name == to.name)
                })
            })
    }
}

/// What to write so that `from` may refer to `to`.
pub(super) fn advice(from: From<'_>, to: To<'_>) -> String {
    format!(
        "{} `{}/{}` is in another namespace and no ReferenceGrant in `{}` lets {}s of `{}` refer \
         to it; add one there",
        to.kind, to.namespace, to.name, to.namespace, from.kind, from.namespace
    )
}
