//! ListenerSet: listeners that are added to a Gateway, also from other namespaces.

use serde::Deserialize;

use super::gateway::Listener;
use super::kinds::GATEWAY_GROUP;
use super::meta::ObjectMeta;

/// Listeners on the addresses of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ListenerSet {
    pub metadata: ObjectMeta,
    pub spec: ListenerSetSpec,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListenerSetSpec {
    pub parent_ref: ParentGatewayReference,
    /// 1 to 64, each with a name that is unique in this set.
    pub listeners: Vec<Listener>,
}

/// The Gateway that the listeners are added to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParentGatewayReference {
    pub group: Option<String>,
    pub kind: Option<String>,
    pub name: String,
    /// Default: the ListenerSet's own namespace.
    pub namespace: Option<String>,
}

impl ParentGatewayReference {
    /// Returns the group; default: `gateway.networking.k8s.io`.
    pub(crate) fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(GATEWAY_GROUP)
    }

    /// Returns the kind; default: `Gateway`.
    pub(crate) fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Gateway")
    }
}
