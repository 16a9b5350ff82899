//! Filters from SecurityPolicies: one function per field. `config` has checked the rules of the kind.

use crate::api::envoy::AuthorizationAction;
use crate::filters::authorization::{Action, Authorization};
use crate::filters::{Broken, Filter};
use crate::graph::AppliedSecurity;

use super::cors;

/// Returns the filters that a policy adds to those of a rule. A CORS filter of the rule takes
/// precedence over that of the policy.
pub(in crate::compile) fn of_policy(
    policy: &AppliedSecurity<'_>,
    of_rule: &[Filter],
) -> Vec<Filter> {
    let has_cors = of_rule.iter().any(|filter| matches!(filter, Filter::Cors(_)));
    let cors = policy.spec.cors.as_ref().filter(|_| !has_cors).map(cors::of_policy);
    let authorization = authorization(policy).map(|authorization| match authorization {
        Ok(authorization) => Filter::Authorization(authorization),
        Err(broken) => Filter::Broken(broken),
    });
    cors.into_iter().chain(authorization).collect()
}

/// Returns the authorization of a policy, if it has one.
///
/// # Errors
///
/// Fails if it cannot run as written. No client is allowed then.
pub(in crate::compile) fn authorization(
    policy: &AppliedSecurity<'_>,
) -> Option<Result<Authorization, Broken>> {
    let raw = policy.spec.authorization.as_ref()?;
    let author = policy.author(|spec| {
        spec.authorization.as_ref().is_some_and(|authorization| !authorization.rules.is_empty())
    });
    let rules = raw.rules.iter().enumerate().map(|(place, rule)| {
        let name = rule.name.clone().unwrap_or_else(|| {
            // Envoy Gateway's name of a rule without a name.
            let (namespace, name) = (author.namespace(), &author.name);
            format!("securitypolicy/{namespace}/{name}/authorization/rule/{place}")
        });
        let clients = rule.principal.client_cidrs.iter().map(|range| range.parse().ok());
        let clients: Box<[_]> = clients.collect::<Option<_>>()?;
        (!clients.is_empty()).then_some((name, action(&rule.action)?, clients))
    });
    let rules: Option<Vec<_>> = rules.collect();
    let default = raw.default_action.as_ref().map_or(Some(Action::Deny), action);
    let authorization = rules.zip(default);
    Some(authorization.map(|(rules, default)| Authorization::new(rules, default)).ok_or(Broken))
}

fn action(raw: &AuthorizationAction) -> Option<Action> {
    match raw {
        AuthorizationAction::Allow => Some(Action::Allow),
        AuthorizationAction::Deny => Some(Action::Deny),
        AuthorizationAction::Unknown(_) => None,
    }
}
