//! SecurityPolicy: its supported part.

use serde::Deserialize;

use crate::api::duration::Duration;
use crate::api::http_route::HttpMethod;
use crate::api::kinds::Kind;
use crate::api::open_enum::open_enum;

use super::policy::{EnvoyPolicy, EnvoyPolicySpec, MergeType, PolicySelector, PolicyTarget};

/// Access rules for Gateways and routes. Of its features, CORS and authorization by client address
/// are supported.
pub(crate) type SecurityPolicy = EnvoyPolicy<SecurityPolicySpec>;

/// The targets of a SecurityPolicy, and the features that apply to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecurityPolicySpec {
    pub target_ref: Option<PolicyTarget>,
    pub target_refs: Option<Vec<PolicyTarget>>,
    #[serde(default)]
    pub target_selectors: Vec<PolicySelector>,
    pub merge_type: Option<MergeType>,
    pub cors: Option<PolicyCors>,
    pub csrf: Option<Csrf>,
    pub authorization: Option<PolicyAuthorization>,
}

impl EnvoyPolicySpec for SecurityPolicySpec {
    const KIND: Kind = Kind::SecurityPolicy;
    const TARGETS: &'static [Kind] =
        &[Kind::Gateway, Kind::ListenerSet, Kind::HttpRoute, Kind::GrpcRoute, Kind::TcpRoute];
    const MERGED_LISTS: &'static [(&'static str, Option<&'static str>)] =
        &[("/extAuth/contextExtensions", Some("name"))];

    fn target_ref(&self) -> Option<&PolicyTarget> {
        self.target_ref.as_ref()
    }

    fn target_refs(&self) -> Option<&[PolicyTarget]> {
        self.target_refs.as_deref()
    }

    fn target_selectors(&self) -> &[PolicySelector] {
        &self.target_selectors
    }

    fn merge_type(&self) -> Option<&MergeType> {
        self.merge_type.as_ref()
    }

    fn misplaced_on(&self, kind: Kind) -> Option<&'static str> {
        if kind != Kind::TcpRoute {
            return None;
        }
        let by_request = |rule: &AuthorizationRule| {
            rule.operation.is_some() || !rule.principal.headers.is_empty()
        };
        let mut rules = self.authorization.iter().flat_map(|of| &of.rules);
        let fields = [
            ("cors", self.cors.is_some()),
            ("csrf", self.csrf.is_some()),
            ("authorization", rules.any(by_request)),
        ];
        fields.into_iter().find_map(|(field, is_written)| is_written.then_some(field))
    }
}

/// `spec.csrf`. Its `shadowFraction` is not supported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Csrf {
    /// Origins whose pages may change things beside those of the host itself. Their schemes do not
    /// count.
    pub additional_origins: Vec<String>,
}

/// `spec.authorization`. The first rule that matches a client decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PolicyAuthorization {
    pub rules: Vec<AuthorizationRule>,
    /// For clients that no rule matches; `Deny` if absent.
    pub default_action: Option<AuthorizationAction>,
}

/// A rule of `spec.authorization`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct AuthorizationRule {
    /// For the log; if absent it is made from the policy and the place of the rule.
    pub name: Option<String>,
    pub action: AuthorizationAction,
    pub operation: Option<AuthorizationOperation>,
    #[serde(default)]
    pub principal: AuthorizationPrincipal,
}

/// The operations that a rule matches. Its `path` is not supported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct AuthorizationOperation {
    pub methods: Vec<HttpMethod>,
}

/// The clients that a rule matches; all of the fields must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct AuthorizationPrincipal {
    /// Address ranges in CIDR form; one of them must contain the client's address.
    #[serde(rename = "clientCIDRs")]
    pub client_cidrs: Vec<String>,
    /// All of them must match.
    pub headers: Vec<AuthorizationHeader>,
}

/// A header of a request. It must have one of the values.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct AuthorizationHeader {
    pub name: String,
    pub values: Vec<String>,
}

open_enum! {
    AuthorizationAction {
        Allow = "Allow",
        Deny = "Deny",
    }
}

/// `spec.cors`. An absent list announces nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PolicyCors {
    /// `*`, or `https://host`, `https://*.host`, each possibly with a port.
    pub allow_origins: Vec<String>,
    pub allow_methods: Vec<String>,
    pub allow_headers: Vec<String>,
    pub expose_headers: Vec<String>,
    /// The time for which a browser may cache the answer to a preflight. If absent, the browser
    /// decides.
    pub max_age: Option<Duration>,
    /// Default: false.
    pub allow_credentials: Option<bool>,
}
