//! Policies of Envoy Gateway: the fields that all their kinds share.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::api::gateway::ListenerNamespaces;
use crate::api::kinds::Kind;
use crate::api::meta::ObjectMeta;
use crate::api::open_enum::open_enum;
use crate::api::shared::{LabelSelector, LabelSelectorRequirement};

/// A policy with a spec of type `S`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de> + Default"))]
pub(crate) struct EnvoyPolicy<S> {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: S,
    /// `spec` as written, with variables replaced: policies are merged field by field.
    #[serde(skip)]
    pub written: serde_json::Value,
    /// Fields that are written but not supported: without them the targets would be unprotected.
    #[serde(skip)]
    pub unsupported: Vec<String>,
}

/// The key of a response body in a ConfigMap.
pub(crate) const BODY_KEY: &str = "response.body";

/// The part of a policy's spec that all kinds share: its targets, in its own namespace.
pub(crate) trait EnvoyPolicySpec {
    /// The kind of the policies with this spec.
    const KIND: Kind;
    /// The kinds of objects that it may target, in the order of the CRD's message.
    const TARGETS: &'static [Kind];
    /// The lists that `mergeType: StrategicMerge` merges, by their paths, each with the field that
    /// identifies its items. Every other list is replaced.
    const MERGED_LISTS: &'static [(&'static str, Option<&'static str>)];

    /// Returns the older form of `targetRefs`.
    fn target_ref(&self) -> Option<&PolicyTarget>;
    /// Returns `targetRefs`; `None` if it is not written.
    fn target_refs(&self) -> Option<&[PolicyTarget]>;
    fn target_selectors(&self) -> &[PolicySelector];
    /// Returns the type of the merge with the nearest policy of the listener; `None` if the policy
    /// is not merged.
    fn merge_type(&self) -> Option<&MergeType>;
    /// Returns a field that cannot apply to targets of `kind`, so that the policy is invalid for
    /// these targets.
    fn misplaced_on(&self, _kind: Kind) -> Option<&'static str> {
        None
    }

    /// Returns the deprecated fields that are written, below `spec`, each with the one to write
    /// instead.
    fn deprecated(&self) -> Vec<(&'static str, &'static str)> {
        deprecated_target(self).into_iter().collect()
    }

    /// Returns the ConfigMaps that the spec refers to, by the fields that do so. Each has a value
    /// under [`BODY_KEY`], or under any other key.
    fn config_maps(&self) -> Vec<(String, &str)> {
        Vec::new()
    }

    /// Returns the places that have no effect as written, each with the reason.
    fn idle(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// Returns `targetRef`, if it is written, with the field to write instead.
pub(super) fn deprecated_target<S: EnvoyPolicySpec + ?Sized>(
    spec: &S,
) -> Option<(&'static str, &'static str)> {
    spec.target_ref().map(|_| ("targetRef", "targetRefs"))
}

/// A target by name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyTarget {
    pub group: Option<String>,
    pub kind: String,
    pub name: String,
    /// A listener of a Gateway or ListenerSet, or a rule of a route.
    pub section_name: Option<String>,
}

/// Selects every object of a kind with these labels.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicySelector {
    pub group: Option<String>,
    pub kind: String,
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub match_expressions: Vec<LabelSelectorRequirement>,
    /// Default: the policy's own namespace.
    pub namespaces: Option<ListenerNamespaces>,
}

impl PolicySelector {
    /// Returns the label selector.
    pub(crate) fn labels(&self) -> LabelSelector {
        LabelSelector {
            match_labels: self.match_labels.clone(),
            match_expressions: self.match_expressions.clone(),
        }
    }
}

open_enum! {
    /// `mergeType`: the type of the merge of a route's policy with the one above it.
    MergeType {
        StrategicMerge = "StrategicMerge",
        JsonMerge = "JSONMerge",
    }
}
