//! Authorization by the address of the client.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::sync::Arc;

use http::{StatusCode, request};

use crate::failure::{Denial, Failure};
use crate::filters::{Exchange, HttpFilter, Phase, Stop, Verdict};
use crate::net::Cidr;

/// Refuses clients by their addresses. Envoy Gateway's `authorization` of a SecurityPolicy.
///
/// The first rule that contains the address decides; without such a rule, the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authorization {
    rules: Arc<[ClientRule]>,
    default: Action,
}

/// What becomes of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Deny,
}

#[derive(Debug, PartialEq, Eq)]
struct ClientRule {
    action: Action,
    clients: Box<[Cidr]>,
    /// The details for the log if the rule denies.
    details: Arc<str>,
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

    /// Builds the filter from its rules in order: the name, action and clients of each.
    pub(crate) fn new(
        rules: impl IntoIterator<Item = (String, Action, Box<[Cidr]>)>,
        default: Action,
    ) -> Self {
        let rules = rules.into_iter().map(|(name, action, clients)| {
            // The log takes details as they are, so that no character may end the field.
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
            let name: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
            let details = format!("rbac_access_denied_matched_policy[{name}]").into();
            ClientRule { action, clients, details }
        });
        Self { rules: rules.collect(), default }
    }

    /// Checks whether `client` is allowed.
    ///
    /// # Errors
    ///
    /// Fails if it is not, with the details for the log if a rule denies it.
    pub(crate) fn check(&self, client: IpAddr) -> Result<(), Option<Arc<str>>> {
        let contains = |rule: &&ClientRule| rule.clients.iter().any(|range| range.contains(client));
        let rule = self.rules.iter().find(contains);
        match rule.map_or(self.default, |rule| rule.action) {
            Action::Allow => Ok(()),
            Action::Deny => Err(rule.map(|rule| Arc::clone(&rule.details))),
        }
    }
}

impl Display for Authorization {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("clients: ")?;
        for ClientRule { action, clients, .. } in &*self.rules {
            write!(f, "{action}")?;
            clients.iter().try_for_each(|range| write!(f, " {range}"))?;
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

    fn apply(&self, exchange: &mut Exchange, _: &mut request::Parts) -> Verdict {
        match self.check(exchange.client) {
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

    fn rule(name: &str, action: Action, clients: &[&str]) -> (String, Action, Box<[Cidr]>) {
        let clients = clients.iter().map(|range| range.parse().unwrap());
        (name.into(), action, clients.collect())
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
            assert_eq!(filter.check("192.0.2.1".parse().unwrap()).is_ok(), is_allowed, "{default}");
            assert_eq!(filter.to_string(), format!("clients: {default} all"));
        }
    }
}
