//! Filters from SecurityPolicies: one function per field. `config` has checked the rules of the kind.

use http::{HeaderName, HeaderValue, Method};

use crate::api::envoy::{AuthorizationAction, AuthorizationRule};
use crate::filters::authorization::{Action, Authorization, Rule};
use crate::filters::{Broken, Filter};
use crate::graph::AppliedSecurity;

use super::{cors, csrf};

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
    let csrf = policy.spec.csrf.as_ref().map(csrf::csrf);
    cors.into_iter().chain(csrf).chain(authorization).collect()
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
        Some((name, compile_rule(rule)?))
    });
    let rules: Option<Vec<_>> = rules.collect();
    let default = raw.default_action.as_ref().map_or(Some(Action::Deny), action);
    let authorization = rules.zip(default);
    Some(authorization.map(|(rules, default)| Authorization::new(rules, default)).ok_or(Broken))
}

/// Returns the conditions of a rule; `None` if one of them cannot run, or if there is none.
fn compile_rule(raw: &AuthorizationRule) -> Option<Rule> {
    let clients = raw.principal.client_cidrs.iter().map(|range| range.parse().ok());
    let methods = raw.operation.iter().flat_map(|operation| &operation.methods);
    let methods = methods.map(|method| Method::from_bytes(method.as_str().as_bytes()).ok());
    let fields = raw.principal.headers.iter().map(|header| {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        let values = header.values.iter().map(|value| HeaderValue::from_str(value).ok());
        Some((name, values.collect::<Option<_>>()?))
    });
    let (clients, fields): (Box<[_]>, Box<[_]>) =
        (clients.collect::<Option<_>>()?, fields.collect::<Option<_>>()?);
    let is_for_somebody = !clients.is_empty() || !fields.is_empty();
    let (action, methods) = (action(&raw.action)?, methods.collect::<Option<_>>()?);
    is_for_somebody.then_some(Rule { action, clients, methods, fields })
}

fn action(raw: &AuthorizationAction) -> Option<Action> {
    match raw {
        AuthorizationAction::Allow => Some(Action::Allow),
        AuthorizationAction::Deny => Some(Action::Deny),
        AuthorizationAction::Unknown(_) => None,
    }
}
