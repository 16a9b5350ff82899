//! `apiVersion`, `kind` and `metadata` of every object, and the key that identifies it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::kinds::{Kind, Scope};
use super::shared::Timestamp;

/// `apiVersion` and `kind`, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TypeMeta {
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
}

impl TypeMeta {
    /// Returns the part of `apiVersion` before the slash; empty for the core group (`v1`).
    pub(crate) fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// Returns the part of `apiVersion` after the slash, or all of it for the core group.
    pub(crate) fn version(&self) -> &str {
        self.api_version.split_once('/').map_or(&*self.api_version, |(_, version)| version)
    }
}

/// The part of `metadata` that has a meaning without an API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ObjectMeta {
    pub name: String,
    pub namespace: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Decides ties between routes: the older one wins. Files seldom have it.
    pub creation_timestamp: Option<Timestamp>,
    pub generation: Option<i64>,
}

impl ObjectMeta {
    /// Returns the namespace; default: `default`.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }
}

/// The identity of an object: kind, namespace and name.
///
/// Prints as `HTTPRoute namespace/name`, or `GatewayClass name` if the kind has no namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjectKey {
    pub kind: Kind,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub(crate) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let namespace = match kind.scope() {
            Scope::Cluster => "",
            Scope::Namespaced => namespace,
        };
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.scope() {
            Scope::Cluster => write!(f, "{} {}", self.kind, self.name),
            Scope::Namespaced => write!(f, "{} {}/{}", self.kind, self.namespace, self.name),
        }
    }
}
