//! Policies of Envoy Gateway: the fields that all their kinds have.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::api::gateway::ListenerNamespaces;
use crate::api::kinds::Kind;
use crate::api::meta::ObjectMeta;
use crate::api::open_enum::open_enum;
use crate::api::shared::{LabelSelector, LabelSelectorRequirement};

/// A policy whose spec is `S`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de> + Default"))]
pub(crate) struct EnvoyPolicy<S> {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: S,
    /// `spec` as it is written, variables replaced: policies are merged field by field.
    #[serde(skip)]
    pub written: serde_json::Value,
    /// Fields that are written and not served: without them its targets would be open.
    #[serde(skip)]
    pub unsupported: Vec<String>,
}

/// The part of a policy's spec that all kinds have: its targets, in its own namespace.
pub(crate) trait EnvoyPolicySpec {
    /// The kind of the policies with this spec.
    const KIND: Kind;
    /// The lists that `mergeType: StrategicMerge` merges, by their paths, each with the field that
    /// tells its items apart. It replaces every other list.
    const MERGED_LISTS: &'static [(&'static str, Option<&'static str>)];

    /// The older form of `targetRefs`.
    fn target_ref(&self) -> Option<&PolicyTarget>;
    fn target_refs(&self) -> &[PolicyTarget];
    fn target_selectors(&self) -> &[PolicySelector];
    /// How the policy is merged with the nearest one of the listener; alone where `None`.
    fn merge_type(&self) -> Option<&MergeType>;
}

/// A target by its name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyTarget {
    pub group: Option<String>,
    pub kind: String,
    pub name: String,
    /// A listener of a Gateway or ListenerSet, or a rule of a route.
    pub section_name: Option<String>,
}

/// Every object of a kind with these labels.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicySelector {
    pub group: Option<String>,
    pub kind: String,
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub match_expressions: Vec<LabelSelectorRequirement>,
    /// The policy's own namespace where absent.
    pub namespaces: Option<ListenerNamespaces>,
}

impl PolicySelector {
    /// The part of it that chooses by labels.
    pub(crate) fn labels(&self) -> LabelSelector {
        LabelSelector {
            match_labels: self.match_labels.clone(),
            match_expressions: self.match_expressions.clone(),
        }
    }
}

open_enum! {
    /// `mergeType`: how the policy of a route is merged with the one above it.
    MergeType {
        StrategicMerge = "StrategicMerge",
        JsonMerge = "JSONMerge",
    }
}
