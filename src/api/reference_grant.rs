//! ReferenceGrant.

use serde::Deserialize;

use super::meta::ObjectMeta;

/// Lets objects of other namespaces refer to objects of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ReferenceGrant {
    pub metadata: ObjectMeta,
    pub spec: ReferenceGrantSpec,
}

/// Any of `from` may refer to any of `to`.
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
    /// Every object of the kind where absent.
    pub name: Option<String>,
}
