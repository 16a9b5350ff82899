//! SecurityPolicy: of which only what it protects is read.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::api::ObjectMeta;
use crate::api::shared::{LabelSelector, LabelSelectorRequirement};

/// Authentication and authorization for Gateways and routes. Not supported yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct SecurityPolicy {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: SecurityPolicySpec,
}

/// What it protects, in its own namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecurityPolicySpec {
    /// The older form of `target_refs`.
    pub target_ref: Option<PolicyTarget>,
    #[serde(default)]
    pub target_refs: Vec<PolicyTarget>,
    #[serde(default)]
    pub target_selectors: Vec<PolicySelector>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyTarget {
    pub kind: String,
    pub name: String,
    /// A listener of a Gateway, or a rule of a route.
    pub section_name: Option<String>,
}

/// Every object of a kind with these labels.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicySelector {
    pub kind: String,
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub match_expressions: Vec<LabelSelectorRequirement>,
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
