//! SecurityPolicy: the part of it that is served.

use serde::Deserialize;

use crate::api::duration::Duration;
use crate::api::kinds::Kind;

use super::policy::{EnvoyPolicy, EnvoyPolicySpec, MergeType, PolicySelector, PolicyTarget};

/// Who may use Gateways and routes, and from where. Of its features CORS is served.
pub(crate) type SecurityPolicy = EnvoyPolicy<SecurityPolicySpec>;

/// Its targets and what applies to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecurityPolicySpec {
    pub target_ref: Option<PolicyTarget>,
    #[serde(default)]
    pub target_refs: Vec<PolicyTarget>,
    #[serde(default)]
    pub target_selectors: Vec<PolicySelector>,
    pub merge_type: Option<MergeType>,
    pub cors: Option<PolicyCors>,
}

impl EnvoyPolicySpec for SecurityPolicySpec {
    const KIND: Kind = Kind::SecurityPolicy;
    const MERGED_LISTS: &'static [(&'static str, Option<&'static str>)] =
        &[("/extAuth/contextExtensions", Some("name"))];

    fn target_ref(&self) -> Option<&PolicyTarget> {
        self.target_ref.as_ref()
    }

    fn target_refs(&self) -> &[PolicyTarget] {
        &self.target_refs
    }

    fn target_selectors(&self) -> &[PolicySelector] {
        &self.target_selectors
    }

    fn merge_type(&self) -> Option<&MergeType> {
        self.merge_type.as_ref()
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
