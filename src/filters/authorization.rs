//! Authorization by the address of the client, the method and header fields.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode, request};

use crate::failure::{Denial, Failure};
use crate::filters::{Exchange, HttpFilter, Phase, Stop, Verdict};
use crate::net::Cidr;

/// Refuses requests by their client, method and header fields. Envoy Gateway's `authorization` of a
/// SecurityPolicy.
///
/// The first rule that matches the request decides; without such a rule, the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authorization {
    rules: Arc<[(Rule, Arc<str>)]>,
    default: Action,
}

/// The result of a rule that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Deny,
}

/// The requests that a rule matches: all of its conditions must be met.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub action: Action,
    /// One of them must contain the client's address; empty for every client.
    pub clients: Box<[Cidr]>,
    /// One of them must be the request's; empty for every method.
    pub methods: Box<[Method]>,
    /// Fields that must have one of these values each.
    pub fields: Box<[(HeaderName, Box<[HeaderValue]>)]>,
}

impl Rule {
    /// Checks a request; `head` is `None` for a connection without HTTP requests.
    ///
    /// A condition that cannot be judged for certain counts against the client: it is met if the
    /// rule denies, and is not met if the rule allows. These are the conditions on a request for a
    /// connection without any, and a field on several lines.
    fn matches(&self, client: IpAddr, head: Option<&request::Parts>) -> bool {
        let denies = self.action == Action::Deny;
        if !self.clients.is_empty() && !self.clients.iter().any(|range| range.contains(client)) {
            return false;
        }
        let Some(head) = head else {
            return denies || self.methods.is_empty() && self.fields.is_empty();
        };
        let has_method = self.methods.is_empty() || self.methods.contains(&head.method);
        has_method
            && self.fields.iter().all(|(name, values)| {
                let mut lines = head.headers.get_all(name).iter();
                match (lines.next(), lines.next()) {
                    (Some(line), None) => values.contains(line),
                    (Some(_), Some(_)) => denies,
                    (None, _) => false,
                }
            })
    }
}

impl Authorization {
    /// The denial of the default action. A rule that denies has details of its own.
    pub(crate) const DENIAL: &'static Denial = &Denial {
        status: StatusCode::FORBIDDEN,
        flag: None,
        details: "rbac_access_denied_matched_policy[none]",
        text: "RBAC: access denied",
        grpc_status: None,
    };

    /// Builds the filter from its rules in order, each with its name.
    pub(crate) fn new(rules: impl IntoIterator<Item = (String, Rule)>, default: Action) -> Self {
        let rules = rules.into_iter().map(|(name, rule)| {
            // The log takes details as they are, so that no character may end the field.
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
            let name: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
            (rule, format!("rbac_access_denied_matched_policy[{name}]").into())
        });
        Self { rules: rules.collect(), default }
    }

    /// Checks whether a request of `client` is allowed, or a connection, which has no `head`.
    ///
    /// # Errors
    ///
    /// Fails if it is not, with the details for the log if a rule denies it.
    pub(crate) fn check(
        &self,
        client: IpAddr,
        head: Option<&request::Parts>,
    ) -> Result<(), Option<Arc<str>>> {
        let rule = self.rules.iter().find(|(rule, _)| rule.matches(client, head));
        match rule.map_or(self.default, |(rule, _)| rule.action) {
            Action::Allow => Ok(()),
            Action::Deny => Err(rule.map(|(_, details)| Arc::clone(details))),
        }
    }
}

impl Display for Authorization {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("clients: ")?;
        for (Rule { action, clients, methods, fields }, _) in &*self.rules {
            write!(f, "{action}")?;
            clients.iter().try_for_each(|range| write!(f, " {range}"))?;
            methods.iter().try_for_each(|method| write!(f, " {method}"))?;
            // Their values may be secrets.
            fields.iter().try_for_each(|(name, _)| write!(f, " by {name}"))?;
            f.write_str("; ")?;
        }
        let others = if self.rules.is_empty() { "all" } else { "all others" };
        write!(f, "{} {others}", self.default)
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl HttpFilter for Authorization {
    fn phase(&self) -> Phase {
        Phase::Authorize
    }

    fn apply(&self, exchange: &mut Exchange, head: &mut request::Parts) -> Verdict {
        match self.check(exchange.client, Some(head)) {
            Ok(()) => Verdict::Continue(()),
            Err(details) => {
                exchange.details = details;
                Verdict::Break(Stop::Refuse(Failure::Denied(Self::DENIAL)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filters::testing;

    fn rule(name: &str, action: Action, clients: &[&str]) -> (String, Rule) {
        let clients = clients.iter().map(|range| range.parse().unwrap()).collect();
        let rule = Rule { action, clients, methods: Box::default(), fields: Box::default() };
        (name.into(), rule)
    }

    #[test]
    fn the_first_rule_that_contains_the_client_decides() {
        use Action::{Allow, Deny};
        let guest = "rbac_access_denied_matched_policy[guest__wifi]";
        let none = "rbac_access_denied_matched_policy[none]";
        let rules = || {
            [
                rule("guest\" wifi", Deny, &["10.9.0.0/16", "2001:db8:9::/48"]),
                rule("house", Allow, &["10.0.0.0/8", "2001:db8::/32"]),
                rule("late", Deny, &["10.1.2.3/32"]),
            ]
        };
        // (default, client, details of the denial)
        let table = [
            (Deny, "10.1.2.3", None),
            (Deny, "10.9.2.3", Some(guest)),
            (Deny, "::ffff:10.1.2.3", None),
            (Deny, "::ffff:10.9.2.3", Some(guest)),
            (Deny, "2001:db8::1", None),
            (Deny, "2001:db8:9::1", Some(guest)),
            (Deny, "192.0.2.1", Some(none)),
            (Deny, "::1", Some(none)),
            (Allow, "192.0.2.1", None),
            (Allow, "10.9.2.3", Some(guest)),
        ];
        for (default, client, want) in table {
            let filter = Authorization::new(rules(), default);
            let (mut exchange, mut head) = (testing::exchange("shop.test"), testing::head("/"));
            exchange.client = client.parse().unwrap();
            let got = match filter.apply(&mut exchange, &mut head) {
                Verdict::Continue(()) => None,
                Verdict::Break(Stop::Refuse(failure)) => {
                    assert_eq!((failure.status().as_u16(), failure.flag()), (403, None));
                    assert_eq!(failure.text(), "RBAC: access denied");
                    assert_eq!(failure.grpc_status(), "7", "PERMISSION_DENIED");
                    let details = exchange.details.as_deref();
                    Some(details.unwrap_or_else(|| failure.details()).to_owned())
                }
                Verdict::Break(Stop::Answer(answer)) => panic!("{answer:?}"),
            };
            assert_eq!(got.as_deref(), want, "{default} {client}");
        }
    }

    #[test]
    fn without_rules_the_default_is_for_every_client() {
        for (default, is_allowed) in [(Action::Deny, false), (Action::Allow, true)] {
            let filter = Authorization::new([], default);
            let client = "192.0.2.1".parse().unwrap();
            assert_eq!(filter.check(client, None).is_ok(), is_allowed, "{default}");
            assert_eq!(filter.to_string(), format!("clients: {default} all"));
        }
    }

    /// A rule for POST and DELETE with the field `x-team: red` or `blue`.
    fn team(action: Action) -> Authorization {
        let values = ["red", "blue"].map(HeaderValue::from_static);
        let fields = [(HeaderName::from_static("x-team"), values.into())];
        let methods = [Method::POST, Method::DELETE];
        let (name, rule) = rule("team", action, &["192.0.2.0/24"]);
        let rule = Rule { methods: methods.into(), fields: fields.into(), ..rule };
        let default = if action == Action::Allow { Action::Deny } else { Action::Allow };
        Authorization::new([(name, rule)], default)
    }

    #[test]
    fn all_conditions_of_a_rule_must_be_met() {
        // (method, values of x-team, met if the rule allows, met if it denies)
        let table: [(_, &[&str], _, _); 9] = [
            (Method::POST, &["red"], true, true),
            (Method::DELETE, &["blue"], true, true),
            (Method::GET, &["red"], false, false),
            (Method::POST, &["green"], false, false),
            (Method::POST, &["Red"], false, false),
            (Method::POST, &[""], false, false),
            (Method::POST, &[], false, false),
            (Method::POST, &["red", "green"], false, true),
            (Method::POST, &["red", "red"], false, true),
        ];
        for (method, values, allows, denies) in table {
            let mut head = testing::head("/");
            head.method = method.clone();
            for value in values {
                head.headers.append("x-team", HeaderValue::from_static(value));
            }
            let check =
                |action| team(action).check("192.0.2.1".parse().unwrap(), Some(&head)).is_ok();
            assert_eq!(check(Action::Allow), allows, "{method} {values:?}");
            assert_eq!(check(Action::Deny), !denies, "{method} {values:?}");
            let other = "203.0.113.1".parse().unwrap();
            assert!(team(Action::Allow).check(other, Some(&head)).is_err(), "{method} {values:?}");
        }
    }

    #[test]
    fn a_connection_without_requests_meets_conditions_on_them_only_to_be_denied() {
        for action in [Action::Allow, Action::Deny] {
            assert!(team(action).check("192.0.2.1".parse().unwrap(), None).is_err(), "{action}");
        }
    }

    #[test]
    fn the_words_name_fields_and_not_their_values() {
        let words = "clients: allow 192.0.2.0/24 POST DELETE by x-team; deny all others";
        assert_eq!(team(Action::Allow).to_string(), words);
    }
}
