//! ReferenceGrant.

use serde::Deserialize;

use super::meta::ObjectMeta;

/// Allows objects of other namespaces to refer to objects of its own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ReferenceGrant {
    pub metadata: ObjectMeta,
    pub spec: ReferenceGrantSpec,
}

/// Each of `from` may refer to each of `to`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReferenceGrantSpec {
    pub from: Vec<ReferenceGrantFrom>,
    pub to: Vec<ReferenceGrantTo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReferenceGrantFrom {
    /// Empty for the core group.
    pub group: String,
    pub kind: String,
    pub namespace: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReferenceGrantTo {
    /// Empty for the core group.
    pub group: String,
    pub kind: String,
    /// Default: every object of the kind.
    pub name: Option<String>,
}
