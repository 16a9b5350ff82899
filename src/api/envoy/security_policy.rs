//! SecurityPolicy: its targets, and the part of it that is served.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::api::shared::{LabelSelector, LabelSelectorRequirement};
use crate::api::{Duration, ObjectMeta};

/// Who may use Gateways and routes, and from where. Of its features CORS is served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct SecurityPolicy {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: SecurityPolicySpec,
    /// Fields that are written and not served: without them its targets would be open.
    #[serde(skip)]
    pub unsupported: Vec<String>,
}

/// Its targets, in its own namespace, and what applies to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecurityPolicySpec {
    /// The older form of `target_refs`.
    pub target_ref: Option<PolicyTarget>,
    #[serde(default)]
    pub target_refs: Vec<PolicyTarget>,
    #[serde(default)]
    pub target_selectors: Vec<PolicySelector>,
    pub cors: Option<PolicyCors>,
}

impl SecurityPolicySpec {
    /// `targetRef` and `targetRefs`, each with its field.
    pub(crate) fn targets(&self) -> impl Iterator<Item = (String, &PolicyTarget)> {
        let one = self.target_ref.iter().map(|target| ("spec.targetRef".to_owned(), target));
        let many = self.target_refs.iter().enumerate();
        one.chain(many.map(|(place, target)| (format!("spec.targetRefs[{place}]"), target)))
    }
}

/// `spec.cors`. A list that is absent announces nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PolicyCors {
    /// `*`, or `https://host`, `https://*.host`, each possibly with a port.
    pub allow_origins: Vec<String>,
    pub allow_methods: Vec<String>,
    pub allow_headers: Vec<String>,
    pub expose_headers: Vec<String>,
    /// How long a browser may keep the answer to a preflight; it decides itself where absent.
    pub max_age: Option<Duration>,
    /// False where absent.
    pub allow_credentials: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyTarget {
    pub group: Option<String>,
    pub kind: String,
    pub name: String,
    /// A listener of a Gateway, or a rule of a route.
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
